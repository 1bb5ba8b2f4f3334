"""Keeping thousands of files open with a limited number of descriptors.

Objects that keep a descriptor between uses are admitted to one pool for the process. When the pool holds more than its
share of RLIMIT_NOFILE, those that were not used since they were last looked at are asked to close (the second-chance
algorithm); they open again on their next use. Nothing is added to the path on which an object uses its descriptor.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
import weakref
from typing import Protocol

from .. import errors
from . import forking

#: The pool's share of the process's descriptors: the rest is for the user's own files and sockets.
_SHARE = 2
_AT_LEAST = 8
#: How many the pool may hold where there is no limit.
_UNLIMITED = 65536


class Pooled(Protocol):
    def stamp(self) -> object:
        """Any value that changes with use."""

    def evict(self) -> bool:
        """Close the descriptor unless it is in use at this moment; must not wait. True if it is closed now."""


class DescriptorPool:
    """Who keeps a descriptor. Refers to the objects weakly: one that is garbage has closed its descriptor by itself."""

    def __init__(self) -> None:
        self._reset()
        forking.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[weakref.ref[Pooled], object]] = {}

    def admit(self, thing: Pooled) -> None:
        """`thing` has opened a descriptor and keeps it. May close those of others."""
        with self._lock:
            self._open[id(thing)] = (weakref.ref(thing), thing.stamp())
            self._evict(len(self._open) - capacity())

    def relieve(self) -> None:
        """The process is out of descriptors: close half of those that are kept."""
        with self._lock:
            self._evict(max(1, len(self._open) // 2))

    def _evict(self, count: int) -> None:
        # Two rounds are enough: in the first each may have its second chance.
        for key in list(self._open) * 2 if count > 0 else ():
            if count <= 0:
                return
            entry = self._open.pop(key, None)
            if entry is not None:
                count -= self._close(key, *entry)

    def _close(self, key: int, reference: weakref.ref[Pooled], stamp: object) -> bool:
        thing = reference()
        if thing is None or (thing.stamp() == stamp and thing.evict()):
            return True
        self._open[key] = (reference, thing.stamp())  # to the back of the row
        return False

    def _after_fork(self) -> None:
        self._reset()


#: The one pool of this process.
pool = DescriptorPool()


def capacity() -> int:
    """How many descriptors the pool may keep. Asked each time, because a process may raise its limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else max(_AT_LEAST, soft // _SHARE)


def open_descriptor(path: str, flags: int) -> int:
    """`os.open` with close-on-exec, typed errors, and a second try if the process had no descriptor left."""
    flags |= os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            pool.relieve()
            return os.open(path, flags, 0o666)
    except OSError as error:
        raise errors.from_os_error(error, "open", path) from error
