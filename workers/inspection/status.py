"""What an app's folder says about itself. Needs neither the app's code nor a running worker, and disturbs nobody."""

from __future__ import annotations

import os
from dataclasses import dataclass

import orjson

from pistributer import errors
from pistributer.queues.contract import Stats
from pistributer.queues.opening import open_queue
from pistributer.storage.replacing import replace_file

from ..home import Home, split_lane
from ..supervision import run_state, runs
from ..supervision.board import Board, Slot
from ..supervision.pages import JobProgress, all_progress
from ..tickets.store import Tickets, count_held
from .whole_queue import add_up

#: In the folder `run`: where the app's code was found the last time.
_LAST_RUN = "last_run.json"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    name: str
    #: What `open_queue` opens.
    url: str
    #: Its jobs with a priority included.
    stats: Stats
    #: Those by themselves, for each level that was ever used.
    priorities: dict[int, Stats]
    #: Whether operators had its workers leave it alone.
    paused: bool
    #: Jobs that were sent to it and are not in it yet: most of them wait for others of their key.
    held: int = 0


@dataclass(frozen=True, slots=True)
class RunningJob:
    job: str
    task: str
    #: Seconds since the epoch.
    since: float
    #: How far it says that it is.
    progress: JobProgress | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One process of a running supervisor."""

    role: str
    index: int
    pid: int
    #: False: it died a moment ago, or has not started yet.
    alive: bool
    #: When it started, seconds since the epoch.
    started: float
    done: int
    failed: int
    retried: int
    put: int
    #: What it runs now: the job's id, its task or consumer, and since when; None between jobs. Of several, the one that has
    #: run longest.
    job: str | None
    task: str | None
    since: float | None
    #: All that it runs now, the longest first.
    running: list[RunningJob]
    #: The process id of its supervisor.
    supervisor: int


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """One of those that run the app."""

    pid: int
    #: When it started, seconds since the epoch.
    started: float
    #: Where its app was loaded from.
    app: str


@dataclass(frozen=True, slots=True)
class AppStatus:
    url: str
    #: Those that run it, the oldest first.
    supervisors: list[SupervisorStatus]
    queues: list[QueueStatus]
    workers: list[WorkerStatus]

    @property
    def running(self) -> bool:
        """Whether a supervisor runs it."""
        return bool(self.supervisors)

    @property
    def pid(self) -> int | None:
        """The oldest supervisor's process id; None if there is none. Likewise what follows."""
        return self.supervisors[0].pid if self.supervisors else None

    @property
    def started(self) -> float | None:
        return self.supervisors[0].started if self.supervisors else None

    @property
    def app(self) -> str | None:
        return self.supervisors[0].app if self.supervisors else None

    @property
    def dead(self) -> int:
        """Dead letters in all queues."""
        return sum(queue.stats.dead for queue in self.queues)


def read_status(url: str | os.PathLike[str]) -> AppStatus:
    """The state of the app at `url`, as given to `App`. FolderMissing if there is none."""
    home = Home(url)
    if not home.exists():
        hint = "an app's folder is made when it first sends or runs"
        raise errors.FolderMissing(f"there is no app at {home.url!r}", hint=hint, path=home.folder)
    paused = run_state.read_wishes(home.run).paused
    held = _held(home)
    queues = [
        _queue_status(home, lanes, lanes[-1] in paused, held.get(lanes[-1], 0))
        for lanes in home.lanes(home.queue_names())
    ]
    running, workers = read_workers(home)
    supervisors = [SupervisorStatus(record.pid, record.started, record.app) for _, record in running]
    return AppStatus(home.url, supervisors, queues, workers)


def read_workers(home: Home) -> tuple[list[tuple[str, runs.Record]], list[WorkerStatus]]:
    """The supervisors that run, with their folders, and their processes."""
    running = runs.running(home.run)
    return running, [worker for folder, record in running for worker in _workers(folder, record)]


def note_run(folder: str, source: str) -> None:
    """Write down where the app's code is, for those who want to run a job of it again."""
    record = {"app": source, "cwd": os.getcwd()}
    replace_file(os.path.join(folder, _LAST_RUN), orjson.dumps(record) + b"\n", durable=False)


def read_last_run(folder: str) -> dict[str, str] | None:
    """What the last supervisor wrote down; None before the first."""
    try:
        with open(os.path.join(folder, _LAST_RUN), "rb") as file:
            found: dict[str, str] = orjson.loads(file.read())
    except FileNotFoundError:
        return None
    return found


def _held(home: Home) -> dict[str, int]:
    tickets = Tickets(home.folder)
    try:
        return count_held(tickets) if tickets.exists() else {}
    finally:
        tickets.close()


def _queue_status(home: Home, lanes: list[str], paused: bool, held: int) -> QueueStatus:
    name = lanes[-1]
    stats = [_stats(home.queue_url(lane)) for lane in lanes]
    priorities = {split_lane(lane)[1]: found for lane, found in zip(lanes[:-1], stats[:-1], strict=True)}
    return QueueStatus(name, home.queue_url(name), add_up(stats), priorities, paused, held)


def _stats(url: str) -> Stats:
    with open_queue(url, create=False) as queue:
        return queue.stats()


def _workers(folder: str, record: runs.Record) -> list[WorkerStatus]:
    try:
        page = Board(runs.board_path(folder))
    except errors.FolderMissing:
        return []  # it has just ended
    said = {job: progress for page_ in all_progress(folder) for job, progress in page_.items()}
    try:
        found = [
            (_worker(role, index, page.of(seats, index), record.pid, said), index < seats.size)
            for role, seats in record.seats.items()
            for index in range(seats.taken)
        ]
    finally:
        page.close()
    # Those that are more than are wanted are shown until they have finished what they run.
    return [worker for worker, wanted in found if worker.alive or wanted]


def _worker(role: str, index: int, slots: list[Slot], supervisor: int, said: dict[str, JobProgress]) -> WorkerStatus:
    # The first says what the process has done; each says what it runs, at a time.
    slot = slots[0]
    running = [
        RunningJob(one.job, one.task, one.since, said.get(one.job))
        for one in slots
        if one.since and one.pid == slot.pid
    ]
    running.sort(key=lambda job: job.since)
    job, task, since = (running[0].job, running[0].task, running[0].since) if running else (None, None, None)
    return WorkerStatus(
        role, index, slot.pid, _is_alive(slot.pid), slot.started, slot.done, slot.failed, slot.retried, slot.put,
        job, task, since, running, supervisor,
    )  # fmt: skip


def _is_alive(pid: int) -> bool:
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
