"""`ps` and `top`: what the processes of an app do, once and live, in a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
from click.testing import CliRunner, Result

from pistributer import App
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.testing import Pool, pool
from pistributer.workers.loading import load_app
from tests.worker_tools import DEADLINE, environment, wait_for, write_app

TASKS = """
from pistributer import progress

@app.task
def wait(name):
    note("begun", name)
    progress(3, 12, f"page 3 of {name}")
    while not (HERE / f"stop {name}").exists():
        time.sleep(0.01)
    return name

@app.consumer("rows")
def take(row):
    pass
"""


def invoke(*args: object) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """An app with two workers and a consumer, all idle."""
    app = load_app(str(write_app(tmp_path_factory.mktemp("app"), TASKS)))
    with pool(app, processes=2) as started:
        started.folder = Path(app.module and sys.modules[app.module].HERE)  # type: ignore[attr-defined]
        yield started


@pytest.fixture
def busy(running: Pool) -> Iterator[Any]:
    """The same with a job that runs until the test is over."""
    name = f"job {time.monotonic_ns()}"
    job = running.app.tasks["wait"].send(name)
    folder: Path = running.folder  # type: ignore[attr-defined]
    wait_for(lambda: job.progress() is not None)
    yield job
    (folder / f"stop {name}").touch()
    wait_for(job.done)


# -- ps


def test_ps_lists_every_process_with_what_it_runs_and_uses(running: Pool, busy: Any) -> None:
    processes = json.loads(invoke("ps", running.app.url, "--json").stdout)
    assert [it["role"] for it in processes] == ["supervisor", "worker default", "worker default", "consumer take"]
    assert processes[0]["pid"] == running.process.pid
    assert all(it["memory"] > 1_000_000 and it["cpu"] >= 0 for it in processes)
    (worker,) = [it for it in processes if it["job"]]
    assert (worker["job"], worker["task"], worker["state"]) == (busy.id, "wait", "busy")
    assert (worker["progress"]["done"], worker["progress"]["total"]) == (3, 12)
    assert worker["progress"] == worker["running"][0]["progress"]
    assert {it["progress"] for it in processes if it is not worker} == {None}
    assert {it["state"] for it in processes[1:] if it is not worker} == {"idle"}
    table = invoke("ps", running.app.url).stdout.splitlines()
    assert table[0].split()[:6] == ["process", "pid", "state", "up", "cpu", "memory"]
    assert len(table) == 5
    assert any(f"wait {busy.id}" in line and "3/12 25%  page 3 of job" in line for line in table)


def test_ps_of_an_app_that_does_not_run(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    app.queue()
    app.close()
    told = invoke("ps", tmp_path / "jobs")
    assert (told.exit_code, told.stdout) == (exits.OK, "")
    assert "no supervisor" in told.stderr
    assert invoke("ps", tmp_path / "none").exit_code == exits.UNAVAILABLE
    assert invoke("ps", "memory:").exit_code == exits.USAGE


# -- top


class Screen(pyte.Screen):
    """With the two scrolling commands that pyte lacks and curses uses."""

    def scroll_up(self, count: int = 1) -> None:
        margins = self.margins or pyte.screens.Margins(0, self.lines - 1)
        line, self.cursor.y = self.cursor.y, margins.bottom
        for _ in range(count):
            self.index()
        self.cursor.y = line

    def scroll_down(self, count: int = 1) -> None:
        margins = self.margins or pyte.screens.Margins(0, self.lines - 1)
        line, self.cursor.y = self.cursor.y, margins.top
        for _ in range(count):
            self.reverse_index()
        self.cursor.y = line


class Stream(pyte.ByteStream):
    csi = {**pyte.ByteStream.csi, "S": "scroll_up", "T": "scroll_down"}  # noqa: RUF012
    events = pyte.ByteStream.events | {"scroll_up", "scroll_down"}


class Terminal:
    """`top` in a terminal of its own, and what stands on its screen."""

    def __init__(self, url: str, rows: int = 24, columns: int = 120, **variables: str) -> None:
        self.screen = Screen(columns, rows)
        self._stream = Stream(self.screen)
        self.raw = b""
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        command = [sys.executable, "-m", "pistributer", "top", url, "--interval", "0.2"]
        variables = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **variables}
        self.process = subprocess.Popen(
            command,
            # curses believes these two more than the terminal, and the tests' own runner sets them.
            env={name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")} | variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )

    def read(self, seconds: float = 0.0) -> None:
        while select.select([self._mine], [], [], seconds)[0]:
            data = os.read(self._mine, 65536)
            self.raw += data
            self._stream.feed(data)
            seconds = 0.0

    def sees(self, *words: str) -> None:
        """Until all these stand on the screen."""
        deadline = time.monotonic() + DEADLINE
        while not all(any(word in line for line in self.screen.display) for word in words):
            assert time.monotonic() < deadline, f"{words!r} on the screen:\n" + "\n".join(self.screen.display)
            self.read(0.1)

    def sees_not(self, words: str) -> None:
        """Until this stands nowhere on the screen."""
        deadline = time.monotonic() + DEADLINE
        while any(words in line for line in self.screen.display):
            assert time.monotonic() < deadline, f"{words!r} on the screen:\n" + "\n".join(self.screen.display)
            self.read(0.1)

    def press(self, keys: str) -> None:
        os.write(self._mine, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def ends(self) -> int:
        """How it ended, with the terminal as it was."""
        wait_for(lambda: self.process.poll() is not None, self.read)
        self.read()
        assert termios.tcgetattr(self._theirs) == self.before
        assert b"\x1b[?1049l" in self.raw, "the screen that was there before is back"
        assert self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l"), "the cursor is back"
        return int(self.process.wait())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._mine)
        os.close(self._theirs)


def test_top_shows_the_app_and_the_keys_and_q_leaves(running: Pool, busy: Any) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees(
            "supervisor", "queue", "default", "worker default[0]", "consumer take[0]", busy.id, "3/12 25%", "q quit"
        )
        assert terminal.screen.display[-1].startswith("q quit  j/k move  enter details  x cancel job")
        terminal.press("q")
        assert terminal.ends() == exits.OK


def test_the_screen_follows_what_happens(running: Pool) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees("q quit")
        job = running.app.tasks["wait"].send("a job for the screen")
        terminal.sees(job.id)
        folder: Path = running.folder  # type: ignore[attr-defined]
        (folder / "stop a job for the screen").touch()
        terminal.sees_not(job.id)
        terminal.press("q")
        assert terminal.ends() == exits.OK


def test_moving_details_filter_and_help(running: Pool, busy: Any) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees(busy.id)
        terminal.press("/busy")
        terminal.sees("/busy")
        terminal.press("\r")
        terminal.sees("q quit")
        terminal.sees_not("consumer take")
        terminal.press("\r")
        terminal.sees("pid", "task      wait", "state     claimed", "progress  3/12 25%  page 3", "any key goes back")
        terminal.press("q")  # goes back, and does not quit
        terminal.sees("q quit")
        terminal.press("/\x1b")
        terminal.sees("consumer take")
        terminal.press("jjjjjjkk")
        terminal.press("?")
        terminal.sees("call the job of the process off")
        terminal.press(" ")
        terminal.sees("q quit")
        terminal.press("q")
        assert terminal.ends() == exits.OK


def test_a_job_is_called_off_after_a_question(running: Pool) -> None:
    job = running.app.tasks["wait"].send("never")
    with Terminal(running.app.url) as terminal:
        terminal.sees(job.id)
        terminal.press(f"/{job.id}\r")
        terminal.sees_not("consumer take")
        terminal.press("x")
        terminal.sees(f"call off wait {job.id}?  y/n")
        terminal.press("n")
        terminal.sees("q quit")
        terminal.press("x")
        terminal.sees("y/n")
        terminal.press("y")
        terminal.sees("is called off")
        wait_for(lambda: job.status() == "cancelled", terminal.read)
        terminal.press("q")
        assert terminal.ends() == exits.OK


def test_a_queue_is_paused_and_its_workers_are_more_or_less(running: Pool) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees("worker default[1]")
        terminal.press("/worker\r")
        terminal.sees_not("consumer take")
        terminal.press("p")
        terminal.sees("default is paused")
        terminal.press("p")
        terminal.sees("default goes on")
        terminal.press("+")
        terminal.sees("3 processes for worker default", "worker default[2]")
        terminal.press("-")
        terminal.sees("2 processes for worker default")
        terminal.sees_not("worker default[2]")
        terminal.press("q")
        assert terminal.ends() == exits.OK


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, exits.TERMINATED), (signal.SIGINT, exits.INTERRUPTED)])
def test_a_signal_leaves_the_terminal_as_it_was(running: Pool, number: int, code: int) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees("q quit")
        terminal.process.send_signal(number)
        assert terminal.ends() == code


def test_an_error_leaves_the_terminal_as_it_was_and_is_told(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    app.queue()
    app.close()
    with Terminal(app.url) as terminal:
        terminal.sees("no supervisor", "q quit")
        (tmp_path / "jobs" / "queues").rename(tmp_path / "elsewhere")
        assert terminal.ends() == exits.UNAVAILABLE
        assert b"there is no app" in terminal.raw


def test_a_small_terminal_shows_what_fits(running: Pool) -> None:
    with Terminal(running.app.url, rows=6, columns=30) as terminal:
        terminal.sees("q quit")
        terminal.press("jjjj")
        terminal.sees("consumer take")
        terminal.press("q")
        assert terminal.ends() == exits.OK


def test_without_a_terminal_there_is_ps(running: Pool) -> None:
    told = invoke("top", running.app.url)
    assert told.exit_code == exits.USAGE
    assert "pistributer ps" in told.stderr


def test_a_terminal_that_changes_its_size_is_drawn_anew(running: Pool) -> None:
    with Terminal(running.app.url) as terminal:
        terminal.sees("consumer take")
        terminal.press("?")
        terminal.sees("call the job of the process off")
        terminal.resize(10, 40)
        terminal.sees("q          quit", "q quit  j/k move")  # the page stays, and the last line is the last
        assert terminal.screen.display[9].startswith("q quit")
        terminal.press(" q")
        assert terminal.ends() == exits.OK


@pytest.mark.parametrize("kind", ["no-such-terminal", "dumb"])
def test_a_terminal_that_can_not_move_its_cursor_is_told(running: Pool, kind: str) -> None:
    with Terminal(running.app.url, TERM=kind) as terminal:
        wait_for(lambda: terminal.process.poll() is not None, terminal.read)
        terminal.read()
        assert terminal.process.returncode == exits.USAGE
        assert b"set TERM" in terminal.raw
