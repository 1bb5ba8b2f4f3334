"""Batches by size or age: a consumer waits for a whole one, but not for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pistributer import App
from pistributer.workers.inspection.status import read_status
from pistributer.workers.run import run
from tests.worker_tools import RunningApp, notes, wait_for, write_app

ROWS = """
@app.consumer("rows", batch=5, max_wait=%s)
def take(rows):
    note("taken", f"{len(rows)} {time.time()}")
"""


@pytest.fixture(params=["jsonl", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "jobs") if request.param == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"


@pytest.fixture
def app(url: str) -> Iterator[App]:
    app = App(url)
    yield app
    app.close()


def sizes(folder: Path) -> list[int]:
    return [int(line.split()[0]) for line in notes(folder, "taken")]


def test_a_whole_batch_does_not_wait(tmp_path: Path, url: str, app: App) -> None:
    app.queue("rows").put_many(range(10))
    with RunningApp(write_app(tmp_path, ROWS % 3600, url)):
        wait_for(lambda: sizes(tmp_path) == [5, 5])
        app.queue("rows").put_many(range(3))
        wait_for(lambda: app.queue("rows").stats().claimed == 3)
        app.queue("rows").put_many(range(2))
        wait_for(lambda: sizes(tmp_path) == [5, 5, 5])


def test_a_part_of_one_is_called_when_its_first_row_has_waited(tmp_path: Path, url: str, app: App) -> None:
    app.queue("rows").put_many(range(7))
    run(str(write_app(tmp_path, ROWS % 0.5, url)), until_empty=True, on_event=lambda said: None)
    assert sizes(tmp_path) == [5, 2]
    first, second = (float(line.split()[1]) for line in notes(tmp_path, "taken"))
    assert second - first >= 0.4


def test_rows_that_wait_for_others_were_not_tried(tmp_path: Path, url: str, app: App) -> None:
    path = write_app(tmp_path, ROWS % 3600, url)
    app.queue("rows").put_many(range(3))
    with RunningApp(path) as running:
        for _ in range(4):  # more often than a row may be tried
            wait_for(lambda: app.queue("rows").stats().claimed == 3)
            [consumer] = read_status(app.url).workers
            os.kill(consumer.pid, signal.SIGKILL)
            wait_for(lambda dead=consumer.pid: read_status(app.url).workers[0].pid != dead)
        wait_for(lambda: app.queue("rows").stats().claimed == 3)
        running.signal(signal.SIGTERM)
        running.outcome()
    assert [row.attempt for row in app.queue("rows").scan("ready")] == [0, 0, 0]
    run(str(write_app(tmp_path, ROWS % 0.1, url)), until_empty=True, on_event=lambda said: None)
    assert sizes(tmp_path) == [3]


@pytest.mark.parametrize(("batch", "max_wait"), [(1, 2.0), (5, 0), (5, -1.0)])
def test_an_age_that_makes_no_sense_is_refused(tmp_path: Path, batch: int, max_wait: float) -> None:
    with pytest.raises(ValueError, match="max_wait"):
        App(tmp_path / "jobs").consumer("rows", batch=batch, max_wait=max_wait)
