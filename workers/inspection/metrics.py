"""Counts and durations of jobs, by task: a page of memory for each process, added up by whoever asks.

`metrics/SSSS.page` in the app's folder belongs to the process that holds `metrics/SSSS.lock`. The next one in that slot goes on
counting there, so that the sums never fall. Counting is a store, without a system call; a reader takes no lock.

Layout, little endian: records of 256 bytes, one per task that this process has met::

    0    64s  its name, UTF-8, cut off; the first record without a name ends the list
    64   8 × u64, the counts in the order of COUNTS
    128  f64  seconds of all attempts together
    136  14 × u64, how many attempts took at most BOUNDS[0], at most BOUNDS[1], …, and longer

Killed at any moment, what was counted stands; the attempt that ran is not among it.
"""

from __future__ import annotations

import bisect
import mmap
import os
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from pistributer import errors
from pistributer.storage.locks import take_numbered
from pistributer.storage.mapping import map_file
from pistributer.storage.replacing import replace_file

from ..app import App
from ..home import Home
from ..hooks import Hook, Run, Sending
from .status import AppStatus

#: What is counted: calls that were sent, and attempts by what became of them.
COUNTS = ("sent", "done", "retried", "snoozed", "cancelled", "dead")
#: Upper bounds of the histogram of durations, in seconds.
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

_RECORD, _RECORDS = 256, 256
_OTHERS = "(other tasks)"
_NAME, _NUMBER, _SUM = struct.Struct("64s"), struct.Struct("<Q"), struct.Struct("<d")
_COUNTS_AT, _SUM_AT, _BUCKETS_AT = 64, 128, 136
_ALL = struct.Struct("<64s8Qd14Q")


@dataclass(slots=True)
class TaskMetrics:
    """One task's sums over all processes of its app, those that have ended included."""

    #: Calls that were put into a queue.
    sent: int = 0
    #: Attempts that went well, will be tried again, were too early, were called off, or were the last of a job given up.
    done: int = 0
    retried: int = 0
    snoozed: int = 0
    cancelled: int = 0
    dead: int = 0
    #: How long attempts took in all, in seconds.
    seconds: float = 0.0
    #: How many took at most BOUNDS[0] seconds, more than that and at most BOUNDS[1], …, and last, longer than all.
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    @property
    def attempts(self) -> int:
        """How many attempts were measured."""
        return sum(self.buckets)


class Metrics(Hook):
    """Counts jobs and measures attempts: `app.add_hook(Metrics(app))`. `read_metrics` adds up what all processes counted.

    About a microsecond per job, and nothing without the hook. A job of which each worker died is counted as dead when it is
    given up; its attempts are not among the durations. Raises StorageError if the page can not be made.
    """

    def __init__(self, app: App) -> None:
        self._home = app.home
        self._lock = threading.Lock()
        self._page: _Page | None = None
        self._pid = 0

    def after_enqueue(self, sending: Sending) -> None:
        self._count(sending.message["task"], "sent")

    def after_run(self, run: Run) -> None:
        self._count(run.task.name, "done", run.seconds())

    def on_failure(self, run: Run) -> None:
        self._count(run.task.name, "cancelled" if run.cancelled else None, run.seconds())

    def on_retry(self, run: Run) -> None:
        self._count(run.task.name, "retried" if run.counted else "snoozed")

    def on_dead(self, run: Run) -> None:
        self._count(run.task.name, "dead")

    def _count(self, task: str, what: str | None, seconds: float | None = None) -> None:
        with self._lock:
            page = self._page
            if page is None or self._pid != os.getpid():
                # A forked child shares its parent's page, and must not count there.
                page, self._pid = _Page(self._home), os.getpid()
                self._page = page
            page.count(task, what, seconds)

    def __reduce__(self) -> Any:
        raise TypeError("a Metrics hook belongs to its process")


class _Record:
    """What this process has counted of one task, and where that stands."""

    __slots__ = ("base", "buckets", "counts", "seconds")

    def __init__(self, base: int, sums: TaskMetrics) -> None:
        self.base = base
        self.counts = [getattr(sums, name) for name in COUNTS]
        self.buckets = sums.buckets
        self.seconds = sums.seconds


class _Page:
    """This process's counts."""

    def __init__(self, home: Home) -> None:
        home.create()
        folder = metrics_folder(home)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise errors.from_os_error(error, "make the folder", folder) from error
        self._lock, slot = take_numbered(folder)  # held as long as this process lives
        path = os.path.join(folder, f"{slot:04d}.page")
        if not os.path.exists(path):
            replace_file(path, bytes(_RECORD * _RECORDS), durable=False)
        self._map = map_file(path, _RECORD * _RECORDS, write=True)
        #: By the task's name; and by its shown one, which is shorter for very long ones.
        self._records = {name: _Record(base, sums) for base, name, sums in _read(self._map)}

    def count(self, task: str, what: str | None, seconds: float | None) -> None:
        record = self._records.get(task) or self._begin(task)
        if what is not None:
            which = COUNTS.index(what)
            record.counts[which] += 1
            _NUMBER.pack_into(self._map, record.base + _COUNTS_AT + 8 * which, record.counts[which])
        if seconds is not None:
            bucket = bisect.bisect_left(BOUNDS, seconds)
            record.buckets[bucket] += 1
            record.seconds += seconds
            _NUMBER.pack_into(self._map, record.base + _BUCKETS_AT + 8 * bucket, record.buckets[bucket])
            _SUM.pack_into(self._map, record.base + _SUM_AT, record.seconds)

    def _begin(self, task: str) -> _Record:
        """The record of a task that was not met yet; those for which there is no room share the last one."""
        number = len({record.base for record in self._records.values()})
        name = _shown(task) if number < _RECORDS - 1 else _OTHERS
        if name not in self._records:
            base = number * _RECORD
            _NAME.pack_into(self._map, base, name.encode())
            self._records[name] = _Record(base, TaskMetrics())
        self._records[task] = self._records[name]
        return self._records[task]


def read_metrics(app: App | str | os.PathLike[str]) -> dict[str, TaskMetrics]:
    """What the `Metrics` hooks of all the app's processes have counted, by task. `app` is an App or what it was made with."""
    home = app.home if isinstance(app, App) else Home(app)
    sums: dict[str, TaskMetrics] = {}
    try:
        names = sorted(os.listdir(metrics_folder(home)))
    except FileNotFoundError:
        return sums
    for name in names:
        if name.endswith(".page"):
            page = map_file(os.path.join(metrics_folder(home), name), _RECORD * _RECORDS, write=False)
            for _, task, found in _read(page):
                _add(sums.setdefault(task, TaskMetrics()), found)
            page.close()
    return sums


def metrics_folder(home: Home) -> str:
    return os.path.join(home.folder, "metrics")


def _read(page: mmap.mmap) -> Iterator[tuple[int, str, TaskMetrics]]:
    for base in range(0, _RECORD * _RECORDS, _RECORD):
        name, *numbers = _ALL.unpack_from(page, base)
        if not name.strip(b"\0"):
            return
        sums = TaskMetrics(seconds=numbers[8], buckets=numbers[9:], **dict(zip(COUNTS, numbers, strict=False)))
        yield base, name.rstrip(b"\0").decode(errors="ignore"), sums


def _add(sums: TaskMetrics, found: TaskMetrics) -> None:
    for name in (*COUNTS, "seconds"):
        setattr(sums, name, getattr(sums, name) + getattr(found, name))
    sums.buckets = [one + other for one, other in zip(sums.buckets, found.buckets, strict=True)]


def _shown(task: str) -> str:
    return task.encode()[:64].decode(errors="ignore")


# -- for Prometheus


def to_prometheus(status: AppStatus, metrics: dict[str, TaskMetrics]) -> str:
    """What an app's folder tells, in the text format of Prometheus (version 0.0.4)."""
    lines = ["# HELP pistributer_up Whether a supervisor is running.", "# TYPE pistributer_up gauge"]
    lines += [f"pistributer_up {int(status.running)}"]
    lines += _family("queue_rows", "gauge", "Rows in each queue by their state.", (
        ({"queue": queue.name, "state": state}, getattr(queue.stats, state))
        for queue in status.queues for state in ("ready", "claimed", "delayed", "dead", "quarantined")
    ))  # fmt: skip
    lines += _family("processes", "gauge", "Living processes of each role.", sorted(
        ({"role": role}, count) for role, count in Counter(it.role for it in status.workers if it.alive).items()
    ) if status.workers else ())  # fmt: skip
    lines += _family("jobs_total", "counter", "Calls that were sent, and attempts by what became of them.", (
        ({"task": task, "what": what}, getattr(found, what)) for task, found in sorted(metrics.items()) for what in COUNTS
    ))  # fmt: skip
    lines += [
        "# HELP pistributer_attempt_seconds How long attempts took.",
        "# TYPE pistributer_attempt_seconds histogram",
    ]
    for task, found in sorted(metrics.items()):
        lines += _histogram(task, found)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> list[str]:
    head = [f"# HELP pistributer_{name} {text}", f"# TYPE pistributer_{name} {kind}"]
    return head + [f"pistributer_{name}{_labels(labels)} {value}" for labels, value in samples]


def _histogram(task: str, found: TaskMetrics) -> list[str]:
    bounds = [f"{bound:g}" for bound in BOUNDS] + ["+Inf"]
    lines = [
        f"pistributer_attempt_seconds_bucket{_labels({'task': task, 'le': bound})} {count}"
        for bound, count in zip(bounds, accumulate(found.buckets), strict=True)
    ]
    labels = _labels({"task": task})
    return [
        *lines, f"pistributer_attempt_seconds_sum{labels} {found.seconds!r}",
        f"pistributer_attempt_seconds_count{labels} {found.attempts}",
    ]  # fmt: skip


def _labels(labels: dict[str, str]) -> str:
    escaped = {name: re.sub(r'[\\"]', r"\\\g<0>", value).replace("\n", r"\n") for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
