"""Appending one row in one call, between the threads of a process: the hot path of the whole project.

`QuickAppend(turn, file, bell, limit, longest)(row)` takes the turn, writes, gives the turn back, and rings if somebody waits.
True: the row stands. False: nothing was done, because it is another thread's turn, the file is closed, it would reach `limit`
bytes, or the row has more than `longest`: the caller goes the long way, which waits, opens, rolls or refuses. Errors are
raised as `AppendFile.append` does, by this call or by the long way after a False.

The C version does the same to the same slots, and is used if it was built: half a microsecond less of a put's two (measured;
much of that are caches that a system call leaves cold, so that each bytecode after it costs more than elsewhere). Killed in
the middle: as in appending.py, because both are that one write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .appending import AppendFile
from .doorbell import Doorbell
from .turns import Turn


class PlainQuickAppend:
    """The same in Python."""

    __slots__ = ("_bell", "_file", "_limit", "_longest", "_turn")

    def __init__(self, turn: Turn, file: AppendFile, bell: Doorbell, limit: int, longest: int) -> None:
        self._turn = turn
        self._file = file
        self._bell = bell
        self._limit = limit
        self._longest = longest

    def __call__(self, row: bytes) -> bool:
        turn, file = self._turn, self._file
        try:
            del turn.free
        except AttributeError:
            return False
        try:
            if file.fd < 0 or len(row) > self._longest or file.size + len(row) >= self._limit:
                return False
            file.append(row)
        finally:
            turn.free = True
            if turn.waiters:
                turn.wake_waiter()
        if self._bell.page[0]:
            self._bell.ring()
        return True


if TYPE_CHECKING:
    QuickAppend = PlainQuickAppend
else:
    try:
        from ._quick import QuickAppend
    except ImportError:  # built without a compiler
        QuickAppend = PlainQuickAppend
