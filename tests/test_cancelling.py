"""Jobs that are called off: before they begin they never do, and while they run they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pistributer import App, JobFailed
from pistributer.workers import cancelling
from pistributer.workers.run import run
from tests.worker_tools import RunningApp, notes, wait_for

TASKS = """
import asyncio

@app.task
def quick(n):
    note("ran", n)
    return n

@app.task(retries=5)
def slow(n):
    note("ran", f"slow {n}")
    try:
        while True:
            time.sleep(0.001)
    finally:
        note("tidied", n)

@app.task
async def slow_await(n):
    note("ran", f"await {n}")
    try:
        await asyncio.sleep(60)
    finally:
        note("tidied", f"await {n}")

@app.task(results=False)
def silent():
    note("ran", "silent")
"""


def assert_cancelled(job: Any, words: str) -> None:
    with pytest.raises(JobFailed, match=words) as failure:
        job.result(30)
    assert failure.value.kind == "Cancel"
    assert job.status() == "cancelled"


def run_until_empty(path: Path) -> None:
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)


def test_a_job_that_was_called_off_in_time_never_runs(app: App, app_file: Path, tmp_path: Path) -> None:
    jobs = app.tasks["quick"].send_many((n,) for n in range(20))
    silent = app.tasks["silent"].send()
    for job in (*jobs[::2], silent):
        job.cancel()
        assert job.status() == "cancelled"
    run_until_empty(app_file)
    assert notes(tmp_path, "ran") == [str(n) for n in range(1, 20, 2)]
    for job in jobs[::2]:
        assert_cancelled(job, "before it ran")
    assert [job.result(1) for job in jobs[1::2]] == list(range(1, 20, 2))
    assert list(app.queue().scan()) == []


def test_a_delayed_job_need_not_be_waited_for(app: App) -> None:
    job = app.tasks["quick"].options(delay=1000).send(1)
    job.cancel()
    assert_cancelled(job, "before it ran")


def test_running_jobs_are_interrupted_and_their_worker_goes_on(app: App, app_file: Path, tmp_path: Path) -> None:
    with RunningApp(app_file, processes=1) as running:
        for name, label in (("slow", "slow 7"), ("slow_await", "await 7")):
            job = app.tasks[name].send(7)
            wait_for(lambda label=label: label in notes(tmp_path, "ran"))
            job.cancel()
            assert_cancelled(job, "called off while it ran")
        assert notes(tmp_path, "tidied") == ["7", "await 7"]
        assert app.tasks["quick"].send(3).result(30) == 3
        running.signal(15)
        outcome, _ = running.outcome()
    assert outcome["deaths"] == 0
    assert list(app.queue().scan()) == []  # neither tried again nor dead


def test_a_job_that_has_ended_stays_as_it_ended(app: App, app_file: Path) -> None:
    job = app.tasks["quick"].send(5)
    run_until_empty(app_file)
    job.cancel()
    assert (job.status(), job.result(1)) == ("done", 5)


def test_what_has_ended_is_forgotten_and_what_waits_is_not(app: App, app_file: Path) -> None:
    ended, waiting = app.tasks["quick"].send(1), app.tasks["quick"].options(delay=1000).send(2)
    ended.cancel()
    run_noted = cancelling.CalledOff(app.home.run)
    with RunningApp(app_file, processes=1):
        wait_for(lambda: not list(app.queue().scan("ready", "claimed")))
    waiting.cancel()
    assert run_noted.read() == {ended.id, waiting.id}
    with RunningApp(app_file, processes=1):
        wait_for(lambda: run_noted.read() == {waiting.id})
    assert waiting.status() == "cancelled"


def test_notes_are_whole_lines(tmp_path: Path) -> None:
    reader = cancelling.CalledOff(str(tmp_path))
    assert reader.read() == frozenset()
    cancelling.call_off(str(tmp_path), "a")
    with (tmp_path / "cancelled").open("a") as file:
        file.write("tor")  # a dying process's
    assert reader.read() == {"a"}
    cancelling.call_off(str(tmp_path), "b")
    assert reader.read() == {"a", "b"}
    cancelling.forget_all_but(str(tmp_path), ["b", "c"])
    assert reader.read() == {"b"}
