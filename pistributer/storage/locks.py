"""Kernel locks (`flock`): held by an open file, freed by the kernel the moment the owner dies, however it dies.

`Flock` keeps its descriptor and blocks in the kernel without polling: 0.9 µs for a pair. `filelock.FileLock` is the same
kernel lock with more care around it at a hundred times the price; the supervisor uses it, which takes one once. Shards and
journals do not: the three hundredth producer of a queue tries three hundred locks before it finds a free one.

Lock files are never deleted: a waiter would then hold the old inode while a newcomer locks a new one. They are never data
files either, with one exception that `storage/shared_append.py` explains.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from types import TracebackType

from .. import errors
from . import forking

_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Longest pause between two tries of a lock that is waited for with a timeout, in seconds.
_MAX_PAUSE = 0.005


class Flock:
    """An exclusive kernel lock on `path`, safe between processes and between threads that share the object.

    `path` is a lock file, made on first use, or with `folder=True` a folder that exists. Not reentrant, not fair. In a
    forked child the object starts unlocked, with a descriptor of its own.
    """

    __slots__ = ("__weakref__", "_fd", "_flags", "_thread", "path")

    def __init__(self, path: str, *, folder: bool = False) -> None:
        self.path = path
        self._fd = -1
        self._flags = _FOLDER if folder else _FILE
        # flock does not exclude threads that share a descriptor, so this stands in front of it.
        self._thread = threading.Lock()
        forking.register(self)

    def fileno(self) -> int:
        """The kept descriptor, opened read-write on first use. The lock file may carry small state in place."""
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, self._flags, 0o666)
            except OSError as error:
                raise errors.from_os_error(error, "open the lock", self.path) from error
        return self._fd

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock; wait without limit for `timeout=None`, else that many seconds at most. False when in vain."""
        if timeout is None:
            self._thread.acquire()
        elif not self._thread.acquire(timeout=timeout) if timeout > 0 else not self._thread.acquire(blocking=False):
            return False
        try:
            if self._lock_file(timeout):
                return True
        except BaseException:
            self._thread.release()
            raise
        self._thread.release()
        return False

    def _lock_file(self, timeout: float | None) -> bool:
        fd = self.fileno()
        if timeout is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
            return True
        deadline, pause = time.monotonic() + timeout, 0.0002
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                time.sleep(min(pause, left))
                pause = min(pause * 2, _MAX_PAUSE)
            else:
                return True

    def release(self) -> None:
        """Free the lock; the descriptor stays open for the next time."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._thread.release()

    def __enter__(self) -> Flock:
        self._thread.acquire()
        try:
            fcntl.flock(self._fd if self._fd >= 0 else self.fileno(), fcntl.LOCK_EX)
        except BaseException:
            self._thread.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._thread.release()

    def close(self) -> None:
        """Close the descriptor, which frees the lock if it is held. The object may be used again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._thread.locked():
            self._thread.release()

    def _after_fork(self) -> None:
        self._thread = threading.Lock()
        self.close()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def try_lock(path: str) -> Flock | None:
    """The lock at `path`, taken, if nobody holds it; cheaper than `acquire(timeout=0)` when most of many are held."""
    fd = os.open(path, _FILE, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    lock = Flock(path)
    lock._fd = fd
    lock._thread.acquire()
    return lock


def take_numbered(folder: str) -> tuple[Flock, int]:
    """The first of the locks `0001.lock`, `0002.lock`, … in `folder` that nobody holds, taken, and its number."""
    number = 1
    while True:
        lock = Flock(os.path.join(folder, f"{number:04d}.lock"))
        if lock.acquire(timeout=0):
            return lock, number
        lock.close()
        number += 1


def is_held(path: str) -> bool:
    """Whether some process holds the lock at `path` at this moment. Takes it for an instant if nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
