"""How much of a run is done, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pistributer.queues.contract import Queue

from ..supervision import runs
from ..supervision.board import Board
from .whole_queue import add_up

#: Counting what is left may take up this part of a processor: a file queue with a long backlog is read to be counted. Of the
#: processor, not of the time: where the disk is busy a look takes long, and a drained run would go on for 20 times as long.
_SHARE = 0.05
#: … and for show it is done no more often than this, in seconds: an idle pool is to cost next to nothing.
_COUNT_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Rows that are delayed count as left."""

    #: Jobs and rows that ended, well or not, since the run began.
    done: int
    #: Of these, how many went to the dead letters.
    failed: int
    #: What waits or runs now.
    left: int

    @property
    def total(self) -> int:
        """What is known of so far; grows while producers produce."""
        return self.done + self.left


class Gauge:
    """Measures a run: the board of the supervisor in `folder`, and the queues, which other supervisors may share.

    `queues()` gives each queue with its lanes, which come into being meanwhile; `held(queue)` counts the jobs that were sent
    to it and are in none of them yet.
    """

    def __init__(
        self,
        run_folder: str,
        folder: str,
        queues: Callable[[], dict[str, list[Queue]]],
        held: Callable[[str], int],
    ) -> None:
        self.board = Board(runs.board_path(folder))
        self._run_folder = run_folder
        self._folder = folder
        self._queues = queues
        self._held = held
        #: The last measurement: what was left when so much was done, when it was, and when the next one is due.
        self._left = self._done = 0
        self._measured = self._due = 0.0
        #: How many rows were ready in each queue then.
        self.ready: dict[str, int] = {}
        #: What was settled when nothing was left, the last time that this was so.
        self._calm: dict[str, int] | None = None

    def progress(self, *, exact: bool = False) -> Progress:
        """Measured if that is due; else what was left, less what was done since."""
        if exact or time.monotonic() >= max(self._due, self._measured + _COUNT_AGAIN):
            self._measure()
        done, failed = self._ended()
        return Progress(done, failed, max(0, self._left - (done - self._done)))

    def drained(self) -> bool:
        """Whether nothing is left, seen twice with nothing settled between, by any supervisor's children.

        One look is not enough: while it goes from queue to queue, a job may move behind its back, from one that it has
        yet to look at into one that it has looked at. Whoever moves it counts it on the board first.
        """
        if time.monotonic() < self._due:
            return False
        before = self._settled()
        self._measure()
        if self._left or before != self._settled():
            self._calm = None
            return False
        calm, self._calm = self._calm, before
        return calm == before

    @property
    def left(self) -> int:
        """What was left when that was last measured."""
        return self._left

    def _measure(self) -> None:
        begun, used = time.monotonic(), time.process_time()
        self._done, _ = self._ended()
        self._left = 0
        for name, lanes in self._queues().items():
            # First what is in no queue yet: by the time that the queue is counted, it may be in it.
            self._left += self._held(name)
            stats = add_up(lane.stats() for lane in lanes)
            self.ready[name] = stats.ready
            self._left += stats.ready + stats.claimed + stats.delayed
        self._measured = begun
        self._due = begun + (time.process_time() - used) / _SHARE

    def _ended(self) -> tuple[int, int]:
        """Jobs and rows that ended, and how many of them badly."""
        totals = self.board.totals()
        return totals.failed + totals.done, totals.failed

    def _settled(self) -> dict[str, int]:
        """By supervisor, so that one that leaves or comes is a change too."""
        settled = {self._folder: self.board.totals().settled}
        with runs.boards(self._run_folder, but=self._folder) as others:
            settled |= {folder: page.totals().settled for folder, page in others}
        return settled

    def close(self) -> None:
        self.board.close()
