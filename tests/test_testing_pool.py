"""A real pool for users' tests: it starts, works where nothing else lives, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, JobFailed
from pistributer.testing import eager, pool
from pistributer.workers.loading import load_app
from tests.worker_tools import environment, is_gone, notes, wait_for, write_app

TASKS = """
import subprocess, sys

@app.task
def add(a, b):
    return a + b, os.getpid()

@app.task
def die_once():
    if not notes_of("died"):
        note("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"

def notes_of(name):
    return (HERE / name).exists()

@app.task(results=False)
def leave_something():
    note("left", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
"""


@pytest.mark.parametrize("driver", ["jsonl", "sqlite"])
def test_a_pool_runs_real_workers_in_a_folder_of_its_own(tmp_path: Path, driver: str) -> None:
    url = str(tmp_path / "jobs") if driver == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"
    app = load_app(str(write_app(tmp_path, TASKS, url)))
    with pool(app, processes=2) as running:
        total, pid = app.tasks["add"].send(1, b=2).result(30)
        assert total == 3
        assert pid in [worker.pid for worker in running.workers()]
        assert app.tasks["die_once"].send().result(30) == "survived"
        running.wait_until_empty()
        pids = [running.process.pid, *(worker.pid for worker in running.workers())]
    assert all(map(is_gone, pids))
    assert app.url == url
    assert not (tmp_path / "jobs").exists()
    assert not (tmp_path / "jobs.db").exists()


def test_what_a_pool_leaves_behind_fails_the_test_and_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pistributer.testing.pools._MOMENT", 1.0)
    app = load_app(str(write_app(tmp_path, TASKS)))

    def use() -> None:
        with pool(app) as running:
            app.tasks["leave_something"].send()
            running.wait_for(lambda: notes(tmp_path, "left"))

    with pytest.raises(AssertionError, match=r"left behind.*time\.sleep"):
        use()
    wait_for(lambda: is_gone(int(notes(tmp_path, "left")[0])))


def test_a_pool_that_can_not_start_says_why(tmp_path: Path) -> None:
    app = load_app(str(write_app(tmp_path, "if os.environ.get('PISTRIBUTER_REDIRECT'): raise OSError('no database')")))
    with pytest.raises(RuntimeError, match="no database"), pool(app):
        raise AssertionError("it has not started")
    assert app.home.folder == str(tmp_path / "jobs")


def test_an_error_in_the_test_ends_the_pool_too(tmp_path: Path) -> None:
    app = load_app(str(write_app(tmp_path, TASKS)))
    pids: list[int] = []

    def use() -> None:
        with pool(app) as running:
            pids.extend(worker.pid for worker in running.workers())
            os.kill(running.process.pid, signal.SIGSTOP)  # not even able to hear of its end
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert pids
    assert all(map(is_gone, pids))


def test_the_fixtures_of_the_plugin(tmp_path: Path) -> None:
    """In a project of its own, as a user has it."""
    (tmp_path / "shop.py").write_text(
        "from pistributer import App\napp = App('shop')\n\n@app.task\ndef one():\n    return 1\n"
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pistributer.testing.plugin"]\n')
    (tmp_path / "test_shop.py").write_text(
        textwrap.dedent("""
        import shop

        def test_eager(pistributer_eager):
            pistributer_eager(shop.app)
            assert shop.one.send().result() == 1

        def test_memory(pistributer_memory):
            box = pistributer_memory(shop.app)
            shop.one.send()
            assert len(box.calls(shop.one)) == 1

        def test_pool(pistributer_pool, tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            pistributer_pool(shop.app, processes=1)
            assert shop.one.send().result(30) == 1

        def test_the_app_is_back():
            assert shop.app.stand_in is None
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert not (tmp_path / "shop").exists()


ANSWERS = """
from pistributer import Cancel, Retry, Snooze

@app.task
def echo(value):
    return value

@app.task(retries=2, retry_delay=0.01)
async def fail(words):
    raise ValueError(words)

@app.task(retries=1, retry_delay=0.01, stop_on=KeyError)
def stop():
    raise KeyError("never again")

@app.task(retries=1)
def ask():
    raise Retry("once more", after=0.01)

@app.task
def cancel():
    raise Cancel("not wanted")

@app.task
def unfit():
    return {1, 2}

@app.task(soft_time_limit=0.05)
def slow():
    while True:
        pass

@app.task
def leave():
    raise SystemExit(3)
"""


def _answers(app: App) -> list[tuple[Any, ...]]:
    """How each job ended, as its sender sees it."""
    task = app.tasks
    jobs = [
        task["echo"].send(((1, 2), {"a": None})), task["fail"].send("no"), task["stop"].send(), task["ask"].send(),
        task["cancel"].send(), task["unfit"].send(), task["slow"].send(), task["leave"].send(),
    ]  # fmt: skip
    found: list[tuple[Any, ...]] = []
    for job in jobs:
        try:
            found.append((job.task, job.result(30), job.status()))
        except JobFailed as error:
            found.append((job.task, error.kind, error.text, error.attempts, job.status()))
    dead = sorted((row.value["task"], row.attempt) for row in app.queue().scan("dead"))
    return [*found, ("dead", dead)]


def test_what_comes_of_a_job_is_the_same_played_and_for_real(tmp_path: Path) -> None:
    app = load_app(str(write_app(tmp_path, ANSWERS)))
    with eager(app):
        played = _answers(app)
    with pool(app):
        assert _answers(app) == played
    assert played[0] == ("echo", [[1, 2], {"a": None}], "done")
    assert played[1] == ("fail", "ValueError", "no", 3, "failed")
