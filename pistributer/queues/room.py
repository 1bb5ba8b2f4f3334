"""`max_rows` and `max_bytes`, exact: a producer holds the room lock while it counts what waits and appends.

Counting is incremental: each process reads the bytes that were appended since it last counted, and subtracts what the
cursors say was claimed. No shared counter exists that a kill could leave wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .. import errors
from ..storage.appending import count_rows
from ..storage.locks import Flock
from .delayed import DelayedRows
from .folder import Folder
from .refusals import queue_full
from .shard import read_cursor

#: First and longest pause between two looks for room, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


class Room:
    """The limits of one queue, as one process enforces them."""

    def __init__(self, folder: Folder, delayed: DelayedRows, max_rows: int | None, max_bytes: int | None) -> None:
        self._folder = folder
        self._delayed = delayed
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock = Flock(os.path.join(folder.path, "room.lock"))
        #: Per shard: the segment, the byte and the row up to which rows have been counted.
        self._counted: dict[int, tuple[int, int, int]] = {}

    def store(
        self, rows: list[bytes], append: Callable[[bytes, int], None], *, block: bool, timeout: float | None
    ) -> None:
        """Call `append` with as many rows at a time as there is room for, waiting for room in between.

        Raises QueueFull when waiting is not wanted or is over, and what `append` raises; the `stored` of QueueFull and of
        DiskFull says how many rows are in the queue.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        stored, pause = 0, _FIRST_PAUSE
        while stored < len(rows):
            with self._lock:
                fitting = self._fitting(rows, stored)
                if fitting:
                    try:
                        append(b"".join(rows[stored : stored + fitting]), fitting)
                    except errors.DiskFull as error:
                        error.stored += stored
                        raise
            stored += fitting
            if fitting:
                pause = _FIRST_PAUSE
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if not block or (left is not None and left <= 0):
                raise queue_full(self._folder.path, self._max_rows, self._max_bytes, stored)
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _fitting(self, rows: list[bytes], start: int) -> int:
        """How many of `rows` from `start` on fit now. A row longer than the whole limit fits an empty queue."""
        waiting_rows, waiting_bytes = self._waiting()
        fitting = len(rows) - start
        if self._max_rows is not None:
            fitting = min(fitting, max(0, self._max_rows - waiting_rows))
        if self._max_bytes is None:
            return fitting
        for count in range(fitting):
            waiting_bytes += len(rows[start + count])
            if waiting_bytes > self._max_bytes and (count or waiting_rows):
                return count
        return fitting

    def _waiting(self) -> tuple[int, int]:
        rows = self._delayed.count()
        size = 0
        for number in self._folder.shard_numbers():
            found = self._shard_backlog(number)
            rows, size = rows + found[0], size + found[1]
        return rows, size

    def _shard_backlog(self, number: int) -> tuple[int, int]:
        bases = self._folder.segments(number)
        if not bases:
            return 0, 0
        position = read_cursor(self._folder, number)
        segment, offset, row = self._counted.get(number, (bases[0], 0, bases[0]))
        if segment < bases[0]:
            segment, offset, row = bases[0], 0, bases[0]
        size = 0
        for base in bases:
            if base >= segment:
                offset, row = self._count_on(number, base, *((offset, row) if base == segment else (0, base)))
                segment = base
            if position is None or base >= position.segment:
                taken = position.offset if position and base == position.segment else 0
                size += max(0, _size(self._folder.segment(number, base)) - taken)
        self._counted[number] = (segment, offset, row)
        return row - (position.row if position else bases[0]), size

    def _count_on(self, number: int, base: int, offset: int, row: int) -> tuple[int, int]:
        try:
            fd = os.open(self._folder.segment(number, base), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # consumed meanwhile; the next segment's name says how many rows it had
            return offset, row
        try:
            end = os.lseek(fd, 0, os.SEEK_END)
            return end, row + count_rows(fd, offset, end)
        finally:
            os.close(fd)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
