"""The memory driver: the contract without a disk, for tests and for pipelines inside one process.

`memory:` is a queue of its own; objects opened as `memory:NAME` share their rows for as long as the process lives. Rows
are encoded at `put` and decoded at `claim`, like those of the jsonl driver, so that what works here works there.

One lock per queue, held for microseconds. Nothing here survives the process, and a forked child starts with no rows:
those it inherited are its parent's to deliver.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from .. import errors
from ..storage import forking
from ..storage.durability import Sync
from .contract import LOOK_AROUND, MAX_ROW_BYTES, Item, Queue, Row, Source, State, Stats
from .memory_store import Entry, Store
from .refusals import check_count, check_length, claim_lost, queue_closed, queue_full
from .rows import decode_json, encode_json
from .sources import BatchedSource, Pair, check_source_name, source_busy

_PUT_BATCH = 1024
_SCANNED: tuple[State, ...] = ("ready", "claimed", "delayed", "dead")


#: Stores of `memory:NAME`. They stay, as a file would.
_named: dict[str, Store] = {}
#: Stores of `memory:`, so that a pickle can find its way back within the process.
_private: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()


def _find_store(name: str, create: bool) -> Store:
    if not name:
        store = Store()
        _private[id(store)] = store
        return store
    if name not in _named and not create:
        raise errors.FolderMissing(f"there is no queue memory:{name} in this process", hint="check the name")
    return _named.setdefault(name, Store())


class MemoryQueue(Queue):
    """A queue in this process's memory. Docstrings of the methods are inherited from the contract.

    `sync` is accepted and means nothing here.
    """

    driver = "memory"

    def __init__(
        self,
        path: str = "",
        *,
        create: bool = True,
        sync: Sync | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        max_row_bytes: int = MAX_ROW_BYTES,
        retention: float | None = None,
        _store: Store | None = None,
    ) -> None:
        self._name = path
        self.url = f"memory:{path}"
        self._options = {
            "max_rows": max_rows, "max_bytes": max_bytes, "max_row_bytes": max_row_bytes, "retention": retention,
        }  # fmt: skip
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._max_row_bytes = max_row_bytes
        self._retention = retention
        self._store = _store or _find_store(path, create)
        self._closed = False
        with self._store.lock:
            self._owner = next(self._store.numbers)
            self._store.owners[self._owner] = self

    # -- putting

    def put(self, value: Any, *, delay: float = 0.0, block: bool = True, timeout: float | None = None) -> None:
        self.put_rows([self.encode(value)], delay, block, timeout)

    def put_many(self, values: Iterable[Any], *, block: bool = True, timeout: float | None = None) -> int:
        values, stored = iter(values), 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while batch := list(islice(values, _PUT_BATCH)):
            rows = [self.encode(value) for value in batch]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self.put_rows(rows, 0.0, block, left)
            except errors.QueueFull as error:
                error.stored += stored
                raise
            stored += len(rows)
        return stored

    def encode(self, value: Any) -> bytes:
        """The row of a value, without a newline."""
        row = encode_json(value)[:-1]
        check_length(row, self._max_row_bytes)
        return row

    def put_rows(
        self,
        rows: list[bytes],
        delay: float,
        block: bool,
        timeout: float | None,
        stored: Callable[[int], object] = lambda index: None,
    ) -> None:
        """Add rows; `stored` is called with the number of each in `rows`, in one step with its addition."""
        due = self._store.now() + delay if delay > 0.0 else None
        deadline = None if timeout is None else time.monotonic() + timeout
        store = self._store
        with store.lock:
            for index, row in enumerate(rows):
                self._wait_for_room(len(row) + 1, index, block, deadline)
                store.add(Entry(str(next(store.numbers)), row), due)
                stored(index)

    def _wait_for_room(self, size: int, stored: int, block: bool, deadline: float | None) -> None:
        self._require_open()
        while not self._has_room(size):
            left = None if deadline is None else deadline - time.monotonic()
            if not block or (left is not None and left <= 0):
                raise queue_full(self.url, self._max_rows, self._max_bytes, stored)
            self._store.more_room.wait(left)
            self._require_open()

    def _has_room(self, size: int) -> bool:
        """A row longer than the whole limit fits an empty queue."""
        rows = self._store.waiting_rows()
        if self._max_rows is not None and rows >= self._max_rows:
            return False
        return self._max_bytes is None or not rows or self._store.waiting_bytes + size <= self._max_bytes

    def source(self, name: str) -> Source:
        self._require_open()
        return MemorySource(self, check_source_name(name), self._store)

    def sources(self) -> dict[str, Any]:
        with self._store.lock:
            self._require_open()
            return {name: decode_json(state) for name, state in sorted(self._store.checkpoints.items())}

    # -- claiming

    def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        check_count(n)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._store.lock:
            self._require_open()
            while not (items := self._take(n, start)):
                if not self._sleep(deadline):
                    return []
            return items

    def _take(self, n: int, start: bool) -> list[Item]:
        held = self._store.claimed.setdefault(self._owner, {})
        items = []
        for entry in self._store.take(n):
            entry.attempt += start
            token = next(self._store.numbers)
            held[token] = entry
            items.append(Item(entry.id, decode_json(entry.raw), entry.raw, entry.attempt, (self._owner, token)))
        return items

    def wait(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._store.lock:
            self._require_open()
            while not self._store.may_have_rows():
                if not self._sleep(deadline):
                    return False
            # Nothing was taken, so another sleeper may have it.
            self._store.more_rows.notify()
            return True

    def _sleep(self, deadline: float | None) -> bool:
        """Wait for a ring or a due time, with the lock let go; False when the deadline has passed."""
        left = LOOK_AROUND if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        self._store.more_rows.wait(min(left, LOOK_AROUND, self._store.seconds_to_next_due()))
        self._require_open()
        return True

    def wake(self) -> None:
        with self._store.lock:
            self._require_open()
            self._store.more_rows.notify_all()

    def start(self, item: Item) -> None:
        with self._store.lock:
            self._require_open()
            entry = self._held(item)
            if entry is None:
                raise claim_lost([item])
            entry.attempt += 1
            item.attempt = entry.attempt

    # -- settling

    def ack(self, items: Item | Iterable[Item]) -> None:
        self._settle(items, self._retain)

    def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        due = self._store.now() + delay if delay > 0.0 else None

        def give_back(entry: Entry) -> None:
            entry.error = error
            entry.attempt = max(0, entry.attempt - (not counted))
            self._store.add(entry, due)

        self._settle(items, give_back)

    def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        def bury(entry: Entry) -> None:
            entry.error, entry.at = error, self._store.now()
            self._store.dead[entry.id] = entry

        self._settle(items, bury)

    def _settle(self, items: Item | Iterable[Item], apply: Callable[[Entry], None]) -> None:
        given = [items] if isinstance(items, Item) else list(items)
        lost = []
        with self._store.lock:
            self._require_open()
            for item in given:
                entry = self._held(item)
                if entry is None:
                    lost.append(item)
                else:
                    del self._store.claimed[self._owner][item.token[1]]
                    apply(entry)
        if lost:
            raise claim_lost(lost)

    def _held(self, item: Item) -> Entry | None:
        token = item.token
        if not isinstance(token, tuple) or token[0] != self._owner:
            return None
        return self._store.claimed.get(self._owner, {}).get(token[1])

    def _retain(self, entry: Entry) -> None:
        if self._retention is not None:
            entry.at = self._store.now()
            self._store.retained.append(entry)
            self._expire()

    def _expire(self) -> None:
        retained = self._store.retained
        while (
            self._retention is not None and retained and (retained[0].at or 0.0) < self._store.now() - self._retention
        ):
            retained.popleft()

    # -- dead letters

    def requeue_dead(self, ids: Iterable[str] | None = None) -> int:
        def requeue(entry: Entry) -> None:
            entry.attempt, entry.error, entry.at = 0, None, None
            self._store.add(entry, None)

        return self._take_dead(ids, requeue)

    def drop_dead(self, ids: Iterable[str] | None = None) -> int:
        return self._take_dead(ids, lambda entry: None)

    def _take_dead(self, ids: Iterable[str] | None, apply: Callable[[Entry], None]) -> int:
        with self._store.lock:
            self._require_open()
            dead = self._store.dead
            taken = [dead.pop(id) for id in list(dead if ids is None else dict.fromkeys(ids)) if id in dead]
            for entry in taken:
                apply(entry)
            return len(taken)

    # -- looking and tidying

    def stats(self) -> Stats:
        store = self._store
        with store.lock:
            self._require_open()
            store.rescue()
            now = store.now()
            later = [entry.size for due, _, entry in store.delayed if due > now]
            return Stats(
                ready=store.waiting_rows() - len(later),
                claimed=sum(map(len, store.claimed.values())),
                delayed=len(later),
                dead=len(store.dead),
                quarantined=0,
                ready_bytes=store.waiting_bytes - sum(later),
            )

    def scan(self, *states: State) -> Iterator[Row]:
        self._require_open()
        for state in states or _SCANNED:
            with self._store.lock:
                rows = [entry.as_row(state) for entry in self._in_state(state)]
            yield from rows

    def _in_state(self, state: State) -> list[Entry]:
        store, now = self._store, self._store.now()
        store.rescue()
        self._expire()
        delayed = [entry for _, _, entry in sorted(store.delayed, key=lambda row: row[:2])]
        return {
            "ready": lambda: [*store.given_back, *(row for row in delayed if (row.due or 0.0) <= now), *store.ready],
            "claimed": lambda: [entry for held in store.claimed.values() for entry in held.values()],
            "delayed": lambda: [row for row in delayed if (row.due or 0.0) > now],
            "dead": lambda: list(store.dead.values()),
            "retained": lambda: list(store.retained),
        }[state]()

    def purge(self) -> int:
        with self._store.lock:
            self._require_open()
            self._store.rescue()
            return self._store.purge()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._store.lock:
            if not self._closed:
                self._closed = True
                self._store.give_back(self._owner)
                for source in [it for it in self._store.sources.values() if it.queue is self]:
                    source.let_go()
                # Threads that sleep in this object's calls wake to find it closed.
                self._store.more_room.notify_all()

    def _require_open(self) -> None:
        if self._closed:
            raise queue_closed(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (os.getpid(), self._name, id(self._store), self._options))


class MemorySource(BatchedSource):
    """A source of a memory queue, which lets it go when it is closed or dropped."""

    def __init__(self, queue: MemoryQueue, name: str, store: Store) -> None:
        super().__init__(name)
        self.queue = queue
        self._rows = store
        with store.lock:
            if name in store.sources:
                raise source_busy(name)
            store.sources[name] = self
            self.checkpoint = decode_json(store.checkpoints.setdefault(name, b"null"))
        forking.register(self)

    def _store(self, batch: list[Pair], block: bool, timeout: float | None) -> None:
        rows = [self.queue.encode(value) for value, _ in batch]
        checkpoints = [encode_json(checkpoint) for _, checkpoint in batch]

        def stored(index: int) -> None:
            self._rows.checkpoints[self.name] = checkpoints[index]

        self.queue.put_rows(rows, 0.0, block, timeout, stored)

    def _save(self, checkpoint: Any) -> None:
        with self._rows.lock:
            self._rows.checkpoints[self.name] = encode_json(checkpoint)

    def close(self) -> None:
        with self._rows.lock:
            self.let_go()

    def let_go(self) -> None:
        """Close, with the store's lock held."""
        if not self._closed:
            self._closed = True
            self._rows.sources.pop(self.name, None)


def _reopen(pid: int, name: str, store: int, options: dict[str, Any]) -> MemoryQueue:
    if pid != os.getpid():
        raise errors.QueueError(
            f"memory:{name} lives in process {pid} and can not be opened in {os.getpid()}",
            hint="use a folder (jsonl) or sqlite: to share a queue between processes",
        )
    return MemoryQueue(name, _store=None if name else _private[store], **options)
