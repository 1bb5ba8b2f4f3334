"""Where an app's things lie, known to the app itself and to those who only look (`status`, the command line).

::

    jobs/                      App("jobs")                         App("sqlite:jobs.db")
      queues/default/          the queue "default"                 jobs.db
      queues/NAME/             the queue NAME                      jobs.db.app/queues/NAME.db
      results/                 results (results.py)                jobs.db.app/results/
      history/                 attempts (history.py)               jobs.db.app/history/
      metrics/                 counts (inspection/metrics.py)      jobs.db.app/metrics/
      run/                     what runs (supervision/runs.py)     jobs.db.app/run/
      tickets.db               who may go on (tickets/store.py)    jobs.db.app/tickets.db

`App("txt:jobs")` looks like `App("jobs")`, with `.txt` files in its queues: calls are lines of JSON there too, and what
consumers take may be any text.

Jobs with a priority wait in lanes: one more queue per level that was ever used, beside the queue itself, called `NAME@1` to
`NAME@9` (which no queue of a user can be called). What is said of a queue includes its lanes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from pistributer import errors
from pistributer.queues.folder import driver_of
from pistributer.queues.opening import split_url

#: The queue of tasks that name no other.
DEFAULT_QUEUE = "default"

#: The highest level of priority; the lowest is 0, the queue itself.
MOST_URGENT = 9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LANE = re.compile(rf"({_NAME.pattern})(?:@([1-9]))?")


class Home:
    """Paths of the app at `url`: a folder, `"jsonl:FOLDER"`, `"txt:FOLDER"` or `"sqlite:FILE"`. Nothing is made before `create`.

    A folder without a driver's name is whatever its queues are; jsonl if it has none yet.

    Raises ValueError for a driver whose queues no other process can see.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.driver, path = split_url(url)
        if self.driver == "memory":
            raise ValueError(
                f"an app lives in a folder, in 'txt:FOLDER' or in 'sqlite:FILE', not in {os.fspath(url)!r}"
            )
        # Absolute, so that a task that changes the working directory changes nothing here.
        self.path = os.path.abspath(path)
        self.folder = self.path if self.driver != "sqlite" else f"{self.path}.app"
        self.queues = os.path.join(self.folder, "queues")
        if path == os.fspath(url):
            self.driver = self._driver_found() or self.driver
        self.url = self.path if self.driver == "jsonl" else f"{self.driver}:{self.path}"
        self.results = os.path.join(self.folder, "results")
        self.history = os.path.join(self.folder, "history")
        self.run = os.path.join(self.folder, "run")

    def exists(self) -> bool:
        return os.path.isdir(self.queues)

    def create(self) -> None:
        """Make the folders.

        Raises NotAQueue if the folder is a single queue, DriverMismatch if its queues are of another driver, NotWritable
        and other StorageErrors.
        """
        if os.path.exists(os.path.join(self.folder, "pistributer.json")):
            raise errors.NotAQueue(
                f"{self.folder!r} is a queue, and an app keeps its queues in a folder of its own",
                hint="give the app another name",
                path=self.folder,
            )
        found = self._driver_found() if self.driver != "sqlite" else None
        if found not in (None, self.driver):
            raise errors.DriverMismatch(
                f"the queues in {self.folder!r} are {found} queues, not {self.driver}",
                hint=f"open the app as '{found}:{self.path}'",
                path=self.folder,
                found=found,
                asked=self.driver,
            )
        try:
            for folder in (self.queues, self.results, self.history, self.run):
                os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise errors.from_os_error(error, "make the app's folder", self.folder) from error

    def queue_url(self, name: str) -> str:
        """What `open_queue` opens for the queue, or the lane, `name`."""
        if self.driver != "sqlite":
            path = os.path.join(self.queues, name)
            return path if self.driver == "jsonl" else f"{self.driver}:{path}"
        return f"sqlite:{self.path if name == DEFAULT_QUEUE else os.path.join(self.queues, name + '.db')}"

    def queue_names(self) -> list[str]:
        """The queues that exist, sorted."""
        return sorted({_queue_of(name) for name in self.lane_names()})

    def lanes_of(self, queue: str) -> list[str]:
        """Where jobs of `queue` wait: the lanes that exist, the most urgent first, and at last the queue itself."""
        return self.lanes([queue])[0]

    def lanes(self, queues: Iterable[str]) -> list[list[str]]:
        """The same for several queues, at one look into the folder."""
        found: dict[str, list[str]] = {queue: [] for queue in queues}
        for name in reversed(self.lane_names()):
            queue = _queue_of(name)
            if queue in found and name != queue:
                found[queue].append(name)
        return [[*lanes, queue] for queue, lanes in found.items()]

    def lane_names(self) -> list[str]:
        """The queues that exist and their lanes, sorted."""
        if not self.exists():
            return []
        found = os.listdir(self.queues)
        if self.driver != "sqlite":
            # The description comes last, so a folder without one is a queue that somebody is making at this moment.
            return sorted(name for name in found if os.path.exists(os.path.join(self.queues, name, "pistributer.json")))
        names = [name.removesuffix(".db") for name in found if name.endswith(".db")]
        return sorted(names + ([DEFAULT_QUEUE] if os.path.exists(self.path) else []))

    def _driver_found(self) -> str | None:
        """The driver of the queues that are in the folder; None if there are none."""
        if not self.exists():
            return None
        for name in sorted(os.listdir(self.queues)):
            if (driver := driver_of(os.path.join(self.queues, name))) is not None:
                return driver
        return None


def lane_name(queue: str, priority: int) -> str:
    """Where jobs of that priority wait."""
    return f"{queue}@{priority}" if priority else queue


def split_lane(name: str) -> tuple[str, int]:
    """The queue and the priority that a lane's name says; a queue's name says priority 0. ValueError for other names."""
    found = _LANE.fullmatch(name)
    if found is None:
        check_queue_name(name)
    assert found is not None
    return found[1], int(found[2] or 0)


def _queue_of(found: str) -> str:
    """The queue to which a folder or file belongs; somebody may have put other things there."""
    lane = _LANE.fullmatch(found)
    return found if lane is None else lane[1]


def check_priority(priority: int) -> int:
    """`priority` if it is one; ValueError otherwise."""
    if type(priority) is not int or not 0 <= priority <= MOST_URGENT:
        raise ValueError(f"a priority is a whole number from 0 to {MOST_URGENT} (first), not {priority!r}")
    return priority


def check_queue_name(name: str) -> str:
    """`name` if a queue can be called that; ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a queue's name is letters, digits and _ . -, not {name!r}")
    return name
