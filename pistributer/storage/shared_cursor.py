"""How far the readers of a classic channel have come: one line in NAME.index, changed in place, and their lock as well.

    {"index": 2             , "offset": 123           , "counted": 2             , "batch": 1763728400123 }

index    rows of NAME.in_use that are consumed, as release 0.2.0 counts them and reads them
offset   where the next row begins in NAME.in_use, in bytes
counted  the index that `offset` belongs to: 0.2.0 keeps the fields that it does not know when it changes `index`, so an
         offset counts only while the two agree
batch    changes whenever NAME.in_use begins anew, so that a reader's buffer is never taken for a later batch's. A new
         file starts at the milliseconds since 1970, lest a deleted and recreated channel repeat a number

The line has a fixed width, so one `pwrite` within one page replaces it: killed before, the old one; after, the new one. Its
width also says that the channel has been adopted (`adopt`): release 0.2.0 writes shorter ones.

The readers' lock is `flock` of this very file: one descriptor per reader instead of two, and a folder that looks as 0.2.0
left it. We never delete the file. If somebody else does under a living reader, that reader finishes what it has in memory
and then finds out (`in_place`), before it renames or empties anything; rows of one batch may then be delivered twice, which
is what deleting the index asks for.
"""

from __future__ import annotations

import os
import time
from fcntl import LOCK_EX, LOCK_UN, flock
from os import pread, pwrite

import orjson

from .. import errors
from . import forking
from .descriptors import open_descriptor, pool
from .turns import Turn

_LINE = b'{"index": %-14d, "offset": %-14d, "counted": %-14d, "batch": %-14d}\n'
WIDTH = len(_LINE % (0, 0, 0, 0))


class SharedCursor(Turn):
    """One reader's view of the cursor at `path`. Threads may share it.

    Between `begin` and `give_turn` the other fields are this object's to read and `save` to change.
    """

    __slots__ = ("__weakref__", "_fd", "_line", "batch", "index", "offset", "path")

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._fd = -1
        #: The line that this object read or wrote last, and what it says.
        self._line = b""
        self.index = 0
        #: -1 if it has to be found by counting rows.
        self.offset = 0
        self.batch = 0
        forking.register(self)

    # -- the lock

    def begin(self) -> bool:
        """Take the readers' lock, making the file if there is none. True if the cursor is where this object left it.

        The caller then enters a `try` at once, with `unlock` at the end of it, `abort` in its `except BaseException` and
        `give_turn` in its `finally`.
        """
        try:
            del self.free
        except AttributeError:
            self.wait_for_turn()
        try:
            fd = self._fd
            if fd < 0:
                fd = self._open()
            flock(fd, LOCK_EX)
            return pread(fd, WIDTH, 0) == self._line
        except BaseException:
            self.abort()
            self.give_turn()
            raise

    def commit(self, index: int, offset: int) -> None:
        """`save` in the same batch and `unlock`, in one call because each row pays for it."""
        line = _LINE % (index, offset, index, self.batch)
        pwrite(self._fd, line, 0)
        self._line = line
        self.index = index
        self.offset = offset
        flock(self._fd, LOCK_UN)

    def unlock(self) -> None:
        """Free the lock for other readers, but keep this object's turn."""
        flock(self._fd, LOCK_UN)

    def abort(self) -> None:
        """Free the lock whatever happened; what is in memory may not be what is on disk."""
        fd, self._fd = self._fd, -1
        self._line = b""
        if fd >= 0:
            os.close(fd)

    def peek(self) -> bool:
        """Whether the cursor is where this object left it, at this moment. Does not take the lock."""
        self.take_turn()
        try:
            return self._fd >= 0 and pread(self._fd, WIDTH, 0) == self._line
        finally:
            self.give_turn()

    # -- the line

    def load(self) -> bool:
        """Read what the line says into the fields. True if the channel has been adopted."""
        self._line = line = pread(self._fd, WIDTH, 0)
        self.index, self.offset, self.batch = _parse(line)
        return os.fstat(self._fd).st_size == WIDTH

    def save(self, index: int, offset: int, *, new_batch: bool = False) -> None:
        """Move the cursor. Raises StorageError; the old position stands then."""
        if new_batch:
            self.batch += 1
        line = _LINE % (index, offset, index, self.batch)
        try:
            pwrite(self._fd, line, 0)
            if os.fstat(self._fd).st_size != WIDTH:
                os.ftruncate(self._fd, WIDTH)
        except OSError as error:
            raise errors.from_os_error(error, "write", self.path) from error
        self._line = line
        self.index = index
        self.offset = offset

    # -- the file

    def _open(self) -> int:
        self._fd = open_descriptor(self.path, os.O_RDWR | os.O_CREAT)
        pool.admit(self)
        return self._fd

    def in_place(self) -> bool:
        """Whether the locked file is still the one that its name means."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def relock(self) -> None:
        """With the lock held: let go of a file that lost its name and lock the one that has it now."""
        while not self.in_place():
            self.abort()
            flock(self._open(), LOCK_EX)

    def close(self) -> None:
        """Let go of the file; waits for a thread that is at work. The next `begin` opens it again."""
        self.take_turn()
        try:
            self.abort()
        finally:
            self.give_turn()

    def stamp(self) -> object:
        return self._line

    def evict(self) -> bool:
        if not self.try_turn():
            return False
        try:
            self.abort()
        finally:
            self.give_turn()
        return True

    def _after_fork(self) -> None:
        self.reset_turn()
        self.abort()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def is_adopted(path: str) -> bool:
    """Whether the index file at `path` is ours."""
    try:
        return os.stat(path).st_size == WIDTH
    except FileNotFoundError:
        return False


def read_line(path: str) -> tuple[int, int, int]:
    """`(index, offset, batch)` as the file at `path` says; zeros if there is none or it is damaged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0, 0
    try:
        return _parse(pread(fd, WIDTH, 0))
    finally:
        os.close(fd)


def _parse(line: bytes) -> tuple[int, int, int]:
    """What is missing or nonsense becomes the safe side: deliver again rather than skip."""
    try:
        found = orjson.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    index = _count(found.get("index"))
    # The index of release 0.2.0 has no offset; an offset that was not counted with this index is of an earlier time.
    offset = _count(found.get("offset"), -1) if found.get("counted") == index else -1
    return index, offset if index else 0, _count(found.get("batch")) or time.time_ns() // 1_000_000


def _count(value: object, otherwise: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
