"""The page beside the board: progress of several jobs, and the last lines that were logged, whole after a kill."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pistributer.workers.hooks import Run
from pistributer.workers.progress import Reports
from pistributer.workers.supervision import last_words
from pistributer.workers.supervision.last_words import logged_since
from pistributer.workers.supervision.pages import ENTRIES, Page, find_progress
from tests.worker_tools import environment


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "running" / "4711-5f0c").mkdir(parents=True)
    page = Page(str(tmp_path / "running" / "4711-5f0c" / "board.0"), fresh=True)
    yield page
    page.close()


def test_progress_is_read_from_another_map(page: Page, tmp_path: Path) -> None:
    page.open_entry(3, "5f0c")
    assert find_progress(str(tmp_path), "5f0c") is None  # it has not said anything yet
    page.say(3, 1.5, None, "tea ☕ ".encode() * 100)
    said = find_progress(str(tmp_path), "5f0c")
    assert said is not None
    assert (said.done, said.total) == (1.5, None)
    assert said.text.startswith("tea ☕ tea ☕")
    assert len(said.text.encode()) <= 208
    assert find_progress(str(tmp_path), "5f0") is None
    assert find_progress(str(tmp_path / "nowhere"), "5f0c") is None


def test_more_jobs_than_entries_lose_only_the_live_view(page: Page, tmp_path: Path) -> None:
    from pistributer import App
    from pistributer.workers.history import last_progress

    app = App(tmp_path / "jobs")
    app.home.create()
    task = app.task(name="walk")(print)
    runs = [Run(f"job-{number}", task, {}, 1, task.policy) for number in range(ENTRIES + 2)]
    reports = Reports(page)
    for number, run in enumerate(runs):
        run.report = reports.open(run)
        run.progress(number, 100, "on")
    with pytest.raises(TypeError, match="progress takes numbers"):
        runs[-1].progress("far", 100)  # type: ignore[arg-type]
    assert len(page.progress()) == ENTRIES
    log = app.open_history_log()
    runs[0].progress(float("nan"))
    reports.flush(log)
    log.close()
    assert [getattr(last_progress(app.home.history, run.job_id), "done", None) for run in runs] == [
        0, *range(1, ENTRIES + 2),
    ]  # fmt: skip
    app.close()


def test_the_ring_keeps_the_last_whole_lines(page: Page) -> None:
    for number in range(1000):
        page.log(f"{number}.0 line {number} {'x' * (number % 70)}".encode())
    lines = page.logged()
    assert lines[-1].startswith(b"999.0 line 999")
    numbers = [int(line.split()[2]) for line in lines]
    assert numbers == list(range(numbers[0], 1000))
    assert len(lines) > 40
    page.log(b"1000.0 " + b"y" * 100_000)
    assert page.logged()[-1].endswith(b"yyy")
    assert logged_since(page, 999.5).endswith("yyy")


def test_logging_goes_on_as_ever(tmp_path: Path) -> None:
    """basicConfig works, warnings without any handler reach standard error, and a kill leaves the last lines behind."""
    code = f"""
import logging, os, signal
from pistributer.workers.supervision.last_words import open_page
open_page({str(tmp_path / "board")!r}, 0)
logging.getLogger("a").warning("nobody %s", "listens")
logging.getLogger("a").info("not let through")
logging.basicConfig(format="HANDLED %(message)s", level=logging.INFO)
logging.getLogger("b").info("somebody does\\nnow")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("c").exception("oh")
logging.raiseExceptions = False
logging.getLogger("d").error("%d", "no number")
logging.makeLogRecord({{"msg": "sent from elsewhere"}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    before = time.time()
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.startswith("nobody listens\nHANDLED somebody does\nnow\nHANDLED oh\nTraceback")
    page = Page(str(tmp_path / "board.0"))
    said = [line.split(" ", 1)[1] for line in logged_since(page, before).splitlines()]
    assert said == [
        "WARNING a: nobody listens", "INFO b: somebody does ⏎ now", "ERROR c: oh [ZeroDivisionError: division by zero]",
    ]  # fmt: skip
    assert logged_since(page, time.time()) == ""
    page.close()


def test_a_process_is_asked_where_it_is(tmp_path: Path) -> None:
    if last_words.STACK is None:
        pytest.skip("no real-time signals here")
    code = f"""
import os, signal
from pistributer.workers.supervision.last_words import STACK, open_page
open_page({str(tmp_path / "board")!r}, 0)
def stuck():
    os.kill(os.getpid(), STACK)
stuck()
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    assert "in stuck" in last_words.stack_since(str(tmp_path / "board.0.stack"), time.time() - 60)
    os.utime(tmp_path / "board.0.stack", (0, 0))
    assert last_words.stack_since(str(tmp_path / "board.0.stack"), time.time() - 60) == ""
    assert last_words.stack_since(str(tmp_path / "none"), 0) == ""


def test_nothing_is_noted_in_this_process() -> None:
    assert logging.getLogRecordFactory() is logging.LogRecord
