"""The classic SQLite channel keeps the API and the table of release 0.2.0, without its races."""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pistributer_sqlite
from pistributer import PistributerSqlite, errors, open_queue

from .classic_tools import in_children
from .crashing import every_kill


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@pytest.fixture
def queue(path: str) -> Iterator[PistributerSqlite]:
    with PistributerSqlite(path) as opened:
        yield opened


def leave_as_0_2_0(path: str, rows: list[str], consumed: int) -> None:
    """The database of release 0.2.0, made with its own statements."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pistributer_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, "
        "payload TEXT NOT NULL, consumed INTEGER NOT NULL DEFAULT 0)"
    )
    connection.execute(
        "CREATE INDEX IF NOT EXISTS idx_pistributer_queue_consumed_id ON pistributer_queue(consumed, id)"
    )
    connection.executemany("INSERT INTO pistributer_queue (payload) VALUES (?)", [(row,) for row in rows])
    connection.execute("UPDATE pistributer_queue SET consumed = 1 WHERE id <= ?", (consumed,))
    connection.close()


def test_the_module_of_the_document_has_the_driver() -> None:
    assert pistributer_sqlite.PistributerSqlite is PistributerSqlite


def test_rows_come_out_in_order_and_an_empty_channel_raises_stop_iteration(queue: PistributerSqlite) -> None:
    assert queue.put("a") is True
    assert queue.put_many(["b", "c"]) is True
    assert (queue.size(), queue.remaining(), queue.is_empty(), queue.isEmpty()) == (3, 3, False, False)
    assert [queue.next() for _ in range(3)] == ["a", "b", "c"]
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            queue.next()
        assert isinstance(caught.value, errors.ChannelEmpty)
    assert (queue.size(), queue.remaining(), queue.is_empty()) == (3, 0, True)


def test_rows_that_come_after_it_was_empty_are_seen(queue: PistributerSqlite) -> None:
    for number in range(3):
        assert list(queue) == []
        queue.put(f"{number}")
        assert list(queue) == [f"{number}"]


@pytest.mark.parametrize(
    "payload", ["", "x\ny", "a\0b", {"a": 1}, None, b"bytes", 1.5, ["é"], "\u2028"], ids=lambda value: ascii(value)
)
def test_payloads_are_stored_as_their_str(queue: PistributerSqlite, payload: Any) -> None:
    queue.put(payload)
    queue.put_many([payload])
    assert list(queue) == [str(payload), str(payload)]


def test_half_a_surrogate_pair_is_refused(queue: PistributerSqlite) -> None:
    for attempt in (lambda: queue.put("\ud800"), lambda: queue.put_many(["good", "\ud800"])):
        with pytest.raises(errors.RowError):
            attempt()  # type: ignore[no-untyped-call]
    assert queue.size() == 0


def test_a_database_of_0_2_0_goes_on_where_it_stopped(path: str) -> None:
    leave_as_0_2_0(path, [f"row {number}" for number in range(5)], consumed=3)
    with PistributerSqlite(path) as queue:
        queue.put("ours")
        assert (queue.size(), queue.remaining()) == (6, 3)
        assert list(queue) == ["row 3", "row 4", "ours"]


def test_0_2_0_reads_what_we_leave(path: str, queue: PistributerSqlite) -> None:
    queue.put_many(["a", "b", "c"])
    queue.next()
    with sqlite3.connect(path) as connection:
        unread = "SELECT payload FROM pistributer_queue WHERE consumed = 0 ORDER BY id"
        assert connection.execute(unread).fetchall() == [("b",), ("c",)]
    connection.close()


def test_folders_are_made_and_the_name_is_checked(tmp_path: Path) -> None:
    with PistributerSqlite(tmp_path / "deep" / "er" / "c.db") as queue:
        queue.put("x")
    for attempt in (
        lambda: PistributerSqlite(tmp_path / "c.sqlite"),
        lambda: PistributerSqlite.new(tmp_path / "c", []),
    ):
        with pytest.raises(ValueError, match="must end with"):
            attempt()


@pytest.mark.parametrize(("sync", "synchronous"), [("each", 2), ("group", 2), ("none", 1)])
def test_the_durability_dial(path: str, sync: Any, synchronous: int) -> None:
    with PistributerSqlite(path, sync=sync) as queue:
        assert queue.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert queue.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_default_survives_a_power_cut(queue: PistributerSqlite) -> None:
    assert queue.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_put_many_stores_all_or_nothing(queue: PistributerSqlite) -> None:
    def rows() -> Iterator[str]:
        yield from "abc"
        queue.put("put by the producer itself")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        queue.put_many(rows())
    assert list(queue) == ["put by the producer itself"]


def test_a_closed_channel_says_so(path: str) -> None:
    queue = PistributerSqlite(path)
    queue.close()
    queue.close()
    for attempt in (queue.next, queue.is_empty, queue.size, lambda: queue.put("x"), lambda: queue.put_many([])):
        with pytest.raises(errors.QueueClosed):
            attempt()


def test_an_object_pickles_as_its_path(queue: PistributerSqlite) -> None:
    queue.put("x")
    with pickle.loads(pickle.dumps(queue)) as other:
        assert other.next() == "x"


# -- new


def test_new_makes_a_channel_and_does_not_overwrite_unless_told(path: str) -> None:
    assert PistributerSqlite.new(path, ["a", "b"]) is True
    with pytest.raises(FileExistsError):
        PistributerSqlite.new(path, ["c"])
    with PistributerSqlite(path) as queue:
        assert list(queue) == ["a", "b"]
    PistributerSqlite.new(target_path=path, rows=["c"], overwrite=True)
    with PistributerSqlite(path) as queue:
        assert (queue.size(), list(queue)) == (1, ["c"])


def test_new_replaces_the_rows_under_those_who_have_it_open(path: str, queue: PistributerSqlite) -> None:
    queue.put_many(["a", "b"])
    assert queue.next() == "a"
    PistributerSqlite.new(path, ["c", "d"], overwrite=True)
    queue.put("e")
    assert list(queue) == ["c", "d", "e"]
    with PistributerSqlite(path) as other:
        assert (other.size(), other.remaining()) == (3, 0)


# -- what is not a channel


def test_a_file_that_is_no_database_is_left_alone(path: str) -> None:
    Path(path).write_bytes(b"some text that is longer than a header of SQLite would be, so that it is looked at " * 9)
    before = Path(path).read_bytes()
    for attempt in (lambda: PistributerSqlite(path), lambda: PistributerSqlite.new(path, ["x"], overwrite=True)):
        with pytest.raises(errors.NotAQueue):
            attempt()
    assert Path(path).read_bytes() == before


def test_a_queue_of_the_framework_is_refused(path: str) -> None:
    open_queue(f"sqlite:{path}").close()
    with pytest.raises(errors.DriverMismatch, match="open_queue"):
        PistributerSqlite(path)


# -- threads, processes, kills


def test_threads_may_share_an_object(queue: PistributerSqlite) -> None:
    queue.put_many([f"{number}" for number in range(200)])
    taken: list[str] = []
    threads = [threading.Thread(target=lambda: taken.extend(queue)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [f"{number}" for number in range(200)]


def test_two_readers_never_get_one_row(path: str, queue: PistributerSqlite) -> None:
    queue.put_many([f"{number}" for number in range(300)])

    def read() -> list[str]:
        with PistributerSqlite(path, sync="none") as mine:
            return list(mine)

    taken = [row for rows in in_children(read, read, read, read) for row in rows]
    assert sorted(taken, key=int) == [f"{number}" for number in range(300)]


def test_a_forked_child_may_use_an_inherited_object(queue: PistributerSqlite) -> None:
    queue.put_many(["a", "b", "c"])

    def child() -> str:
        queue.put("child")
        return queue.next()

    assert [queue.next(), *in_children(child), *queue] == ["a", "b", "c", "child"]


def test_an_empty_poll_does_not_wait_for_a_writer(path: str, queue: PistributerSqlite) -> None:
    queue.put("x")
    assert list(queue) == ["x"]
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert queue.is_empty()
        assert list(queue) == []
    finally:
        writer.close()


def test_parallel_first_opens_make_one_channel(path: str) -> None:
    def put() -> bool:
        with PistributerSqlite(path, sync="none") as queue:
            return queue.put(f"{os.getpid()}")

    assert all(in_children(*[put] * 8))
    with PistributerSqlite(path) as queue:
        assert len(list(queue)) == 8


def test_killed_anywhere_no_committed_row_is_lost(tmp_path: Path) -> None:
    """SQLite's own writes are not Python's, so this kills around them: at the lock, the file's creation, the closing."""
    path = tmp_path

    def prepare(at: int) -> Any:
        nonlocal path
        path = tmp_path / f"{at}" / "c.db"

        def act(tell: Any) -> None:
            with PistributerSqlite(path, sync="none") as queue:
                for number in range(2):
                    queue.put(f"{number}")
                    tell("put", f"{number}")
                tell("got", queue.next())

        return act

    for _, told in every_kill(prepare):
        with PistributerSqlite(path, sync="none") as queue:
            assert told.of("got") + list(queue) == told.of("put")
