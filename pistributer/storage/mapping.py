"""Files that processes map into memory, to tell each other something without a system call."""

from __future__ import annotations

import mmap
import os

from .. import errors


def map_file(path: str, size: int = 0, *, write: bool) -> mmap.mmap:
    """The first `size` bytes of the file at `path`, or all of it (0). The map outlives the name.

    Raises StorageErrors, and ValueError if the file is shorter, or empty.
    """
    try:
        fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            return mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        finally:
            os.close(fd)
    except OSError as error:
        raise errors.from_os_error(error, "map", path) from error
