"""`pistributer run` in real processes: progress, summary, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pistributer.cli import exits
from tests.test_cli import ROOT, shell

APP = """
import os, time
from pathlib import Path
from pistributer import App

app = App(Path(__file__).parent / "jobs")

@app.task(retries=0)
def double(number):
    if number == 13:
        raise ValueError("unlucky")
    return 2 * number

@app.producer
def numbers():
    for number in range({first}, {last}):
        yield double.call(number)
"""

IDLE = """
from pathlib import Path
from pistributer import App

app = App(Path(__file__).parent / "jobs")

@app.task
def nothing():
    Path(__file__).with_name("ran").touch()
"""


def write_app(folder: Path, first: int, last: int) -> str:
    path = folder / "app.py"
    path.write_text(APP.format(first=first, last=last))
    return str(path)


def test_until_empty_does_all_and_says_so_on_stderr(tmp_path: Path) -> None:
    done = shell("run", write_app(tmp_path, 20, 60), "--until-empty", "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("40 done, drained after")


def test_a_failed_item_makes_the_exit_code_3(tmp_path: Path) -> None:
    done = shell("run", write_app(tmp_path, 0, 20), "--until-empty", "--processes", "1")
    assert done.returncode == exits.ITEMS_FAILED
    assert "20 done, 1 failed" in done.stderr
    status = json.loads(shell("status", str(tmp_path / "jobs"), "--json").stdout)
    assert status["dead"] == 1
    rows = json.loads(shell("queue", "peek", str(tmp_path / "jobs"), "--state", "dead", "--json").stdout)
    assert "unlucky" in rows[0]["error"]


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("missing.py", None, "there is no file"),
        ("broken.py", "import nonsense_that_is_not_there", "nonsense_that_is_not_there"),
        ("empty.py", "x = 1", "has no app"),
    ],
)
def test_an_app_that_can_not_boot_exits_78_and_says_why(
    name: str, source: str | None, told: str, tmp_path: Path
) -> None:
    if source is not None:
        (tmp_path / name).write_text(source)
    done = shell("run", str(tmp_path / name))
    assert done.returncode == exits.CONFIG
    assert done.stderr.startswith("error: ")
    assert told in done.stderr


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`pistributer run` on an idle app, seen alive by `status`."""
    (folder / "app.py").write_text(IDLE)
    command = [sys.executable, "-m", "pistributer", "run", str(folder / "app.py"), "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        try:
            wait_for(lambda: is_up(folder))
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                child.communicate(timeout=30)


def is_up(folder: Path) -> bool:
    if not (folder / "jobs" / "run" / "running").exists():
        return False
    status = json.loads(shell("status", str(folder / "jobs"), "--json").stdout or '{"workers": []}')
    return any(worker["alive"] and worker["started"] for worker in status["workers"])


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        os.sched_yield()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, exits.TERMINATED), (signal.SIGINT, exits.INTERRUPTED)], ids=["TERM", "INT"]
)
def test_a_signal_drains_and_exits_by_its_own_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with running(tmp_path) as child:
        child.send_signal(number)
        _, told = child.communicate(timeout=30)
    assert child.returncode == code
    assert f"{number.name}: finishing what runs" in told
    assert "stopped after" in told


def test_quit_stops_at_once_and_exits_by_its_own_code(tmp_path: Path) -> None:
    with running(tmp_path) as child:
        child.send_signal(signal.SIGQUIT)
        _, told = child.communicate(timeout=30)
    assert child.returncode == exits.QUIT
    assert "SIGQUIT: stopping now" in told
    assert "killed after" in told


def test_status_sees_that_the_app_is_running(tmp_path: Path) -> None:
    with running(tmp_path) as child:
        shown = shell("status", str(tmp_path / "jobs")).stdout
        assert f"supervisor {child.pid} runs" in shown
        assert "worker default[1]" in shown
