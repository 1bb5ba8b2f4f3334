"""Sources of a sqlite queue: a row and its checkpoint are written in one transaction.

Who holds a source is said by a kernel lock, `jobs.db.claims/NAME.source`, as for everything else that must not outlive its
owner.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any

import orjson

from ..storage import forking
from ..storage.locks import try_lock
from ..storage.sqlite_db import Database
from . import sqlite_schema as sql
from . import sqlite_steps as steps
from .rows import encode_json
from .sources import BatchedSource, Pair, check_source_name, source_busy

#: Puts rows: calls its second argument with the connection and as many of the rows as there is room for, until all are in.
PutRows = Callable[[list[bytes], Callable[[Connection, list[bytes]], object], bool, float | None], object]


class SqliteSource(BatchedSource):
    """A source of a sqlite queue. Docstrings of the methods are inherited from the contract."""

    def __init__(self, database: Database, lock_path: str, name: str, put_rows: PutRows) -> None:
        super().__init__(check_source_name(name))
        self._database = database
        self._put_rows = put_rows
        lock = try_lock(f"{lock_path}/{name}.source")
        if lock is None:
            raise source_busy(name)
        self._lock = lock
        try:
            found = database.read(sql.CHECKPOINT, (name,))
            if found:
                self.checkpoint = orjson.loads(found[0][0])
            else:
                self._save(None)
        except BaseException:
            lock.close()
            raise
        forking.register(self)

    def _store(self, batch: list[Pair], block: bool, timeout: float | None) -> None:
        rows = [encode_json(value)[:-1] for value, _ in batch]
        stored = 0

        def store(connection: Connection, fitting: list[bytes]) -> None:
            nonlocal stored
            steps.put_at_back(connection, fitting)
            stored += len(fitting)
            self._set(connection, batch[stored - 1][1])

        self._put_rows(rows, store, block, timeout)

    def _save(self, checkpoint: Any) -> None:
        with self._database.transaction() as connection:
            self._set(connection, checkpoint)

    def _set(self, connection: Connection, checkpoint: Any) -> None:
        connection.execute(sql.SET_CHECKPOINT, (encode_json(checkpoint)[:-1], self.name))

    def close(self) -> None:
        self._closed = True
        self._lock.close()
