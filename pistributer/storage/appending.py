"""Append-only files of rows that end in a newline.

Facts that shape this page (measured; ext4, but nothing here depends on it): one `os.write` of a row is *not* atomic. A
reader beside it may see the row's first half; SIGKILL in the middle leaves that half behind for good; a full disk writes
half a row first and reports the error on the next call; a power cut leaves a tail of NUL bytes. So:

* Whoever appends has excluded other appenders, by a lock of the caller's.
* Readers never pass the last newline of what they see.
* A new owner looks at the tail before its first append. What stands behind the last newline belongs to a dead writer whose
  call never returned; it is cut off and handed to the caller, who keeps it in quarantine.
* A short write is completed, or cut back to a row boundary before the error is raised.
* If anything unexpected interrupts an append, the descriptor is given up, so that the next append heals first.

Killed between any two steps: before the write, nothing; inside it, a torn tail for the next owner; inside healing, the
same torn tail again, because cutting is one `ftruncate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from .. import errors
from . import forking
from .durability import sync_file
from .replacing import write_all

#: How much is read at a time when looking back for the last newline, in bytes.
_LOOK_BACK = 65536


class KeptFile:
    """A descriptor that is kept open, and closed in a forked child: it belongs to the parent. Subclasses open it."""

    __slots__ = ("__weakref__", "fd", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        #: Bytes in the file that count, as far as this process has written and seen.
        self.size = 0
        forking.register(self)

    def sync(self) -> None:
        """fdatasync; after SyncFailed the descriptor is given up."""
        try:
            sync_file(self.fd, self.path)
        except errors.SyncFailed:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor, and so free a lock that is held on it. Closing twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _after_fork(self) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AppendFile(KeptFile):
    """A kept descriptor on a file that this process alone appends to. Not thread-safe: the caller holds a lock."""

    __slots__ = ()

    def open(self, *, keep: Callable[[bytes], None] | None = None, heal: bool = True) -> AppendFile:
        """Open, making the file if it is missing, and heal the tail.

        `keep` is given what is about to be cut off, before it is: killed between the two, it is given it again. With
        `heal=False` the caller has seen to the tail by rules of its own.
        """
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self.size = heal_tail(self.fd, keep) if heal else os.lseek(self.fd, 0, os.SEEK_END)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, errors.PistributerError):
                raise errors.from_os_error(error, "open", self.path) from error
            raise
        return self

    def append(self, data: bytes) -> int:
        """Append `data`, whole rows each with its newline, and return the new size.

        Raises DiskFull (`stored` says how many of the rows stand) or another StorageError. No fsync.
        """
        try:
            written = os.write(self.fd, data)
        except BaseException as error:  # noqa: BLE001 - raised again, after the descriptor was looked after
            self._interrupted(error)
        if written != len(data):
            self.complete(data, written)
        else:
            self.size += written
        return self.size

    def complete(self, data: bytes, written: int) -> None:
        """The kernel took only the first `written` bytes of an append: see to the rest. Raises as `append`."""
        try:
            self._finish(data, written)
        except BaseException as error:  # noqa: BLE001 - see above
            self._interrupted(error)
        self.size += len(data)

    def _finish(self, data: bytes, written: int) -> None:
        """The kernel took only a part: write the rest, or cut back to the last whole row and raise."""
        start = os.lseek(self.fd, 0, os.SEEK_END) - written
        try:
            write_all(self.fd, data[written:])
        except OSError as error:
            taken = data[: os.lseek(self.fd, 0, os.SEEK_END) - start]
            whole = taken.rfind(b"\n") + 1
            os.ftruncate(self.fd, start + whole)
            self.size = start + whole
            failure = errors.from_os_error(error, "append to", self.path)
            failure.stored = taken.count(b"\n")  # type: ignore[attr-defined]
            raise failure from error

    def _interrupted(self, error: BaseException) -> NoReturn:
        """Raise `error`, typed. After a full disk the tail is whole; after anything else it is looked at again."""
        if isinstance(error, errors.PistributerError):
            raise error
        if isinstance(error, OSError) and self.fd >= 0:
            # The call failed as a whole, so nothing was written.
            raise errors.from_os_error(error, "append to", self.path) from error
        self.close()
        raise error

    def truncate(self, size: int = 0) -> None:
        """Cut the file to `size` bytes, a row boundary."""
        os.ftruncate(self.fd, size)
        self.size = size


def heal_tail(fd: int, keep: Callable[[bytes], None] | None = None) -> int:
    """Cut what stands behind the last newline, after `keep` has seen it; return the size now."""
    size = os.lseek(fd, 0, os.SEEK_END)
    end = last_row_end(fd, size)
    if end == size:
        return size
    if keep is not None:
        keep(read_range(fd, end, size))
    os.ftruncate(fd, end)
    return end


def last_row_end(fd: int, size: int) -> int:
    """Offset behind the last newline in the first `size` bytes, 0 if there is none."""
    position = size
    while position > 0:
        start = max(0, position - _LOOK_BACK) if position < size else position - 1  # most often the very last byte
        found = os.pread(fd, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def read_range(fd: int, start: int, end: int) -> bytes:
    """The bytes of `fd` from `start` to `end`, fewer only if the file ends before."""
    parts = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def count_rows(fd: int, start: int, end: int) -> int:
    """Newlines in `fd` from offset `start` to `end`."""
    count = 0
    while start < end:
        part = os.pread(fd, min(end - start, 1 << 20), start)
        if not part:
            break
        count += part.count(b"\n")
        start += len(part)
    return count


def append_once(path: str, data: bytes, *, sync: bool = False) -> None:
    """Open, heal, append, close: for files that many processes add to, rarely. The caller holds their lock.

    A torn tail here is the half of a line whose writer died before it said that it was done; it is dropped.
    """
    file = AppendFile(path).open()
    try:
        file.append(data)
        if sync:
            file.sync()
    finally:
        file.close()


def cut(path: str, size: int) -> None:
    """Cut the closed file at `path` to `size` bytes. The caller has excluded everybody else."""
    try:
        os.truncate(path, size)
    except OSError as error:
        raise errors.from_os_error(error, "cut", path) from error
