"""Calling off a chain, a group or a chord: what has not begun never begins, at whichever step it is and whoever is killed."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, Job, JobFailed, chain, chord, group
from pistributer.errors import NoSupervisor
from pistributer.testing import memory
from pistributer.workers import control
from pistributer.workers.cancelling import CalledOff, call_off
from pistributer.workers.composition import ComposedJob
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from pistributer.workers.supervision import runs

from .crashing import every_kill
from .gate_tools import note, work
from .processes import Child, wait_for
from .sqlite_tools import die_before
from .worker_tools import RunningApp, notes, write_app
from .worker_tools import wait_for as wait_until


class World:
    """An app with a task that adds and notes what it did."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.app = App(folder / "jobs")

        @self.app.task
        def add(a: int, b: int) -> int:
            note(folder, "ran", f"{os.getpid()}:{a}+{b}")
            return a + b

        @self.app.task
        def total(values: list[int]) -> int:
            note(folder, "ran", f"{os.getpid()}:total")
            return sum(values)

        self.add, self.total = add, total

    def ran(self) -> list[str]:
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []

    def chain(self) -> Any:
        return chain(self.add.call(1, 1), self.add.then(1), self.add.then(1))

    def chord(self) -> Any:
        return chord([self.add.call(5, 5), self.chain(), self.add.call(6, 6)], self.total.then())

    def group(self) -> Any:
        return group([self.chain(), self.add.call(7, 7)])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def is_cancelled(job: Job[Any]) -> None:
    assert job.status() == "cancelled"
    with pytest.raises(JobFailed) as failure:
        job.result(5)
    assert failure.value.kind == "Cancel"


COMPOSITIONS: dict[str, Callable[[World], Any]] = {"chain": World.chain, "chord": World.chord, "group": World.group}


@pytest.mark.parametrize("kind", COMPOSITIONS)
@pytest.mark.parametrize("looked", [False, True])
def test_before_anything_began(world: World, kind: str, looked: bool) -> None:
    job = COMPOSITIONS[kind](world).send()
    world.add.send(0, 0)
    job.cancel()
    jobs = list(job) if kind == "group" else [job]
    if looked:  # by those who ask before any worker came by
        for one in jobs:
            is_cancelled(one)
    work(world.app)
    for one in jobs:
        is_cancelled(one)
    assert [ran.split(":")[1] for ran in world.ran()] == ["0+0"]
    assert world.app.gate.held() == 0
    world.app.close()


def test_in_the_testing_kit(world: World) -> None:
    with memory(world.app) as stage:
        job = world.chain().send()
        job.cancel()
        stage.run_until_empty()
        is_cancelled(job)
    assert world.ran() == []


def test_a_handle_goes_to_another_process_whole(world: World) -> None:
    job = world.chord().send()
    assert isinstance(job, ComposedJob)
    elsewhere = pickle.loads(pickle.dumps(job))
    assert (elsewhere, elsewhere.ids) == (job, job.ids)
    assert len(set(job.ids)) == 6
    elsewhere.cancel()
    work(world.app)
    assert world.ran() == []
    world.app.close()


def test_what_has_ended_stays_as_it_is(world: World) -> None:
    job = world.chain().send()
    work(world.app)
    job.cancel()
    assert (job.status(), job.result(1)) == ("done", 4)
    single = chain(world.add.call(1, 1)).send()
    assert type(single) is Job
    world.app.close()


@pytest.mark.parametrize("kind", ["chain", "chord"])
def test_nothing_begins_after_it_wherever_the_worker_was_killed(tmp_path: Path, kind: str) -> None:
    for at in itertools.count(1, 4):
        world, through = World(tmp_path / str(at)), ""
        job = COMPOSITIONS[kind](world).send()
        world.app.close()
        with Child(_work, world, at) as child:
            try:
                through = child.hear()
            except EOFError:
                wait_for(lambda child=child: not child.alive, "the child's end")
        job.cancel()
        before = world.ran()
        work(world.app)
        assert world.ran() == before, "a job began that had been called off"
        if job.status() == "cancelled":
            is_cancelled(job)
        else:
            assert before[-1].endswith("total" if kind == "chord" else "3+1")
            assert job.result(5) == (26 if kind == "chord" else 4)
        assert world.app.gate.held() == 0
        world.app.close()
        if through:
            assert at > 20
            return


def _work(pipe: Any, world: World, at: int) -> None:
    die_before(at)
    work(world.app)
    pipe.send("through")


def test_who_is_killed_while_he_calls_off_has_called_off_all_or_nothing(tmp_path: Path) -> None:
    worlds: list[tuple[World, ComposedJob[int]]] = []

    def prepare(at: int) -> Callable[[Callable[[str, Any], None]], None]:
        world = World(tmp_path / str(at))
        worlds.append((world, world.chord().send()))
        world.app.close()
        return lambda tell: worlds[-1][1].cancel()

    for _ in every_kill(prepare):
        world, job = worlds[-1]
        assert CalledOff(world.app.home.run).read() in (frozenset(), frozenset(job.ids))
        world.app.close()


# -- in a real pool

TASKS = """
@app.task
def first(deaf):
    note("began", "first")
    end = time.monotonic() + 60
    while time.monotonic() < end and not (HERE / "go").exists():
        try:
            time.sleep(0.005)
        except BaseException:
            if not deaf:
                raise
    return 1

@app.task
def then(n):
    note("began", "then")
    return n + 1

@app.task
def fail(n):
    note("began", "fail")
    if not (HERE / "go").exists():
        raise ValueError("not yet")
    return n
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_app(tmp_path, TASKS)


@pytest.mark.parametrize("deaf", [False, True])
def test_the_step_that_runs_is_interrupted_and_no_other_begins(path: Path, tmp_path: Path, deaf: bool) -> None:
    app = load_app(str(path))
    job = chain(app.tasks["first"].call(deaf), app.tasks["then"].then(), app.tasks["then"].then()).send()
    with RunningApp(path, processes=2, until_empty=True) as running:
        wait_until(lambda: notes(tmp_path, "began"))
        job.cancel()
        if deaf:
            (tmp_path / "go").touch()
        assert running.outcome()[0]["exit_code"] == 0
    assert notes(tmp_path, "began") == ["first"]
    is_cancelled(job)
    app.close()


def test_it_is_remembered_by_the_next_supervisor_for_what_is_yet_to_follow(path: Path, tmp_path: Path) -> None:
    """The killed one's job is run again; what follows from it is in no queue when the next supervisor tidies up."""
    app = load_app(str(path))
    job = chain(app.tasks["first"].call(True), app.tasks["then"].then(), app.tasks["then"].then()).send()
    follower = app.job(job.ids[1])
    with RunningApp(path, processes=1) as running:
        wait_until(lambda: notes(tmp_path, "began"))
        follower.cancel()
        running.signal(signal.SIGKILL)
        running.process.wait(30)
        (tmp_path / "go").touch()
    finish(path)
    assert set(notes(tmp_path, "began")) == {"first"}
    is_cancelled(follower)
    app.close()


def test_nothing_is_forgotten_while_workers_of_a_dead_supervisor_are_at_work(path: Path, tmp_path: Path) -> None:
    """What follows from their jobs moves from place to place, and could be missed at each."""
    app = load_app(str(path))
    job = app.tasks["first"].send(True)
    with RunningApp(path, processes=1) as running:
        wait_until(lambda: notes(tmp_path, "began"))
        running.signal(signal.SIGKILL)
        running.process.wait(30)
        call_off(app.home.run, "nobody's")
        with RunningApp(path, processes=1):
            wait_until(lambda: is_running(app))
            assert "nobody's" in CalledOff(app.home.run).read()
            (tmp_path / "go").touch()
            assert job.result(30) == 1
    wait_until(lambda: not any(map(runs._has_children, runs.left_behind(app.home.run))))
    finish(path)
    assert "nobody's" not in CalledOff(app.home.run).read()
    app.close()


def is_running(app: App) -> bool:
    try:
        return bool(control.status(app.url))
    except NoSupervisor:
        return False


def test_it_is_remembered_for_what_follows_from_tickets(path: Path, tmp_path: Path) -> None:
    """A callback, and what follows from a job that waits for its key, are in no row of a queue."""
    app = load_app(str(path))
    (tmp_path / "go").touch()
    fail, then = app.tasks["fail"], app.tasks["then"]
    callback = chord([fail.call(1), fail.call(2)], then.then()).send()
    fail.options(key="k").send(3)
    held = chain(fail.options(key="k").call(4), then.then()).send()
    for job in (callback, held):
        app.job(job.id).cancel()  # that one only
    finish(path)
    assert notes(tmp_path, "began") == ["fail"] * 4
    for job in (callback, held):
        is_cancelled(job)
    app.close()


def test_what_follows_from_a_dead_letter_stays_called_off(path: Path, tmp_path: Path) -> None:
    app = load_app(str(path))
    job = chain(app.tasks["fail"].call(1), app.tasks["then"].then()).send()
    finish(path)
    job.cancel()
    finish(path)
    (tmp_path / "go").touch()
    assert app.queue().requeue_dead() == 1
    finish(path)
    assert "then" not in notes(tmp_path, "began")
    app.close()


def finish(path: Path) -> None:
    assert run(str(path), until_empty=True, processes=1, on_event=lambda said: None).reason == "drained"
