"""What each child is doing, in a page of memory that its process, the supervisor and `status` share.

A child stores counts and the job it runs without a system call; whoever wants to know reads the page. The page is a
file, so it outlives a killed child, and tells the supervisor which job the child was running when it died.

A slot belongs to one child and only its process writes it. Fields are stored one by one: a reader may see a count that
is a job older than another, never a torn one. Each role has a run of slots, with room to grow (`Seats`), because a page that
is mapped can not; slots that nobody ever had are zero and cost a reader next to nothing.

Layout, little endian: slots of 128 bytes, one per child, in the order of the roles::

    0   u64  process id, 0 before the first start
    8   f64  when this process started, seconds since the epoch
    16  u64  jobs, or rows, that ended well
    24  u64  that failed for good
    32  u64  that were given back for another attempt
    40  u64  rows that a producer put
    48  f64  since when it runs the current job; 0 if it runs none
    56  24s  that job's id
    80  36s  its task, UTF-8, cut off
    116 u32  which attempt it is
    120 f64  when the supervisor kills it, by the monotonic clock, which all processes share; 0: never
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass, replace

from pistributer.storage.mapping import map_file
from pistributer.storage.replacing import replace_file

SLOT = 128
_ALL = struct.Struct("<QdQQQQd24s36sId")
_BIRTH = struct.Struct("<Qd")
_NUMBER = struct.Struct("<Q")
_CURRENT = struct.Struct("<d24s36sId")
_TIME = struct.Struct("<d")

_STARTED, _DONE, _SINCE_AT, _DEADLINE_AT = 0, 16, 48, 120

#: A role that may grow has room for so many times as many children as it starts with, and for so many at least.
_GROWTH, _ROOM = 4, 64


@dataclass(frozen=True, slots=True)
class Seats:
    """The slots of one role.

    first  the number of the first one
    room   for how many children there are slots
    size   how many children there are to be
    taken  how many there were at the most
    width  how many slots each child has: as many as it may run jobs at once
    """

    first: int
    room: int
    size: int
    taken: int
    width: int = 1

    def resized(self, size: int) -> Seats:
        return replace(self, size=size, taken=max(size, self.taken))

    def of(self, index: int) -> range:
        """The numbers of the slots of one child."""
        return range(self.first + index * self.width, self.first + (index + 1) * self.width)

    @property
    def end(self) -> int:
        """The number behind the last slot."""
        return self.first + self.room * self.width


def assign(wanted: dict[str, tuple[int, int, int]]) -> dict[str, Seats]:
    """Seats for each role, of `(how many children, how many at most, width)`; at most 0: there may be many more one day."""
    seats: dict[str, Seats] = {}
    first = 0
    for role, (count, most, width) in wanted.items():
        seats[role] = Seats(first, most or max(_ROOM, _GROWTH * count), count, count, width)
        first = seats[role].end
    return seats


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all children that were."""

    done: int
    failed: int
    retried: int
    put: int

    @property
    def settled(self) -> int:
        """Changes whenever something left a queue or went back into it."""
        return self.done + self.failed + self.retried


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
    attempt: int
    #: When its time is over, by the monotonic clock; 0: never.
    deadline: float


def create(path: str, slots: int) -> None:
    """A new, empty board at `path`. Those who still hold an older one keep that."""
    replace_file(path, bytes(max(1, slots) * SLOT), durable=False)


class Board:
    """The page at `path`, mapped."""

    def __init__(self, path: str, *, write: bool = False) -> None:
        self.page = map_file(path, write=write)

    def totals(self) -> Totals:
        """Without looking at single slots: 40 ns for each that there is."""
        with memoryview(self.page) as page, page.cast("Q") as words:
            # On a big-endian machine this would need care, as `_ALL` has it; there is none that runs this.
            done, failed, retried, put = (sum(words[first :: SLOT // 8].tolist()) for first in (2, 3, 4, 5))
        return Totals(done, failed, retried, put)

    def pids(self) -> list[tuple[int, float]]:
        """The process id and start of every child that there was; of some of them the process has ended."""
        with memoryview(self.page) as page, page.cast("Q") as words:
            taken = [number for number, pid in enumerate(words[0 :: SLOT // 8].tolist()) if pid]
        return [(slot.pid, slot.started) for slot in map(self.slot, taken)]

    def slot(self, number: int) -> Slot:
        pid, started, done, failed, retried, put, since, job, task, attempt, deadline = _ALL.unpack_from(
            self.page, number * SLOT
        )
        return Slot(pid, started, done, failed, retried, put, since, _text(job), _text(task), attempt, deadline)

    def of(self, seats: Seats, index: int) -> list[Slot]:
        """The slots of one child. The first one has its counts; each may have a job that runs."""
        return [self.slot(number) for number in seats.of(index)]

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

    def running(self, job: str, task: bytes, attempt: int, limit: float | None = None) -> None:
        """This job begins now, and this process is to be killed if it has not ended after `limit` seconds."""
        deadline = 0.0 if limit is None else time.monotonic() + limit
        _CURRENT.pack_into(self._page, self._base + _SINCE_AT, time.time(), job.encode(), task, attempt, deadline)

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
