"""The file drivers, `jsonl` and `txt`: a folder of shards (queues/shard.py), claimed through journals (queues/journal.py).

Each queue object that puts owns one shard, each that claims owns one journal, and the kernel frees both when its process
dies. Where things lie is in queues/folder.py; what the bytes mean in docs/format.md.

Lock order, so that nothing waits in a circle: the object's claim lock, its put lock, a journal's lock, a cursor's or the
delayed rows' lock, the folder's. Other consumers' journals are only ever tried, never waited for.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from .. import errors
from ..storage import forking
from ..storage.doorbell import Doorbell
from ..storage.durability import GroupSync, Sync
from ..storage.locks import Flock, is_held
from .appender import Appender
from .claiming import DELAYED_CHANGED, SHARDS_CHANGED, Claimer
from .contract import MAX_ROW_BYTES, Item, Queue, Row, Source, State, Stats, wait_until
from .delayed import DelayedRows
from .envelope import Envelope, wrap
from .folder import Folder
from .items import FileItem
from .looking import Lookout
from .refusals import check_count, check_length, claim_lost, queue_closed
from .room import Room
from .setaside import DeadLetters, Quarantine
from .shard import take_shard
from .shard_sources import FileSource, read_sources
from .waiting import sleep_for_any

#: Rows that `put_many` encodes and appends at a time.
_PUT_BATCH = 1024
_FILE_ITEM = frozenset({FileItem})
_SCANNED: tuple[State, ...] = ("ready", "claimed", "delayed", "dead")


class ShardedQueue(Queue):
    """What `jsonl` and `txt` share. Docstrings of the methods are inherited from the contract."""

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        sync: Sync | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        max_row_bytes: int = MAX_ROW_BYTES,
        retention: float | None = None,
        segment_bytes: int | None = None,
        objects: bool = False,
    ) -> None:
        self._options = {
            "sync": sync, "max_rows": max_rows, "max_bytes": max_bytes, "max_row_bytes": max_row_bytes,
            "retention": retention, "segment_bytes": segment_bytes, "objects": objects,
        }  # fmt: skip
        self._sync: Sync = sync or "none"
        durable = self._sync != "none"
        self._folder = folder = Folder(path, driver=self.driver, create=create, durable=durable, objects=objects)
        self.url = f"{self.driver}:{folder.path}"
        self._typed_errors = errors.typed_os_errors("work on the queue", folder.path)
        self._quarantine = Quarantine(folder)
        self._dead = DeadLetters(folder, sync=durable)
        self._delayed = DelayedRows(folder, self._quarantine, sync=durable, retention=retention)
        self._bell = Doorbell(folder.path)
        self._page = self._bell.page
        self._group = GroupSync() if self._sync == "group" else None
        self._claimer = Claimer(
            folder, self._delayed, self._quarantine, self._bell,
            sync=self._sync, group=self._group, retention=retention,
        )  # fmt: skip
        self._lookout = Lookout(folder, self._delayed, self._dead, self._quarantine)
        self._room = Room(folder, self._delayed, max_rows, max_bytes) if max_rows or max_bytes else None
        self._max_row_bytes = max_row_bytes
        self._segment_bytes = segment_bytes
        self._encode = folder.codec.encode
        # There is more to do than to write where rows are counted or synced.
        self._appender = self._make_appender(
            self._take_shard, quick_limit=-1 if self._room or durable else max_row_bytes + 1
        )
        self._sources: weakref.WeakSet[FileSource] = weakref.WeakSet()
        self._claim_lock = threading.Lock()
        self._closed = False
        forking.register(self)

    # -- putting

    def put(self, value: Any, *, delay: float = 0.0, block: bool = True, timeout: float | None = None) -> None:
        # The hot path of the whole project: one encode, one write, one look at the bell.
        row = self._encode(value)
        if delay > 0.0 or not self._appender.quick(row):
            self._put_with_care(row, 1, delay, block, timeout)

    def put_many(self, values: Iterable[Any], *, block: bool = True, timeout: float | None = None) -> int:
        waiting, stored = iter(values), 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rows, count = self._folder.codec.encode_many(islice(waiting, _PUT_BATCH))
            if not count:
                return stored
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._put_with_care(rows, count, 0.0, block, left)
            except (errors.DiskFull, errors.QueueFull) as error:
                error.stored += stored
                raise
            stored += count

    def _put_with_care(self, rows: bytes, count: int, delay: float, block: bool, timeout: float | None) -> None:
        """Check the lengths of the `count` rows that stand end to end in `rows`, wait for room, and store them."""
        if len(rows) - 1 > self._max_row_bytes:
            check_length(max((row[:-1] for row in _split(rows)), key=len), self._max_row_bytes)
        self._require_open()
        store = self._appender.append
        if delay > 0.0:
            due = time.time() + delay
            store = lambda rows, count: self._add_delayed([self._fresh(row, due) for row in _split(rows)])  # noqa: E731
        if self._room is None:
            store(rows, count)
        else:
            self._room.store(_split(rows), store, block=block, timeout=timeout)

    def _take_shard(self) -> tuple[Flock, int]:
        self._require_open()
        return take_shard(self._folder)

    def _make_appender(
        self,
        take: Callable[[], tuple[Flock, int]],
        before_roll: Callable[[], object] | None = None,
        *,
        quick_limit: int = -1,
    ) -> Appender:
        return Appender(
            self._folder, self._quarantine, self._bell, take,
            sync=self._sync, group=self._group, segment_bytes=self._segment_bytes, quick_limit=quick_limit,
            before_roll=before_roll,
        )  # fmt: skip

    def source(self, name: str) -> Source:
        self._require_open()
        with self._typed_errors:
            source = FileSource(
                self._folder, name, self._room, self._max_row_bytes, self._make_appender,
                durable=self._sync != "none",
            )  # fmt: skip
        self._sources.add(source)
        return source

    def sources(self) -> dict[str, Any]:
        self._require_open()
        with self._typed_errors:
            return read_sources(self._folder)

    def _fresh(self, row: bytes, due: float) -> Envelope:
        """An envelope for a row that has none yet, with an id of its own."""
        return Envelope(id=f"delayed-{os.urandom(8).hex()}", attempt=0, raw=row[:-1], due=due)

    def _add_delayed(self, envelopes: list[Envelope]) -> None:
        self._delayed.add(envelopes)
        with self._delayed.lock:
            self._bell.count_up(DELAYED_CHANGED)
        if self._page[0]:
            self._bell.ring()

    # -- claiming

    def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        check_count(n)
        items = self._claim_now(n, start)
        if items or timeout == 0.0:
            return items
        deadline = None if timeout is None else time.monotonic() + timeout
        while not items:
            left = None if deadline is None else deadline - time.monotonic()
            if not self.wait(left if left is None else max(0.0, left)):
                break
            items = self._claim_now(n, start)
        return items

    def _claim_now(self, n: int, start: bool) -> list[Item]:
        with self._claim_lock, self._typed_errors:
            self._require_open()
            return self._claimer.claim(n, start=start)  # type: ignore[return-value]

    def start(self, item: Item) -> None:
        with self._claim_lock:
            if not isinstance(item, FileItem) or not self._claimer.start(item):
                raise claim_lost([item])

    def ack(self, items: Item | Iterable[Item]) -> None:
        self._settle(items, None)

    def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        due = time.time() + delay if delay > 0.0 else None
        self._settle(items, lambda envelopes: self._give_back(envelopes, due, counted), error=error)

    def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        self._settle(items, self._dead.add, error=error, state="dead", at=time.time())

    def _settle(
        self, items: Item | Iterable[Item], store: Callable[[list[Envelope]], None] | None, **fields: Any
    ) -> None:
        """Store what must outlive the claim, then forget the claim. Killed between the two: stored and delivered again."""
        given = [items] if isinstance(items, Item) else list(items)
        if not _FILE_ITEM.issuperset(map(type, given)):
            raise claim_lost(given)  # items of another driver
        with self._claim_lock, self._typed_errors:
            held, lost = self._claimer.split(given)  # type: ignore[arg-type]
            if held and store is not None:
                store([Envelope(item.id, item.attempt, item.raw, **fields) for item in held])
            if held:
                self._claimer.settle(held)
        if lost:
            raise claim_lost(lost)

    def _give_back(self, envelopes: list[Envelope], due: float | None, counted: bool) -> None:
        """To the back of this object's own shard, or to the delayed rows. Limits do not apply: the rows were in already."""
        for envelope in envelopes:
            envelope.attempt = max(0, envelope.attempt - (not counted))
        if due is None:
            self._appender.append(b"".join(map(self._wrap, envelopes)), len(envelopes))
        else:
            for envelope in envelopes:
                envelope.due = due
            self._add_delayed(envelopes)

    def _wrap(self, envelope: Envelope) -> bytes:
        return wrap(envelope, self._folder.codec)

    def wait(self, timeout: float | None = None) -> bool:
        return wait_until(self.may_have_rows, partial(sleep_for_any, [self]), timeout)

    def may_have_rows(self) -> bool:
        """For queues/waiting.py, as are those up to `ring`."""
        with self._claim_lock, self._typed_errors:
            self._require_open()
            return self._claimer.may_have_rows()

    def arm(self) -> Doorbell:
        with self._claim_lock, self._typed_errors:
            self._require_open()
            self._claimer.tidy()
            self._bell.arm(self._claimer.journal().number)
            return self._bell

    def due_in(self) -> float:
        return self._claimer.next_due - time.time()

    def show_unbegun(self, held: bool) -> None:
        self._bell.hold(self._claimer.journal().number, os.getpid() if held else 0)

    def unbegun_elsewhere(self) -> list[int]:
        me = os.getpid()
        found = [(number, pid) for number, pid in self._bell.holders() if pid != me]
        return [pid for number, pid in found if is_held(self._folder.journal_lock(number))]

    def is_awaited(self) -> bool:
        return self._bell.has_sleepers()

    def ring(self) -> None:
        if self._page[0]:
            self._bell.ring()

    def wake(self) -> None:
        self._require_open()
        with self._typed_errors:
            self._count_change()
            self._bell.ring_all()

    def _count_change(self) -> None:
        """Whoever claims or wakes next looks for new shards and dead owners."""
        with self._folder.lock:
            self._bell.count_up(SHARDS_CHANGED)

    # -- dead letters

    def requeue_dead(self, ids: Iterable[str] | None = None) -> int:
        def put_back(envelope: Envelope) -> None:
            self._appender.append(self._wrap(Envelope(envelope.id, 0, envelope.raw)), 1)

        return self._dead.settle(None if ids is None else set(ids), "requeued", put_back)

    def drop_dead(self, ids: Iterable[str] | None = None) -> int:
        return self._dead.settle(None if ids is None else set(ids), "dropped", lambda envelope: None)

    # -- looking and tidying

    def stats(self) -> Stats:
        self._require_open()
        with self._typed_errors:
            return self._lookout.stats()

    def scan(self, *states: State) -> Iterator[Row]:
        self._require_open()
        return self._lookout.scan(states or _SCANNED)

    def purge(self) -> int:
        with self._claim_lock, self._typed_errors:
            self._require_open()
            return self._claimer.purge() + self._delayed.purge()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        for source in list(self._sources):
            source.close()
        with self._claim_lock, self._appender:
            if self._closed:
                return
            self._closed = True
            try:
                if self._group is not None:
                    self._group.close()
            finally:
                gave_back = self._claimer.release()
                self._appender.drop()
        if gave_back:  # nobody needs to wait until he looks around
            self._count_change()
            self._bell.ring()
        self._bell.close()

    def _require_open(self) -> None:
        if self._closed:
            raise queue_closed(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (type(self), self._folder.path, self._options))

    def _after_fork(self) -> None:
        """In a forked child: own nothing, hold nothing, and use locks that no vanished thread holds."""
        self._claim_lock = threading.Lock()
        self._appender.reset_turn()
        self._appender.forget()
        self._claimer.forget()


def _reopen(kind: type[ShardedQueue], path: str, options: dict[str, Any]) -> ShardedQueue:
    return kind(path, **options)


def _split(rows: bytes) -> list[bytes]:
    """Rows that stand end to end, one by one, each with its newline."""
    return [row + b"\n" for row in rows[:-1].split(b"\n")]


class JsonlQueue(ShardedQueue):
    """A folder of JSON lines."""

    driver = "jsonl"


class TxtQueue(ShardedQueue):
    """A folder of text lines."""

    driver = "txt"
