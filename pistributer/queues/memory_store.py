"""Where the rows of a memory queue lie."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..storage import forking
from .contract import LOOK_AROUND, Queue, Row, State
from .rows import decode_json

if TYPE_CHECKING:
    from .memory import MemorySource


class Entry:
    """One row and its history. Its bytes carry no newline, but count with one, as in the file drivers."""

    __slots__ = ("at", "attempt", "due", "error", "id", "raw")

    def __init__(self, id: str, raw: bytes) -> None:
        self.id = id
        self.raw = raw
        self.attempt = 0
        self.due: float | None = None
        self.error: str | None = None
        self.at: float | None = None

    @property
    def size(self) -> int:
        return len(self.raw) + 1

    def as_row(self, state: State) -> Row:
        due = self.due if state == "delayed" else None
        return Row(self.id, state, decode_json(self.raw), self.attempt, due, self.error, self.at)


class Store:
    """The rows of one queue. `lock` stands in front of everything; methods expect it held."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        #: The clock by which rows fall due.
        self.now = now
        #: For ids, owners and tokens alike.
        self.numbers = itertools.count(1)
        #: An owner that was dropped without `close` is gone from here.
        self.owners: weakref.WeakValueDictionary[int, Queue] = weakref.WeakValueDictionary()
        self._clear()
        forking.register(self)

    def _clear(self) -> None:
        self.lock = threading.Lock()
        self.more_rows = threading.Condition(self.lock)
        self.more_room = threading.Condition(self.lock)
        self.ready: deque[Entry] = deque()
        #: Rows of owners that are gone; they come first.
        self.given_back: deque[Entry] = deque()
        #: A heap of (due, number, entry).
        self.delayed: list[tuple[float, int, Entry]] = []
        #: What each owner holds, by token.
        self.claimed: dict[int, dict[int, Entry]] = {}
        self.dead: dict[str, Entry] = {}
        self.retained: deque[Entry] = deque()
        self.waiting_bytes = 0
        #: Checkpoints by source, as JSON, and who holds each.
        self.checkpoints: dict[str, bytes] = {}
        self.sources: weakref.WeakValueDictionary[str, MemorySource] = weakref.WeakValueDictionary()

    def _after_fork(self) -> None:
        """In the child: no rows, and locks that no vanished thread holds. Its queue objects stay owners."""
        self._clear()

    # -- rows in

    def waiting_rows(self) -> int:
        return len(self.ready) + len(self.given_back) + len(self.delayed)

    def add(self, entry: Entry, due: float | None) -> None:
        """To the back, or to the delayed rows."""
        self.waiting_bytes += entry.size
        entry.due = due
        if due is None:
            self.ready.append(entry)
        else:
            heapq.heappush(self.delayed, (due, next(self.numbers), entry))
        self.more_rows.notify()

    def give_back(self, owner: int) -> None:
        for entry in self.claimed.pop(owner, {}).values():
            self.waiting_bytes += entry.size
            self.given_back.append(entry)
        self.more_rows.notify_all()

    # -- rows out

    def may_have_rows(self) -> bool:
        self.rescue()
        return bool(self.ready or self.given_back or (self.delayed and self.delayed[0][0] <= self.now()))

    def take(self, n: int) -> Iterator[Entry]:
        """Up to `n` rows: what was given back first, then what is due, then the front."""
        self.rescue()
        now = self.now()
        for _ in range(n):
            if self.given_back:
                entry = self.given_back.popleft()
            elif self.delayed and self.delayed[0][0] <= now:
                entry = heapq.heappop(self.delayed)[2]
                entry.due = None
            elif self.ready:
                entry = self.ready.popleft()
            else:
                return
            self.waiting_bytes -= entry.size
            self.more_room.notify()
            yield entry

    def rescue(self) -> None:
        for owner in [owner for owner in self.claimed if owner not in self.owners]:
            self.give_back(owner)

    def seconds_to_next_due(self) -> float:
        return max(0.0, self.delayed[0][0] - self.now()) if self.delayed else LOOK_AROUND

    def purge(self) -> int:
        count = self.waiting_rows()
        for rows in (self.ready, self.given_back, self.delayed):
            rows.clear()
        self.waiting_bytes = 0
        self.more_room.notify_all()
        return count
