"""The loop of every process that takes from a queue: claim ahead, handle one after the other, settle together.

Claiming ahead pays for short work only: what one process has claimed, an idle one gets only by asking. So the number follows
the time that recent work took: hundreds for microseconds, one by one for anything long. What was claimed ahead and not
begun goes back, unchanged, when the process leaves or dies.

Each attempt is counted by a write of its own, just before it begins (`Queue.start`): counted in batches, a job that kills its
worker would take the attempts of its neighbours along, or lose its own. It costs little: no-op tasks run at 130,000 a
second from `send_many` to acknowledged, with two workers on two processors.

A job that takes longer than expected leaves the rows behind it waiting. So whoever holds such rows says so on the queue's
doorbell, and a worker that has been idle for a while signals him. The signal's handler starts a thread, which, if the job
goes on and others wait in vain, gives the rows back; nothing of this costs anything per job. Refused: a thread that watches
all the time, because tasks may fork; giving back in the handler, which may interrupt the job in the middle of a `put` that
holds the very locks. It is in vain while the job is in C and holds the interpreter's lock.

Settling together: what ended well is acknowledged when the claimed rows are used up, and before the next piece of work
if the oldest has waited for `SETTLE_AFTER`, if the next is of a kind that took longer than that the last time, or if it has
been tried before. What it put elsewhere (results, counts) is put there first.

When the queue is paused, what was claimed and not begun goes back to its place, and nothing is claimed (lanes.py).
"""

from __future__ import annotations

import abc
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pistributer import errors
from pistributer.queues.contract import Item

from ..cancelling import INTERRUPT
from ..supervision.board import Desk
from ..supervision.child import Child
from .lanes import Lanes

#: Longest sleep before a look at whether to stop, in seconds. Rows ring a bell, so this delays no work.
WAIT = 0.4
#: Claim ahead about as much as takes this long, in seconds.
_AHEAD = 0.02
#: … but at most so many rows.
_MOST_AHEAD = 256
#: Seconds that finished work may wait for its acknowledgement if there is more to do.
SETTLE_AFTER = 0.005


class Loop(abc.ABC):
    """Subclasses say what one row means; `run` does the rest until a stop is requested."""

    def __init__(self, child: Child, lanes: Lanes, desk: Desk) -> None:
        self.child = child
        self.lanes = lanes
        #: Where the rows that are being worked on came from.
        self.queue = lanes.current
        self.desk = desk
        #: Claimed and not begun. The main thread takes from its front; a thread that gives back, from its end.
        self._unbegun: deque[Item] = deque()
        self._giving_back: threading.Thread | None = None
        self._shares = False
        self._finished: list[Item] = []
        #: How many of these have not ended, but wait elsewhere.
        self._moved = 0
        self._oldest = 0.0
        self._ahead = 1
        if child.jobs_left is not None:
            self.handle = self._counting(self.handle)  # type: ignore[method-assign,assignment]

    def _counting(self, handle: Callable[[Item], None]) -> Callable[[Item], None]:
        """`handle` for a process that is to be replaced after so many jobs; the others do not count."""

        def handle_and_count(item: Item) -> None:
            handle(item)
            self.child.did(1)

        return handle_and_count

    @abc.abstractmethod
    def handle(self, item: Item) -> None:
        """Start `item` (its attempt has not been counted) and deal with it: `finish`, `give_back` or `bury`."""

    def before_batch(self) -> None:  # noqa: B027
        """Rows were claimed, and are about to be handled."""

    def before_settle(self) -> None:  # noqa: B027 (most have nothing to do here)
        """Put on disk what must be there before rows are settled."""

    def idle(self) -> None:  # noqa: B027 (most have nothing to do here)
        """Nothing was there for a while, and everything is settled."""

    def run(self) -> None:
        """Until a stop is requested."""
        while not self.child.stop_requested():
            items = self.lanes.claim(self._ahead, WAIT)
            if items:
                self.queue = self.lanes.current
                self.before_batch()
                self._work(items)
            else:
                self.idle()

    def _work(self, items: list[Item]) -> None:
        begun = now = time.perf_counter()
        stop, handle, unbegun = self.child.stop_requested, self.handle, self._unbegun
        page, at = self.lanes.paused.place
        several = self._shares and len(items) > 1
        unbegun.extend(items)
        if several:
            self.belled.show_unbegun(True)
        count = 0
        while unbegun or self._wait_for_giving_back():
            if stop() or page[at]:  # paused
                break  # the rest goes back when the queue is closed
            try:
                item = unbegun.popleft()
            except IndexError:
                continue  # given back between the two looks
            # One that has been tried before may have killed its worker, and is not to take along what ended before it.
            if self._finished and (item.attempt or now - self._oldest > SETTLE_AFTER):
                self.settle()
            handle(item)
            now = time.perf_counter()
            count += 1
        if several:
            self.belled.show_unbegun(False)
        self.settle()
        if self._wait_for_giving_back() and not stop():
            self.lanes.put_back()
        unbegun.clear()
        self._adapt(count, now - begun)

    @property
    def belled(self) -> Any:
        """The queue, which is of a driver with a doorbell, as all queues of an app are."""
        return self.queue

    # -- giving back what was claimed and not begun

    def listen(self) -> None:
        """In a process of its own: be ready for signals, and say when rows are held that others could have."""
        signal.signal(INTERRUPT, self._hear)
        self._shares = True

    def interrupted(self) -> None:  # noqa: B027 (rows of a consumer can not be called off)
        """A signal says that the job that runs may have been called off. In the signal's handler."""

    def _hear(self, number: int, frame: object) -> None:
        """Perhaps somebody wants the rows that wait here; perhaps the job is not wanted any more."""
        if self._unbegun and (self._giving_back is None or not self._giving_back.is_alive()):
            self._giving_back = threading.Thread(target=self._spare, name="giving back", daemon=True)
            self._giving_back.start()
        self.interrupted()

    def _spare(self) -> None:
        """In a thread: if the job that runs now takes long and others wait in vain, give them what waits behind it."""
        left = len(self._unbegun)
        time.sleep(_AHEAD)
        if len(self._unbegun) != left or not self.belled.is_awaited():
            return
        spared: list[Item] = []
        try:
            while True:
                spared.append(self._unbegun.pop())
        except IndexError:
            spared.reverse()
        try:
            if spared:
                self.queue.nack(spared)
        except errors.PistributerError:
            self._unbegun.extend(spared)  # a full disk, say: they run here after all

    def _wait_for_giving_back(self) -> bool:
        """Nothing is left: whether that is for good. True if rows came back because they could not be given away."""
        if self._giving_back is not None:
            self._giving_back.join()
            self._giving_back = None
        return bool(self._unbegun)

    def _adapt(self, count: int, seconds: float) -> None:
        """Claim ahead what `_AHEAD` seconds are good for, growing step by step, shrinking at once."""
        if count:
            fitting = int(_AHEAD * count / max(seconds, 1e-9))
            self._ahead = max(1, min(fitting, self._ahead * 4, _MOST_AHEAD))

    # -- the three ends of a row

    def finish(self, item: Item) -> None:
        """It went well."""
        if not self._finished:
            self._oldest = time.perf_counter()
        self._finished.append(item)

    def give_back(self, items: list[Item], *, delay: float, error: str | None, counted: bool = True) -> None:
        """They are to be tried again after `delay` seconds; with `counted=False` as if this attempt had not been."""
        self.before_settle()
        self.desk.count(retried=len(items))
        self.queue.nack(items, delay=delay, error=error, counted=counted)

    def bury(self, items: list[Item], *, error: str) -> None:
        """They go to the dead letters."""
        self.before_settle()
        self.desk.count(failed=len(items))
        self.queue.bury(items, error=error)

    def settle(self) -> None:
        """Acknowledge what went well."""
        if not self._finished:
            return
        self.before_settle()
        self.desk.count(done=len(self._finished) - self._moved, retried=self._moved)
        finished, self._finished, self._moved = self._finished, [], 0
        self.queue.ack(finished)


def leave(*steps: Callable[[], object]) -> None:
    """Call every step, and raise the first error among them at the end."""
    failure: BaseException | None = None
    for step in steps:
        try:
            step()
        except errors.PistributerError as error:
            failure = failure or error
    if failure is not None:
        raise failure
