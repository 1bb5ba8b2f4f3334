"""Files that grow by whole pieces: many buffers in one system call, and all of them or none.

One process has the file open for writing at a time, because it holds the kernel lock of the file itself: a record file is one
file, beside which nobody expects a `.lock`. Whoever deletes or replaces such a file holds its lock meanwhile.

A piece is written with `pwritev` at the end that this process knows. Killed in the middle, a torn piece stands behind that
end; what a piece is, and where the last whole one ends, only the format above can tell, so it says where to `cut`. A write
that fails is cut back here, and what was there before stands.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from .. import errors
from .appending import KeptFile
from .durability import sync_file
from .replacing import free_names, remove_quietly, write_all

#: Buffers that one system call takes; POSIX lets a system say so, and every one of today says 1024.
_MOST_BUFFERS = 1024
#: Bytes copied at a time when a range of a file is kept.
_COPY_SIZE = 1 << 20

Buffer = bytes | bytearray | memoryview


class WholeAppendFile(KeptFile):
    """A kept, locked descriptor; the next piece goes to `size`. Not thread-safe: the caller holds a lock of its own."""

    __slots__ = ("created",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        #: Whether `open` made the file.
        self.created = False

    def open(self, *, truncate: bool = False) -> WholeAppendFile:
        """Open, making the file if it is missing, and lock it; then empty it if asked.

        Raises FileInUse if another object has it open for writing, and StorageErrors.
        """
        self.created = not os.path.exists(self.path)
        try:
            self._open_locked()
            self.size = os.fstat(self.fd).st_size
            if truncate and self.size:  # ext4 writes a file that was truncated out to the disk when it is closed
                os.ftruncate(self.fd, 0)  # only now: without the lock it would empty a file that another writes
                self.size = 0
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, errors.PistributerError):
                raise errors.from_os_error(error, "open", self.path) from error
            raise
        return self

    def _open_locked(self) -> None:
        """Open and lock; again if the file was deleted or replaced between the two, because nobody would read this one."""
        while True:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            lock(self.fd, self.path)
            try:
                if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                    return
            except FileNotFoundError:
                pass
            self.close()

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one behind the other at the end. After an error (DiskFull, …) the file is as it was."""
        try:
            end = write_vector(self.fd, buffers, self.size)
        except BaseException as error:
            self._cut_back()
            if isinstance(error, OSError):
                raise errors.from_os_error(error, "append to", self.path) from error
            raise
        self.size = end

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self.fd, self.size)
        except OSError:
            self.close()  # the next opener finds the torn piece and heals; this one must not write behind it

    def cut(self, size: int) -> None:
        """Give up what stands behind `size`."""
        with errors.typed_os_errors("cut", self.path):
            os.ftruncate(self.fd, size)
        self.size = size


def lock(fd: int, path: str) -> None:
    """Take the kernel lock of the open file `path`, or raise FileInUse at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.FileInUse(
            f"{path!r} is open for writing in another process, or in another object of this one",
            hint="one writer a file: wait until it is closed, or give each writer a file of its own",
            errno=error.errno or 0,
            path=path,
        ) from error


def remove_unused(path: str) -> None:
    """Delete the file; FileInUse if somebody has it open for writing."""
    file = WholeAppendFile(path).open()
    try:
        with errors.typed_os_errors("delete", path):
            os.unlink(path)
    finally:
        file.close()


def write_vector(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Write every byte of the buffers from `offset` on; return where they end."""
    for first in range(0, len(buffers), _MOST_BUFFERS):
        part = buffers[first : first + _MOST_BUFFERS]
        size = sum(map(len, part))
        written = os.pwritev(fd, part, offset)
        if written < size:  # a full disk takes a part first and says why on the next call
            _write_rest(fd, part, offset, written)
        offset += size
    return offset


def _write_rest(fd: int, buffers: Sequence[Buffer], offset: int, written: int) -> None:
    rest = memoryview(b"".join(buffers))[written:]
    offset += written
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


def read_vector(fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
    """Fill the buffers from `offset` on; return how many bytes there were, fewer than asked for only at the end."""
    total = 0
    for first in range(0, len(buffers), _MOST_BUFFERS):
        part = buffers[first : first + _MOST_BUFFERS]
        got, wanted = os.preadv(fd, part, offset + total), sum(map(len, part))
        total += got
        if got < wanted:
            return total + _read_rest(fd, part, offset + total, got)
    return total


def _read_rest(fd: int, buffers: Sequence[bytearray | memoryview], offset: int, skip: int) -> int:
    """The slow way for a read that was cut short: by the end of the file, or by a signal."""
    total = 0
    for buffer in buffers:
        view = memoryview(buffer)[skip:]
        skip = max(0, skip - len(buffer))
        while view:
            got = os.preadv(fd, [view], offset + total)
            if not got:
                return total
            view, total = view[got:], total + got
    return total


def keep_range(fd: int, start: int, end: int, path: str) -> str:
    """Copy the bytes from `start` to `end` into the new file `path`, durably, before they are cut off; return its name.

    That is `path-2`, … if the name is taken: nothing is overwritten. Killed inside, or before the cut, the bytes are kept
    once more by the next healer.
    """
    with errors.typed_os_errors("write", path):
        name = next(name for name in free_names(path) if not os.path.exists(name))
        kept = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            while start < end and (part := os.pread(fd, min(end - start, _COPY_SIZE), start)):
                write_all(kept, part)
                start += len(part)
            sync_file(kept, name)
        except BaseException:
            remove_quietly(name)
            raise
        finally:
            os.close(kept)
    return name
