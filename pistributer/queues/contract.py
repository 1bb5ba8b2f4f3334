"""The contract of a queue, documented once. Drivers say only what differs ("docstring inherited").

Promises, the same for every driver:

* An item that `put` returned for is delivered at least once; exactly once unless its owner died while holding it.
* One owner at a time. A late `ack` from an owner who lost the claim raises ClaimLost and changes nothing.
* Items of one producer (one queue object) come out in the order in which they went in. A retry goes to the back; a delayed
  item comes out when it is due.
* The attempt is counted when the item is claimed, before it runs, so it survives `kill -9`.
* A torn, glued, empty or NUL row is never handed out. It goes to the quarantine, and `stats()` counts it.
* When a process dies, what it held is claimable again within a fraction of a second, because a kernel lock, not a timeout,
  says who is alive.

Not promised: an order between producers; fairness between consumers; that a value comes back as the same type (JSON has
no tuples); integers beyond 64 bits, which are refused rather than rounded.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal

State = Literal["ready", "claimed", "delayed", "dead", "retained"]

#: How long a waiter sleeps before it looks by itself for rows whose owner died, in seconds; `Queue.wake` has it look at once.
LOOK_AROUND = 0.4

#: A row may be this long unless the queue says otherwise, in bytes.
MAX_ROW_BYTES = 64 * 1024 * 1024


class Item:
    """One claimed row. Settle it with `ack`, `nack` or `bury` of the queue that it was claimed from."""

    __slots__ = ("attempt", "id", "raw", "token", "value")

    def __init__(self, id: str, value: Any, raw: bytes, attempt: int, token: Any) -> None:
        #: Names the row for good, through retries and into the dead letters. Unique within its queue.
        self.id = id
        #: What was put, decoded: for txt the text, for the other drivers what the JSON says.
        self.value = value
        #: The row's bytes as they lie on disk, without the newline.
        self.raw = raw
        #: 1 at the first delivery. Counted even if that delivery's process was killed.
        self.attempt = attempt
        #: The fence: the driver's proof of who holds this claim.
        self.token = token

    def __repr__(self) -> str:
        return f"<Item {self.id} attempt={self.attempt} {self.value!r:.60}>"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as `scan` sees it."""

    id: str
    state: State
    value: Any
    attempt: int
    #: When a delayed row falls due, seconds since the epoch.
    due: float | None = None
    #: Why a dead row is dead.
    error: str | None = None
    #: When a dead row died or a retained one was acknowledged, seconds since the epoch, where the driver knows.
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Row counts at one moment. While others work on the queue, the counts may be of slightly different moments."""

    #: Claimable now, including what dead owners left behind.
    ready: int
    #: Held by living owners.
    claimed: int
    #: Waiting for their time.
    delayed: int
    #: Buried.
    dead: int
    #: Damaged rows that were set aside.
    quarantined: int
    #: Bytes of all rows that are ready.
    ready_bytes: int


class Source(abc.ABC):
    """One named producer of a queue, whose checkpoint is committed together with its rows. Open it with `Queue.source`.

    A checkpoint is any JSON value that tells the producer where to go on: a line number, an offset, an id. Whoever opens
    the source next, after a `kill -9` at any moment, finds the checkpoint of the last row that is in the queue: no row is
    missing then and none comes twice, whether or not the rows have been consumed meanwhile. (After a power cut, this holds
    as far back as the queue's `sync` reaches.)

    One object at a time holds a source: it is let go by `close`, with its queue, or by the death of its process. Rows come
    out in the order in which they went in, over all holders. Not for several threads at once. A forked child can not use
    its parent's.
    """

    name: str
    #: That of the last row that was put or committed; None at first.
    checkpoint: Any

    @abc.abstractmethod
    def put(self, value: Any, *, checkpoint: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `Queue.put`. The row and its checkpoint are stored in one step."""

    @abc.abstractmethod
    def put_many(self, rows: Iterable[tuple[Any, Any]], *, block: bool = True, timeout: float | None = None) -> int:
        """As `Queue.put_many`, of `(value, checkpoint)` pairs. Killed in the middle, a prefix stands, with its checkpoint."""

    @abc.abstractmethod
    def commit(self, checkpoint: Any) -> None:
        """Set the checkpoint without a row: nothing up to here was worth one. `commit(None)` starts over."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the source. Closing twice is fine."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Source {self.name} at {self.checkpoint!r:.60}>"


class Queue(abc.ABC):
    """A durable queue of rows. Open one with `open_queue`. Any number of processes and threads may use it at once.

    An object may be shared by threads and inherited by forked children (it reopens there, holding none of the parent's
    claims); it pickles as its URL and options.
    """

    driver: ClassVar[str]
    #: What `open_queue` opens again.
    url: str

    # -- putting

    @abc.abstractmethod
    def put(self, value: Any, *, delay: float = 0.0, block: bool = True, timeout: float | None = None) -> None:
        """Add one row, claimable after `delay` seconds.

        On a queue with `max_rows` or `max_bytes` that is full: wait for room (`block`, at most `timeout` seconds), else
        raise QueueFull, as `queue.Queue.put` does. Rows that wait, delayed ones included, count; claimed ones do not.

        Raises RowError for a value that this driver can not store, DiskFull and other StorageErrors. After an error
        nothing was stored.
        """

    @abc.abstractmethod
    def put_many(self, values: Iterable[Any], *, block: bool = True, timeout: float | None = None) -> int:
        """Add the values in order, in few system calls, and return how many there were.

        A value that can not be a row raises RowError before anything of its batch of about 1,000 is stored. On a full disk
        or queue a prefix stands; the error's `stored` says how long it is.
        """

    @abc.abstractmethod
    def source(self, name: str) -> Source:
        """The producer of that name, to put rows with a checkpoint; made if there is none.

        Raises ValueError for a name that is not letters, digits and _ . -, SourceBusy while another object holds it.
        """

    @abc.abstractmethod
    def sources(self) -> dict[str, Any]:
        """The checkpoint of every source by name, held or not, without disturbing anybody."""

    # -- claiming

    @abc.abstractmethod
    def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        """Take up to `n` rows; wait for the first one at most `timeout` seconds (0: do not wait, None: without limit).

        Returns an empty list when there is none. `start=False` takes the rows without counting an attempt, for a worker
        that prefetches and calls `start` before it runs each.
        """

    @abc.abstractmethod
    def start(self, item: Item) -> None:
        """Count an attempt of a row that was claimed with `start=False`: on disk before this returns."""

    @abc.abstractmethod
    def ack(self, items: Item | Iterable[Item]) -> None:
        """Done: forget these rows. ClaimLost if any is not held by this object; the others are settled all the same."""

    @abc.abstractmethod
    def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        """Not done: give these rows back, to the back of the queue or after `delay` seconds. Attempts are kept.

        `counted=False` takes back the attempt that this delivery counted: it was no failure, it was too early.
        """

    @abc.abstractmethod
    def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        """Never again: move these rows to the dead letters, with the reason."""

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until something may be claimable; True then, False after `timeout` seconds. Uses no CPU meanwhile."""

    @abc.abstractmethod
    def wake(self) -> None:
        """Have everybody who waits, in any process, look around now instead of within LOOK_AROUND seconds.

        For those who know that an owner has died: a supervisor, whose workers then take over in milliseconds.
        """

    # -- dead letters

    @abc.abstractmethod
    def requeue_dead(self, ids: Iterable[str] | None = None) -> int:
        """Put buried rows (all, or those named) back as new ones with no attempts; return how many."""

    @abc.abstractmethod
    def drop_dead(self, ids: Iterable[str] | None = None) -> int:
        """Delete buried rows (all, or those named); return how many."""

    # -- looking and tidying

    @abc.abstractmethod
    def stats(self) -> Stats:
        """Counts, without disturbing anybody."""

    @abc.abstractmethod
    def scan(self, *states: State) -> Iterator[Row]:
        """Iterate over rows in the given states (default: all but retained) without claiming or locking anything.

        A row that moves while the scan runs may be seen twice or not at all.
        """

    @abc.abstractmethod
    def purge(self) -> int:
        """Delete every ready and delayed row; return how many. Claimed and dead rows stay."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything; what was claimed and not settled goes back at once. Closing twice is fine."""

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether `close` was called on this object."""

    # -- shared by all drivers

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}{' closed' if self.closed else ''}>"


def wait_until(ready: Callable[[], bool], sleep: Callable[[float], object], timeout: float | None) -> bool:
    """Call `ready` between calls of `sleep(seconds)` until it is true (True) or `timeout` seconds are over (False).

    No sleep is longer than LOOK_AROUND, because some things (an owner's death, a due time) ring no bell.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while not ready():
        left = LOOK_AROUND if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        sleep(min(left, LOOK_AROUND))
    return True
