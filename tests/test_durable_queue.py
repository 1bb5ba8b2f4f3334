"""`DurableQueue` is `queue.Queue`, on disk and between processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import queue
import struct
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pistributer import (
    DiskFull,
    DurableQueue,
    FormatError,
    NotAQueue,
    QueueClosed,
    QueueFull,
    QueueShutDown,
    RowError,
    StorageError,
    open_queue,
)

from .processes import METHODS, Child, Method, run, wait_for

# The interpreter's own tests of queue.Queue, where it was installed with them.
cpython = pytest.importorskip("test.test_queue", reason="this Python was installed without its tests")


class Queue(DurableQueue):
    """Named as the class that CPython's tests look for, and made as they make it."""

    root: ClassVar[Path]
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(self.root / str(next(self.numbers)), maxsize=maxsize)


class TestAsCPythonTestsItsQueue(cpython.BaseQueueTestMixin, unittest.TestCase):  # type: ignore[misc]
    queue = queue

    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path: Path) -> None:
        Queue.root = tmp_path

    def setUp(self) -> None:
        self.type2test = Queue
        super().setUp()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q"


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


ITEMS: list[Any] = [
    "text", "", "é\x00\x85\ud800", 1, 2**70, 1.5, float("inf"), None, True, b"bytes", (1, (2,)), {1: {2}}, {"pickle": "x"},
    [1, [2]], Thing("a"), print, time.struct_time(range(9)), "x" * 100_000,
]  # fmt: skip


# -- the seed


def test_the_seeds_example(path: Path) -> None:
    q = DurableQueue(path=path)
    q.put("test")
    assert q.get() == "test"
    with pytest.raises(queue.Empty):
        q.get(block=False)
    q.close()
    assert path.is_dir()  # nothing is deleted


@pytest.mark.parametrize("lock", [threading.Lock, threading.Lock(), None])
@pytest.mark.parametrize("semaphore", [threading.Semaphore, multiprocessing.Semaphore, None])
def test_lock_and_semaphore_are_accepted(lock: Any, semaphore: Any, path: Path) -> None:
    with DurableQueue(path, lock, semaphore) as q:
        q.put(1)
        assert (q.get(), q.lock, q.semaphore) == (1, lock, semaphore)


def test_any_picklable_item_comes_back_in_order_after_a_restart(path: Path) -> None:
    with DurableQueue(path) as q:
        for item in ITEMS:
            q.put(item)
    with DurableQueue(path) as q:
        assert q.qsize() == len(ITEMS)
        assert [q.get() for _ in ITEMS] == ITEMS


def test_the_folder_may_be_below_home_and_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with DurableQueue("~/deep/down/q") as q:
        q.put(1)
    assert (tmp_path / "deep" / "down" / "q" / "queue.db").is_file()


# -- serializers


def test_with_json_nothing_is_pickled_or_unpickled(path: Path) -> None:
    with DurableQueue(path, serializer="json") as q:
        for refused in ({1, 2}, b"x", Thing("a"), float("nan"), {1: 2}):
            with pytest.raises(RowError):
                q.put(refused)
        q.put({"pickle": "gASVCgAAAAAAAACMBnN5c3RlbZQu"})
        assert q.get() == {"pickle": "gASVCgAAAAAAAACMBnN5c3RlbZQu"}


@pytest.mark.parametrize(("first", "then"), [("pickle", "json"), ("json", "pickle")])
def test_a_queue_keeps_its_serializer(first: Any, then: Any, path: Path) -> None:
    DurableQueue(path, serializer=first).close()
    with pytest.raises(FormatError, match=first):
        DurableQueue(path, serializer=then)
    DurableQueue(path, serializer=first).close()


def test_places_where_no_durable_queue_can_be(path: Path) -> None:
    open_queue(path).close()
    with pytest.raises(NotAQueue, match="open_queue"):
        DurableQueue(path)
    (path.parent / "file").write_text("mine")
    with pytest.raises(StorageError):
        DurableQueue(path.parent / "file")
    assert (path.parent / "file").read_text() == "mine"


def test_options_that_make_no_sense(path: Path) -> None:
    with pytest.raises(ValueError, match="serializer must be"):
        DurableQueue(path, serializer="yaml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ack_on must be"):
        DurableQueue(path, ack_on="never")  # type: ignore[arg-type]
    assert not path.exists()


def test_what_can_not_be_pickled_is_refused_and_nothing_is_stored(path: Path) -> None:
    with DurableQueue(path) as q:
        with pytest.raises(RowError, match="can not be pickled"):
            q.put(lambda: None)
        assert q.empty()


def test_an_item_that_can_not_be_unpickled_is_kept_among_the_dead_and_does_not_stop_the_queue(path: Path) -> None:
    with DurableQueue(path) as q:
        global Vanishing

        class Vanishing:  # type: ignore[no-redef]
            __qualname__ = "Vanishing"

        q.put(Vanishing())
        q.put("next")
        del Vanishing
        with pytest.raises(RowError, match=r"can not be unpickled.*--state dead"):
            q.get()
        assert q.get() == "next"
        q.task_done()
        assert q.unfinished_tasks == 0
    with open_queue(f"sqlite:{path}/queue.db") as raw:
        (dead,) = raw.scan("dead")
        assert "AttributeError" in (dead.error or "")


# -- between processes


def produce(pipe: Any, path: Path, number: int, count: int) -> None:
    with DurableQueue(path) as q:
        for turn in range(count):
            q.put((number, turn))


def consume(pipe: Any, path: Path) -> list[Any]:
    got = []
    with DurableQueue(path) as q:
        while (item := q.get(timeout=30)) is not None:
            got.append(item)
    return got


@pytest.mark.timeout(300)
def test_many_producers_and_consumers_lose_and_double_nothing(path: Path) -> None:
    """The whole of it is `PISTRIBUTER_DURABLE_ITEMS=100000 pytest -k many_producers`: a minute or two."""
    total = int(os.environ.get("PISTRIBUTER_DURABLE_ITEMS", "4000"))
    consumers = [Child(consume, path) for _ in range(8)]
    producers = [Child(produce, path, number, total // 8) for number in range(8)]
    for child in producers:
        with child:
            child.result()
    with DurableQueue(path) as q:
        for _ in consumers:
            q.put(None)
    streams = []
    for child in consumers:
        with child:
            streams.append(child.result())
    assert sorted(item for got in streams for item in got) == [(n, t) for n in range(8) for t in range(total // 8)]
    for got in streams:  # what one consumer got of one producer, it got in order
        for number in range(8):
            turns = [turn for who, turn in got if who == number]
            assert turns == sorted(turns)


def put_in_turns(pipe: Any, path: Path) -> None:
    with DurableQueue(path) as q:
        while (item := pipe.recv()) is not None:
            q.put(item)
            pipe.send("put")


def test_order_holds_across_processes(path: Path) -> None:
    with Child(put_in_turns, path) as one, Child(put_in_turns, path) as two, DurableQueue(path) as q:
        for number in range(60):
            child = (one, two)[number * 7 % 3 % 2]
            child.say(number)
            child.hear()
        for child in (one, two):
            child.say(None)
            child.result()
        assert [q.get() for _ in range(60)] == list(range(60))


def get_and_wait(pipe: Any, path: Path, count: int) -> None:
    q = DurableQueue(path)
    for _ in range(count):
        pipe.send(q.get())
    pipe.recv()


def test_what_a_killed_process_had_in_hand_comes_again_first_and_nothing_else_does(path: Path) -> None:
    with DurableQueue(path) as q:
        for number in range(6):
            q.put(number)
        with Child(get_and_wait, path, 3) as child:
            assert [child.hear() for _ in range(3)] == [0, 1, 2]
            child.kill()
        wait_for(lambda: q.qsize() == 4)
        assert [q.get() for _ in range(4)] == [2, 3, 4, 5]


def get_in_threads(pipe: Any, path: Path) -> None:
    q = DurableQueue(path)
    for _ in range(3):
        thread = threading.Thread(target=q.get)
        thread.start()
        thread.join()
    pipe.send(q.get())
    pipe.recv()


def test_what_a_thread_that_has_ended_had_got_is_done(path: Path) -> None:
    with DurableQueue(path) as q:
        for number in range(5):
            q.put(number)
        with Child(get_in_threads, path) as child:
            assert child.hear() == 3
            child.kill()
        assert [q.get(timeout=10), q.get()] == [3, 4]


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_ends_in_an_orderly_way_has_finished(method: Method, path: Path) -> None:
    with DurableQueue(path) as q:
        q.put(1)
        q.put(2)
        assert run(get_one, path, method=method) == 1
        assert q.get() == 2
        with pytest.raises(queue.Empty):
            q.get(timeout=0.2)


def get_one(pipe: Any, path: Path) -> Any:
    return DurableQueue(path).get()  # not closed


def test_with_ack_on_task_done_everything_that_is_not_finished_comes_again(path: Path) -> None:
    with DurableQueue(path, ack_on="task_done") as q:
        for number in range(4):
            q.put(number)
        assert [q.get() for _ in range(3)] == [0, 1, 2]
        q.task_done()
    with DurableQueue(path, ack_on="task_done") as q:
        assert [q.get() for _ in range(3)] == [1, 2, 3]
        for _ in range(3):
            q.task_done()
        with pytest.raises(ValueError, match="too many times"):
            q.task_done()
        assert q.unfinished_tasks == 0


def get_two_and_end(pipe: Any, path: Path) -> None:
    q = DurableQueue(path, ack_on="task_done")
    q.get()
    q.get()
    q.task_done()


@pytest.mark.parametrize("method", METHODS)
def test_with_ack_on_task_done_an_orderly_end_finishes_nothing(method: Method, path: Path) -> None:
    with DurableQueue(path) as q:
        q.put(1)
        q.put(2)
        run(get_two_and_end, path, method=method)
        assert q.get(timeout=10) == 2


def test_what_a_full_disk_did_not_let_be_done_is_still_in_hand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DurableQueue(path) as q:
        for number in range(3):
            q.put(number)
        assert q.get() == 0

        def full(*_: Any) -> Any:
            raise DiskFull("no space")

        with monkeypatch.context() as patch:
            patch.setattr(q.rows, "exchange", full)
            patch.setattr(q.rows, "ack", full)
            for call in (q.get, q.task_done):
                with pytest.raises(DiskFull):
                    call()
        q.task_done()
        assert [q.get(), q.get(), q.unfinished_tasks] == [1, 2, 2]


def test_a_forked_child_holds_nothing_of_its_parent(path: Path) -> None:
    def child(pipe: Any) -> Any:
        return q.get(), q.qsize()

    with DurableQueue(path) as q:
        q.put("parent's")
        q.put("child's")
        assert q.get() == "parent's"
        assert run(child) == ("child's", 0)
        q.task_done()
        q.join()


def test_a_pickled_queue_is_the_same_queue(path: Path) -> None:
    with DurableQueue(path, maxsize=3, serializer="json") as q:
        q.put("x")
        with pickle.loads(pickle.dumps(q)) as other:
            assert (other.get(), other.maxsize, other.serializer) == ("x", 3, "json")


# -- limits, finishing and ending


def test_a_full_queue_waits_for_another_process_to_make_room(path: Path) -> None:
    with DurableQueue(path, maxsize=2) as q:
        q.put(1)
        q.put(2)
        assert q.full()
        with pytest.raises(queue.Full) as full:
            q.put(3, timeout=0.02)
        assert isinstance(full.value, QueueFull)
        with Child(get_and_wait, path, 1) as child:
            q.put(3, timeout=30)
            child.say("end")
        assert [q.get() for _ in range(2)] == [2, 3]


def finish(pipe: Any, path: Path) -> None:
    with DurableQueue(path) as q:
        q.get()
        q.get()
        pipe.recv()
        q.task_done()
        q.task_done()
        pipe.recv()


def test_join_waits_for_what_other_processes_got(path: Path) -> None:
    with DurableQueue(path) as q, Child(finish, path) as child:
        q.put(1)
        q.put(2)
        wait_for(q.empty)
        assert q.unfinished_tasks == 2
        child.say("finish")
        q.join()
        assert q.unfinished_tasks == 0
        child.say("end")


def test_what_was_left_by_a_process_that_ended_does_not_keep_join_waiting(path: Path) -> None:
    with DurableQueue(path) as q:
        for number in range(3):
            q.put(number)
        run(get_one, path)
        assert q.unfinished_tasks == 2
        for _ in range(2):
            q.get()
            q.task_done()
        q.join()


def wait_for_item(pipe: Any, path: Path) -> str:
    with DurableQueue(path) as q:
        pipe.send("waiting")
        try:
            return str(q.get())
        except QueueShutDown:
            return "shut down"


def test_shutdown_ends_those_who_wait_in_every_process_and_not_those_who_come_later(path: Path) -> None:
    with DurableQueue(path) as q, Child(wait_for_item, path) as one, Child(wait_for_item, path) as two:
        one.hear()
        two.hear()
        q.put("last")
        wait_for(q.empty)
        q.shutdown()
        assert sorted([one.result(), two.result()]) == ["last", "shut down"]
        with pytest.raises(QueueShutDown):
            q.put("more")
    with DurableQueue(path) as q:
        q.put("new day")
        assert (q.is_shutdown, q.get()) == (False, "new day")


def test_clear_deletes_and_close_does_not(path: Path) -> None:
    with DurableQueue(path) as q:
        for number in range(5):
            q.put(number)
    with DurableQueue(path) as q:
        assert (q.qsize(), q.clear(), q.qsize()) == (5, 5, 0)
    for call in (lambda: q.put(1), q.get, q.qsize, q.task_done, q.shutdown, lambda: q.is_shutdown):
        with pytest.raises(QueueClosed):
            call()
    assert "closed" in repr(q)


# -- iodict's folders


def leave_as_iodict(folder: Path, items: list[Any], attributes: bool = True) -> None:
    folder.mkdir()
    for number, item in enumerate(items):
        name = folder / f"{number * 7919 % 101:056x}"
        name.write_bytes(pickle.dumps(item))
        if attributes:
            try:
                os.setxattr(name, "user.birthtime", struct.pack(">d", 1000.0 + number))
            except OSError:
                pytest.skip("this filesystem has no extended attributes")
        os.utime(name, (1, 5000 + number))


@pytest.mark.parametrize("attributes", [True, False])
def test_a_folder_of_iodict_is_taken_over_in_its_order(attributes: bool, path: Path) -> None:
    leave_as_iodict(path, ITEMS[:12], attributes)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FormatError, match="pickled items of iodict"):
        DurableQueue(path, serializer="json")
    (path / "queue.db").unlink()
    with DurableQueue(path) as q:
        assert [q.get() for _ in range(12)] == ITEMS[:12]
    assert {"notes.txt", "queue.db"} <= set(os.listdir(path))
    assert not [name for name in os.listdir(path) if len(name) == 56]


def test_a_takeover_killed_anywhere_takes_each_item_once(tmp_path: Path) -> None:
    from .crashing import every_kill

    path = tmp_path

    def prepare(at: int) -> Any:
        nonlocal path
        path = tmp_path / str(at)
        leave_as_iodict(path, list(range(4)))
        here = path
        return lambda tell: DurableQueue(here).close()

    for _, _told in every_kill(prepare):
        with DurableQueue(path) as q:
            assert [q.get() for _ in range(q.qsize())] == [0, 1, 2, 3]
