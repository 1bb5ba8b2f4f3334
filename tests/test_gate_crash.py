"""Killed before any step of admitting, beginning or ending a job, nothing that follows is lost, and nothing is sent twice.

What ran when its worker was killed may run again in the next one: at least once. What is never seen: a job twice in one
process, because that would be two admissions; a follower that is missing; two of a key out of order.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, chain, chord

from .crashing import every_kill
from .gate_tools import note, tickets, work
from .processes import Child, wait_for
from .sqlite_tools import die_before
from .worker_tools import APP_DRIVERS, app_url

Scene = Callable[["World", Callable[[Any], None]], None]


class World:
    """An app of its own for each kill. Tasks note who ran them and with what."""

    def __init__(self, folder: Path, driver: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.app = App(app_url(folder, driver))

        def ran(text: str) -> None:
            note(folder, "ran", f"{os.getpid()} {text}")

        @self.app.task(key="key", results=False)
        def book(key: str, n: int) -> None:
            ran(f"{key}{n}")

        @self.app.task
        def add(a: int, b: int) -> int:
            ran(f"{a}+{b}")
            return a + b

        @self.app.task
        def total(values: list[int]) -> int:
            ran(f"sum{values}".replace(" ", ""))
            return sum(values)

        self.book, self.add, self.total = book, add, total

    def runs(self) -> list[tuple[str, str]]:
        """(process, what it ran), in order."""
        path = self.folder / "ran"
        return (
            [(pid, what) for pid, what in (line.split() for line in path.read_text().split("\n")[:-1])]
            if path.exists()
            else []
        )


def send_scene(world: World, tell: Callable[[Any], None]) -> None:
    for n in range(2):
        world.book.options(idempotency_id=f"a{n}").send("a", n)
        tell(f"a{n}")
    world.add.options(unique="join", idempotency_id="add").send(1, 1)
    tell("1+1")
    chord([world.add.call(2, 2), world.add.call(3, 3)], world.total.then()).send()
    tell("sum[4,6]")
    world.book.send_many(("b", n) for n in range(3))
    tell("b2")


def work_scene(world: World, tell: Callable[[Any], None]) -> None:
    work(world.app)
    tell("over")


#: In CI, not before each statement: `PISTRIBUTER_SWEEP=full pytest tests/test_gate_crash.py` takes minutes.
STEP = {"jsonl": 5, "txt": 13, "sqlite": 13}
if os.environ.get("PISTRIBUTER_SWEEP") == "full":
    STEP = dict.fromkeys(STEP, 1)


def every_death(scene: Scene, prepare: Callable[[int], World], step: int = 1) -> Iterator[tuple[World, list[Any]]]:
    """Run the scene in a child that dies before its first, second, … SQL statement, and last in one that gets through."""
    for at in itertools.count(1, step):
        world, told, through = prepare(at), [], False
        with Child(_act, scene, world, at) as child:
            while not through:
                try:
                    told.append(child.hear())
                except EOFError:
                    wait_for(lambda child=child: not child.alive, "the child's end")
                    break
                through = told[-1] == "through"
        yield world, told
        if through:
            assert at > 20, "the scene was hardly interrupted"
            return


def _act(pipe: Any, scene: Scene, world: World, at: int) -> None:
    die_before(at)
    scene(world, pipe.send)
    pipe.send("through")


def recover(world: World) -> Counter[str]:
    """What has run when another process has worked on what is left, having sent again what has an id."""
    for n in range(2):
        world.book.options(idempotency_id=f"a{n}").send("a", n)
    world.add.options(unique="join", idempotency_id="add").send(1, 1)
    work(world.app)
    return Counter(what for _, what in world.runs())


@pytest.mark.parametrize("driver", APP_DRIVERS)
def test_a_sender_that_is_killed_anywhere_has_sent_each_job_once_or_not_at_all(tmp_path: Path, driver: str) -> None:
    for world, told in every_death(send_scene, lambda at: World(tmp_path / str(at), driver), STEP[driver]):
        ran = recover(world)
        assert not set(told) - set(ran) - {"through"}, (told, ran)
        assert max(ran.values()) == 1, (told, ran)
        assert {"a0", "a1", "1+1"} <= set(ran)
        members = {"2+2", "3+3", "sum[4,6]"}
        assert members <= set(ran) or not members & set(ran), "a chord is sent as a whole or not at all"
        assert [what for _, what in world.runs() if what[0] == "a"] == ["a0", "a1"]
        assert [what for _, what in world.runs() if what[0] == "b"] in ([], ["b0", "b1", "b2"])
        assert tickets(world.app) == [] or world.app.gate.held() == 0
        world.app.close()


def test_a_sender_that_is_killed_at_a_write_to_the_queue_has_sent_each_job_once_or_not_at_all(tmp_path: Path) -> None:
    worlds = [World(tmp_path / "unused", "jsonl")]

    def prepare(at: int) -> Callable[[Callable[[str, Any], None]], None]:
        worlds.append(World(tmp_path / str(at), "jsonl"))
        return lambda tell: send_scene(worlds[-1], lambda what: tell("sent", what))

    for _, told in every_kill(prepare):
        ran = recover(worlds[-1])
        assert not set(told.of("sent")) - set(ran)
        assert max(ran.values()) == 1, ran
        worlds[-1].app.close()


@pytest.mark.parametrize("driver", APP_DRIVERS)
def test_what_follows_is_sent_once_wherever_a_worker_is_killed(tmp_path: Path, driver: str) -> None:
    def prepare(at: int) -> World:
        world = World(tmp_path / str(at), driver)
        world.book.send_many(("a", n) for n in range(3))
        chain(world.add.call(1, 1), world.add.then(10), world.add.then(100)).send()
        chord([world.add.call(2, 2), chain(world.add.call(3, 3), world.add.then(30))], world.total.then()).send()
        world.app.close()
        return world

    expected = {"a0", "a1", "a2", "1+1", "2+10", "12+100", "2+2", "3+3", "6+30", "sum[4,36]"}
    for world, told in every_death(work_scene, prepare, STEP[driver]):
        work(world.app)
        runs = world.runs()
        assert {what for _, what in runs} == expected, told
        assert max(Counter(runs).values()) == 1, (told, runs)
        booked = [what for _, what in runs if what[0] == "a"]
        assert booked == sorted(booked), "a job of a key began before the one before it had ended"
        assert world.app.gate.held() == 0
        world.app.close()


def test_a_sweep_that_is_killed_anywhere_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def prepare(at: int) -> World:
        world = World(tmp_path / str(at), "jsonl")
        with Child(_die_between_commit_and_put, world):
            pass
        assert [state for _, state, _ in tickets(world.app)] == [1, 1]
        return world

    def scene(world: World, tell: Callable[[Any], None]) -> None:
        for _ in range(3):
            world.app.gate.sweep()

    for world, _ in every_death(scene, prepare, STEP["jsonl"]):
        work(world.app)
        assert Counter(what for _, what in world.runs()) == {"a0": 1, "b0": 1}
        world.app.close()


def _die_between_commit_and_put(pipe: Any, world: World) -> None:
    world.app.gate.put = lambda *args, **kwargs: None  # type: ignore[method-assign]
    world.book.send("a", 0)
    world.book.send("b", 0)
    world.app.close()


def test_a_row_that_went_behind_our_back_is_put_again(tmp_path: Path) -> None:
    world = World(tmp_path / "world", "jsonl")
    for n in range(3):
        world.book.send("a", n)
    world.app.queue().purge()
    work(world.app, until=lambda: len(world.runs()) == 3)
    assert [what for _, what in world.runs()] == ["a0", "a1", "a2"]
    world.app.close()


def test_a_row_without_its_ticket_is_admitted_when_it_is_claimed(tmp_path: Path) -> None:
    world = World(tmp_path / "world", "jsonl")
    for key in "aab":
        world.book.send(key, 0)
    # As after a power cut: the tickets of what is in the queue are gone, and with them what had waited.
    world.app.gate.tickets.database.write("DELETE FROM tickets")
    work(world.app)
    assert sorted(what for _, what in world.runs()) == ["a0", "b0"]
    assert tickets(world.app) == []
    world.app.close()


def test_the_older_copy_of_a_job_is_dropped_even_when_the_job_is_over(tmp_path: Path) -> None:
    world = World(tmp_path / "world", "jsonl")
    world.book.send("a", 0)
    [(job, _, _)] = tickets(world.app)
    # As if the sender's mark had been lost: two sweeps put it again.
    world.app.gate.tickets.database.write("UPDATE tickets SET state = 1 WHERE job = ?", (job,))
    held = world.app.queue().claim(1, start=False)
    world.app.gate.sweep()
    work(world.app)
    assert len(world.runs()) == 1
    world.app.queue().nack(held)
    work(world.app)
    assert len(world.runs()) == 1
    world.app.close()


@pytest.mark.parametrize("state", [4, 5])
def test_a_row_that_is_tried_again_is_run_though_its_stub_was_left(tmp_path: Path, state: int) -> None:
    """Its worker was killed after the row had been settled, and before it could say so."""
    world = World(tmp_path / "world", "jsonl")
    world.book.send("a", 0)
    database = world.app.gate.tickets.database
    database.write("UPDATE tickets SET state = ?, error = 'bad'", (state,))
    work(world.app)
    assert len(world.runs()) == 1
    world.book.send("a", 1)
    [item] = world.app.queue().claim(1)  # an attempt was counted
    database.write("UPDATE tickets SET state = ?, error = 'bad'", (state,))
    world.app.queue().nack(item)
    work(world.app)
    assert len(world.runs()) == 1
    assert world.app.queue().stats().dead == (state == 5)
    world.app.close()


def test_a_full_queue_holds_up_its_own_jobs_only(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_rows=1)
    slow = app.task(name="slow", queue="slow", key="n")(lambda n: n)
    fast = app.task(name="fast", queue="fast", key="n")(lambda n: n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.gate, "put", lambda *args, **kwargs: True)  # killed before each put
        for n in range(5):
            slow.send(n)
        fast.send(1)
    app.gate.sweep()
    assert (app.queue("slow").stats().ready, app.queue("fast").stats().ready) == (1, 1)
    for left in range(4, 0, -1):
        assert app.gate.held("slow") == left
        app.queue("slow").ack(app.queue("slow").claim(1))
        app.gate.sweep()
        app.gate.sweep()
    assert (app.gate.held(), app.queue("slow").claim(1)[0].value["args"]) == (0, [4])
    app.close()
