"""A task that takes too long is told so, or its process is killed; either way it is known why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, JobFailed
from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from pistributer.workers.supervision import runs
from pistributer.workers.supervision.board import Board, create
from tests.worker_tools import DEADLINE, RunningApp, is_gone, notes, wait_for, write_app

TASKS = """
import asyncio, re
from pistributer import TimeLimitExceeded

@app.task(soft_time_limit=0.05)
def slow():
    while True:
        time.sleep(0.001)

@app.task(soft_time_limit=0.05)
def tidy():
    try:
        while True:
            time.sleep(0.001)
    except TimeLimitExceeded as error:
        return f"tidied up after {error.limit}"

@app.task(soft_time_limit=0.05)
async def slow_await():
    await asyncio.sleep(60)

@app.task(soft_time_limit=60)
async def own_timeout():
    raise TimeoutError("mine")

@app.task(soft_time_limit=0.05)
def quick(n):
    return n

@app.task(hard_time_limit=0.2, crash_retries=1)
def stuck():
    note("stuck", os.getpid())
    re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C, and deaf to signals
"""


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    return write_app(tmp_path, TASKS)


def run_jobs(path: Path, *names: str, **options: Any) -> tuple[App, list[Any]]:
    app = load_app(str(path))
    jobs = [app.tasks[name].send() for name in names]
    run(str(path), processes=1, until_empty=True, **{"on_event": lambda said: None, **options})
    return app, jobs


def test_a_soft_limit_is_raised_inside_the_task(app_file: Path) -> None:
    app, (slow, tidy, slow_await, own) = run_jobs(app_file, "slow", "tidy", "slow_await", "own_timeout")
    for job in (slow, slow_await):
        with pytest.raises(JobFailed, match=r"soft time limit of 0\.05 s") as failure:
            job.result(1)
        assert failure.value.kind == "TimeLimitExceeded"
    assert tidy.result(1) == "tidied up after 0.05"
    with pytest.raises(JobFailed, match="TimeoutError: mine"):
        own.result(1)
    app.close()


def test_a_limit_that_is_kept_does_nothing(app_file: Path) -> None:
    app = load_app(str(app_file))
    jobs = app.tasks["quick"].send_many((n,) for n in range(500))
    run(str(app_file), processes=1, until_empty=True, on_event=lambda said: None)
    assert [job.result(1) for job in jobs] == list(range(500))
    app.close()


def test_a_hard_limit_kills_the_process_and_the_dead_letter_says_why(app_file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    started = time.monotonic()
    app, (job,) = run_jobs(app_file, "stuck", on_event=lambda it: said.append(it.action))
    assert time.monotonic() - started < 20
    pids = [int(pid) for pid in notes(tmp_path, "stuck")]
    assert len(set(pids)) == len(pids) == 2  # crash_retries, and both attempts counted
    assert all(map(is_gone, pids))
    assert said.count("time_limit") == 2
    (dead,) = app.queue().scan("dead")
    assert "was killed because stuck reached its hard time limit" in (dead.error or "")
    with pytest.raises(JobFailed, match="hard time limit"):
        job.result(1)
    app.close()


ORPHANS = """
import re

@app.task(hard_time_limit=2.0)
def hang():
    note("hang", os.getpid())
    if len((HERE / "hang").read_text().split()) == 1:
        re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C, and holds the interpreter's lock
    return "in the end"

@app.task(crash_retries=0)
def wait(n):
    note("waiting")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return n
"""


@pytest.mark.parametrize(
    ("threads", "when"),
    [(1, "comes later"), (2, "comes later"), (1, "is there")],
    ids=["alone", "with a neighbour", "beside"],
)
def test_a_job_that_hangs_in_c_is_ended_though_its_supervisor_was_killed(
    tmp_path: Path, threads: int, when: str
) -> None:
    path = write_app(tmp_path, ORPHANS)
    app = load_app(str(path))
    neighbour = app.tasks["wait"].send(1) if threads == 2 else None
    with RunningApp(path, processes=1, threads=threads) as first, contextlib.ExitStack() as stack:
        if neighbour is not None:
            wait_for(lambda: notes(tmp_path, "waiting"))
        job = app.tasks["hang"].send()
        wait_for(lambda: notes(tmp_path, "hang"))
        if when == "is there":
            second = stack.enter_context(RunningApp(path, processes=1, threads=threads))
            wait_for(lambda: len(read_status(app.url).supervisors) == 2)
        first.signal(signal.SIGKILL)
        first.process.wait()
        (orphan,) = map(int, notes(tmp_path, "hang"))
        if when != "is there":
            second = stack.enter_context(RunningApp(path, processes=1, threads=threads))
        assert job.result(DEADLINE) == "in the end"
        assert is_gone(orphan)
        died, ended = job.attempts()
        assert (died.what, died.pid, ended.what) == ("died", orphan, "done")
        assert "was killed because hang reached its hard time limit" in died.text
        assert died.death is not None
        assert "fullmatch" in died.death.stack
        if neighbour is not None:  # it is not to blame
            wait_for(lambda: len(notes(tmp_path, "waiting")) == 2)
            (tmp_path / "go").touch()
            assert neighbour.result(DEADLINE) == 1
        second.signal(signal.SIGTERM)
        outcome, said = second.outcome()
    assert (outcome["reason"], outcome["deaths"], said.count("time_limit")) == ("stopped", 0, 1)
    app.close()


def test_only_a_process_that_has_the_board_is_taken_for_an_orphan(tmp_path: Path) -> None:
    """In another container, its number may be another process's."""
    folder = tmp_path / "4711-abcdef"
    folder.mkdir()
    create(str(folder / "board"), 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert not runs.is_at(str(folder), other.pid, time.time())
        other.kill()
    board = Board(str(folder / "board"))
    assert runs.is_at(str(folder), os.getpid(), time.time())
    assert not runs.is_at(str(folder), os.getpid(), 1.0)
    board.close()


@pytest.mark.parametrize("option", ["soft_time_limit", "hard_time_limit"])
def test_a_limit_must_be_positive(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        App(tmp_path / "jobs").task(**{option: 0})(print)  # type: ignore[call-overload]
