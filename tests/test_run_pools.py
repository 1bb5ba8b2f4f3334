"""Whole runs with pools, priorities and queues chosen by the sender, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, Pool, errors, open_queue
from pistributer.workers.inspection.status import read_status
from pistributer.workers.inspection.whole_queue import with_lanes
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import RunningApp, environment, notes, wait_for, write_app

TASKS = """
@app.task
def low(n):
    note("ran", f"low {n}")
    return n

@app.task(priority=5)
def urgent(n):
    note("ran", f"urgent {n}")
    return n

@app.task(queue="mail")
def mail(n):
    note("ran", f"mail {n}")

@app.task(priority=2)
def bad(n):
    raise ValueError(n)

@app.consumer("rows")
def take(row):
    note("ran", f"row {row}")
"""


def run_until_empty(path: Path, **options: Any) -> list[str]:
    """Run it, and return what was told beside starts and ends."""
    said: list[str] = []
    options = {
        "processes": 1,
        "until_empty": True,
        "on_event": lambda it: said.append(f"{it.action}: {it.text}"),
        **options,
    }
    run(str(path), **options)
    return [text for text in said if text.startswith("unserved")]


def test_priorities_within_a_queue(app: App, app_file: Path, tmp_path: Path) -> None:
    low, urgent = app.tasks["low"], app.tasks["urgent"]
    jobs = [low.send(1), urgent.send(1), low.options(priority=9).send(2), *urgent.send_many([(2,), (3,)])]
    jobs.append(urgent.options(priority=0).send(4))
    assert {job.queue for job in jobs} == {"default"}
    assert [job.status() for job in jobs] == ["queued"] * 6
    # Nobody has a queue called like a lane, and what is said of the queue includes the lanes.
    assert app.queue_names() == ["default", "mail", "rows"]
    [default] = [queue for queue in read_status(app.url).queues if queue.name == "default"]
    assert (default.stats.ready, {level: stats.ready for level, stats in default.priorities.items()}) == (
        6,
        {5: 3, 9: 1},
    )
    assert run_until_empty(app_file) == []
    assert notes(tmp_path, "ran") == ["low 2", "urgent 1", "urgent 2", "urgent 3", "low 1", "urgent 4"]
    assert [job.result(1) for job in jobs] == [1, 1, 2, 2, 3, 4]


def test_a_first_priority_reaches_workers_that_sleep(app: App, app_file: Path, tmp_path: Path) -> None:
    with RunningApp(app_file, processes=1):
        assert app.tasks["low"].send(1).result(30) == 1
        assert app.tasks["low"].options(priority=7).send(2).result(30) == 2


def test_cancelled_and_failed_jobs_of_a_lane(app: App, app_file: Path, tmp_path: Path) -> None:
    cancelled, dead = app.tasks["urgent"].send(1), app.tasks["bad"].send(2)
    cancelled.cancel()
    assert cancelled.status() == "cancelled"
    run_until_empty(app_file)
    assert (cancelled.status(), dead.status(), notes(tmp_path, "ran")) == ("cancelled", "failed", [])
    whole = with_lanes(open_queue(app.home.queue_url("default"), create=False))
    [row] = whole.scan("dead")
    assert row.id.startswith("@2:")
    assert whole.requeue_dead(["@2:none", row.id]) == 1
    assert (whole.stats().ready, whole.stats().dead, app.queue("default@2").stats().ready) == (1, 0, 1)
    assert whole.purge() == 1
    whole.close()


def test_producers_and_schedules_keep_to_the_lane_of_their_task(tmp_path: Path, url: str) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task(priority=3)
        def tick(n):
            note("ran", n)

        @app.producer
        def numbers(done):
            for n in range(done or 0, 50):
                yield tick.call(n), n + 1

        app.schedule(tick, every=0.05, args=("tick",))
        """,
        url,
    )
    with RunningApp(path, processes=1):
        wait_for(lambda: notes(tmp_path, "ran").count("tick") >= 2)
        wait_for(lambda: len(notes(tmp_path, "ran")) >= 52)
    app = load_app(str(path))
    assert app.queue("default@3").sources().keys() == {"numbers", "schedule.tick"}
    app.rewind("numbers", 48)
    with RunningApp(path, processes=1):
        wait_for(lambda: notes(tmp_path, "ran").count("49") == 2)
    assert [n for n in notes(tmp_path, "ran") if n != "tick"] == [*map(str, range(50)), "48", "49"]
    app.close()


def test_a_strict_pool_of_two_queues(app: App, app_file: Path, tmp_path: Path) -> None:
    app.tasks["low"].send_many((n,) for n in range(3))
    app.tasks["mail"].send_many((n,) for n in range(3))
    run_until_empty(app_file, pools=[Pool("web", ["mail", "default"])])
    assert notes(tmp_path, "ran") == [f"{name} {n}" for name in ("mail", "low") for n in range(3)]


def test_a_queue_of_the_senders_choice(app: App, app_file: Path, tmp_path: Path) -> None:
    job = app.tasks["low"].options(queue="other", priority=3).send(8)
    assert (job.queue, job.status()) == ("other", "queued")
    assert run_until_empty(app_file, pools=[Pool("default")]) == [
        "unserved: no pool takes from the queue mail: its jobs wait",
        "unserved: no pool takes from the queue other: its jobs wait",
    ]
    assert job.status() == "queued"
    assert run_until_empty(app_file, pools=[Pool("all", {"default": 2, "other": 1, "mail": 1})]) == []
    assert (job.result(1), notes(tmp_path, "ran")) == (8, ["low 8"])


def test_two_pools_are_two_roles(app: App, app_file: Path) -> None:
    pools = ["web=default:processes=2", "mail=mail:processes=1"]
    command = [sys.executable, "-m", "pistributer", "run", str(app_file), "--pool", pools[0], "--pool", pools[1]]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(
                lambda: (
                    app.home.exists() and (found := read_status(app.url).workers) and all(one.alive for one in found)
                )
            )
            roles = [(worker.role, worker.index) for worker in read_status(app.url).workers]
            assert roles == [("worker web", 0), ("worker web", 1), ("worker mail", 0), ("consumer take", 0)]
        finally:
            running.terminate()


def test_a_pool_can_not_take_from_a_consumers_queue(app: App, app_file: Path) -> None:
    with pytest.raises(errors.BootError, match="holds rows already"):
        run(str(app_file), pools=[Pool("web", ["default", "rows"])])
    with pytest.raises(ValueError, match="holds rows already"):
        app.tasks["low"].options(queue="rows")


@pytest.mark.parametrize("options", [{"priority": 10}, {"priority": -1}, {"priority": 1.5}, {"priority": True}])
def test_a_priority_is_from_0_to_9(app: App, options: Any) -> None:
    with pytest.raises(ValueError, match="from 0 to 9"):
        app.tasks["low"].options(**options)


def test_the_commands_see_a_queue_with_its_lanes(app: App, app_file: Path) -> None:
    def command(*args: str) -> str:
        line = [sys.executable, "-m", "pistributer", *args]
        return subprocess.run(line, env=environment(), capture_output=True, text=True, check=True).stdout

    app.tasks["bad"].send(2)
    command("send", app.url, "bad", "1", "--priority", "9")
    app.tasks["low"].send(3)
    assert command("queue", "ls", app.url).splitlines()[1].split()[:2] == ["default", "3"]
    run_until_empty(app_file)
    assert "2" in command("dead", "ls", app.url)
    assert command("dead", "retry", app.url, "--all").split() == ["retried", "2"]
    assert command("queue", "purge", app.url, "--yes").startswith("purged 2 rows")
