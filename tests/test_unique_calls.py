"""Uniqueness of calls that are not sent by `send`: those that a producer yields, a schedule sends, or somebody made before."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pistributer import App, Call, Hook, JobSkipped, chain, chord, group
from pistributer.testing import memory
from pistributer.workers.execution import producers
from pistributer.workers.execution.producers import pump
from pistributer.workers.execution.scheduler import Entry
from pistributer.workers.supervision import board
from pistributer.workers.supervision.board import Desk

from .crashing import every_kill
from .gate_tools import _Leash, note, work
from .processes import Child, wait_for
from .sqlite_tools import die_before

ROWS = 5
#: A moment of the schedule, and one a little later.
MOMENT, NOW = 1_000_000_020.0, 1_000_000_030.0


class Never(_Leash):
    """A child that nobody tells to stop."""

    def wait_stop(self, timeout: float | None = None) -> bool:
        return False


class World:
    """An app whose producers and schedule name a unique task, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        app = self.app = App(folder / "jobs")

        @app.task(unique="skip", results=False)
        def index(n: int) -> None:
            note(folder, "ran", str(n))

        @app.producer
        def plain() -> Iterator[Call[None]]:
            for n in (1, 1, 2, 1):
                yield index.call(n)

        @app.producer
        def resuming(last: int | None) -> Iterator[tuple[Call[None], int]]:
            for n in range(last or 0, ROWS):
                yield index.call(n), n + 1

        app.schedule(index, every=60, args=(-1,), misfire="all")
        self.index = index

    def desk(self) -> Desk:
        os.makedirs(self.app.home.run, exist_ok=True)
        path = os.path.join(self.app.home.run, f"desk-{os.getpid()}")
        board.create(path, 1)
        return Desk(path, 0)

    def produce(self, name: str) -> None:
        pump(Never(), self.app, self.app.producers[name], self.desk())  # type: ignore[arg-type]

    def tick(self, now: float = NOW) -> None:
        """What the scheduler's process does at that moment."""
        entry = Entry(Never(), self.app, self.app.schedules["index"], self.desk())  # type: ignore[arg-type]
        try:
            entry.run(now)
        finally:
            self.app.close()  # lets go of the source

    def ran(self) -> list[str]:
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []

    def waiting(self) -> list[Any]:
        return [row.value["args"] for row in self.app.queue().scan("ready")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "world")
    yield world
    world.app.close()


# -- calls


def test_a_call_is_as_unique_as_a_sent_one(world: World) -> None:
    index = world.index
    first = index.send(1)
    skipped = index.call(1).send()
    with pytest.raises(JobSkipped):
        skipped.result()
    assert index.options(unique="join").call(1).send() == first
    newest = index.options(unique="replace").call(1).send()
    assert (first.status(), newest.status()) == ("cancelled", "queued")
    other = index.options(unique="join", unique_key="1").call(5).send()
    assert index.options(unique="join", unique_key="1").call(6).send() == other
    jobs = list(group(index.options(unique="join").call(n) for n in (7, 8, 7)).send())
    assert jobs[0] == jobs[2] != jobs[1]


def test_a_chain_and_a_chord_do_not_look_at_it(world: World) -> None:
    add = world.app.task(name="add", unique="skip")(lambda a, b=1: a + b)
    add.send(1)
    sent = [
        chain(add.call(1), add.then(1)).send(),
        chord([add.call(1), add.call(1)], add.options(key="k").then([])).send(),
    ]
    work(world.app)
    assert [job.result(1) for job in sent] == [3, [2, 2]]


def test_hooks_hear_of_what_was_sent_only(world: World) -> None:
    heard: list[str] = []

    class Listen(Hook):
        def after_enqueue(self, sending: Any) -> None:
            heard.append(sending.queue)

    world.app.add_hook(Listen())
    world.produce("plain")
    world.index.call(1).send()
    assert (heard, world.waiting()) == (["default"] * 2, [[1], [2]])


# -- producers


def test_what_a_producer_yields_is_unique(world: World) -> None:
    world.produce("plain")
    assert world.waiting() == [[1], [2]]
    world.produce("resuming")
    assert world.waiting() == [[1], [2], [0], [3], [4]]
    assert world.app.gate.tickets.database.read("SELECT count(*) FROM ids") == [(0,)]


def test_what_is_not_sent_is_not_counted(world: World) -> None:
    world.app.queue().source("schedule.index").commit(MOMENT - 60.0)
    world.app.close()
    desk = world.desk()
    with mock.patch.object(world, "desk", return_value=desk):
        world.produce("plain")  # two of its four
        world.produce("resuming")  # three of its five
        for n in range(3):  # the first
            world.tick(NOW + 60 * n)
    assert desk._counts[3] == 6


def test_a_producer_waits_while_the_queue_is_full(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_rows=2)
    index = app.task(name="index", unique="skip")(lambda n: n)

    @app.producer
    def resuming(last: int | None) -> Iterator[tuple[Call[int], int]]:
        for n in range(last or 0, ROWS):
            yield index.call(n), n + 1

    with memory(app) as stage:
        stage.run_producers()
        stage.run_until_empty()
        assert len(stage.sent) == ROWS


def scenes() -> dict[str, tuple[Callable[[World], None], Counter[str]]]:
    return {
        "producer": (lambda world: world.produce("resuming"), Counter(map(str, range(ROWS)))),
        "schedule": (lambda world: world.tick(), Counter(["-1"])),
    }


def prepared(folder: Path) -> World:
    world = World(folder)
    world.app.queue().source("schedule.index").commit(MOMENT - 60.0)
    world.app.close()
    return world


def check_rest(world: World, scene: Callable[[World], None], expected: Counter[str]) -> None:
    """What was admitted runs, so it is not pending any more when the next process comes: only then a repeat would be seen."""
    work(world.app)
    world.app.close()
    scene(world)
    work(world.app)
    assert Counter(world.ran()) == expected
    world.app.close()


@pytest.mark.parametrize("name", ["producer", "schedule"])
def test_killed_before_any_statement_each_call_is_sent_once(tmp_path: Path, name: str) -> None:
    scene, expected = scenes()[name]
    for at in itertools.count(1, 2):
        world, told = prepared(tmp_path / str(at)), ""
        with Child(_act, scene, world, at) as child:
            try:
                told = child.hear()
            except EOFError:
                wait_for(lambda child=child: not child.alive, "the child's end")
        check_rest(world, scene, expected)
        if told:
            assert at > 10
            return


def _act(pipe: Any, scene: Callable[[World], None], world: World, at: int) -> None:
    die_before(at)
    scene(world)
    pipe.send("through")


@pytest.mark.parametrize("name", ["producer", "schedule"])
def test_killed_before_any_write_each_call_is_sent_once(tmp_path: Path, name: str) -> None:
    scene, expected = scenes()[name]
    worlds: list[World] = []

    def prepare(at: int) -> Callable[[Callable[[str, Any], None]], None]:
        worlds.append(prepared(tmp_path / str(at)))
        return lambda tell: scene(worlds[-1])

    for _ in every_kill(prepare):
        check_rest(worlds[-1], scene, expected)


def test_without_its_place_a_call_would_be_sent_again(tmp_path: Path) -> None:
    """That the two tests above would see it."""
    world = prepared(tmp_path / "world")
    with (
        mock.patch.object(producers.Checkpoints, "commit", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        world.produce("resuming")
    world.app.gate.tickets.database.write("DELETE FROM ids")
    work(world.app)
    world.app.close()
    world.produce("resuming")
    work(world.app)
    assert Counter(world.ran())["0"] == 2
    world.app.close()


# -- schedules


def test_a_scheduled_call_is_not_sent_while_an_equal_one_is_pending(world: World) -> None:
    world.app.queue().source("schedule.index").commit(MOMENT - 60.0)
    world.app.close()
    world.tick()
    world.tick(NOW + 60)
    world.tick(NOW + 120)
    assert world.waiting() == [[-1]]
    work(world.app)
    world.app.close()
    world.tick(NOW + 180)
    assert world.waiting() == [[-1]]
    work(world.app)
    assert world.ran() == ["-1", "-1"]
    assert world.app.gate.tickets.database.read("SELECT count(*) FROM ids") == [(0,)]


def test_a_schedule_in_the_testing_kit_is_unique(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    index = app.task(name="index", unique="skip", tags=["t"])(lambda n: n)
    app.schedule(index, every=60, args=(1,))
    with memory(app) as stage:
        stage.clock.advance(300)
        [row] = app.queue().scan("ready")
        assert (row.value["args"], row.value["tags"]) == ([1], ["t"])
        stage.run_due()
        stage.clock.advance(60)
        assert app.queue().stats().ready == 1
