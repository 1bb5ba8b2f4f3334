"""Producers that go on where they were: no row missing and none twice, however often they are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers.app import App
from pistributer.workers.inspection.status import WorkerStatus, read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import APP_DRIVERS, RunningApp, app_url, notes, wait_for, write_app

DRIVERS = pytest.mark.parametrize("driver", APP_DRIVERS)

IMPORT = """
@app.producer
def lines(checkpoint):
    note("began", checkpoint)
    for n in range(checkpoint or 0, LINES):
        # Calls, and every tenth time a row of another queue.
        yield (double.call(n) if n % 10 else ("rows", str(n))), n + 1

@app.task(results=False)
def double(n):
    note("doubled", n)

@app.consumer("rows", batch=50)
def keep(rows):
    note("kept", "\\n".join(rows))
"""


def run_until_empty(path: Path, **options: Any) -> Any:
    return run(str(path), until_empty=True, on_event=lambda said: None, **{"processes": 1, **options})


@DRIVERS
def test_a_producer_that_is_killed_goes_on_without_a_gap_or_a_repeat(tmp_path: Path, driver: str) -> None:
    # Slow enough to be killed in the middle, four times.
    body = IMPORT.replace("LINES", "3000").replace("        # Calls", "        time.sleep(0.0003)\n        # Calls")
    path = write_app(tmp_path, body, app_url(tmp_path, driver))
    home = load_app(str(path)).home
    home.create()
    url = home.url
    with RunningApp(path, processes=1, until_empty=True) as running:
        for kill in range(4):
            victim = wait_for(lambda kill=kill: _producer(url, 500 * (kill + 1)))
            os.kill(victim.pid, signal.SIGKILL)
            wait_for(lambda pid=victim.pid: _producer(url, 0, unlike=pid))
        outcome, _ = running.outcome()
    assert (outcome["exit_code"], outcome["deaths"]) == (0, 4)
    assert notes(tmp_path, "kept") == [str(n) for n in range(0, 3000, 10)]
    assert notes(tmp_path, "doubled") == [str(n) for n in range(3000) if n % 10]
    began = [0 if it == "None" else int(it) for it in notes(tmp_path, "began")]
    assert began == sorted(set(began))
    assert len(began) == 5


def _producer(url: str, least: int, *, unlike: int = 0) -> WorkerStatus | None:
    """The producer's process, if it lives, is another than `unlike`, and it and those before it have put so many rows."""
    found = next((it for it in read_status(url).workers if it.role == "producer lines"), None)
    return found if found and found.alive and found.put >= least and found.pid != unlike else None


def test_the_next_run_goes_on_too_and_rewind_begins_again(tmp_path: Path) -> None:
    path = write_app(tmp_path, IMPORT.replace("LINES", "30"))
    for _ in range(2):
        run_until_empty(path)
    assert notes(tmp_path, "began") == ["None", "30"]
    assert len(notes(tmp_path, "doubled")) == 27

    app = load_app(str(path))
    app.rewind("lines", 25)
    app.close()
    run_until_empty(path)
    app.rewind("lines")
    app.close()
    run_until_empty(path)
    assert notes(tmp_path, "began") == ["None", "30", "25", "None"]
    assert len(notes(tmp_path, "doubled")) == 27 + 5 + 27


def test_a_full_queue_holds_a_resumable_producer_up(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        app = App(HERE / "jobs", max_rows=3)

        @app.producer(queue="rows")
        def numbers(checkpoint):
            for n in range(checkpoint or 0, 100):
                yield n, n + 1

        @app.consumer("rows")
        def keep(row):
            note("kept", row)
        """,
    )
    assert run_until_empty(path).exit_code == 0
    assert notes(tmp_path, "kept") == [str(n) for n in range(100)]


def test_what_is_yielded_without_a_checkpoint_fails_by_name(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.producer(queue="rows")
        def numbers(checkpoint):
            yield 1
        """,
    )
    outcome = run_until_empty(path)
    assert outcome.exit_code == 1
    assert "numbers takes a checkpoint, and yielded 1 without one" in outcome.error


def test_a_producer_with_more_parameters_is_refused(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    with pytest.raises(TypeError, match="two takes 2 arguments"):

        @app.producer
        def two(a: int, b: int) -> Any:
            yield a


def test_a_producers_name_must_be_fit_for_a_source(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters"):
        App(tmp_path / "jobs").producer(name="a/b")(lambda checkpoint: (yield))


def test_a_running_producer_can_not_be_rewound(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")

    @app.producer(queue="rows")
    def numbers(checkpoint: Any) -> Any:
        yield 1, 1

    with app.queue("rows").source("numbers"), pytest.raises(errors.SourceBusy):
        app.rewind("numbers")
    with pytest.raises(KeyError):
        app.rewind("nobody")
    app.close()
