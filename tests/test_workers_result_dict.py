"""Results of jobs in a persistent dictionary."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, FileDirDict, JobFailed, LocalDict, RowError
from pistributer.workers.loading import load_app
from pistributer.workers.result_dict import DictResults
from pistributer.workers.run import run

from .worker_tools import write_app

APP = """
from pistributer import FileDirDict
app = App(HERE / "jobs", results=FileDirDict(HERE / "results", serialization_format="json", sync="none"))

@app.task
def double(n):
    return [n, n * 2]

@app.task
def fail():
    raise ValueError("bad")

@app.task
def strange():
    return lambda: None
"""


def test_workers_keep_results_in_the_dictionary_and_jobs_find_them(tmp_path: Path) -> None:
    path = write_app(tmp_path, APP)
    app = load_app(str(path))
    jobs = [app.tasks["double"].send(n) for n in range(20)]
    failed, strange = app.tasks["fail"].send(), app.tasks["strange"].send()
    run(str(path), until_empty=True, processes=2, on_event=lambda said: None)
    assert [job.result(timeout=5) for job in jobs] == [[n, n * 2] for n in range(20)]
    with pytest.raises(JobFailed, match="ValueError: bad") as caught:
        failed.result(timeout=5)
    assert "Traceback" in caught.value.traceback  # type: ignore[attr-defined]
    with pytest.raises(JobFailed, match="can not be kept as a result"):
        strange.result(timeout=5)
    assert len(FileDirDict[Any](tmp_path / "results", serialization_format="json")) == 22
    assert not list((tmp_path / "jobs" / "results").iterdir())
    assert pickle.loads(pickle.dumps(jobs[3])).result(timeout=5) == [3, 6]
    assert jobs[0].status() == "done"


def test_what_the_dictionary_can_not_hold_is_a_row_error_as_with_the_log() -> None:
    store = DictResults(LocalDict(serialization_format="json"))
    with pytest.raises(RowError):
        store.add("a", bytearray(b"x"))
    assert store.find("a") is None
    store.add("a", {"x": (1, 2)})
    found = store.find("a")
    assert found is not None
    assert (found.ok, found.value) == (True, {"x": (1, 2)})


def test_an_append_only_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="append-only"):
        App(tmp_path / "jobs", results=LocalDict(append_only=True)).open_result_log()
