"""The classic SQLite channel, `PistributerSqlite` (.db), with the API and the table of release 0.2.0.

New here: `next` takes its row in one statement, so that no two readers get the same one (0.2.0: SELECT, then UPDATE);
`put_many` is one transaction; the object may be used from any thread, and in a forked child; `new(overwrite=True)` replaces
the rows in one transaction, under the feet of whoever has the database open, instead of deleting files that are in use.
`storage/sqlite_db.py` has the rest: waiting for the write lock, checkpoints, forks.

Beside the files that SQLite makes there is NAME.db.lock, on which writers queue up.

Kept from 0.2.0: a payload is stored as `str(payload)`, so a dict comes back as its Python text and None as "None"; put
`json.dumps(value)` if you want JSON. Consumed rows stay in the table, and `size` counts them. A row is consumed when `next`
returns it; there is no acknowledgement.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from .. import errors
from ..storage.durability import Sync, check_mode
from ..storage.shared_append import open_exclusive
from ..storage.sqlite_db import Database
from .sqlite_schema import APPLICATION_ID

_CREATE: Final = (
    """CREATE TABLE IF NOT EXISTS pistributer_queue (
        id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL, consumed INTEGER NOT NULL DEFAULT 0)""",
    """CREATE INDEX IF NOT EXISTS idx_pistributer_queue_consumed_id ON pistributer_queue(consumed, id)""",
)
_PUT: Final = "INSERT INTO pistributer_queue (payload) VALUES (?)"
_UNREAD: Final = "SELECT 1 FROM pistributer_queue WHERE consumed = 0 LIMIT 1"
_NEXT: Final = """UPDATE pistributer_queue SET consumed = 1
    WHERE id = (SELECT id FROM pistributer_queue WHERE consumed = 0 ORDER BY id LIMIT 1) RETURNING payload"""
_SIZE: Final = "SELECT count(*) FROM pistributer_queue"
_REMAINING: Final = "SELECT count(*) FROM pistributer_queue WHERE consumed = 0"


class PistributerSqlite:
    """A channel of text rows in a SQLite database. Any number of threads and processes may use it at once.

    >>> import tempfile; folder = tempfile.mkdtemp()
    >>> queue = PistributerSqlite(f"{folder}/events.db")
    >>> queue.put("start")
    True
    >>> queue.next()
    'start'
    >>> queue.is_empty()
    True
    >>> queue.close()
    """

    #: The path as it was given.
    path: str

    def __init__(self, path: str | os.PathLike[str], *, sync: Sync = "each") -> None:
        """Open the channel at `path`; the database and its folders are made if there are none.

        `sync` says what a power cut may cost (a killed process costs nothing): with "each", the default as in release
        0.2.0, or "group", no row that `put` returned for; with "none" the last seconds, and `put` is several times faster.

        Raises ValueError if the name does not end with ".db", NotAQueue if the file is no database, DriverMismatch if it
        is a queue made by `open_queue`, NotWritable, UnsafeFilesystem.
        """
        self.path = _checked(path)
        self._sync: Sync = check_mode(sync)
        self._closed = False
        #: The last look found nothing unread, so look again before asking for the write lock.
        self._dry = True
        _make_folder(self.path)
        self._database = Database(self.path, prepare=_prepare, durable=sync != "none")

    @staticmethod
    def new(
        path: str | os.PathLike[str] = "",
        rows: Iterable[object] = (),
        overwrite: bool = False,
        *,
        target_path: str | os.PathLike[str] = "",
    ) -> bool:
        """Make a channel with `rows` in it and return True. Folders are made as needed.

        With `overwrite` the rows of an existing channel are replaced, read and unread ones, in one transaction.

        Raises ValueError, FileExistsError, RowError, DiskFull and other StorageErrors.
        """
        name = _checked(path or target_path)
        payloads = _payloads(rows)
        _make_folder(name)
        if not overwrite:
            try:
                os.close(open_exclusive(name))
            except FileExistsError:
                raise FileExistsError(f'File exists "{name}"') from None
        with PistributerSqlite(name) as queue, queue._open().transaction() as connection:
            connection.execute("DELETE FROM pistributer_queue")
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'pistributer_queue'")
            connection.executemany(_PUT, payloads)
        return True

    # -- putting

    def put(self, payload: object) -> bool:
        """Append `str(payload)` and return True: the row is committed. Raises RowError, QueueClosed, DiskFull."""
        text = _text(payload)
        self._open().write(_PUT, (text,))
        return True

    def put_many(self, payloads: Iterable[object]) -> bool:
        """Append `str(payload)` of each, all of them or none, in one transaction; return True."""
        rows = _payloads(payloads)  # before the transaction, which must not wait for whoever produces them
        with self._open().transaction() as connection:
            connection.executemany(_PUT, rows)
        return True

    # -- reading

    def next(self) -> str:
        """Return the oldest unread row and mark it as consumed, in one transaction.

        Raises ChannelEmpty (a StopIteration) if nothing is unread, QueueClosed after `close`.
        """
        database = self._open()
        if not self._dry or database.read(_UNREAD):
            found = database.write(_NEXT)
            self._dry = not found
            if found:
                payload: str = found[0][0]
                return payload
        raise errors.ChannelEmpty(f"the channel {self.path!r} is empty")

    def is_empty(self) -> bool:
        """Whether nothing is unread at this moment."""
        return not self._open().read(_UNREAD)

    isEmpty = is_empty

    def __iter__(self) -> Iterator[str]:
        """Iterate over unread rows until the channel is empty. Each is consumed when it is handed out."""
        return self

    __next__ = next

    # -- counting

    def size(self) -> int:
        """Count all rows that were ever put, consumed ones included."""
        return int(self._open().read(_SIZE)[0][0])

    def remaining(self) -> int:
        """Count the unread rows."""
        return int(self._open().read(_REMAINING)[0][0])

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, in autocommit mode. Do not keep it: a fork closes it."""
        return self._open().connection

    # -- closing

    def close(self) -> None:
        """Close the database. Everything else raises QueueClosed afterwards; closing twice is fine."""
        self._closed = True
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, str]:
        return {"path": os.path.abspath(self.path), "sync": self._sync}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["path"], sync=check_mode(state["sync"]))  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"PistributerSqlite({self.path!r})"

    def _open(self) -> Database:
        if self._closed:
            raise errors.QueueClosed(f"the channel {self.path!r} was closed", hint="open it again")
        return self._database


def _checked(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    if not name.endswith(".db"):
        raise ValueError(f'Path must end with ".db" > "{name}"')
    return name


def _make_folder(path: str) -> None:
    with errors.typed_os_errors("make the folder of", path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        raise errors.DriverMismatch(
            "this database is a queue, not a classic channel",
            hint='open it with open_queue("sqlite:…")',
            found="sqlite",
            asked="classic sqlite",
        )
    for statement in _CREATE:
        connection.execute(statement)


def _text(payload: object) -> str:
    text = payload if type(payload) is str else str(payload)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise errors.RowError(
                f"a row must be valid Unicode: {error}", hint="escape it, for example as JSON"
            ) from error
    return text


def _payloads(payloads: Iterable[object]) -> list[tuple[str]]:
    return [(_text(payload),) for payload in payloads]
