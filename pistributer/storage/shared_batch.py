"""The file that the readers of a classic channel consume: NAME.in_use, while writers may still append to it.

Every function expects the caller to hold the readers' lock (`SharedCursor.begin`); those that change the file take the
writers' lock, `flock` of the file itself, for as long as they do. A reader never passes the last newline, so it needs no
lock to read.

A batch comes and goes by these steps, and a reader killed between any two leaves what the next one can finish:

    reset the cursor, rename NAME to NAME.in_use          nothing, or a reset cursor without a batch
    consume; the cursor moves row by row                  the row of the killed `next()`: consumed, or still there
    empty the file (all is consumed)                      an empty batch: used up, whatever the cursor says. No writer uses
                                                          it on, because the cursor is not reset
    reset the cursor                                      an empty batch, ready to be used on
    if newer rows wait in NAME: unlink NAME.in_use        no batch: the first step is next
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from .. import errors
from .appending import read_range
from .descriptors import open_descriptor
from .filesystem import require_local
from .shared_append import ChannelPaths, Tail, cut_torn_tail, has_rows, is_same, tail_of, terminate
from .shared_cursor import SharedCursor, is_adopted, read_line

#: How much is read at a time, in bytes.
CHUNK = 256 * 1024

_Result = TypeVar("_Result")


class Batch:
    """An open NAME.in_use."""

    __slots__ = ("_fd", "_paths", "size")

    def __init__(self, fd: int, paths: ChannelPaths) -> None:
        self._fd = fd
        self._paths = paths
        #: Bytes in the file when it was opened or last looked at.
        self.size = os.fstat(fd).st_size

    @classmethod
    def open(cls, paths: ChannelPaths) -> Batch | None:
        """The batch that is being consumed; None if there is none."""
        try:
            fd = open_descriptor(paths.in_use, os.O_RDWR | os.O_APPEND)
        except errors.FolderMissing:
            return None
        return cls(fd, paths)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    # -- reading

    def rows(self, offset: int) -> bytes:
        """Whole rows from `offset` on, about CHUNK bytes of them or one longer row; empty if there is none."""
        return read_rows(self._fd, offset, min(CHUNK, self.size - offset)) if offset < self.size else b""

    def is_row_start(self, offset: int) -> bool:
        if offset <= 0:
            return offset == 0
        return offset <= self.size and os.pread(self._fd, 1, offset - 1) == b"\n"

    def offset_of(self, index: int, *, universal: bool) -> tuple[int, int]:
        """Where the row after `index` rows begins, and how many rows come before: fewer if the batch is shorter.

        `universal` counts as release 0.2.0 does, which takes a lone carriage return for the end of a line; a row that
        would be counted in part is not passed.
        """
        offset = counted = 0
        while counted < index and (rows := self.rows(offset)):
            for row in rows.split(b"\n")[:-1]:
                weight = _weight(row) if universal else bool(row)
                if counted == index or counted + weight > index:
                    return offset, counted
                counted += weight
                offset += len(row) + 1
        return offset, counted

    def count(self, start: int = 0) -> int:
        """Whole rows from `start` on, empty ones not counted."""
        return count_rows(self._fd, start)

    # -- changing

    def seal(self) -> None:
        """Have writers leave this file: an empty line behind the last row tells them, and readers skip it.

        Otherwise a batch whose writers keep up with its reader would never end, grow for ever, and rows in a newer NAME
        would wait behind it for ever.
        """
        self._lock()
        try:
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            if tail_of(self._fd, self.size) is Tail.ROW:
                os.write(self._fd, b"\n")
        except OSError as error:
            failure = errors.from_os_error(error, "seal", self._paths.in_use)
            if not isinstance(failure, errors.DiskFull):  # reading goes on with a full disk, and sealing can wait
                raise failure from error
        finally:
            self._unlock()

    def finish(self, offset: int, cursor: SharedCursor) -> bool:
        """Everything before `offset` is consumed: if nothing else is there, empty the file and reset the cursor.

        Writers use the file on, unless they have been told to leave it, or have left: then it is removed. False if rows
        have arrived meanwhile. A torn tail goes to the quarantine: with the lock held, nobody is writing it.
        """
        self._lock()
        try:
            if self._has_rows(offset):
                return False
            in_use = tail_of(self._fd, self.size) is Tail.ROW
            if self.size:
                os.ftruncate(self._fd, 0)
            if self.size or cursor.index or cursor.offset:
                cursor.save(0, 0, new_batch=True)
            if not in_use or has_rows(self._paths.data):
                self._remove()
            return True
        except OSError as error:
            if isinstance(error, errors.PistributerError):
                raise
            raise errors.from_os_error(error, "finish", self._paths.in_use) from error
        finally:
            self._unlock()

    def remove_if_empty(self) -> None:
        """Leave no empty file behind. A writer that has it open makes a new NAME."""
        self._lock()
        try:
            if os.lseek(self._fd, 0, os.SEEK_END) == 0:
                self._remove()
        finally:
            self._unlock()

    def _has_rows(self, offset: int) -> bool:
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        if self.size <= offset:
            return False
        if b"\n" in read_range(self._fd, offset, self.size):
            return True
        self.size = cut_torn_tail(self._fd, self.size, self._paths.quarantine)
        return False

    def _remove(self) -> None:
        # Unless it is another file by now: somebody else tidied the folder.
        if is_same(os.fstat(self._fd), self._paths.in_use):
            os.unlink(self._paths.in_use)

    def _lock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def _unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


def begin_batch(paths: ChannelPaths, cursor: SharedCursor) -> bool:
    """There is no NAME.in_use: make it of NAME. False if that holds nothing."""
    if not has_rows(paths.data):
        return False
    if cursor.index or cursor.offset:
        cursor.save(0, 0, new_batch=True)
    try:
        os.rename(paths.data, paths.in_use)
    except FileNotFoundError:
        return False  # deleted from outside
    except OSError as error:
        raise errors.from_os_error(error, "rename", paths.data) from error
    return True


def count_in(path: str) -> int:
    """Whole rows of the file at `path`; 0 if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return count_rows(fd)
    finally:
        os.close(fd)


def count_rows(fd: int, offset: int = 0) -> int:
    """Whole rows of an open file from `offset` on, empty ones not counted."""
    total = 0
    while rows := read_rows(fd, offset):
        total += sum(map(bool, rows.split(b"\n")))
        offset += len(rows)
    return total


def read_rows(fd: int, offset: int, wanted: int = CHUNK) -> bytes:
    """Whole rows from `offset` on, about `wanted` bytes of them or one longer row; empty if there is none."""
    while True:
        found = os.pread(fd, wanted, offset)
        end = found.rfind(b"\n") + 1
        if end or len(found) < wanted:
            return found[:end]
        wanted *= 4


def _weight(row: bytes) -> int:
    """How many rows release 0.2.0 sees in this one."""
    return sum(map(bool, row.replace(b"\r", b"\n").split(b"\n"))) if b"\r" in row else bool(row)


# -- taking over what release 0.2.0 left


def prepare(paths: ChannelPaths) -> None:
    """Before anything is written to the channel: its folder exists and is on a local disk, its cursor is of our kind."""
    folder = os.path.dirname(paths.data)
    try:
        require_local(folder)
    except FileNotFoundError as error:
        raise errors.from_os_error(error, "use", folder) from error
    if not is_adopted(paths.index):
        with_lock(SharedCursor(paths.index), lambda cursor: adopt(paths, cursor))


def with_lock(cursor: SharedCursor, action: Callable[[SharedCursor], _Result]) -> _Result:
    """The result of `action(cursor)`, called with the readers' lock held; the cursor is closed afterwards."""
    cursor.begin()
    try:
        return action(cursor)
    finally:
        cursor.abort()
        cursor.give_turn()


def adopt(paths: ChannelPaths, cursor: SharedCursor) -> None:
    """Load the cursor; if release 0.2.0 (or nobody) wrote it, make the channel ours first.

    That is the one moment when a last line without its newline is a row, as `new` of 0.2.0 leaves it. Afterwards it is
    what a dead writer left.
    """
    if cursor.load():
        return
    terminate(paths.data)
    terminate(paths.in_use)
    batch = Batch.open(paths)
    if batch is None:
        cursor.save(0, 0, new_batch=True)
        return
    with batch:
        offset, index = locate(batch, cursor)
        cursor.save(index, offset, new_batch=True)


def locate(batch: Batch, cursor: SharedCursor) -> tuple[int, int]:
    """Where the cursor stands in `batch`, as offset and index. If it makes no sense, at the start: nothing is skipped."""
    if cursor.offset >= 0 and batch.is_row_start(cursor.offset):
        return cursor.offset, cursor.index
    offset, counted = batch.offset_of(cursor.index, universal=True)
    if counted < cursor.index and not batch.rows(offset):
        return 0, 0  # an index beyond the batch is of another one
    return offset, counted


def may_use_on(paths: ChannelPaths) -> bool:
    """Whether the cursor of an emptied NAME.in_use has been reset, so that it may be written to again."""
    return read_line(paths.index)[0] == 0
