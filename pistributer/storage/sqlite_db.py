"""Opening a SQLite database that many threads and processes write to at once, and keeping it safe.

What a bare connection gets wrong, and what is done about it here:

* **Waiting for the write lock.** SQLite polls with growing pauses and without fairness. Our writers first queue up at a
  kernel lock (`PATH.lock`, 1 µs, no polling), so they find SQLite's own lock taken only by foreign programs; then they
  retry with jitter, up to `PATIENCE` seconds.
* **The WAL-reset bug** (3.7.0 to 3.51.2; fixed in 3.44.6 and 3.50.7 too): a checkpoint beside another process's write
  may corrupt the database. Automatic checkpoints run inside COMMIT, so the same kernel lock keeps them apart from all
  writes, at every version of SQLite: one path, tested everywhere. Foreign programs that write are not covered.
* **Fork.** A connection must not cross a fork, not even unused: SQLite counts its locks per process and inode, so a
  child that inherited one would open its own without taking the kernel's locks, and the parent would then delete the
  write-ahead log under it. So connections are closed before each fork (by Python; `subprocess` is no matter) and open
  again on next use, on both sides.
* **Creation.** Switching to WAL needs a moment alone; parallel first opens would fail. It happens under that lock.
* **Threads.** One connection per object and process, with a lock in front: a connection per thread would only compete
  with its neighbours for the one write lock.

Killed at any point: SQLite rolls back what was not committed, and the kernel frees the lock.
"""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from .. import errors
from .filesystem import require_local
from .locks import Flock

#: Seconds to go on trying while a foreign program holds the database.
PATIENCE = 30.0
#: Pause between two tries, in seconds: at random between these, so that those who wait do not march in step.
_PAUSES = (0.0005, 0.008)
#: The write-ahead log is cut back to this many bytes after a burst.
_WAL_BYTES = 16 * 1024 * 1024

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_NOT_SYNCED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}

_Result = TypeVar("_Result")
Parameters = Iterable[Any]


class Database:
    """A database in WAL mode. Threads may share it; it reopens by itself after a fork, and after `close` on next use.

    `prepare(connection)` runs once, at opening, in a write transaction: it makes the tables of a new file and raises
    FormatError for a file that is not what it should be, before anything in it has been changed.

    durable=True makes a commit survive a power cut (synchronous=FULL); otherwise the last ones may be lost and the
    database stays consistent. With `create=False` a missing file is FolderMissing.
    """

    def __init__(
        self,
        path: str,
        *,
        prepare: Callable[[sqlite3.Connection], None],
        create: bool = True,
        durable: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self._durable = durable
        self._connection: sqlite3.Connection | None = None
        # Order: gate, then lock. Readers take the lock only, so they do not wait for other processes' writes.
        self._gate = Flock(self.path + ".lock")
        self._lock = threading.Lock()
        self._check_path(create)
        with _fork_guard:
            _databases.add(self)
        try:
            with self._gate, self._lock:
                self._create(create, prepare)
        except BaseException:
            self.close()
            raise

    # -- opening

    def _check_path(self, create: bool) -> None:
        if not create and not os.path.lexists(self.path):
            raise errors.FolderMissing(f"there is no database at {self.path!r}", hint="check the path", path=self.path)
        folder = os.path.dirname(self.path)
        if os.path.isdir(folder):
            require_local(folder)

    def _create(self, create: bool, prepare: Callable[[sqlite3.Connection], None]) -> None:
        connection = self._connect("rwc" if create else "rw")
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"), "open")
        try:
            prepare(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            _roll_back(connection)
            raise self._typed(error, "open") from error
        self._patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchall(), "open")

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        """A new connection, with the lock held."""
        self._connection = connection = self._patiently(
            lambda: sqlite3.connect(
                f"file:{quote(self.path)}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=0,
            ),
            "open",
        )
        for pragma in (
            f"synchronous={'FULL' if self._durable else 'NORMAL'}",
            f"journal_size_limit={_WAL_BYTES}",
            "temp_store=MEMORY",
        ):
            self._patiently(lambda pragma=pragma: connection.execute(f"PRAGMA {pragma}"), "open")  # type: ignore[misc]
        return connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection. Do not keep it: a fork closes it. Use it for reading, or inside `transaction`."""
        return self._connection or self._connect()

    # -- working

    def read(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """All rows of one SELECT. Takes no lock that a writer waits for."""
        with self._lock:
            connection = self._connection or self._connect()
            try:
                return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise self._typed(error, "read") from error
            return self._patiently(lambda: connection.execute(sql, parameters).fetchall(), "read")  # type: ignore[arg-type]

    def write(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """One writing statement as a transaction of its own; returns what RETURNING names."""
        with self._gate, self._lock:
            connection = self._connection or self._connect()
            try:
                return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise self._typed(error, "write to") from error
            return self._patiently(lambda: connection.execute(sql, parameters).fetchall(), "write to")  # type: ignore[arg-type]

    def transaction(self) -> Transaction:
        """`with database.transaction() as connection:` writes that are committed at the end, undone on an exception.

        Not reentrant, and no other method of the database may be called inside.
        """
        return Transaction(self, "BEGIN IMMEDIATE", self._gate)

    def snapshot(self) -> Transaction:
        """`with database.snapshot() as connection:` several SELECTs that see one moment. Keep it short."""
        return Transaction(self, "BEGIN", None)

    def close(self) -> None:
        """Close the connection; the last one of all processes folds the write-ahead log into the database."""
        with self._lock:
            self._let_go()
        if self._gate.acquire(timeout=0):  # else another thread is about to use it, and opens the connection again
            self._gate.close()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self._let_go()

    # -- errors

    def _patiently(self, action: Callable[[], _Result], doing: str) -> _Result:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise self._typed(error, doing) from error
            time.sleep(random.uniform(*_PAUSES))

    def _typed(self, error: BaseException, doing: str) -> BaseException:
        return typed_error(error, doing, self.path) if isinstance(error, sqlite3.Error) else error


class Transaction:
    """The context manager that `Database.transaction` and `Database.snapshot` return."""

    __slots__ = ("_begin", "_connection", "_database", "_gate")

    def __init__(self, database: Database, begin: str, gate: Flock | None) -> None:
        self._database = database
        self._begin = begin
        self._gate = gate

    def __enter__(self) -> sqlite3.Connection:
        if self._gate is not None:
            self._gate.__enter__()
        self._database._lock.acquire()
        try:
            self._connection = connection = self._database.connection
            self._database._patiently(lambda: connection.execute(self._begin), "use")
        except BaseException:
            self._release()
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
                return
            _roll_back(self._connection)
        except BaseException as failure:
            _roll_back(self._connection)
            raise self._database._typed(failure, "write to") from failure
        finally:
            self._release()
        if isinstance(error, sqlite3.Error):
            raise self._database._typed(error, "use") from error

    def _release(self) -> None:
        self._database._lock.release()
        if self._gate is not None:
            self._gate.release()


def _roll_back(connection: sqlite3.Connection) -> None:
    # A full disk has rolled back already.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite may corrupt a database that foreign programs write to beside us."""
    if version[:2] in ((3, 44), (3, 50)):
        return version < {44: (3, 44, 6), 50: (3, 50, 7)}[version[1]]
    return version < (3, 51, 3)


# -- errors


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def typed_error(error: sqlite3.Error, doing: str, path: str) -> errors.PistributerError:
    """The typed form of what SQLite raised while `doing` something to the database at `path`."""
    code = getattr(error, "sqlite_errorcode", 0)
    plain, said = code & 0xFF, f"could not {doing} the database {path!r}: {error}"
    if code in _NO_ROOM or (plain == sqlite3.SQLITE_IOERR and _file_size_is_limited()):
        return errors.DiskFull(said, hint="free space or raise the limit; what was stored before is safe", path=path)
    if code in _NOT_SYNCED:
        return errors.SyncFailed(said, hint="the last rows may be lost; check the disk, then reopen", path=path)
    if plain in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return errors.NotWritable(said, hint="check the owner and the mode of the file and its folder", path=path)
    if plain in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        hint = "check the path; if it was a database, `sqlite3 FILE .recover` saves what can be read"
        return errors.NotAQueue(said, hint=hint, path=path)
    if plain in _BUSY:
        return errors.StorageError(said, hint="another program holds it; end its transaction", path=path)
    if plain in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return _why_not_opened(said, path)
    return errors.StorageError(said, path=path)


def _file_size_is_limited() -> bool:
    # SQLite reports EFBIG as a write error like any other.
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def _why_not_opened(said: str, path: str) -> errors.PistributerError:
    """SQLite says only that it could not; the folder and a spare descriptor say why.

    The database itself is not opened for that: closing it again would drop this process's locks on it (POSIX).
    """
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return errors.NotAQueue(f"{path!r} is a folder, not a database", hint="check the path", path=path)
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as reason:
        return errors.from_os_error(reason, "open a database in", folder)
    if not os.path.lexists(path):
        return errors.FolderMissing(said, hint="it was deleted or moved; open it again to make a new one", path=path)
    if not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        return errors.NotWritable(said, hint="check the owner and the mode of the file and its folder", path=path)
    return errors.StorageError(said, path=path)


# -- forking

_databases: weakref.WeakSet[Database] = weakref.WeakSet()
# Held from before a fork until after it, so that two threads that fork do not wait for each other's databases.
_fork_guard = threading.Lock()
_at_fork: list[Database] = []


def _before_fork() -> None:
    _fork_guard.acquire()
    for database in list(_databases):
        database._lock.acquire()
        _at_fork.append(database)
        database._let_go()


def _after_fork_in_parent() -> None:
    for database in _at_fork:
        database._lock.release()
    _at_fork.clear()
    _fork_guard.release()


def _after_fork_in_child() -> None:
    global _fork_guard
    for database in _at_fork:
        database._lock = threading.Lock()
    _at_fork.clear()
    _fork_guard = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
