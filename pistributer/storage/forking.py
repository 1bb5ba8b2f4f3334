"""What open objects do in a forked child: let go of everything inherited, before any other code runs there.

A kernel lock belongs to the open file description, which a fork shares: a child that kept the descriptor would hold its
parent's locks after the parent's death (measured: for as long as the child lives), and a child that unlocked would free
them under its parent. Closing the child's copy does neither. So each object that keeps descriptors registers here, and
its `_after_fork` closes them and forgets what it owned; the object opens its own on next use.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class ForkAware(Protocol):
    def _after_fork(self) -> None:
        """Runs in the child, alone: other threads do not exist there, and their locks may be held for ever."""


_open: weakref.WeakSet[ForkAware] = weakref.WeakSet()
# A fork in the middle of `register` would hand the child a set in the middle of a change.
_guard = threading.Lock()


def register(thing: ForkAware) -> None:
    """Have `thing._after_fork()` called in every child forked from now on, for as long as `thing` lives."""
    with _guard:
        _open.add(thing)


def _in_child() -> None:
    global _guard
    _guard.release()
    _guard = threading.Lock()
    for thing in list(_open):
        thing._after_fork()


os.register_at_fork(before=lambda: _guard.acquire(), after_in_parent=lambda: _guard.release(), after_in_child=_in_child)
