"""Counts and durations that all processes of an app share, and log records of each step of a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from pistributer import App, Metrics, TaskMetrics, read_metrics
from pistributer.cli.root import pistributer
from pistributer.workers.hooks import Run
from pistributer.workers.inspection.metrics import BOUNDS
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests import processes
from tests.worker_tools import environment, write_app

TASKS = """
import json, logging
from pistributer import Cancel, LogJobs, Metrics, Snooze

class Lines(logging.Handler):
    def emit(self, record):
        names = ("event", "job", "task", "queue", "attempt", "seconds", "again_in", "error", "role")
        fields = {name: getattr(record, name) for name in names if hasattr(record, name)}
        note("log", json.dumps({"message": record.getMessage(), "level": record.levelname, **fields}))

logging.getLogger("pistributer.jobs").addHandler(Lines())
logging.getLogger("pistributer.jobs").setLevel(logging.INFO)
logging.getLogger("pistributer.jobs").propagate = False
app.add_hook(Metrics(app))
app.add_hook(LogJobs())

@app.task
def fine(n):
    return n

@app.task(retries=1, retry_delay=0.0)
def bad():
    raise ValueError("no")

@app.task
def picky(what):
    if what == "cancel":
        raise Cancel("sold out")
    if not (HERE / "slept").exists():
        note("slept")
        raise Snooze(0.01)

@app.task(crash_retries=0)
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_counts_of_all_processes_are_added_up(tmp_path: Path) -> None:
    path = write_app(tmp_path, TASKS)
    app = load_app(str(path))
    assert read_metrics(app) == {}
    app.tasks["fine"].send_many((n,) for n in range(100))
    for name, args in (("bad", ()), ("picky", ("snooze",)), ("picky", ("cancel",))):
        app.tasks[name].send(*args)
    run(str(path), processes=2, until_empty=True, on_event=lambda said: None)
    app.tasks["die"].send()  # by itself: what its worker did before and had not settled yet would be done twice
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)
    found = read_metrics(app.url)
    counts = {
        task: (sums.sent, sums.done, sums.retried, sums.snoozed, sums.cancelled, sums.dead)
        for task, sums in found.items()
    }
    assert counts == {
        "fine": (100, 100, 0, 0, 0, 0), "bad": (1, 0, 1, 0, 0, 1), "picky": (2, 1, 0, 1, 1, 0), "die": (1, 0, 0, 0, 0, 1),
    }  # fmt: skip
    assert found["fine"].attempts == 100
    assert found["fine"].seconds > 0
    assert found["die"].attempts == 0
    # The next run goes on counting where this one ended.
    app.tasks["fine"].send(1)
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)
    assert (read_metrics(app)["fine"].sent, read_metrics(app)["fine"].done) == (101, 101)

    text = CliRunner().invoke(pistributer, ["status", app.url, "--metrics"]).stdout
    assert "pistributer_up 0\n" in text
    assert 'pistributer_queue_rows{queue="default",state="dead"} 2' in text
    assert 'pistributer_jobs_total{task="fine",what="done"} 101' in text
    assert 'pistributer_attempt_seconds_bucket{task="fine",le="+Inf"} 101' in text
    assert 'pistributer_attempt_seconds_count{task="fine"} 101' in text
    app.close()

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    events = [line["event"] for line in lines if line.get("task") != "fine"]
    assert {name: events.count(name) for name in sorted(set(events))} == {
        "begun": 6, "cancelled": 1, "dead": 2, "done": 1, "process_started": 5, "process_stopped": 4, "retried": 1,
        "sent": 4, "snoozed": 1, "supervisor_started": 3, "supervisor_stopped": 3,
    }  # fmt: skip
    retried = next(line for line in lines if line["event"] == "retried")
    assert (retried["level"], retried["task"], retried["attempt"]) == ("WARNING", "bad", 1)
    assert retried["error"] == "ValueError('no')"
    assert "bad" in retried["message"]
    assert next(line for line in lines if line["event"] == "dead")["level"] == "ERROR"


def attempt(app: App, name: str) -> Run:
    task = app.tasks.get(name) or app.task(name=name)(print)
    return Run("5f0c", task, {}, 1, task.policy)


def test_threads_lose_no_count(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    hook, one = Metrics(app), attempt(App(tmp_path / "jobs"), "walk")

    def count() -> None:
        for _ in range(2000):
            hook.after_run(one)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_metrics(app)["walk"].done == 8000
    assert sum(read_metrics(app)["walk"].buckets) == 8000


def test_a_forked_child_counts_on_a_page_of_its_own(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    hook, one = Metrics(app), attempt(app, "walk")
    hook.after_run(one)
    processes.run(_count_in_child, hook, one, 10)
    hook.after_run(one)
    assert read_metrics(app)["walk"].done == 12
    assert len(list(tmp_path.glob("jobs/metrics/*.page"))) == 2


def _count_in_child(pipe: object, hook: Metrics, one: Run, times: int) -> None:
    for _ in range(times):
        hook.after_run(one)


def test_what_a_killed_process_counted_stands_and_its_slot_is_taken_over(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pistributer import App, Metrics
from tests.test_metrics import attempt
app = App({str(tmp_path / "jobs")!r})
hook = Metrics(app)
for _ in range(5):
    hook.after_run(attempt(app, "walk"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
        assert done.returncode == -signal.SIGKILL
    assert read_metrics(tmp_path / "jobs")["walk"].done == 10
    assert len(list(tmp_path.glob("jobs/metrics/*.page"))) == 1


def test_more_tasks_than_records_share_the_last_one(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    hook = Metrics(app)
    for number in range(300):
        hook.after_run(attempt(app, f"task-{number}"))
        hook.after_run(attempt(app, f"task-{number}"))
    found = read_metrics(app)
    assert len(found) == 256
    assert found["task-7"].done == 2
    assert found["(other tasks)"].done == 2 * (300 - 255)
    long = "é" * 100
    other = App(tmp_path / "other")
    for _ in range(2):
        Metrics(other).after_run(attempt(other, long))
    assert read_metrics(other) == {"é" * 32: read_metrics(other)["é" * 32]}


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (1000.0, 12), (5000.0, 13)])
def test_a_duration_goes_into_the_bucket_of_its_bound(
    tmp_path: Path, seconds: float, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(tmp_path / "jobs")
    monkeypatch.setattr(Run, "seconds", lambda self: seconds)
    Metrics(app).after_run(attempt(app, "walk"))
    assert read_metrics(app)["walk"].buckets.index(1) == bucket
    assert len(BOUNDS) == 13


def test_labels_are_escaped() -> None:
    from pistributer.workers.inspection.metrics import to_prometheus
    from pistributer.workers.inspection.status import AppStatus

    status = AppStatus("jobs", [], [], [])
    text = to_prometheus(status, {'a"b\\c\nd': TaskMetrics(done=1)})
    assert r'task="a\"b\\c\nd",what="done"} 1' in text
    assert text.endswith("\n")
    assert os.linesep * 2 not in text
