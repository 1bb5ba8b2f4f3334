"""`DurableQueue`: `queue.Queue` on disk, for any number of threads and processes.

It stands on the sqlite driver, because there every row has one place in one order. The file driver keeps an order per
producer only, which is what makes it fast, and `queue.Queue` promises more (benchmarks/durable_queue.py has the figures).

An item that `get` returned stays on disk, claimed, until the thread that got it has shown that it goes on: by `task_done`,
by its next `get`, by ending, or by `close`. If its process is killed before, the item comes again, first of all. So nothing
is lost, and what may come twice is at most the one item that a thread had in hand.

::

    jobs/queue.db …    a queue of the sqlite driver; `pistributer queue ls sqlite:jobs/queue.db` shows it
      durable          one row: how items are written
      unfinished       items that an owner got and did not call task_done for, beside those it holds
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Iterable
from functools import partial
from sqlite3 import Connection
from types import TracebackType
from typing import Any, Final, Literal

from .. import errors
from ..storage.durability import Sync
from . import durable_import
from . import durable_items as items
from .contract import Item, wait_until
from .durable_hand import Hand, Owner, acknowledge
from .sqlite import SqliteQueue
from .waiting import sleep_for_any

#: Seconds between two looks of `join`.
_LOOK: Final = 0.01
#: Seconds that `put` waits for room before it looks whether the queue was shut down.
_PATIENCE: Final = 0.1
#: The doorbell's counter that `shutdown` counts up.
_SHUTDOWNS: Final = 0

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS durable (serializer TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS unfinished (owner INTEGER PRIMARY KEY, taken INTEGER NOT NULL)",
    "DELETE FROM unfinished WHERE owner NOT IN (SELECT id FROM owners)",
)
_TAKE: Final = "INSERT INTO unfinished VALUES (?1, ?2) ON CONFLICT DO UPDATE SET taken = taken + ?2"
_FINISH: Final = "UPDATE unfinished SET taken = taken - 1 WHERE owner = ? AND taken > 0 RETURNING taken"
_TAKEN: Final = "SELECT unfinished.owner, number, taken FROM unfinished JOIN owners ON id = owner WHERE taken > 0"


class DurableQueue:
    """A FIFO queue in the folder at `path`, with the methods of `queue.Queue`. Order holds across processes.

    path        made if there is none, with the folders above it; `~` is understood. A folder of iodict's DurableQueue is
                taken over.
    maxsize     `put` waits or raises `queue.Full` at so many items; 0 for no limit. It holds for this object.
    serializer  "pickle" takes any picklable object: open only folders that nobody else can write to, because loading a
                pickle runs what it says. "json" takes what JSON holds and never unpickles. A queue keeps its first one.
    sync        what a power cut may cost: "none" (the last commits), "group" or "each" (nothing)
    ack_on      when an item that a thread got is done with: "next_get" (at its next `get`, `task_done`, its end or
                `close`), or "task_done" only, for threads that get several or hand them to others
    lock, semaphore
                accepted for programs written for iodict, as factories or instances, and not needed: kernel locks do it

    Raises NotAQueue, FormatError for another serializer, NotWritable and other StorageErrors. Not promised: that a killed
    process's items come back in less than a tenth of a second.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        lock: Any = None,
        semaphore: Any = None,
        *,
        maxsize: int = 0,
        serializer: items.Serializer = "pickle",
        sync: Sync | None = None,
        ack_on: Literal["next_get", "task_done"] = "next_get",
    ) -> None:
        if serializer not in items.SERIALIZERS:
            raise ValueError(f"serializer must be one of {', '.join(items.SERIALIZERS)}, not {serializer!r}")
        if ack_on not in ("next_get", "task_done"):
            raise ValueError(f"ack_on must be next_get or task_done, not {ack_on!r}")
        self.path = os.path.abspath(os.path.expanduser(path))
        self.lock, self.semaphore = lock, semaphore
        self.serializer: items.Serializer = serializer
        self._implicit = ack_on == "next_get"
        self._options = {"maxsize": maxsize, "serializer": serializer, "sync": sync, "ack_on": ack_on}
        with errors.typed_os_errors("make the queue in", self.path):
            os.makedirs(self.path, exist_ok=True)
        if os.path.exists(os.path.join(self.path, "pistributer.json")):
            raise errors.NotAQueue(
                f"{self.path!r} is a queue of files, not a DurableQueue", hint="open it with open_queue", path=self.path
            )
        #: The queue of the sqlite driver that holds the items.
        self.rows = SqliteQueue(os.path.join(self.path, "queue.db"), sync=sync)
        try:
            self._prepare()
            self.maxsize = maxsize
        except BaseException:
            self.rows.close()
            raise
        self._shutdowns = self.rows._bell.counter(_SHUTDOWNS)
        self._hand = Hand(self.rows, self._implicit)
        # An orderly end of the program says that what was got is done.
        self._close = weakref.finalize(self, _close, self.rows, self._hand, self._implicit)

    def _prepare(self) -> None:
        with self.rows._database.transaction() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            found = connection.execute("SELECT serializer FROM durable").fetchone()
            if found is None:
                connection.execute("INSERT INTO durable VALUES (?)", (self.serializer,))
        if found is not None and found[0] != self.serializer:
            raise errors.FormatError(
                f"the queue in {self.path!r} was made with serializer={found[0]!r}",
                hint=f"open it so, or empty it first{'; its items are unpickled then' if found[0] == 'pickle' else ''}",
                path=self.path,
            )
        durable_import.take_over(self.path, self.rows, self.serializer, items.wrap)

    # -- putting

    @property
    def maxsize(self) -> int:
        """The limit of this object, 0 for none. It may be changed at any time."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._maxsize = self._options["maxsize"] = maxsize
        self.rows.set_max_rows(maxsize if maxsize > 0 else None)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add `item` at the back: on disk when this returns.

        On a full queue: wait for room, at most `timeout` seconds, then raise QueueFull (which is a `queue.Full`). Raises
        QueueShutDown after `shutdown`, RowError for an item that the serializer can not write; ValueError for a negative
        timeout.
        """
        row = items.encode(item, self.serializer)
        deadline = _deadline(block, timeout)
        while True:
            self._refuse_if_shut_down()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self.rows.put(row, block=block, timeout=_PATIENCE if left is None else min(_PATIENCE, left))
            except errors.QueueFull:
                if not block or (left is not None and left <= _PATIENCE):
                    raise
            else:
                return

    def put_nowait(self, item: Any) -> None:
        """`put` without waiting: QueueFull if there is no room."""
        self.put(item, block=False)

    def put_many(self, values: Iterable[Any]) -> int:
        """Add the values in order, a thousand at a time in one transaction each, and return how many there were."""
        self._refuse_if_shut_down()
        return self.rows.put_many(items.encode(value, self.serializer) for value in values)

    # -- getting

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; wait for one at most `timeout` seconds, then raise `queue.Empty`.

        Raises QueueShutDown if the queue was shut down and is empty; RowError for an item that can not be unpickled here,
        which goes to the dead letters, so that the next `get` goes on.
        """
        deadline = _deadline(block, timeout)
        who = threading.current_thread()
        while (found := self.claim(who)) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if not block or not self.wait(left):
                raise queue.Empty
        return self.hand_over(*found, who)

    def claim(self, who: Owner) -> tuple[Item, Any] | None:
        """A row and its item for `who`, a thread or a task, and what it had is done with; None if there is none.

        Raises what `get` raises. For queues/asynchronous.py, which waits in its own way.
        """
        done = self._hand.give_up(who) if self._implicit else []
        try:
            claimed = self.rows.exchange(done, _count_taken)
        except BaseException:
            self._hand.take_back(done, who)
            raise
        if claimed:
            return claimed[0], self.decode(claimed[0])
        if self.is_shutdown:
            raise errors.QueueShutDown(f"{self.path!r} was shut down and is empty")
        return None

    def hand_over(self, row: Item, item: Any, who: Owner) -> Any:
        """The item of a claimed row, in the hand of `who` from now on."""
        self._hand.take(row, who)
        return item

    def get_nowait(self) -> Any:
        """`get` without waiting: `queue.Empty` if there is nothing."""
        return self.get(block=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until there may be an item or the queue is shut down; False after `timeout` seconds."""
        return wait_until(
            lambda: self.is_shutdown or self.rows.may_have_rows(), partial(sleep_for_any, [self.rows]), timeout
        )

    def decode(self, item: Item) -> Any:
        """What was put, for a row of this queue. One that can not be read goes to the dead letters: RowError."""
        try:
            return items.decode(item.value, self.serializer)
        except Exception as error:  # unpickling runs whatever the item's class says
            self.rows.bury(item, error=f"{type(error).__name__}: {error}")
            raise errors.RowError(
                f"item {item.id} of {self.path!r} can not be unpickled: {type(error).__name__}: {error}",
                hint=f"it is kept: `pistributer queue peek {self.rows.url} --state dead`",
                id=item.id,
            ) from error

    # -- finishing

    def task_done(self) -> None:
        """Say that an item that was got is done with: this thread's oldest, else one of this object, else any.

        ValueError if it is called more often than items were got.
        """
        self.finish(threading.current_thread())

    def finish(self, who: Owner) -> None:
        """`task_done` by `who`, a thread or a task."""
        self.rows._require_open()
        item = self._hand.oldest(who)
        if item is not None:
            self._acknowledge(item, who)
        elif not self._finish_one(who):
            raise ValueError("task_done() called too many times")

    def _acknowledge(self, item: Item, who: Owner) -> None:
        try:
            self.rows.ack(item)
        except errors.StorageError:
            self._hand.take_back([item], who)
            raise

    def _finish_one(self, who: Owner) -> bool:
        """Count down one that was got and acknowledged before: this object's, else that of somebody who lives."""
        database, owners = self.rows._database, self.rows._owners
        if database.write(_FINISH, (owners.id,)):
            return True
        item = self._hand.some()
        if item is not None:
            self._acknowledge(item, who)
            return True
        return any(database.write(_FINISH, (owner,)) for owner in self._taken())

    def join(self) -> None:
        """Wait until every item that was put has been got and finished with `task_done`, by whomever.

        What a process that has ended had got counts as finished; what it held when it was killed comes again.
        """
        while self.unfinished_tasks:
            time.sleep(_LOOK)

    @property
    def unfinished_tasks(self) -> int:
        """Items that wait, are held, or were got by a living process that has not called `task_done` for them."""
        stats = self.rows.stats()
        return stats.ready + stats.claimed + sum(self._taken().values())

    def _taken(self) -> dict[int, int]:
        found = self.rows._database.read(_TAKEN)
        living = self.rows._owners.living([(owner, number) for owner, number, _ in found])
        return {owner: taken for owner, _, taken in found if owner in living}

    # -- looking

    def qsize(self) -> int:
        """How many items wait, at this moment."""
        return self.rows.stats().ready

    def empty(self) -> bool:
        """Whether no item waits, at this moment."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether so many items wait as `maxsize` allows, at this moment."""
        return 0 < self._maxsize <= self.qsize()

    def clear(self) -> int:
        """Delete the items that wait; return how many."""
        return self.rows.purge()

    # -- ending

    @property
    def is_shutdown(self) -> bool:
        """Whether somebody has called `shutdown` since this object opened the queue."""
        self.rows._require_open()
        return self.rows._bell.counter(_SHUTDOWNS) != self._shutdowns

    def shutdown(self, immediate: bool = False) -> None:
        """Have `put` raise QueueShutDown from now on, and `get` too as soon as the queue is empty.

        It holds for everybody who has the queue open at this moment, in any process, and for nobody who opens it later.
        `immediate` deletes the items that wait.
        """
        with self.rows._database.transaction():
            if not self.is_shutdown:
                self.rows._bell.count_up(_SHUTDOWNS)
        if immediate:
            self.clear()
        self.rows._bell.ring_all()

    def _refuse_if_shut_down(self) -> None:
        if self.is_shutdown:
            raise errors.QueueShutDown(f"{self.path!r} was shut down", hint="open it again to go on")

    def close(self) -> None:
        """Let go of the files; no item is deleted. What this object got counts as done, unless `ack_on="task_done"`."""
        self._close()

    def __enter__(self) -> DurableQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DurableQueue {self.path}{' closed' if self.rows.closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.path, self._options))


def _close(owner: SqliteQueue, hand: Hand, implicit: bool) -> None:
    try:
        if implicit:
            acknowledge(owner, weakref.ref(hand))
    finally:
        owner.close()


def _reopen(path: str, options: dict[str, Any]) -> DurableQueue:
    return DurableQueue(path, **options)


def _count_taken(connection: Connection, owner: int, count: int) -> None:
    connection.execute(_TAKE, (owner, count))


def _deadline(block: bool, timeout: float | None) -> float | None:
    if block and timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return None if timeout is None else time.monotonic() + timeout
