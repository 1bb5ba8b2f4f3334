"""Writers and readers of classic channels overlap, in threads and in processes: each row exactly once, in its writer's order.

The ledger is independent of the channels: each writer notes a row after `put` has returned, each reader after `next` has.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pistributer import Pistributer, PistributerSqlite, PistributerTxt, errors
from pistributer.queues import classic_reading
from pistributer.storage import descriptors, shared_batch

from .classic_tools import DRIVERS, FileDriver, fork, in_children

#: Seconds after which a test that waits gives up.
PATIENCE = 60.0


@dataclass(frozen=True)
class Scene:
    """A driver, some channels in a folder, and how many rows each writer puts."""

    driver: Any
    folder: Path
    channels: int
    rows: int

    def paths(self) -> list[Path]:
        suffix = ".db" if issubclass(self.driver, PistributerSqlite) else self.driver.suffix
        return [self.folder / f"{number}{suffix}" for number in range(self.channels)]

    def put(self) -> Callable[[Path, str], object]:
        if not issubclass(self.driver, PistributerSqlite):
            return self.driver.put  # type: ignore[no-any-return]
        open_channels = {path: PistributerSqlite(path, sync="none") for path in self.paths()}
        return lambda path, row: open_channels[path].put(row)

    def open(self, path: Path) -> Iterator[str]:
        if issubclass(self.driver, PistributerSqlite):
            return iter(PistributerSqlite(path, sync="none"))
        return iter(self.driver(path))

    def write(self, name: str) -> None:
        """Put rows on channels at random; note each in the ledger when it is put."""
        dice, put, paths = random.Random(name), self.put(), self.paths()
        with open(self.folder / f"put.{name}", "wb", buffering=0) as ledger:
            for number in range(self.rows):
                path = dice.choice(paths)
                put(path, f"{name} {number} {'x' * dice.choice((0, 30, 500))}")
                ledger.write(f"{name} {number} {path.name}\n".encode())

    def read(self, name: str, finished: Callable[[], bool]) -> None:
        """Take rows from all channels until the writers have finished and nothing is left; note each in the ledger."""
        dice, queues = random.Random(name), [(path, self.open(path)) for path in self.paths()]
        with open(self.folder / f"got.{name}", "wb", buffering=0) as ledger:
            last_round = False
            while not last_round:
                last_round = finished()
                for path, queue in queues:
                    for row in itertools.islice(queue, None if last_round else dice.choice((1, 5, 1000))):
                        writer, number, _ = row.split(" ", 2)
                        ledger.write(f"{writer} {number} {path.name}\n".encode())

    def ledgers(self, kind: str) -> list[list[tuple[str, int, str]]]:
        """What was noted: one list per writer or reader. A line that a kill has torn counts as not noted."""
        found = []
        for file in sorted(self.folder.glob(f"{kind}.*")):
            lines = file.read_text().split("\n")[:-1]
            found.append([(writer, int(number), path) for writer, number, path in map(str.split, lines)])
        return found

    def check(self, *, readers_killed: int = 0, writers_killed: int = 0) -> None:
        put = set(itertools.chain.from_iterable(self.ledgers("put")))
        got = Counter(itertools.chain.from_iterable(self.ledgers("got")))
        for path in self.paths():
            got.update((row.split()[0], int(row.split()[1]), path.name) for row in self.open(path))
        assert [row for row, times in got.items() if times > 1] == []
        assert len(put - set(got)) <= readers_killed
        assert len(set(got) - put) <= writers_killed
        for ledger in self.ledgers("got"):
            latest: dict[tuple[str, str], int] = {}
            for writer, number, channel in ledger:
                assert latest.get((writer, channel), -1) < number
                latest[writer, channel] = number


@pytest.fixture(params=["plain", "small steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as it is, and once with buffers so small that batches are refilled and sealed all the time."""
    if request.param != "plain":
        monkeypatch.setattr(shared_batch, "CHUNK", 200)
        monkeypatch.setattr(classic_reading, "_LONG", 1000)


# -- processes


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("driver", DRIVERS)
def test_processes_that_overlap_lose_and_double_nothing(tmp_path: Path, driver: FileDriver, channels: int) -> None:
    scene = Scene(driver, tmp_path, channels, rows=1500)
    done = tmp_path / "done"
    readers = [fork(lambda name=f"r{n}": scene.read(name, done.exists)) for n in range(3)]  # type: ignore[misc]
    in_children(*(lambda name=f"w{n}": scene.write(name) for n in range(4)))
    done.touch()
    for reader in readers:
        reader.result()
    scene.check()


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_of_processes_that_take_turns_come_in_their_order_while_a_reader_keeps_up(
    tmp_path: Path, seed: int
) -> None:
    """A token goes round: each process puts the next number, and hands on only when `put` has returned."""
    path = tmp_path / "c.jsonl"
    writers, rows = 3, 2000
    pipes = [os.pipe() for _ in range(writers)]

    def write(place: int) -> None:
        dice = random.Random(seed * 10 + place)
        for number in range(place, rows, writers):
            os.read(pipes[place][0], 1)
            if dice.random() < 0.2:
                descriptors.pool.relieve()  # so that the file is opened again
            Pistributer.put(path, number)
            os.write(pipes[(place + 1) % writers][1], b"t")

    def read() -> list[int]:
        dice, queue = random.Random(seed), Pistributer(path)
        found: list[int] = []
        while len(found) < rows:
            found += map(int, itertools.islice(queue, dice.choice((1, 10, 1000))))
        return found

    children = [fork(read), *(fork(lambda place=place: write(place)) for place in range(writers))]  # type: ignore[misc]
    os.write(pipes[0][1], b"t")
    came, *_ = [child.result() for child in children]
    assert came == list(range(rows))
    for end in itertools.chain(*pipes):
        os.close(end)


def test_processes_share_a_sqlite_channel(tmp_path: Path) -> None:
    scene = Scene(PistributerSqlite, tmp_path, channels=2, rows=300)
    done = tmp_path / "done"
    readers = [fork(lambda name=f"r{n}": scene.read(name, done.exists)) for n in range(3)]  # type: ignore[misc]
    in_children(*(lambda name=f"w{n}": scene.write(name) for n in range(3)))
    done.touch()
    for reader in readers:
        reader.result()
    scene.check()


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_of_random_processes_loses_only_what_a_killed_reader_held(tmp_path: Path, seed: int) -> None:
    scene = Scene(Pistributer, tmp_path, channels=2, rows=4000)
    done = tmp_path / "done"
    generation = itertools.count()
    dice = random.Random(seed)
    killed: Counter[str] = Counter()

    def start(kind: str) -> int:
        name = f"{kind}{next(generation)}"
        pid = os.fork()
        if pid == 0:
            try:
                scene.write(name) if kind == "w" else scene.read(name, done.exists)
                os._exit(0)
            finally:
                os._exit(1)
        return pid

    running = {start(kind): kind for kind in "wwwwrrr"}
    deadline = time.monotonic() + PATIENCE
    while running:
        assert time.monotonic() < deadline
        if killed.total() < 60 and "w" in running.values():
            # The kill comes at a moment that the work itself decides.
            wait_for_growth(tmp_path, dice.randrange(20_000))
            os.kill(dice.choice(list(running)), signal.SIGKILL)
        pid, status = os.waitpid(-1, 0)
        kind = running.pop(pid)
        if os.WIFSIGNALED(status):
            killed[kind] += 1
            running[start(kind)] = kind
        assert os.WIFSIGNALED(status) or status == 0
        if "w" not in running.values():
            done.touch()
    scene.check(readers_killed=killed["r"], writers_killed=killed["w"])


def wait_for_growth(folder: Path, size: int) -> None:
    """Until the ledgers have grown by `size` bytes, or do not grow because nobody is left who writes."""

    def total() -> int:
        return sum(file.stat().st_size for file in folder.glob("[pg][uo]t.*"))

    aim = total() + size
    deadline = time.monotonic() + 0.05
    while total() < aim and time.monotonic() < deadline:
        os.sched_yield()


# -- threads


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("driver", [*DRIVERS, PistributerSqlite])
@pytest.mark.parametrize("shared", [False, True], ids=["own readers", "one shared reader"])
def test_threads_that_overlap_lose_and_double_nothing(
    tmp_path: Path, driver: FileDriver | type[PistributerSqlite], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(driver, tmp_path, channels=2, rows=200 if driver is PistributerSqlite else 1000)
    if shared:
        opened = {path: Scene.open(scene, path) for path in scene.paths()}
        monkeypatch.setattr(Scene, "open", lambda self, path: opened[path])
    done = threading.Event()
    problems: list[BaseException] = []

    def guarded(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as problem:  # noqa: BLE001 - the test fails with it
            problems.append(problem)

    def start(action: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=guarded, args=(action,))
        thread.start()
        return thread

    readers = [start(lambda name=f"r{n}": scene.read(name, done.is_set)) for n in range(4)]  # type: ignore[misc]
    writers = [start(lambda name=f"w{n}": scene.write(name)) for n in range(6)]  # type: ignore[misc]
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert problems == []
    scene.check()


def test_threads_over_more_channels_than_descriptors_keep_their_order(tmp_path: Path) -> None:
    def run() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
        scene = Scene(Pistributer, tmp_path, channels=100, rows=1500)
        threads = [threading.Thread(target=scene.write, args=(f"w{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scene.read("r", lambda: True)
        scene.check()

    in_children(run)


# -- forks


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_forked_child_goes_on_with_an_inherited_reader_and_writer(tmp_path: Path, driver: FileDriver) -> None:
    path = tmp_path / f"c{driver.suffix}"
    driver.put_many(path, [f"{number}" for number in range(20)])
    queue = driver(path)
    assert queue.next() == "0"

    def child() -> list[str]:
        driver.put(path, "child")
        return [queue.next() for _ in range(5)]

    taken = [*in_children(child)[0], *(queue.next() for _ in range(5)), *in_children(child)[0]]
    assert taken == [f"{number}" for number in range(1, 16)]
    driver.put(path, "parent")
    assert list(queue) == ["16", "17", "18", "19", "child", "child", "parent"]


def test_a_child_forked_while_threads_put_and_read_works_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put(path, "first")
    queue = Pistributer(path)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            Pistributer.put(path, "parent")
            next(queue, None)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            in_children(lambda: (Pistributer.put(path, "child"), next(queue, None)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_parent_killed_while_its_child_lives_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put(path, "before")
    reading, writing = os.pipe()

    def parent() -> None:
        queue = Pistributer(path)
        with shared_batch.with_lock(queue._reader._cursor, lambda _: fork_and_tell(writing)):  # type: ignore[attr-defined]
            pass

    def fork_and_tell(pipe: int) -> None:
        grandchild = os.fork()
        if grandchild == 0:
            os.read(reading_end, 1)  # lives until the test lets go
            os._exit(0)
        os.write(pipe, f"{grandchild}\n".encode())
        signal.pause()

    reading_end, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(let_go)
        parent()
    os.close(reading_end)
    with open(reading) as told:
        told.readline()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert Pistributer(path).next() == "before"
    os.close(let_go)
    os.close(writing)


# -- one reader does not disturb another


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_idle_reader_leaves_the_batch_of_another_alone(tmp_path: Path, driver: FileDriver) -> None:
    path = tmp_path / f"c{driver.suffix}"
    idle = driver(path)
    driver.put_many(path, ["a", "b", "c"])
    busy = driver(path)
    assert busy.next() == "a"
    assert not idle.isEmpty()
    assert [busy.next(), idle.next()] == ["b", "c"]
    assert idle.isEmpty()
    assert busy.isEmpty()


def test_readers_that_alternate_take_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, [f"{number}" for number in range(3000)])
    readers = [Pistributer(path) for _ in range(3)]
    assert [readers[number % 3].next() for number in range(3000)] == [f"{number}" for number in range(3000)]
    for reader in readers:
        with pytest.raises(errors.ChannelEmpty):
            reader.next()


def test_rows_of_a_second_producer_do_not_wait_behind_an_endless_first_one(tmp_path: Path) -> None:
    """The first producer keeps the file in use; the second one's rows are in a new file, and get their turn."""
    path = tmp_path / "c.jsonl"
    Pistributer.put(path, "first")
    queue = Pistributer(path)
    path.write_text("second\n")  # as release 0.2.0 would
    for _ in range(10):
        Pistributer.put(path, "first")  # never lets the reader catch up
        Pistributer.put(path, "first")
        if queue.next() == "second":
            return
    rows = list(queue)
    assert rows.index("second") < len(rows) - 1


def test_the_txt_driver_is_a_driver_of_its_own(tmp_path: Path) -> None:
    PistributerTxt.put(tmp_path / "c.txt", "t")
    Pistributer.put(tmp_path / "c.jsonl", "j")
    assert (PistributerTxt(tmp_path / "c.txt").next(), Pistributer(tmp_path / "c.jsonl").next()) == ("t", "j")
