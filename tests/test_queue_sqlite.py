"""The sqlite driver, by the conformance suite, and what it alone does."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pistributer import errors
from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue
from pistributer.queues.sqlite import SqliteQueue
from pistributer.storage import sqlite_db

from .conformance import QueueContract
from .processes import Child, run, wait_for
from .sqlite_tools import foreign


class TestSqliteQueue(QueueContract):
    def url_in(self, folder: Path) -> str:
        return f"sqlite:{folder / 'q.db'}"

    def other_driver_in(self, folder: Path) -> str:
        open_queue(f"jsonl:{self.path_in(folder)}").close()
        return "jsonl"

    def make_newer(self, folder: Path) -> None:
        with foreign(self.path_in(folder)) as connection:
            connection.execute("PRAGMA user_version = 99")

    def damage(self, folder: Path, i: int) -> None:
        with foreign(self.path_in(folder)) as connection:
            row = orjson.dumps(self.value(i)).decode()
            assert connection.execute("UPDATE rows SET row = ? WHERE row = ?", (row[:-1], row)).rowcount == 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
def queue(path: Path) -> Iterator[Queue]:
    with open_queue(f"sqlite:{path}") as queue:
        yield queue


def numbers(queue: Queue, n: int = 1000) -> list[Any]:
    return [item.value for item in queue.claim(n)]


# -- the file


@pytest.mark.parametrize("name", ["a b.db", "50%25.db", "q?mode=ro.db", "#1.db", "é🎉.db", "no-suffix"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    with open_queue(f"sqlite:{tmp_path / name}") as queue:
        queue.put(1)
    assert (tmp_path / name).stat().st_size > 0
    with open_queue(f"sqlite:{tmp_path / name}", create=False) as queue:
        assert numbers(queue) == [1]


def test_an_empty_file_becomes_a_queue(path: Path) -> None:
    path.touch()
    with open_queue(f"sqlite:{path}") as queue:
        queue.put(1)
        assert numbers(queue) == [1]


@pytest.mark.parametrize("table", ["pistributer_queue", "letters"])
def test_a_database_of_something_else_is_refused_and_left_alone(path: Path, table: str) -> None:
    with foreign(path) as connection:
        connection.execute(f"CREATE TABLE {table} (text)")
    before = path.read_bytes()
    with pytest.raises(errors.NotAQueue) as caught:
        open_queue(f"sqlite:{path}")
    assert ("PistributerSqlite" in str(caught.value)) == (table == "pistributer_queue")
    assert path.read_bytes() == before


def test_a_damaged_database_is_a_typed_error(path: Path) -> None:
    with open_queue(f"sqlite:{path}") as queue:
        queue.put_many(range(5000))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(errors.NotAQueue, match="recover"), open_queue(f"sqlite:{path}") as queue:
        numbers(queue)


def test_rows_can_be_read_with_plain_sql(queue: Queue, path: Path) -> None:
    queue.put_many([{"x": 1}, {"x": "é"}])
    with foreign(path) as connection:
        found = connection.execute("SELECT json_extract(row, '$.x') FROM rows ORDER BY place").fetchall()
    assert found == [(1,), ("é",)]


def test_the_folder_holds_what_the_format_page_says(queue: Queue, tmp_path: Path) -> None:
    queue.put(1)
    queue.wait(0)
    queue.claim()
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"q.db", "q.db-wal", "q.db-shm", "q.db.lock", "q.db.claims/bell", "q.db.claims/0000.lock"}


@pytest.mark.parametrize(("sync", "level"), [("none", 1), ("group", 2), ("each", 2)])
def test_sync_sets_what_a_commit_waits_for(path: Path, sync: Any, level: int) -> None:
    with open_queue(f"sqlite:{path}", sync=sync) as queue:
        assert isinstance(queue, SqliteQueue)
        assert queue._database.read("PRAGMA synchronous") == [(level,)]
        assert queue._database.read("PRAGMA journal_mode") == [("wal",)]


def test_the_write_ahead_log_stays_small(queue: Queue, path: Path) -> None:
    for _ in range(30):
        queue.put_many(["x" * 1000] * 1000)
        queue.ack(queue.claim(1000))
    assert path.with_name("q.db-wal").stat().st_size < 16 * 2**20
    assert path.stat().st_size < 16 * 2**20


# -- foreign programs


def test_an_empty_poll_takes_no_write_lock(queue: Queue, path: Path) -> None:
    with foreign(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        assert queue.claim() == []
        assert queue.wait(0) is False
        assert list(queue.scan()) == []
        assert time.monotonic() - start < 5


def test_a_put_waits_for_a_foreign_transaction(queue: Queue, path: Path) -> None:
    with foreign(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        putting = threading.Thread(target=queue.put, args=(1,))
        putting.start()
        putting.join(0.02)
        assert putting.is_alive()
        connection.execute("COMMIT")
        putting.join(30)
    assert numbers(queue) == [1]


def test_a_foreign_transaction_that_does_not_end_is_a_typed_error(
    queue: Queue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_db, "PATIENCE", 0.02)
    with foreign(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for write in (queue.put, lambda value: queue.put_many([value]), lambda value: queue.put(value, delay=1)):
            with pytest.raises(errors.StorageError, match="another program"):
                write(1)
    queue.put(2)
    assert numbers(queue) == [2]


def test_a_failed_settlement_leaves_the_rows_held(queue: Queue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.put_many([1, 2])
    items = queue.claim(2)
    monkeypatch.setattr(sqlite_db, "PATIENCE", 0.02)
    with foreign(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for settle in (queue.ack, queue.nack, queue.bury):
            with pytest.raises(errors.StorageError):
                settle(items)
    queue.ack(items)
    assert queue.stats().claimed == 0


def test_whoever_lost_his_lock_file_loses_his_claims(queue: Queue, path: Path) -> None:
    """Nobody should delete lock files; if somebody does, the fence in the database holds."""
    queue.put(1)
    (item,) = queue.claim()
    path.with_name("q.db.claims").joinpath("0000.lock").unlink()
    with open_queue(f"sqlite:{path}") as other:
        (again,) = other.claim()
        assert again.attempt == 2
        with pytest.raises(errors.ClaimLost):
            queue.ack(item)
        other.ack(again)


# -- forks


def test_no_connection_crosses_a_fork(queue: Queue, path: Path) -> None:
    queue.put(1)
    assert any(str(path) in name for name in open_files())
    inherited = run(lambda pipe: [name for name in open_files() if name.startswith(str(path)) and "bell" not in name])
    assert inherited == []
    assert numbers(queue) == [1]


def test_a_child_goes_on_when_its_parent_has_closed_the_database(path: Path) -> None:
    """A child that used an inherited connection would have its write-ahead log deleted by the parent's close."""
    with open_queue(f"sqlite:{path}") as queue:
        queue.put(1)
        child = Child(_put_when_told, queue)
    with child:
        child.say(2)
        assert child.hear() == "put"
        child.say(None)
        child.result()
    with open_queue(f"sqlite:{path}") as queue:
        assert numbers(queue) == [1, 2]


def _put_when_told(pipe: Any, queue: Queue) -> None:
    while (value := pipe.recv()) is not None:
        queue.put(value)
        pipe.send("put")


def open_files() -> list[str]:
    names = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{name}"))
    return names


# -- errors of SQLite


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SQLITE_FULL", errors.DiskFull),
        ("SQLITE_IOERR_SHMSIZE", errors.DiskFull),
        ("SQLITE_READONLY", errors.NotWritable),
        ("SQLITE_READONLY_DBMOVED", errors.NotWritable),
        ("SQLITE_PERM", errors.NotWritable),
        ("SQLITE_IOERR_FSYNC", errors.SyncFailed),
        ("SQLITE_NOTADB", errors.NotAQueue),
        ("SQLITE_CORRUPT", errors.NotAQueue),
        ("SQLITE_BUSY", errors.StorageError),
        ("SQLITE_CANTOPEN", errors.FolderMissing),
        ("SQLITE_PROTOCOL", errors.StorageError),
        ("SQLITE_TOOBIG", errors.StorageError),
    ],
)
def test_every_error_code_has_a_typed_error(tmp_path: Path, code: str, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("it said")
    error.sqlite_errorcode = getattr(sqlite3, code)
    found = sqlite_db.typed_error(error, "read", str(tmp_path / "q.db"))
    assert type(found) is kind
    assert "it said" in str(found)


@pytest.mark.parametrize(
    ("version", "affected"),
    [((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 45, 0), True), ((3, 50, 6), True),
     ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False), ((4, 0, 0), False)],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_versions_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], affected: bool) -> None:
    assert sqlite_db.has_wal_reset_bug(version) == affected


def test_retained_rows_expire(tmp_path: Path) -> None:
    with open_queue(f"sqlite:{tmp_path / 'q.db'}", retention=0.05) as queue:
        queue.put_many([1, 2])
        queue.ack(queue.claim(2))
        seen = [row.value for row in queue.scan("retained")]
        assert seen in ([1, 2], [])  # [] only if this machine slept in between
        wait_for(lambda: not list(queue.scan("retained")))
