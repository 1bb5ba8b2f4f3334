"""What becomes of something that raised: a pure function, so without workers; then with a real one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pistributer import App, Backoff, Cancel, JobFailed, Retry, Snooze
from pistributer.workers.loading import load_app
from pistributer.workers.retries import RetryPolicy, Verdict, judge
from pistributer.workers.run import run
from tests.worker_tools import notes, write_app

CHANCE = random.Random(1)
PLAIN = Backoff(2.0, factor=3.0, longest=20.0, jitter=False)

# -- the decision


@pytest.mark.parametrize(
    ("error", "failures", "expected"),
    [
        pytest.param(ValueError(), 1, Verdict(again_in=2.0), id="the first pause"),
        pytest.param(ValueError(), 2, Verdict(again_in=6.0), id="the second is longer"),
        pytest.param(ValueError(), 3, Verdict(again_in=18.0), id="the last that is allowed"),
        pytest.param(ValueError(), 4, Verdict(), id="too often"),
        pytest.param(OSError(), 1, Verdict(), id="not among retry_on"),
        pytest.param(UnicodeError(), 1, Verdict(), id="stop_on goes before retry_on"),
        pytest.param(Retry(), 1, Verdict(again_in=2.0), id="Retry is obeyed whatever retry_on says"),
        pytest.param(Retry(after=7), 2, Verdict(again_in=7), id="Retry says when"),
        pytest.param(Retry(after=7), 4, Verdict(), id="but not more often than allowed"),
        pytest.param(Snooze(30), 99, Verdict(again_in=30, counted=False), id="Snooze is no failure"),
        pytest.param(Snooze(-1), 1, Verdict(again_in=0.0, counted=False), id="Snooze of nothing"),
        pytest.param(Cancel(), 1, Verdict(cancelled=True), id="Cancel"),
    ],
)
def test_what_becomes_of_it(error: Exception, failures: int, expected: Verdict) -> None:
    policy = RetryPolicy(3, PLAIN, retry_on=(ValueError,), stop_on=(UnicodeError,))
    assert judge(error, failures, policy, CHANCE) == expected


@given(st.floats(0, 100), st.floats(1, 10), st.floats(0, 1e6), st.integers(1, 10_000), st.booleans(), st.integers())
def test_a_pause_is_never_negative_nor_longer_than_the_longest(
    first: float, factor: float, longest: float, failures: int, jitter: bool, seed: int
) -> None:
    pause = Backoff(first, factor, longest, jitter).pause(failures, random.Random(seed))
    assert 0.0 <= pause <= longest


def test_full_jitter_spreads_over_the_whole_pause() -> None:
    pauses = [Backoff(8.0, factor=1.0).pause(5, CHANCE) for _ in range(1000)]
    assert min(pauses) < 1.0
    assert max(pauses) > 7.0
    assert 3.5 < sum(pauses) / 1000 < 4.5


@pytest.mark.parametrize("options", [{"first": -1}, {"longest": -1}, {"factor": 0.5}], ids=str)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"negative|at least 1"):
        Backoff(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["retry_on", "stop_on"])
def test_only_exceptions_can_be_retried(tmp_path: Path, option: str) -> None:
    with pytest.raises(TypeError, match="exception classes"):
        App(tmp_path / "jobs").task(**{option: "ValueError"})(lambda: None)  # type: ignore[call-overload]


# -- in a worker

TASKS = """
from pistributer import Backoff, Cancel, Retry, Snooze

class Attempts(Hook):
    def before_run(self, run):
        note(run.task.name, run.attempt)

app.add_hook(Attempts())

@app.task(retries=3, retry_delay=Backoff(0.001), retry_on=(OSError, KeyError), stop_on=FileNotFoundError)
def picky(kind):
    raise {"os": OSError, "gone": FileNotFoundError, "value": ValueError}[kind]("no")

@app.task(retries=1)
def again():
    raise Retry("busy", after=0.001)

@app.task
def naps():
    if len((HERE / "naps").read_text().split()) < 5:
        raise Snooze(0.001, "not yet")
    return "rested"

@app.task(retries=9)
def unwanted():
    raise Cancel("the order is gone")

@app.task(retries=9, retry_delay=0.0)
def overruled():
    raise ValueError

@app.consumer("rows", batch=3, retries=9)
def take(rows):
    note("rows", len(rows))
    if len((HERE / "rows").read_text().split()) < 4:
        raise Snooze(0.001)
    raise Cancel
"""


@pytest.fixture(params=["jsonl", "sqlite"])
def ran(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Sends, runs until nothing is left, and gives the app and its jobs."""
    url = str(tmp_path / "jobs") if request.param == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"
    path = write_app(tmp_path, TASKS, url)
    app = load_app(str(path))
    tasks = app.tasks
    jobs = {
        "os": tasks["picky"].send("os"),
        "again": tasks["again"].send(),
        "naps": tasks["naps"].send(),
        "unwanted": tasks["unwanted"].send(),
        "overruled": tasks["overruled"].options(retries=2).send(),
    }
    app.queue("rows").put_many([1, 2, 3])
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)
    yield app, jobs
    app.close()


def test_jobs_end_as_their_policies_and_they_themselves_say(ran: Any, tmp_path: Path) -> None:
    app, jobs = ran
    statuses = {name: job.status() for name, job in jobs.items()}
    assert statuses == {
        "os": "failed", "again": "failed", "naps": "done", "unwanted": "cancelled", "overruled": "failed",
    }  # fmt: skip
    assert notes(tmp_path, "picky") == ["1", "2", "3", "4"]
    assert notes(tmp_path, "again") == ["1", "2"]
    assert notes(tmp_path, "naps") == ["1"] * 5  # no nap counts
    assert notes(tmp_path, "unwanted") == ["1"]
    assert notes(tmp_path, "overruled") == ["1", "2", "3"]
    assert jobs["naps"].result(1) == "rested"
    with pytest.raises(JobFailed, match="the order is gone") as failure:
        jobs["unwanted"].result(1)
    assert failure.value.kind == "Cancel"
    dead = [row.value["task"] for row in app.queue().scan("dead")]
    assert sorted(dead) == ["again", "overruled", "picky"]
    # A batch may nap as a whole; anything else that it raises, each row has to raise again by itself.
    assert notes(tmp_path, "rows") == ["3"] * 4 + ["1"] * 3
    assert list(app.queue("rows").scan()) == []


def test_what_stop_on_and_retry_on_exclude_is_tried_once(tmp_path: Path) -> None:
    path = write_app(tmp_path, TASKS)
    app = load_app(str(path))
    for kind in ("gone", "value"):
        app.tasks["picky"].send(kind)
    app.close()
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)
    assert notes(tmp_path, "picky") == ["1", "1"]
