"""The durability dial: what a power cut may cost. A killed process costs nothing at any setting.

    none     the page cache; the kernel writes it out within about 30 seconds
    group    a background thread calls fdatasync a few milliseconds after a write: one call for all that came together
    each     fdatasync before the write is acknowledged

After a sync error nothing is retried: the kernel may have marked the lost pages clean, and a second call would lie
(fsyncgate; Rebello et al., ATC 2020). The file is marked as failed and every later use raises `SyncFailed`.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Literal, get_args

from .. import errors
from . import forking

Sync = Literal["none", "group", "each"]

#: Seconds between a first unsynced write and the group's fdatasync.
GROUP_INTERVAL = 0.005


def check_mode(mode: str) -> Sync:
    """`mode` if it is a step of the dial; ValueError with the steps otherwise."""
    if mode not in get_args(Sync):
        raise ValueError(f"sync must be one of {', '.join(get_args(Sync))}, not {mode!r}")
    return mode  # type: ignore[return-value]


def sync_file(fd: int, path: str) -> None:
    """fdatasync, with the typed error that says not to try again."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise errors.SyncFailed(
            f"the disk did not confirm a write to {path!r}: {error.strerror}",
            hint="the last rows may be lost; check the disk, then reopen the queue",
            errno=error.errno or 0,
            path=path,
        ) from error


class GroupSync:
    """One background thread per object that makes noted descriptors durable `GROUP_INTERVAL` seconds later.

    The thread starts with the first write and sleeps without polling while there is none.
    """

    def __init__(self) -> None:
        self._reset()
        forking.register(self)

    def _reset(self) -> None:
        self._wake = threading.Condition(threading.Lock())
        self._dirty: dict[int, str] = {}
        self._failure: errors.SyncFailed | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def note(self, fd: int, path: str) -> None:
        """`fd` was written to. Raises what an earlier group met, because those rows were acknowledged."""
        if fd in self._dirty:  # its sync is still to come, so it covers this write too; no lock needed
            return
        with self._wake:
            if self._failure is not None:
                raise self._failure
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pistributer-group-sync", daemon=True)
                self._thread.start()
            self._dirty[fd] = path
            self._wake.notify()

    def flush(self) -> None:
        """Make durable whatever was noted, now. Call it before closing a noted descriptor."""
        with self._wake:
            dirty, self._dirty = self._dirty, {}
            self._sync(dirty)
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Flush and end the thread."""
        try:
            self.flush()
        finally:
            with self._wake:
                self._closing = True
                self._wake.notify()
            if self._thread is not None:
                self._thread.join()
            self._reset()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._dirty and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                self._wake.wait_for(lambda: self._closing, GROUP_INTERVAL)
                noted, self._dirty = self._dirty, {}
                dirty = _copies(noted)
            self._sync(dirty)
            for fd in dirty:
                os.close(fd)

    def _sync(self, dirty: dict[int, str]) -> None:
        for fd, path in dirty.items():
            try:
                sync_file(fd, path)
            except errors.SyncFailed as error:
                self._failure = error

    def _after_fork(self) -> None:
        self._reset()


def _copies(noted: dict[int, str]) -> dict[int, str]:
    """Descriptors of our own, because the owners may close theirs meanwhile and writers must not wait for the disk.

    Who closes a noted descriptor has synced or replaced its file before, so one that is gone needs nothing more.
    """
    copies = {}
    for fd, path in noted.items():
        try:
            copies[os.dup(fd)] = path
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
    return copies
