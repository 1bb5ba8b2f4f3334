"""The app: a folder, with the queues and the logs in it, and what declarations.py puts together."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue
from pistributer.storage.durability import Sync

from . import history, results
from .declarations import Declarations
from .history import HistoryLog
from .home import DEFAULT_QUEUE, Home, split_lane
from .jobs import Job
from .result_dict import DictResults
from .results import ResultLog, WatchedResults
from .stand_in import StandIn, redirected
from .tickets.gate import Gate

if TYPE_CHECKING:
    from pistributer.dicts.contract import PersiDict

#: How long idempotency ids are remembered, in seconds, if nothing else was said: a day.
IDEMPOTENCY_AGE = 86400.0


class App(Declarations):
    """Tasks, producers and consumers that share a folder.

    `App("jobs")` keeps everything in the folder `jobs`, made on first use, in queues of `.jsonl` files; `App("txt:jobs")` in
    queues of `.txt` files, whose lines may be calls or any text; `App("sqlite:jobs.db")` keeps its queues in SQLite.
    A folder that has queues goes on with the driver that they have, unless another is asked for by name, which is a
    DriverMismatch on first use. Processes that define the same app with the same folder talk to each other; no server runs.

    sync, max_rows, max_bytes, max_row_bytes, retention
                   as in `open_queue`, for each of the app's queues; limits for each level of priority in it
    results_age    how long results are kept, in seconds; a day
    results_bytes  how much room they may take; 256 MiB
    idempotency_age
                   how long an idempotency id is remembered, in seconds; a day
    history_age, history_bytes
                   the same for what `Job.attempts` and `why` tell of jobs that did not go well; a week, 64 MiB
    results        a persistent dictionary to keep them in instead of logs in the app's folder; nothing expires there
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        sync: Sync | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        max_row_bytes: int | None = None,
        retention: float | None = None,
        results_age: float = results.MAX_AGE,
        results_bytes: int = results.MAX_BYTES,
        idempotency_age: float = IDEMPOTENCY_AGE,
        history_age: float = history.MAX_AGE,
        history_bytes: int = history.MAX_BYTES,
        results: PersiDict[Any] | None = None,
    ) -> None:
        super().__init__()
        #: As it was given, which is the same in every process that has this app.
        self.made_for = os.fspath(url)
        self.home = Home(redirected(self.made_for))
        #: What `App(…)` opens again.
        self.url = self.home.url
        #: In a test, what plays the folders and the processes.
        self.stand_in: StandIn | None = None
        self.results_age = results_age
        self.results_bytes = results_bytes
        self.idempotency_age = idempotency_age
        self.history_age = history_age
        self.history_bytes = history_bytes
        #: The dictionary that results are kept in; None: logs (results.py).
        self.result_store = results
        self._options: dict[str, Any] = {
            "sync": sync,
            "max_rows": max_rows,
            "max_bytes": max_bytes,
            "retention": retention,
        }
        if max_row_bytes is not None:
            self._options["max_row_bytes"] = max_row_bytes
        self._queues: dict[str, Queue] = {}
        self._opening = threading.Lock()
        #: What jobs with keys and the like go through.
        self.gate = self._make_gate()
        #: The module in which it was made: where worker processes find it (loading.py).
        self.module: str = sys._getframe(1).f_globals.get("__name__", "")

    def queue(self, name: str = DEFAULT_QUEUE) -> Queue:
        """The queue of that name, opened on first use and kept. `"NAME@5"` is where its jobs of priority 5 wait."""
        queue = self._queues.get(name)
        return self._open(name) if queue is None or queue.closed else queue

    def _open(self, name: str) -> Queue:
        with self._opening:
            if name not in self._queues or self._queues[name].closed:
                self.home.create()
                self._open_lane(name, *split_lane(name))
            return self._queues[name]

    def _open_lane(self, name: str, queue: str, priority: int) -> None:
        """Open the queue, or lane, `name`. Whoever makes a lane tells those who wait at its queue.

        Killed in between: they find the lane when they look around by themselves (execution/lanes.py).
        """
        is_new = priority > 0 and name not in self.home.lane_names()
        self._queues[name] = (
            open_queue(self.home.queue_url(name), objects=True, **self._options)
            if self.stand_in is None
            else self.stand_in.open_queue(name, self._options)
        )
        if is_new:
            if queue not in self._queues or self._queues[queue].closed:
                self._open_lane(queue, queue, 0)
            self._queues[queue].wake()

    def name_of(self, queue: Queue) -> str:
        """The name by which `queue` gave this queue, or lane."""
        return next(name for name, opened in self._queues.items() if opened.url == queue.url)

    def _make_gate(self) -> Gate:
        return Gate(self, durable=self._options["sync"] in ("each", "group"))

    def queue_names(self) -> list[str]:
        """The queues that tasks, producers and consumers name, and those that exist, sorted."""
        named = {task.queue for task in self.tasks.values()} | {consumer.queue for consumer in self.consumers.values()}
        named |= {producer.queue for producer in self.producers.values() if producer.queue}
        return sorted(named | set(self.home.queue_names()))

    def lane_names(self) -> list[str]:
        """The same, and for each the lanes in which its jobs with a priority wait, as far as they exist."""
        return sorted({*self.queue_names(), *self.home.lane_names()})

    def purge(self, queue: str = DEFAULT_QUEUE) -> int:
        """Delete every job or row of a queue that has not begun, held ones included; return how many.

        `Queue.purge` alone knows nothing of jobs that wait for their key.
        """
        held = self.gate.forget(queue)
        return held + sum(self.queue(lane).purge() for lane in self.home.lanes_of(queue))

    def job(self, id: str, *, task: str = "", queue: str = DEFAULT_QUEUE) -> Job[Any]:
        """A handle on a job that was sent elsewhere."""
        return Job(self, id, task, queue)

    def keeps_results(self, task: str) -> bool:
        """Whether results of this task are kept; of an unknown one, yes."""
        return task not in self.tasks or self.tasks[task].results is not False

    @functools.cached_property
    def results(self) -> results.ResultReader | DictResults:
        """Results of the app's jobs."""
        return results.ResultReader(self.home.results) if self.result_store is None else DictResults(self.result_store)

    def watch_results(self) -> WatchedResults | DictResults:
        """Results of some jobs, found without remembering all others."""
        return (
            results.WatchedResults(self.home.results) if self.result_store is None else DictResults(self.result_store)
        )

    def open_result_log(self) -> ResultLog | DictResults:
        """Where a worker process notes how jobs ended."""
        if self.result_store is not None:
            return DictResults(self.result_store)
        # A log is deleted as a whole, so it stays as long as any of its results may have to.
        age = max([self.results_age, *(task.results for task in self.tasks.values() if task.results is not True)])
        return ResultLog(self.home.results, max_age=age, max_bytes=self.results_bytes)

    def open_history_log(self) -> HistoryLog:
        """Where a worker process, or the supervisor, notes what did not go well."""
        return HistoryLog(self.home.history, max_age=self.history_age, max_bytes=self.history_bytes)

    def rewind(self, producer: str, checkpoint: Any = None) -> None:
        """Have a producer go on from `checkpoint` the next time that it starts; from the beginning if that is None.

        Raises KeyError for a producer that the app has not, SourceBusy while it runs.
        """
        from .checkpoints import Checkpoints

        checkpoints = Checkpoints(self, self.producers[producer].name, lambda seconds: True)
        try:
            checkpoints.commit(checkpoint)
        finally:
            checkpoints.close()

    def now(self) -> float:
        """Seconds since the epoch, by the clock that delays go by."""
        return time.time() if self.stand_in is None else self.stand_in.now()

    def move(self, home: Home, results: PersiDict[Any] | None, stand_in: StandIn | None = None) -> None:
        """Live elsewhere from now on, in this process. Nothing is copied. For `pistributer.testing`."""
        self.close()
        self.home, self.url = home, home.url
        self.result_store, self.stand_in = results, stand_in
        self.gate = self._make_gate()
        self.__dict__.pop("results", None)  # the cached property

    def close(self) -> None:
        """Close the app's queues. They open again on next use."""
        with self._opening:
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()
        self.gate.close()

    def __repr__(self) -> str:
        return f"<App {self.url}>"
