"""Which queue a worker takes from next, and how it waits for all of its queues at once.

A worker has queues (pools.py), and each of these has lanes: the queue itself, and one for each level of priority that was
ever used (home.py). One claim takes from one lane, and is settled before the next claim, so `acks` never mix.

A lane that another process makes is found by the folder's time of change, and that process rings the queue's bell once it
has made it. Whoever was between the two looks finds it after LOOK_AROUND seconds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pistributer.queues.contract import LOOK_AROUND, Item, Queue
from pistributer.queues.waiting import sleep_for_any

from ..cancelling import INTERRUPT
from ..pools import Pool
from ..supervision.paused import PauseFlag, PausePage

if TYPE_CHECKING:
    from ..app import App
    from ..supervision.child import Child


class Turns(Protocol):
    """Whose turn it is, of things that are numbered from 0. Pure: it sees no queue."""

    def order(self) -> Sequence[int]:
        """In which order to try them."""

    def took(self, taken: int, empty: Iterable[int]) -> None:
        """`taken` had something; `empty` were tried before it, and had nothing."""


class Strict:
    """The first that has something."""

    def __init__(self, count: int) -> None:
        self._order = range(count)

    def order(self) -> Sequence[int]:
        return self._order

    def took(self, taken: int, empty: Iterable[int]) -> None:
        pass


class Weighted:
    """Smooth weighted round robin, as in nginx: 3, 1, 1 gives a b a c a, not a a a b c.

    At each turn all gain credit by their weight, the richest is taken, and pays what all have gained. One that is empty
    when its turn comes loses its credit, so that it can not save up for later.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = list(weights)
        self._credit = [0] * len(self._weights)

    def order(self) -> Sequence[int]:
        rich = [credit + weight for credit, weight in zip(self._credit, self._weights, strict=True)]
        return sorted(range(len(rich)), key=lambda index: -rich[index])  # stable: the first of equals first

    def took(self, taken: int, empty: Iterable[int]) -> None:
        poor = set(empty)
        for index, weight in enumerate(self._weights):
            self._credit[index] = 0 if index in poor else self._credit[index] + weight
        self._credit[taken] -= sum(weight for index, weight in enumerate(self._weights) if index not in poor)


class Lanes:
    """The queues of one worker. Only its main thread uses it.

    Nothing is taken from queues that `page` shows as paused; what `child` hears of ends a sleep.
    """

    def __init__(self, app: App, pool: Pool, page: PausePage | None = None, child: Child | None = None) -> None:
        self._app = app
        self._names = list(pool.queues)
        weighted = pool.order == "weighted" and len(self._names) > 1
        self._turns: Turns = Weighted(list(pool.weights.values())) if weighted else Strict(len(self._names))
        self._lanes: list[list[Queue]] = []
        self._folder_seen = -1
        self._look_at = 0.0
        #: Queues whose ring woke this worker, and from which it has taken nothing since.
        self._rung: list[Any] = []
        self._look()
        #: The lane that the last claim came from, and whether its queue is paused.
        self.current: Queue = self._lanes[0][-1]
        self._flags = [page.flag(name) if page else PauseFlag() for name in self._names]
        self.paused = self._flags[0]
        self._child = child

    def claim(self, n: int, timeout: float, *, start: bool = False) -> list[Item]:
        """Up to `n` rows of the lane whose turn it is; wait for the first one at most about `timeout` seconds."""
        items = self._claim_now(n, start)
        if not items and timeout > 0 and self.sleep(timeout):
            items = self._claim_now(n, start)
        return items

    def sleep(self, seconds: float, also: Iterable[int] = ()) -> bool:
        """Until some lane may have a row or a descriptor of `also` can be read, at most so long and LOOK_AROUND.

        False if all that time nothing happened.
        """
        queues: list[Any] = [
            queue for paused, lanes in zip(self._flags, self._lanes, strict=True) if not paused() for queue in lanes
        ]
        seconds = min(seconds, LOOK_AROUND)
        begun = time.monotonic()
        rung: list[Any] = []
        if self._child is None:
            rung = sleep_for_any(queues, seconds, also)
        elif queues:
            rung = sleep_for_any(queues, seconds, [*also, self._child.news])
            self._child.hear()
        else:
            self._child.wait_news(seconds, also)
        self._rung += rung
        slept = time.monotonic() - begun
        if not rung and slept >= LOOK_AROUND / 2:
            self._ask(queues)
        return bool(rung) or slept < seconds

    def put_back(self) -> None:
        """Give back what was claimed from the current lane and nobody has begun, to its place: by opening it anew."""
        self.current.close()
        self._folder_seen = -1
        self._look()
        self.current = next(queue for queue in self.all() if queue.url == self.current.url)

    def is_paused(self, queue: Queue) -> bool:
        """Whether the queue that this lane belongs to is paused."""
        return any(paused() and queue in lanes for paused, lanes in zip(self._flags, self._lanes, strict=True))

    def _ask(self, queues: list[Any]) -> None:
        """Have others who hold rows of these queues, and have not begun them, look whether they can spare them."""
        for pid in {pid for queue in queues for pid in queue.unbegun_elsewhere()}:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is not ours to signal
                os.kill(pid, INTERRUPT)

    def all(self) -> list[Queue]:
        """Every lane of every queue."""
        return [queue for lanes in self._lanes for queue in lanes]

    def _claim_now(self, n: int, start: bool) -> list[Item]:
        self._look()
        empty: list[int] = []
        for index in self._turns.order():
            if self._flags[index]():
                empty.append(index)
                continue
            for queue in self._lanes[index]:
                items = queue.claim(n, start=start)
                if items:
                    self.current, self.paused = queue, self._flags[index]
                    self._turns.took(index, empty)
                    self._hand_on(queue)
                    return items
            empty.append(index)
        self._rung.clear()  # who rang has been served by others
        return []

    def _hand_on(self, taken: Queue) -> None:
        """A ring wakes one waiter. What rang beside the lane that was taken from still needs one."""
        if self._rung:
            for queue in self._rung:
                if queue is not taken:
                    queue.ring()
            self._rung.clear()

    def _look(self) -> None:
        """Find the lanes that there are by now: at once if the folder's time tells, else now and then."""
        changed, now = self._changed(), time.monotonic()
        if changed != self._folder_seen or now >= self._look_at:
            self._folder_seen, self._look_at = changed, now + LOOK_AROUND
            found = self._app.home.lanes(self._names)
            self._lanes = [[self._app.queue(lane) for lane in lanes] for lanes in found]

    def _changed(self) -> int:
        try:
            return os.stat(self._app.home.queues).st_mtime_ns
        except FileNotFoundError:
            return 0
