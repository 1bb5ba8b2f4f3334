"""Several jobs at once in one worker process: in threads, and on one event loop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, JobFailed
from pistributer.workers.inspection.status import read_status
from pistributer.workers.run import run
from tests.worker_tools import RunningApp, is_gone, notes, wait_for

TASKS = """
import asyncio, contextvars, re, sys, threading
from pistributer import Cancel, TimeLimitExceeded

together = threading.Barrier(4)
request = contextvars.ContextVar("request")

class Context(Hook):
    def before_run(self, run):
        request.set(run.job_id)

app.add_hook(Context())

@app.task
def meet():
    together.wait(30)
    return request.get(), threading.get_ident(), os.getpid()

@app.task
async def meet_await():
    global meeting
    meeting = globals().get("meeting") or asyncio.Barrier(20)
    async with asyncio.timeout(30):
        await meeting.wait()
    return request.get(), threading.get_ident(), os.getpid()

@app.task(retries=2, retry_delay=0.01)
def fails_twice(n):
    note("tried", n)
    if notes("tried").count(str(n)) < 3:
        raise ValueError(n)
    return n

@app.task
def bad(kind):
    raise {"exit": SystemExit(3), "cancel": Cancel("no"), "value": ValueError("oh")}[kind]

@app.task
async def bad_await(kind):
    bad(kind)

@app.task
def unfit():
    return object()

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

@app.task(retries=5)
def endless(n):
    note("begun", n)
    try:
        while True:
            time.sleep(0.001)
    finally:
        note("tidied", n)

@app.task(retries=5)
async def endless_await(n):
    note("begun", n)
    try:
        await asyncio.sleep(60)
    finally:
        note("tidied", n)

@app.task
def quick(n):
    return n

@app.task
async def quick_await(n):
    await asyncio.sleep(0)
    return n

@app.task(crash_retries=0)
def hold(n):
    note("held", f"{n} {os.getpid()}")
    while not (HERE / "go").exists():
        time.sleep(0.005)
    return n

@app.task(hard_time_limit=0.5, crash_retries=0)
def stuck():
    re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C, and holds all other threads up

def notes(name):
    return (HERE / name).read_text().split()
"""


def run_until_empty(path: Path, **options: Any) -> list[str]:
    said: list[str] = []
    run(str(path), **{"processes": 1, "until_empty": True, "on_event": lambda it: said.append(it.action), **options})
    return said


def test_jobs_meet_in_threads_and_on_one_loop(app: App, app_file: Path) -> None:
    threads = [app.tasks["meet"].send() for _ in range(4)]
    coroutines = [app.tasks["meet_await"].send() for _ in range(20)]
    run_until_empty(app_file, threads=4, concurrency=20)
    met = [job.result(1) for job in threads]
    awaited = [job.result(1) for job in coroutines]
    # What a hook has set is seen by its job only.
    assert [job.id for job in (*threads, *coroutines)] == [name for name, _, _ in (*met, *awaited)]
    assert len({thread for _, thread, _ in met}) == 4
    assert len({thread for _, thread, _ in awaited}) == 1
    assert len({pid for _, _, pid in (*met, *awaited)}) == 1


def test_many_short_jobs_of_both_kinds(app: App, app_file: Path) -> None:
    jobs = [job for n in range(300) for job in (app.tasks["quick"].send(n), app.tasks["quick_await"].send(n))]
    jobs += [app.tasks["quick"].options(priority=n % 10).send(n) for n in range(50)]
    run_until_empty(app_file, processes=2, threads=3, concurrency=5)
    assert [job.result(1) for job in jobs] == [n for n in range(300) for _ in range(2)] + list(range(50))
    assert list(app.queue().scan()) == []


def test_every_end_of_a_job(app: App, app_file: Path, tmp_path: Path) -> None:
    again = [app.tasks["fails_twice"].send(n) for n in range(5)]
    bad = {
        (name, kind): app.tasks[name].send(kind)
        for name in ("bad", "bad_await")
        for kind in ("exit", "cancel", "value")
    }
    unfit = app.tasks["unfit"].send()
    said = run_until_empty(app_file, threads=4, concurrency=4)
    assert "died" not in said
    assert [job.result(1) for job in again] == list(range(5))
    assert sorted(notes(tmp_path, "tried")) == sorted(str(n) for n in range(5) for _ in range(3))
    for (_, kind), job in bad.items():
        with pytest.raises(JobFailed) as failure:
            job.result(1)
        assert failure.value.kind == {"exit": "SystemExit", "cancel": "Cancel", "value": "ValueError"}[kind]
    with pytest.raises(JobFailed, match="can not be kept as a result"):
        unfit.result(1)
    assert len(list(app.queue().scan("dead"))) == 5


def test_soft_limits(app: App, app_file: Path) -> None:
    jobs = {name: [app.tasks[name].send() for _ in range(3)] for name in ("slow", "tidy", "slow_await")}
    run_until_empty(app_file, threads=3, concurrency=3)
    for name in ("slow", "slow_await"):
        for job in jobs[name]:
            with pytest.raises(JobFailed, match=r"soft time limit of 0\.05 s") as failure:
                job.result(1)
            assert failure.value.kind == "TimeLimitExceeded"
    assert {job.result(1) for job in jobs["tidy"]} == {"tidied up after 0.05"}


def test_running_jobs_are_called_off_one_by_one(app: App, app_file: Path, tmp_path: Path) -> None:
    with RunningApp(app_file, processes=1, threads=3, concurrency=3, grace=0.2) as running:
        jobs = {
            name: app.tasks[name[:-1]].send(name)
            for name in ("endless1", "endless2", "endless_await1", "endless_await2")
        }
        wait_for(lambda: len(notes(tmp_path, "begun")) == 4)
        [worker] = read_status(app.url).workers
        assert {job.job for job in worker.running} == {job.id for job in jobs.values()}
        for name in ("endless2", "endless_await1"):
            jobs[name].cancel()
            with pytest.raises(JobFailed, match="called off while it ran") as failure:
                jobs[name].result(30)
            assert (failure.value.kind, jobs[name].status()) == ("Cancel", "cancelled")
        assert sorted(notes(tmp_path, "tidied")) == ["endless2", "endless_await1"]
        assert app.tasks["quick"].send(3).result(30) == 3
        assert (jobs["endless1"].status(), jobs["endless_await2"].status()) == ("running", "running")
        running.signal(signal.SIGTERM)
        running.outcome()


def test_who_is_told_to_stop_finishes_what_runs_and_gives_back_the_rest(
    app: App, app_file: Path, tmp_path: Path
) -> None:
    jobs = [app.tasks["hold"].send(n) for n in range(4)] + [app.tasks["quick_await"].send(9)]
    with RunningApp(app_file, processes=1, threads=2, concurrency=30, grace=None) as running:
        wait_for(lambda: len(notes(tmp_path, "held")) == 2)
        running.signal(signal.SIGTERM)
        pid = int(notes(tmp_path, "held")[0].split()[1])
        (tmp_path / "go").touch()
        outcome, _ = running.outcome()
    assert (outcome["reason"], outcome["deaths"], is_gone(pid)) == ("stopped", 0, True)
    assert [job.result(1) for job in jobs[:2]] == [0, 1]
    assert [row.attempt for row in app.queue().scan("ready")] == [0] * len(list(app.queue().scan("ready")))
    assert list(app.queue().scan("claimed")) == []


def test_killed_with_many_jobs_in_hand(app: App, app_file: Path, tmp_path: Path) -> None:
    jobs = [app.tasks["hold"].send(n) for n in range(3)]
    with RunningApp(app_file, processes=1, threads=3):
        wait_for(lambda: len(notes(tmp_path, "held")) == 3)
        os.kill(int(notes(tmp_path, "held")[0].split()[1]), signal.SIGKILL)
        for job in jobs:
            with pytest.raises(JobFailed, match="killed by SIGKILL"):
                job.result(30)


def test_a_hard_limit_charges_only_the_job_that_reached_it(app: App, app_file: Path, tmp_path: Path) -> None:
    neighbours = [app.tasks["hold"].send(n) for n in range(2)]
    with RunningApp(app_file, processes=1, threads=3):
        wait_for(lambda: len(notes(tmp_path, "held")) == 2)
        with pytest.raises(JobFailed, match="hard time limit"):
            app.tasks["stuck"].send().result(30)
        wait_for(lambda: len(notes(tmp_path, "held")) == 4)  # crash_retries=0, and yet they are begun again
        (tmp_path / "go").touch()
        assert [job.result(30) for job in neighbours] == [0, 1]
