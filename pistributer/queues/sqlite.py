"""The sqlite driver: one database in WAL mode, and a folder of kernel locks beside it that says who is alive.

::

    jobs.db, jobs.db-wal, jobs.db-shm   SQLite's own; rows, claims, delayed and dead rows (queues/sqlite_schema.py)
    jobs.db.lock                        kernel lock in front of every write (storage/sqlite_db.py)
    jobs.db.claims/NNNN.lock            held by the queue object that owns claims under number NNNN, until it dies
    jobs.db.claims/bell, NNNN.fifo      who sleeps, and how to wake them (storage/doorbell.py)

Every change is one transaction, so being killed between two steps is SQLite's matter. What a killed process held is
given back by whoever looks around next (queues/sqlite_owners.py).
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from sqlite3 import Connection
from typing import Any

import orjson

from .. import errors
from ..storage import forking
from ..storage.doorbell import Doorbell
from ..storage.durability import Sync
from ..storage.sqlite_db import Database
from . import sqlite_looking as looking
from . import sqlite_schema as sql
from . import sqlite_steps as steps
from .contract import LOOK_AROUND, MAX_ROW_BYTES, Item, Queue, Row, Source, State, Stats, wait_until
from .refusals import check_count, check_length, claim_lost, queue_closed, queue_full
from .rows import JSON, encode_json
from .sqlite_claims import Also, Apply, Claims
from .sqlite_owners import Owners
from .sqlite_sources import SqliteSource
from .waiting import sleep_for_any

#: Rows that `put_many` encodes and stores at a time.
_PUT_BATCH = 1024
#: First and longest pause between two looks for room, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
_SCANNED: tuple[State, ...] = ("ready", "claimed", "delayed", "dead")
#: The doorbell's counter of calls of `wake`; the other one is DurableQueue's.
WAKES = 1

#: Rows with a newline each to the queue, in a transaction.
_Store = Callable[[Connection, list[bytes]], object]


class SqliteQueue(Queue):
    """A queue in a SQLite database. Docstrings of the methods are inherited from the contract.

    `sync`: "none" commits with synchronous=NORMAL (after a power cut the database is whole, the last commits may be
    missing); "group" and "each" commit with FULL.
    """

    driver = "sqlite"

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
    ) -> None:
        self._options = {
            "sync": sync, "max_rows": max_rows, "max_bytes": max_bytes, "max_row_bytes": max_row_bytes,
            "retention": retention,
        }  # fmt: skip
        self._path = path = os.path.abspath(path)
        self.url = f"sqlite:{path}"
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._max_row_bytes = max_row_bytes
        #: Longest row that `put` stores without further ado, with its newline; none on a queue with limits.
        self._plain_limit = -1 if max_rows or max_bytes else max_row_bytes + 1
        self._retention = retention
        self._claim_lock = threading.Lock()
        self._next_look = 0.0
        self._seen_wakes = 0
        self._sources: weakref.WeakSet[SqliteSource] = weakref.WeakSet()
        self._closed = False
        sql.refuse_folder(path)
        self._database = Database(
            path, prepare=partial(sql.prepare, path=path), create=create, durable=sync in ("group", "each")
        )
        try:
            folder = _make_folder(path + ".claims")
            self._owners = Owners(self._database, folder)
            self._claims = Claims(self._database, self._owners, retention)
            self._bell = Doorbell(folder)
            self._look_around()
        except BaseException:
            self._database.close()
            raise
        forking.register(self)

    # -- putting

    def put(self, value: Any, *, delay: float = 0.0, block: bool = True, timeout: float | None = None) -> None:
        row = encode_json(value)
        if delay > 0.0 or len(row) > self._plain_limit:
            self._put_with_care([row[:-1]], delay, block, timeout)
            return
        if self._closed:
            raise queue_closed(self.url)
        self._database.write(sql.PUT, (row[:-1], len(row)))
        self._ring()

    def put_many(self, values: Iterable[Any], *, block: bool = True, timeout: float | None = None) -> int:
        values, stored = iter(values), 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while batch := list(islice(values, _PUT_BATCH)):
            rows = JSON.encode_many(batch)[0].split(b"\n")[:-1]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._put_with_care(rows, 0.0, block, left)
            except (errors.DiskFull, errors.QueueFull) as error:
                error.stored = getattr(error, "stored", 0) + stored
                raise
            stored += len(batch)
        return stored

    def _put_with_care(self, rows: list[bytes], delay: float, block: bool, timeout: float | None) -> None:
        """Check the lengths, wait for room, and store the rows, delayed or not."""
        store: _Store = partial(steps.put_delayed, due=time.time() + delay) if delay > 0.0 else steps.put_at_back
        self._put_rows(rows, store, block, timeout)

    def _put_rows(self, rows: list[bytes], store: _Store, block: bool, timeout: float | None) -> None:
        self._require_open()
        check_length(max(rows, key=len), self._max_row_bytes)
        if self._plain_limit >= 0:
            with self._database.transaction() as connection:
                store(connection, rows)
            self._ring(len(rows))
        else:
            self._put_with_room(rows, store, block, timeout)

    def _put_with_room(self, rows: list[bytes], store: _Store, block: bool, timeout: float | None) -> None:
        """Store as many rows at a time as there is room for, waiting for room in between."""
        deadline = None if timeout is None else time.monotonic() + timeout
        stored, pause = 0, _FIRST_PAUSE
        while True:
            fitting = self._put_fitting(rows[stored:], store)
            stored += fitting
            if stored == len(rows):
                return
            pause = _FIRST_PAUSE if fitting else min(pause * 2, _LONGEST_PAUSE)
            left = _LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
            if not block or left <= 0:
                raise queue_full(self.url, self._max_rows, self._max_bytes, stored)
            time.sleep(min(pause, left))
            self._require_open()

    def _put_fitting(self, rows: list[bytes], store: _Store) -> int:
        # Looked at before the write lock is taken: those who wait must not slow down those who make room.
        with self._database.snapshot() as connection:
            if not self._fitting(connection, rows):
                return 0
        with self._database.transaction() as connection:
            fitting = self._fitting(connection, rows)
            if fitting:
                store(connection, rows[:fitting])
        self._ring(fitting)
        return fitting

    def _fitting(self, connection: Connection, rows: list[bytes]) -> int:
        return steps.fitting(connection, rows, self._max_rows, self._max_bytes)

    def _ring(self, count: int = 1) -> None:
        try:
            if self._bell.page[0]:
                self._bell.ring(count)
        except ValueError:
            if not self._closed:  # closed by another thread meanwhile; what was stored is stored
                raise

    def source(self, name: str) -> Source:
        self._require_open()
        source = SqliteSource(self._database, self._path + ".claims", name, self._put_rows)
        self._sources.add(source)
        return source

    def sources(self) -> dict[str, Any]:
        self._require_open()
        return {name: orjson.loads(checkpoint) for name, checkpoint in self._database.read(sql.SOURCES)}

    # -- claiming

    def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        check_count(n)
        items = self._claim_now(n, int(start))
        if items or timeout == 0.0:
            return items
        deadline = None if timeout is None else time.monotonic() + timeout
        while not items:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self.wait(left):
                break
            items = self._claim_now(n, int(start))
        return items

    def _claim_now(self, n: int, started: int) -> list[Item]:
        with self._claim_lock:
            self._require_open()
            self._look_around()
            # A plain read first: an empty poll must not take the write lock.
            if not self._database.read(sql.MAY_HAVE_ROWS, (time.time(),))[0][0]:
                return []
            return self._claims.claim(n, started)

    def exchange(self, done: list[Item], also: Also) -> list[Item]:
        """For queues/durable.py: acknowledge `done`, do `also`, and claim one row if there is any, in one transaction."""
        with self._claim_lock:
            self._require_open()
            self._look_around()
            if not done and not self._database.read(sql.MAY_HAVE_ROWS, (time.time(),))[0][0]:
                return []
            return self._claims.exchange(done, also)

    def set_max_rows(self, max_rows: int | None) -> None:
        """Change the limit of this object. Those who wait for room look again within 20 ms."""
        self._max_rows = self._options["max_rows"] = max_rows
        self._plain_limit = -1 if max_rows or self._max_bytes else self._max_row_bytes + 1

    def start(self, item: Item) -> None:
        with self._claim_lock:
            self._require_open()
            if not self._claims.start(item):
                raise claim_lost([item])

    def _look_around(self) -> None:
        """Give back what dead owners held, if nobody of this object has looked for LOOK_AROUND seconds."""
        now, wakes = time.monotonic(), self._bell.counter(WAKES)
        if now >= self._next_look or wakes != self._seen_wakes:
            self._next_look, self._seen_wakes = now + LOOK_AROUND, wakes
            self._owners.rescue()

    def wait(self, timeout: float | None = None) -> bool:
        return wait_until(self.may_have_rows, partial(sleep_for_any, [self]), timeout)

    def may_have_rows(self) -> bool:
        """For queues/waiting.py, as are those up to `ring`."""
        with self._claim_lock:
            self._require_open()
            self._look_around()
            return bool(self._database.read(sql.MAY_HAVE_ROWS, (time.time(),))[0][0])

    def arm(self) -> Doorbell:
        with self._claim_lock:
            self._require_open()
            self._owners.take()
            self._bell.arm(self._owners.number)
            return self._bell

    def due_in(self) -> float:
        ((due,),) = self._database.read(sql.NEXT_DUE)
        return math.inf if due is None else due - time.time()

    def show_unbegun(self, held: bool) -> None:
        self._bell.hold(self._owners.number, os.getpid() if held else 0)

    def unbegun_elsewhere(self) -> list[int]:
        me = os.getpid()
        found = [(number, pid) for number, pid in self._bell.holders() if pid != me]
        return [pid for number, pid in found if self._owners.is_alive(number)]

    def is_awaited(self) -> bool:
        return self._bell.has_sleepers()

    def ring(self) -> None:
        self._ring()

    def wake(self) -> None:
        self._require_open()
        with self._database.transaction():  # its lock makes this the only one that counts
            self._bell.count_up(WAKES)
        self._bell.ring_all()

    # -- settling

    def ack(self, items: Item | Iterable[Item]) -> None:
        self._settle(items, self._claims.ack)

    def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        due = time.time() + delay if delay > 0.0 else None
        try:
            self._settle(items, partial(self._claims.nack, due=due, error=_storable(error), counted=counted))
        finally:
            self._ring()

    def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        self._settle(items, partial(self._claims.bury, error=_storable(error)))

    def _settle(self, items: Item | Iterable[Item], apply: Apply) -> None:
        given = [items] if isinstance(items, Item) else list(items)
        with self._claim_lock:
            self._require_open()
            lost = self._claims.settle(given, apply)
        if lost:
            raise claim_lost(lost)

    # -- dead letters

    def requeue_dead(self, ids: Iterable[str] | None = None) -> int:
        self._require_open()
        with self._database.transaction() as connection:
            count = steps.requeue(connection, steps.dead_ids(connection, ids))
        self._ring(count)
        return count

    def drop_dead(self, ids: Iterable[str] | None = None) -> int:
        self._require_open()
        with self._database.transaction() as connection:
            return sum(connection.execute(sql.DROP_DEAD, (id,)).rowcount for id in steps.dead_ids(connection, ids))

    # -- looking and tidying

    def stats(self) -> Stats:
        self._require_open()
        return looking.stats(self._database, self._owners)

    def scan(self, *states: State) -> Iterator[Row]:
        self._require_open()
        for state in states or _SCANNED:
            yield from looking.scan(self._database, self._owners, state, self._retention)

    def purge(self) -> int:
        with self._claim_lock:
            self._require_open()
            self._owners.rescue()
            with self._database.transaction() as connection:
                return steps.purge(connection)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._claim_lock:
            if self._closed:
                return
            self._closed = True
            try:
                for source in list(self._sources):
                    source.close()
                self._claims.release()
                # What was held is claimable now; nobody needs to wait until he looks around.
                self._ring()
            finally:
                self._database.close()
                self._bell.close()

    def _require_open(self) -> None:
        if self._closed:
            raise queue_closed(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._path, self._options))

    def _after_fork(self) -> None:
        """In a forked child: hold nothing, own nothing, and use a lock that no vanished thread holds."""
        self._claim_lock = threading.Lock()
        self._claims.forget()


def _reopen(path: str, options: dict[str, Any]) -> SqliteQueue:
    return SqliteQueue(path, **options)


def _make_folder(path: str) -> str:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise errors.from_os_error(error, "make the folder", path) from error
    return path


def _storable(text: str | None) -> str | None:
    """SQLite's text is UTF-8; a message may hold half a surrogate pair from a file name."""
    return None if text is None else text.encode(errors="replace").decode()
