"""One supervisor at a time runs a producer: `run/producers/NAME`, a kernel lock with a note in it.

While supervisors share an app, each of them has a process for each producer. One holds the lock and produces; the others
wait. When it has come to its end it notes the period (supervision/runs.py) in the lock file, and those who wait are done too: a
producer runs once in a period. If it is killed, whoever gets the lock goes on from its checkpoint, or begins again if it
has none.

Killed between the end of a producer and its note: it runs once more, as any producer whose process died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import quote

from pistributer import errors
from pistributer.storage.inplace import write_at
from pistributer.storage.locks import Flock

from ..supervision.child import Child
from ..supervision.runs import read_record

#: Seconds between two tries to get the lock. A process that waits in the kernel for it could not be told to leave.
_TRY_AGAIN = 0.25


class Turn:
    """This process may produce."""

    def __init__(self, lock: Flock, period: str) -> None:
        self._lock = lock
        self._period = period

    def is_done(self) -> None:
        """The producer has come to its end; it does not run again in this period."""
        write_at(self._lock.fileno(), self._period.encode(), 0, self._lock.path)


@contextlib.contextmanager
def its_turn(child: Child, run_folder: str, name: str, board: str) -> Iterator[Turn | None]:
    """Wait for the turn of producer `name`. None if it has run in this period, or a stop was requested."""
    record = read_record(os.path.dirname(board))
    lock = Flock(_path(run_folder, name))
    try:
        while record is not None and not lock.acquire(0.0):
            if child.wait_stop(_TRY_AGAIN):
                record = None
        yield None if record is None or _noted(lock.path) == record.period else Turn(lock, record.period)
    finally:
        lock.close()


def _noted(path: str) -> str:
    with errors.typed_os_errors("read", path), open(path, "rb") as file:
        return file.read().decode()


def _path(run_folder: str, name: str) -> str:
    folder = os.path.join(run_folder, "producers")
    with errors.typed_os_errors("make the folder", folder):
        os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, quote(name, safe="")[:200])
