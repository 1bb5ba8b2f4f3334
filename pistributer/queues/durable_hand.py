"""What the threads and tasks of this process have got from a DurableQueue and not finished."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from ..storage import forking
from .contract import Item
from .sqlite import SqliteQueue

if TYPE_CHECKING:
    import asyncio

#: Who has an item in hand.
Owner: TypeAlias = "threading.Thread | asyncio.Task[Any]"


class Hand:
    """What this process has got and not finished, by thread or task. Empty in a forked child."""

    def __init__(self, owner: SqliteQueue, implicit: bool) -> None:
        self._rows = owner
        self._implicit = implicit
        self._reset()
        forking.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[Owner, deque[Item]] = {}
        self._registered = not self._implicit

    def take(self, item: Item, who: Owner) -> None:
        with self._lock:
            self._items.setdefault(who, deque()).append(item)
            if not self._registered:
                self._registered = True
                self._close_with_multiprocessing()

    def _close_with_multiprocessing(self) -> None:
        """Its children end with os._exit, after their own finalizers; those of other modules do not run."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(self, acknowledge, args=(self._rows, weakref.ref(self)), exitpriority=0)

    def take_back(self, items: list[Item], who: Owner) -> None:
        """What was to be done with and is not, because the disk refused."""
        with self._lock:
            self._items.setdefault(who, deque()).extendleft(reversed(items))

    def oldest(self, who: Owner) -> Item | None:
        """The oldest item of `who`, no longer in hand."""
        with self._lock:
            mine = self._items.get(who)
            return mine.popleft() if mine else None

    def some(self) -> Item | None:
        """Some item of this object, no longer in hand."""
        with self._lock:
            return next((held.popleft() for held in self._items.values() if held), None)

    def give_up(self, who: Owner) -> list[Item]:
        """All that `who` has, and those that have ended."""
        with self._lock:
            done = [owner for owner in self._items if owner is who or _has_ended(owner)]
            return [item for owner in done for item in self._items.pop(owner)]

    def give_up_all(self) -> list[Item]:
        with self._lock:
            everything = [item for held in self._items.values() for item in held]
            self._items.clear()
            return everything

    def _after_fork(self) -> None:
        self._reset()


def _has_ended(who: Owner) -> bool:
    return not who.is_alive() if isinstance(who, threading.Thread) else who.done()


def acknowledge(owner: SqliteQueue, hand: weakref.ref[Hand]) -> None:
    found = hand()
    if found is not None and not owner.closed and (held := found.give_up_all()):
        owner.ack(held)
