"""Jobs that kill their worker, in every way that we know, beside jobs that do no harm: the former die of it, nobody else.

With one job at a time in a process, and with several; each poison costs its attempts, ends in the dead letters
and is told with its cause, and each neighbour is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from pistributer.workers.app import App
from pistributer.workers.history import Attempt
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import notes, write_app

BODY = """
import ctypes, re, sys

@app.task(crash_retries=1)
def segfault():
    ctypes.string_at(0)

@app.task(crash_retries=1)
def abort():
    os.abort()

@app.task(crash_retries=1)
def kill():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(crash_retries=1)
def leave():
    os._exit(7)

@app.task(crash_retries=1, hard_time_limit=0.5)
def loop():
    re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C

@app.task(crash_retries=1)
def detach():
    if os.fork() == 0:
        note("detached", os.getpid())
        os.setsid()
        time.sleep(120)
    os._exit(8)

@app.task(crash_retries=1)
def eat():
    return bytearray(1 << 60)

@app.task(crash_retries=1)
def leave_politely():
    sys.exit(9)

@app.task
def harmless(n):
    time.sleep(0.01)
    note("done", n)
    return n
"""

#: What is told of each attempt: how it ended, and by which signal, exit code or exception.
DIED = {
    "segfault": "SIGSEGV", "abort": "SIGABRT", "kill": "SIGKILL", "leave": 7, "loop": "SIGKILL", "detach": 8,
}  # fmt: skip
FAILED = {"eat": "MemoryError", "leave_politely": "SystemExit"}
HARMLESS = 40


@pytest.mark.parametrize(("driver", "threads"), [("jsonl", 1), ("sqlite", 3)])
def test_poison_kills_nobody_else(tmp_path: Path, driver: str, threads: int) -> None:
    url = str(tmp_path / "jobs") if driver == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"
    path = write_app(tmp_path, BODY, url)
    app = load_app(str(path))
    poison = {}
    for number, name in enumerate((*DIED, *FAILED)):
        app.tasks["harmless"].send_many((n,) for n in range(number * 5, number * 5 + 5))
        poison[name] = app.tasks[name].send()
    try:
        outcome = run(str(path), processes=2, threads=threads, until_empty=True, on_event=lambda said: None)
    finally:
        end_detached(tmp_path)
    assert outcome.reason == "drained"
    assert {int(n) for n in notes(tmp_path, "done")} == set(range(HARMLESS))
    assert dead(app) == sorted(poison)
    for name, job in poison.items():
        attempts = job.attempts()
        if name in DIED:
            assert [told(attempt) for attempt in attempts] == [("died", DIED[name])] * 2, (name, attempts)
        else:
            assert [(attempt.what, attempt.kind) for attempt in attempts] == [("failed", FAILED[name])]
    assert "hard time limit" in poison["loop"].attempts()[-1].text
    app.close()


def told(attempt: Attempt) -> tuple[str, str | int | None]:
    death = attempt.death
    return attempt.what, None if death is None else death.signal or death.exit_code


def dead(app: App) -> list[str]:
    return sorted(row.value["task"] for row in app.queue().scan("dead"))


def end_detached(folder: Path) -> None:
    for pid in notes(folder, "detached"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
