"""A task that takes too long is told so, or its process is killed; either way it is known why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, JobFailed
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import is_gone, notes, write_app

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


@pytest.mark.parametrize("option", ["soft_time_limit", "hard_time_limit"])
def test_a_limit_must_be_positive(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        App(tmp_path / "jobs").task(**{option: 0})(print)  # type: ignore[call-overload]
