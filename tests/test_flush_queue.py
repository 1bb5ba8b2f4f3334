"""`FlushQueue` moves what waits in memory to disk and back, and is never killed between the two."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing.queues
import queue
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer import DiskFull, DurableQueue, FlushQueue, RowError, StorageError
from pistributer.queues import durable, flushing

from .crashing import Told, run_killed
from .processes import run
from .sqlite_tools import die_before


class NewQueue(queue.Queue, FlushQueue):  # type: ignore[type-arg]
    def __init__(self, path: Any, lock: Any = None, semaphore: Any = None) -> None:
        super().__init__()
        self.path = path
        self.lock = lock
        self.semaphore = semaphore


def mixed(kind: Any, path: Path, *args: Any) -> Any:
    # A SimpleQueue is made by its __new__ alone, so what runs is FlushQueue's __init__, unless the class has one.
    made = type("Mixed", (kind, FlushQueue), {"__init__": lambda self, *args: kind.__init__(self, *args)})(*args)
    made.path = path
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q"


def fill(memory: Any, items: Any) -> Any:
    for item in items:
        memory.put_nowait(item)
    return memory


def drain(memory: Any) -> list[Any]:
    return [memory.get_nowait() for _ in range(memory.qsize())]


def test_the_seeds_example(path: Path) -> None:
    q = NewQueue(path=path)
    q.put("test")
    assert q.qsize() == 1
    q.flush()
    assert q.qsize() == 0
    q.ingest()
    assert q.qsize() == 1
    assert q.get() == "test"


def test_alone_it_only_keeps_its_attributes(path: Path) -> None:
    q = FlushQueue(path, threading.Lock, None)
    assert (q.path, q.lock, q.semaphore) == (path, threading.Lock, None)


@pytest.mark.parametrize(
    "kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue, asyncio.Queue], ids=lambda k: k.__name__
)  # fmt: skip
def test_another_process_gets_them_in_the_order_of_the_queue(kind: Any, path: Path) -> None:
    items = [(5, "e"), (1, "a"), (4, "d"), (2, "b")]
    expected = drain(fill(mixed(kind, path), items))
    memory = fill(mixed(kind, path), items)
    memory.flush()
    assert memory.qsize() == 0

    def child(pipe: Any) -> Any:
        other = mixed(kind, path)
        other.ingest()
        return drain(other)

    assert run(child) == expected
    memory.ingest()
    assert memory.qsize() == 0


def test_a_queue_of_multiprocessing_is_flushed_too(path: Path) -> None:
    class Mixed(multiprocessing.queues.Queue, FlushQueue):  # type: ignore[misc]
        pass

    memory = Mixed(ctx=multiprocessing.get_context())
    memory.path = path
    memory.put("a")
    while memory.empty():
        pass  # its thread sends
    memory.flush()
    with DurableQueue(path) as disk:
        assert disk.get() == "a"
    memory.close()
    memory.join_thread()


@pytest.mark.parametrize("kind", [queue.Queue, asyncio.Queue])
def test_join_does_not_wait_for_what_was_flushed(kind: Any, path: Path) -> None:
    memory = fill(mixed(kind, path), range(3))
    memory.flush()
    if kind is queue.Queue:
        memory.join()
        memory.ingest()
        assert memory.unfinished_tasks == 3
    else:
        asyncio.run(asyncio.wait_for(memory.join(), 5))


def test_ingest_without_a_folder_does_nothing_and_makes_none(path: Path) -> None:
    q = NewQueue(path)
    q.ingest()
    assert (q.qsize(), path.exists()) == (0, False)


def test_a_bounded_queue_takes_what_it_has_room_for(path: Path) -> None:
    fill(NewQueue(path), range(600)).flush()
    small = mixed(queue.Queue, path, 3)
    for begin in (0, 3):
        small.ingest()
        small.ingest()
        assert drain(small) == [begin, begin + 1, begin + 2]
        assert small.doubles == ()
    rest = NewQueue(path)
    rest.ingest()
    assert drain(rest) == list(range(6, 600))


def test_flushing_twice_keeps_the_order(path: Path) -> None:
    memory = fill(NewQueue(path), [1, 2])
    memory.flush()
    fill(memory, [3]).flush()
    memory.ingest()
    assert drain(memory) == [1, 2, 3]


@pytest.mark.parametrize("kind", [queue.Queue, queue.PriorityQueue, queue.SimpleQueue])
def test_what_can_not_be_written_stays_in_memory_and_the_rest_is_flushed(kind: Any, path: Path) -> None:
    class Odd(int):  # local, so that it can not be pickled
        pass

    memory = fill(mixed(kind, path), [1, Odd(2), 3, Odd(4)])
    with pytest.raises(RowError, match="Odd"):
        memory.flush()
    assert drain(memory) == [2, 4]
    memory.ingest()
    assert drain(memory) == [1, 3]


def test_with_json_nothing_is_pickled(path: Path) -> None:
    memory = fill(NewQueue(path), [{"a": 1}, {1, 2}])
    memory.serializer = "json"
    with pytest.raises(RowError):
        memory.flush()
    assert drain(memory) == [{1, 2}]


def test_what_can_not_be_read_stays_on_disk_and_the_rest_is_taken(path: Path) -> None:
    with DurableQueue(path) as disk:
        disk.put(1)
        disk.rows.put({"pickle": "bm8gcGlja2xl"})
        disk.put(3)
    memory = NewQueue(path)
    with pytest.raises(RowError, match="1 items can not be read"):
        memory.ingest()
    assert drain(memory) == [1, 3]
    with DurableQueue(path) as disk:
        assert [row.state for row in disk.rows.scan()] == ["dead"]


def test_a_full_disk_leaves_each_item_in_memory_or_on_disk(path: Path) -> None:
    def child(pipe: Any) -> list[Any]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        memory = fill(NewQueue(path), [f"{number} " + "x" * 500 for number in range(3000)])
        DurableQueue(path).close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        with pytest.raises((DiskFull, StorageError)):
            memory.flush()
        return [item.split()[0] for item in drain(memory)]

    left = run(child)
    assert left
    with DurableQueue(path) as disk:
        stored = [disk.get().split()[0] for _ in range(disk.qsize())]
    assert stored + left == [str(number) for number in range(3000)]


# -- killed anywhere


def sweep(folder: Path, by_statement: bool, prepare: Callable[[Path], None], act: Any) -> Iterator[tuple[Path, Told]]:
    """`act(path, tell)` killed before each SQL statement, or each other change to the disk, in turn."""
    for at in itertools.count(1):
        path = folder / str(at)
        prepare(path)

        def child(tell: Any, path: Path = path, at: int = at) -> None:
            if by_statement:
                die_before(at)
            act(path, tell)

        told = run_killed(child, 10**9 if by_statement else at, torn=False)
        yield path, told
        if told.finished:
            assert at > (10 if by_statement else 3)
            return


@pytest.mark.parametrize("by_statement", [True, False], ids=["statement", "call"])
@pytest.mark.parametrize("before", [[], ["old"]], ids=["new folder", "old folder"])
def test_a_flush_killed_anywhere_has_all_or_nothing_on_disk(
    before: list[Any], by_statement: bool, tmp_path: Path
) -> None:
    def prepare(path: Path) -> None:
        if before:
            fill(NewQueue(path), before).flush()

    def act(path: Path, tell: Any) -> None:
        fill(NewQueue(path), [1, (2,), "3"]).flush()
        tell("flushed", None)

    for path, told in sweep(tmp_path, by_statement, prepare, act):
        memory = NewQueue(path)
        memory.ingest()
        found = drain(memory)
        assert found == [*before, 1, (2,), "3"] or (not told.of("flushed") and found == before)
        assert memory.doubles == ()


@pytest.mark.parametrize("by_statement", [True, False], ids=["statement", "call"])
def test_an_ingest_killed_anywhere_loses_nothing_and_names_what_may_come_twice(
    by_statement: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def prepare(path: Path) -> None:
        fill(NewQueue(path), range(4)).flush()

    def act(path: Path, tell: Any) -> None:
        memory = NewQueue(path)
        put = memory.put_nowait
        memory.put_nowait = lambda item: (put(item), tell("taken", item))  # type: ignore[method-assign]
        memory.ingest()
        tell("ingested", None)

    doubled = 0
    for path, told in sweep(tmp_path, by_statement, prepare, act):
        memory = NewQueue(path)
        memory.ingest()
        found = drain(memory)
        taken = told.of("taken")
        if told.of("ingested"):
            assert (found, taken) == ([], [0, 1, 2, 3])
        else:
            assert sorted({*found, *taken}) == [0, 1, 2, 3]
            assert found in ([0, 1, 2, 3], [])
            assert {item for item in found if item in taken} <= set(memory.doubles)
            doubled += bool(memory.doubles)
    assert doubled or not by_statement
    assert not by_statement or "may have been handed out before" in caplog.text


@pytest.mark.parametrize("by_statement", [True, False], ids=["statement", "call"])
def test_a_durable_queue_killed_anywhere_loses_nothing(by_statement: bool, tmp_path: Path) -> None:
    def prepare(path: Path) -> None:
        with DurableQueue(path) as q:
            q.put_many(["a", "b", "c"])

    def act(path: Path, tell: Any) -> None:
        q = DurableQueue(path)
        tell("putting", "d")
        q.put("d")
        tell("put", "d")
        for _ in range(3):
            tell("got", q.get())
            tell("going on", None)
        q.task_done()
        tell("finished", None)

    for path, told in sweep(tmp_path, by_statement, prepare, act):
        with DurableQueue(path) as q:
            found = [q.get(timeout=1) for _ in range(q.qsize())]
        got = told.of("got")
        finished = got if told.of("finished") else got[:-1]
        expected = [item for item in "abcd" if item not in finished]
        allowed = [expected]
        if got:
            allowed.append([item for item in expected if item != got[-1]])  # killed on its way on
        if len(got) < 3 and expected:
            allowed.append([item for item in expected if item not in got])
        if not told.of("put"):
            allowed += [[item for item in each if item != "d"] for each in allowed]
        assert found in allowed, (found, told)


def test_nothing_of_asyncio_is_imported_for_it() -> None:
    assert "asyncio" not in vars(flushing)
    assert "asyncio" not in vars(durable)
