"""What each child is doing, in a page of memory that its process, the supervisor and `status` share.

A child stores counts and the job it runs without a system call; whoever wants to know reads the page. The page is a
file, so it outlives a killed child, and tells the supervisor which job the child was running when it died.

A slot belongs to one child and only its process writes it. Fields are stored one by one: a reader may see a count that
is a job older than another, never a torn one.

Layout, little endian: slots of 128 bytes, one per child, in the order of the roles::

    0   u64  process id, 0 before the first start
    8   f64  when this process started, seconds since the epoch
    16  u64  jobs, or rows, that ended well
    24  u64  that failed for good
    32  u64  that were given back for another attempt
    40  u64  rows that a producer put
    48  f64  since when it runs the current job; 0 if it runs none
    56  24s  that job's id
    80  40s  its task, UTF-8, cut off
    120 f64  when the supervisor kills it, by the monotonic clock, which all processes share; 0: never
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

from pistributer import errors
from pistributer.storage.replacing import replace_file

SLOT = 128
_ALL = struct.Struct("<QdQQQQd24s40sd")
_BIRTH = struct.Struct("<Qd")
_NUMBER = struct.Struct("<Q")
_CURRENT = struct.Struct("<d24s40sd")
_TIME = struct.Struct("<d")

_STARTED, _DONE, _SINCE_AT, _DEADLINE_AT = 0, 16, 48, 120


@dataclass(frozen=True, slots=True)
class Slot:
    """One child as the board shows it."""

    pid: int
    started: float
    done: int
    failed: int
    retried: int
    put: int
    #: When the current job began, seconds since the epoch; 0 if there is none.
    since: float
    job: str
    task: str
    #: When its time is over, by the monotonic clock; 0: never.
    deadline: float

    @property
    def settled(self) -> int:
        """Changes whenever something left a queue or went back into it."""
        return self.done + self.failed + self.retried


def create(path: str, slots: int) -> None:
    """A new, empty board at `path`. Those who still hold an older one keep that."""
    replace_file(path, bytes(max(1, slots) * SLOT), durable=False)


class Board:
    """The page at `path`, mapped."""

    def __init__(self, path: str, *, write: bool = False) -> None:
        try:
            fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
            try:
                access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
                self.page = mmap.mmap(fd, 0, access=access)
            finally:
                os.close(fd)
        except OSError as error:
            raise errors.from_os_error(error, "map", path) from error

    def slots(self) -> list[Slot]:
        return [self.slot(number) for number in range(len(self.page) // SLOT)]

    def slot(self, number: int) -> Slot:
        pid, started, done, failed, retried, put, since, job, task, deadline = _ALL.unpack_from(
            self.page, number * SLOT
        )
        return Slot(pid, started, done, failed, retried, put, since, _text(job), _text(task), deadline)

    def close(self) -> None:
        self.page.close()


class Desk:
    """The slot of the child that this process is. Counts go on where its predecessor was killed."""

    __slots__ = ("_base", "_board", "_counts", "_page")

    def __init__(self, path: str, number: int) -> None:
        self._board = Board(path, write=True)
        self._page = self._board.page
        self._base = number * SLOT
        slot = self._board.slot(number)
        self._counts = [slot.done, slot.failed, slot.retried, slot.put]
        self.idle()
        _BIRTH.pack_into(self._page, self._base + _STARTED, os.getpid(), time.time())

    def running(self, job: str, task: bytes, limit: float | None = None) -> None:
        """This job begins now, and this process is to be killed if it has not ended after `limit` seconds."""
        deadline = 0.0 if limit is None else time.monotonic() + limit
        _CURRENT.pack_into(self._page, self._base + _SINCE_AT, time.time(), job.encode(), task, deadline)

    def idle(self) -> None:
        """No job runs."""
        # The deadline first, and always: it must never be seen beside the next job.
        _TIME.pack_into(self._page, self._base + _DEADLINE_AT, 0.0)
        _TIME.pack_into(self._page, self._base + _SINCE_AT, 0.0)

    def count(self, *, done: int = 0, failed: int = 0, retried: int = 0, put: int = 0) -> None:
        """Add to the counts. Called after whatever the job put elsewhere, and before its own row is settled."""
        for field, more in enumerate((done, failed, retried, put)):
            if more:
                self._counts[field] += more
                _NUMBER.pack_into(self._page, self._base + _DONE + 8 * field, self._counts[field])


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="ignore")
