"""Killed at every change to the disk, the classic file channels lose no row that `put` returned for; see crashing.py.

While the child lives and dies, this process holds the channel's file open as a second producer. Afterwards it puts more
rows through that descriptor, and a fresh reader takes what there is. What must hold:

* `put` returned        → the row comes exactly once, unless the child died inside a `next()` that may have taken it
* `put` was begun       → the row comes once or not at all
* the child got it      → it does not come again
* always                → nothing else comes, and each producer's rows come in order
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pistributer import Pistributer, PistributerTxt
from pistributer.queues import classic_reading
from pistributer.storage import shared_append, shared_batch, shared_cursor

from .classic_tools import DRIVERS, FileDriver
from .crashing import Told, every_kill

Tell = Callable[[str, object], None]


class Actor:
    """What a child does to the channel, told as it goes."""

    def __init__(self, driver: FileDriver, path: Path, tell: Tell) -> None:
        self.driver = driver
        self.path = path
        self.tell = tell
        self.queue: Pistributer | PistributerTxt | None = None
        self.numbers = itertools.count()

    def open(self) -> None:
        self.queue = self.driver(self.path)

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            row = f"child {next(self.numbers)}"
            self.tell("begin put", row)
            self.driver.put(self.path, row)
            self.tell("put", row)

    def put_many(self, count: int) -> None:
        rows = [f"child {next(self.numbers)}" for _ in range(count)]
        for row in rows:
            self.tell("begin put", row)
        self.driver.put_many(self.path, rows)
        for row in rows:
            self.tell("put", row)

    def take(self, count: int = 1000) -> None:
        """Up to `count` rows."""
        assert self.queue is not None
        for _ in range(count):
            self.tell("begin next", None)
            row = next(self.queue, None)
            self.tell("got", row)
            if row is None:
                return


# -- what the channel looks like before; each returns the rows that are unread then


def rows_before(*numbers: int) -> list[str]:
    return [f"before {number}" for number in numbers]


def nothing(driver: FileDriver, path: Path) -> list[str]:
    return []


def some_rows(driver: FileDriver, path: Path) -> list[str]:
    driver.put_many(path, rows_before(0, 1, 2, 3))
    return rows_before(0, 1, 2, 3)


def torn_tail(driver: FileDriver, path: Path) -> list[str]:
    some_rows(driver, path)
    with open(path, "ab") as data:
        data.write(b"to")
    return rows_before(0, 1, 2, 3)


def in_use_and_newer(driver: FileDriver, path: Path) -> list[str]:
    some_rows(driver, path)
    driver(path)
    path.write_text("before 4\nbefore 5\n")
    return rows_before(*range(6))


def emptied_and_newer(driver: FileDriver, path: Path) -> list[str]:
    driver.put(path, "gone")
    assert len(list(driver(path))) == 1
    path.write_text("before 0\nbefore 1\n")
    return rows_before(0, 1)


def left_by_0_2_0(driver: FileDriver, path: Path) -> list[str]:
    Path(f"{path}.in_use").write_text("gone\nbefore 0\nbefore 1\n")
    Path(f"{path}.index").write_text('{"index": 1}')
    path.write_text("before 2")  # as new() of 0.2.0 ends
    return rows_before(0, 1, 2)


def damaged_rows(driver: FileDriver, path: Path) -> list[str]:
    some_rows(driver, path)
    with open(path, "ab") as data:
        data.write(b"\0\0\n\nbefore 4\n\xff\n")
    return rows_before(*range(5))


Before = Callable[[FileDriver, Path], list[str]]


# -- what the child does


def puts(actor: Actor) -> None:
    actor.put(3)


def puts_many(actor: Actor) -> None:
    actor.put_many(5)


def reads_some(actor: Actor) -> None:
    actor.open()
    actor.take(2)


def drains(actor: Actor) -> None:
    actor.open()
    actor.take()


def drains_again_and_again(actor: Actor) -> None:
    actor.open()
    for _ in range(3):
        actor.put(2)
        actor.take()


def reads_a_batch_that_grows(actor: Actor) -> None:
    """Each refill finds more than the last one, so the batch is sealed, and the producer moves to a new file."""
    actor.put(3)
    actor.open()
    for _ in range(4):
        actor.take(1)
        actor.put(2)
    actor.take()


def closes(actor: Actor) -> None:
    drains(actor)
    assert actor.queue is not None
    actor.queue.close()


SCENES = [
    (nothing, puts), (some_rows, puts_many), (torn_tail, puts), (torn_tail, drains), (some_rows, reads_some),
    (in_use_and_newer, drains), (emptied_and_newer, drains), (left_by_0_2_0, puts), (left_by_0_2_0, drains),
    (damaged_rows, drains), (nothing, drains_again_and_again), (in_use_and_newer, drains_again_and_again),
    (nothing, reads_a_batch_that_grows), (some_rows, closes),
]  # fmt: skip


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers so small that a few rows need several refills, and are sealed as if they were many."""
    monkeypatch.setattr(shared_batch, "CHUNK", 16)
    monkeypatch.setattr(classic_reading, "_LONG", 20)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("before", "act"), SCENES, ids=lambda scene: scene.__name__)
def test_killed_anywhere_nothing_acknowledged_is_lost(
    tmp_path: Path, driver: FileDriver, before: Before, act: Callable[[Actor], None]
) -> None:
    for torn in (False, True) if driver is Pistributer else (False,):
        path = tmp_path
        promised: list[str] = []

        def prepare(at: int, torn: bool = torn) -> Callable[[Tell], None]:
            nonlocal path, promised
            path = tmp_path / f"{at}-{torn}" / f"c{driver.suffix}"
            path.parent.mkdir()
            promised = before(driver, path)
            if before is not left_by_0_2_0:
                driver.put(path, "second 0")
                promised.append("second 0")
            here = path
            return lambda tell: run(Actor(driver, here, tell), act)

        for _, told in every_kill(prepare, torn=torn):
            check(driver, path, promised, told)


def run(actor: Actor, act: Callable[[Actor], None]) -> None:
    # What C writes, nobody could count.
    shared_append.QuickSharedAppend = classic_reading.QuickTake = None
    # Names that these modules took from `os` for speed.
    shared_append.write = os.write  # type: ignore[attr-defined]
    shared_cursor.pwrite = os.pwrite  # type: ignore[attr-defined]
    act(actor)


def check(driver: FileDriver, path: Path, promised: list[str], told: Told) -> None:
    # More bytes than were consumed, lest new rows be taken for consumed ones.
    for number in range(1, 10):
        driver.put(path, f"second {number}")
        promised.append(f"second {number}")
    promised += told.of("put")
    fresh = driver(path)
    came = [row for row in told.of("got") if row is not None] + list(fresh)

    assert set(came) <= set(promised) | set(told.of("begin put"))
    assert [row for row, times in Counter(came).items() if times > 1] == []
    missing = set(promised) - set(came)
    assert len(missing) <= told.events[-1:].count(("begin next", None)), (missing, told)
    for producer in ("before", "second", "child"):
        numbers = [int(row.split()[1]) for row in came if row.startswith(producer)]
        assert numbers == sorted(numbers)
    assert (fresh.isEmpty(), fresh.size(), fresh.remaining(), fresh.getIndex()) == (True, 0, 0, {"index": 0})
