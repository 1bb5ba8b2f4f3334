"""Which queues are paused, in a page of memory that a supervisor writes and its children read without a system call.

What is true stands in the run's state (run_state.py); this page is how it reaches the workers. It is made anew with each
supervisor, so one that is killed while it writes leaves nothing behind that anybody would believe.

Layout: rows of 128 bytes, one per queue: 1 or 0, then the queue's name, padded with NUL bytes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence

from pistributer.storage.mapping import map_file
from pistributer.storage.replacing import replace_file

_ROW = 128


def create(path: str, queues: Iterable[str]) -> None:
    """A new page on which none of `queues` is paused."""
    rows = [(b"\0" + queue.encode()).ljust(_ROW, b"\0") for queue in queues]
    replace_file(path, b"".join(rows) or bytes(_ROW), durable=False)


def beside(board: str) -> str:
    """The page that belongs to the supervisor whose board is at `board`."""
    return os.path.join(os.path.dirname(board), "paused")


class PausePage:
    """The page at `path`, mapped."""

    def __init__(self, path: str, *, write: bool = False) -> None:
        self._page = map_file(path, write=write)
        starts = range(0, len(self._page), _ROW)
        self._places = {self._page[at + 1 : at + _ROW].rstrip(b"\0").decode(): at for at in starts}

    def show(self, paused: Iterable[str]) -> set[str]:
        """Have exactly these be paused. Returns the queues that were and are no more."""
        wanted, resumed = set(paused), set()
        for queue, at in self._places.items():
            if self._page[at] and queue not in wanted:
                resumed.add(queue)
            self._page[at] = queue in wanted
        return resumed

    def flag(self, queue: str) -> PauseFlag:
        """Whether `queue` is paused, for its workers."""
        return PauseFlag(self._page, self._places[queue])

    def close(self) -> None:
        self._page.close()


class PauseFlag:
    """Whether one queue is paused. `place` is for loops to which a call is too slow: `page[at]` is 1 if it is."""

    __slots__ = ("place",)

    def __init__(self, page: Sequence[int] | mmap.mmap = b"\0", at: int = 0) -> None:
        self.place = page, at

    def __call__(self) -> bool:
        page, at = self.place
        return page[at] != 0
