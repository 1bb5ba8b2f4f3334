"""`FlushQueue`: a mix-in that moves what waits in a queue in memory to disk, and back.

    class NewQueue(queue.Queue, FlushQueue): ...

`flush` writes first and empties the memory then; `ingest` fills the memory first and deletes from disk then. So an item is
in memory or on disk at every moment, and for an instant in both. Killed in that instant of `flush`: the memory is gone, the
disk has it. Of `ingest`: the disk still has it; if somebody took it out of the memory meanwhile, it comes twice, and the
next `ingest` names it in `doubles`.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from typing import Any

from .. import errors
from .contract import Item
from .durable import DurableQueue
from .durable_items import Serializer, encode
from .rows import encode_json

log = logging.getLogger("pistributer.queues")

#: Items that `ingest` reads at a time.
_BATCH = 256
#: Items that `flush` stores at a time, all or none of them; `put_many` does so with this many.
_TRANSACTION = 1024


class FlushQueue:
    """Adds `flush` and `ingest` to a queue class of the standard library, or any with its methods, asyncio's too.

    The class or its objects have these attributes:

    path        the folder to flush to: a `DurableQueue`, made by the first flush
    lock, semaphore
                accepted for programs written for iodict, and not needed
    serializer  "pickle" or "json", as for DurableQueue

    Not promised: what a `multiprocessing.Queue` has put and not yet sent is not seen by `flush`.
    """

    path: str | os.PathLike[str]
    lock: Any = None
    semaphore: Any = None
    serializer: Serializer = "pickle"
    #: Items of the last `ingest` that an earlier one, which was killed, may have handed out already.
    doubles: tuple[Any, ...] = ()

    def __init__(self, path: str | os.PathLike[str], lock: Any = None, semaphore: Any = None) -> None:
        self.path = path
        self.lock = lock
        self.semaphore = semaphore

    def flush(self) -> None:
        """Move every item that waits in memory to the back of the queue on disk, in order; durable when this returns.

        Raises RowError if some items can not be written: they stay in memory, the others are on disk. On DiskFull and
        other StorageErrors, what is not on disk is in memory.
        """
        with self._opened() as disk:
            failure = (_flush_guarded if _is_guarded(self) else _flush_any)(self, disk)
        if failure is not None:
            raise failure

    def ingest(self) -> None:
        """Move the items on disk back into memory, oldest first, as many as it has room for; the rest stays on disk.

        Does nothing if there is no folder. An empty one stays, because lock files must not be deleted under others. Raises
        RowError if some items can not be read: they are kept among the dead letters on disk, the others are in memory.
        """
        self.doubles = ()
        if not os.path.isdir(os.path.expanduser(self.path)):
            return
        unreadable: list[errors.RowError] = []
        with self._opened() as disk:
            while (room := _room(self)) and (items := disk.rows.claim(min(_BATCH, room))):
                if not self._take_in(disk, items, unreadable):
                    break
        if self.doubles:
            log.warning("these items of %s may have been handed out before: %r", self.path, self.doubles)
        if unreadable:
            raise errors.RowError(
                f"{len(unreadable)} items can not be read; the first: {unreadable[0].message}", hint=unreadable[0].hint
            )

    def _take_in(self, disk: DurableQueue, items: list[Item], unreadable: list[errors.RowError]) -> bool:
        """Put claimed items into memory, then forget them on disk. False if there was no room for all."""
        taken: list[Item] = []
        try:
            for item in items:
                try:
                    value = disk.decode(item)
                except errors.RowError as error:
                    unreadable.append(error)
                    continue
                self.put_nowait(value)  # type: ignore[attr-defined] # of the class that this is mixed into
                taken.append(item)
                if item.attempt > 1:
                    self.doubles += (value,)
        except _named_in_asyncio("QueueFull", queue.Full):
            return False  # closing gives the rest back, to where it was
        finally:
            disk.rows.ack(taken)
        return True

    def _opened(self) -> DurableQueue:
        return DurableQueue(
            self.path, self.lock, self.semaphore, serializer=self.serializer, sync="each", ack_on="task_done"
        )


def _is_guarded(memory: Any) -> bool:
    """Whether it is a queue.Queue, LifoQueue or PriorityQueue: a list or deque behind a mutex."""
    return isinstance(memory, queue.Queue)


def _flush_guarded(memory: Any, disk: DurableQueue) -> errors.PistributerError | None:
    # Their content is copied as it lies, so that a LifoQueue and a PriorityQueue come back as they were.
    with memory.mutex:
        waiting = list(memory.queue)
        left, failure = _store(disk, waiting)
        memory.queue.clear()
        for item in left:
            memory._put(item)
        memory.unfinished_tasks -= len(waiting) - len(left)
        if not memory.unfinished_tasks:
            memory.all_tasks_done.notify_all()
        memory.not_full.notify_all()
    return failure


def _flush_any(memory: Any, disk: DurableQueue) -> errors.PistributerError | None:
    waiting: list[Any] = []
    left: list[Any] = waiting
    try:
        _drain(memory, waiting)
        left, failure = _store(disk, waiting)
    finally:
        for item in left:
            memory.put_nowait(item)
        for _ in waiting if hasattr(memory, "task_done") else ():
            memory.task_done()  # `put_nowait` counts those that stay once more
    return failure


def _drain(memory: Any, into: list[Any]) -> None:
    try:
        while True:
            into.append(memory.get_nowait())
    except _named_in_asyncio("QueueEmpty", queue.Empty):
        return


def _store(disk: DurableQueue, waiting: list[Any]) -> tuple[list[Any], errors.PistributerError | None]:
    """Put the items on disk. Returns those that are not there, in their order, and why."""
    failure: errors.PistributerError | None = None
    rows: list[tuple[int, Any]] = []
    for place, item in enumerate(waiting):
        try:
            rows.append((place, _encoded(disk, item)))
        except errors.RowError as error:
            failure = failure or error
    stored: set[int] = set()
    try:
        for begin in range(0, len(rows), _TRANSACTION):
            batch = rows[begin : begin + _TRANSACTION]
            disk.rows.put_many(row for _, row in batch)
            stored.update(place for place, _ in batch)
    except errors.StorageError as error:
        failure = error
    return [item for place, item in enumerate(waiting) if place not in stored], failure


def _encoded(disk: DurableQueue, item: Any) -> Any:
    row = encode(item, disk.serializer)
    encode_json(row)  # so that one that is no JSON is known before any is stored
    return row


def _room(memory: Any) -> int:
    maxsize = getattr(memory, "maxsize", 0)
    return max(0, maxsize - memory.qsize()) if maxsize > 0 else _BATCH


def _named_in_asyncio(name: str, ours: type[Exception]) -> tuple[type[Exception], ...]:
    """`queue.Full` and its namesake, without importing asyncio for those who do not use it."""
    asyncio = sys.modules.get("asyncio")
    return (ours,) if asyncio is None else (ours, getattr(asyncio, name))
