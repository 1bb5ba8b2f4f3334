"""Whole runs with real processes: supervisor, workers, producers and consumers on one folder."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers.app import App
from pistributer.workers.inspection.status import AppStatus, read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import Progress, run
from pistributer.workers.supervision.roles import BOOT_EXIT
from pistributer.workers.supervision.supervisor import Outcome, StartMethod
from tests.worker_tools import (
    APP_DRIVERS,
    RunningApp,
    app_url,
    environment,
    is_alive,
    is_gone,
    notes,
    wait_for,
    write_app,
)

PIPELINE = """
@app.producer
def numbers():
    for n in range(300):
        yield square.call(n)

@app.task(results=False)
def square(n):
    app.queue("squares").put({"n": n, "square": n * n})

@app.consumer("squares", batch=32)
def collect(rows):
    note("collected", "\\n".join(f"{row['n']} {row['square']}" for row in rows))
"""


def run_until_empty(path: Path, **options: Any) -> Outcome:
    return run(str(path), until_empty=True, on_event=lambda said: None, **{"processes": 2, **options})


def dead(app: App, queue: str = "default") -> list[str]:
    """Why each dead letter is dead."""
    return [row.error or "" for row in app.queue(queue).scan("dead")]


@pytest.mark.parametrize("driver", APP_DRIVERS)
def test_a_pipeline_is_exact_and_ends_when_nothing_is_left(tmp_path: Path, driver: str) -> None:
    url = app_url(tmp_path, driver)
    seen: list[Progress] = []
    outcome = run_until_empty(write_app(tmp_path, PIPELINE, url), on_progress=seen.append)
    assert (outcome.exit_code, outcome.reason, outcome.deaths) == (0, "drained", 0)
    assert sorted(notes(tmp_path, "collected")) == sorted(f"{n} {n * n}" for n in range(300))
    # Each number is a job, and its square a row.
    assert seen[-1] == Progress(done=600, failed=0, left=0)
    assert all(before.done <= after.done for before, after in itertools.pairwise(seen))


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_other_start_methods_do_the_same(tmp_path: Path, start_method: StartMethod) -> None:
    outcome = run_until_empty(write_app(tmp_path, PIPELINE), start_method=start_method)
    assert outcome.reason == "drained"
    assert sorted(notes(tmp_path, "collected")) == sorted(f"{n} {n * n}" for n in range(300))


def test_a_pipeline_is_complete_when_workers_are_killed(tmp_path: Path) -> None:
    path = write_app(tmp_path, PIPELINE.replace("range(300)", "range(3000)"))
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        workers = [worker for worker in read_status(tmp_path / "jobs").workers if worker.role == "worker default"]
        victim = workers[len(killed) % 2]
        if len(killed) < 5 and victim.alive and victim.done:
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    outcome = run_until_empty(path, on_progress=kill_one)
    assert outcome.reason == "drained"
    assert set(notes(tmp_path, "collected")) == {f"{n} {n * n}" for n in range(3000)}
    assert dead(load_app(str(path))) == []


def test_work_of_a_killed_worker_is_back_at_once_in_an_idle_one(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        class Attempts(Hook):
            def before_run(self, run):
                note("begun", f"{time.monotonic()} {os.getpid()} {run.attempt} {run.args[0]}")

        app.add_hook(Attempts())

        @app.task
        def hold(n):
            if (HERE / "begun").read_text().endswith(f" 1 {n}\\n"):
                time.sleep(60)
        """,
    )
    app = load_app(str(path))
    delays = []
    with RunningApp(path, processes=2):
        for number in range(3):
            app.tasks["hold"].send(number)
            wait_for(lambda number=number: len(notes(tmp_path, "begun")) == 2 * number + 1)
            killed_at = time.monotonic()
            os.kill(int(notes(tmp_path, "begun")[-1].split()[1]), signal.SIGKILL)
            wait_for(lambda number=number: len(notes(tmp_path, "begun")) == 2 * number + 2)
            again, pid, attempt, _ = notes(tmp_path, "begun")[-1].split()
            assert attempt == "2"
            assert pid != notes(tmp_path, "begun")[-2].split()[1]
            delays.append(float(again) - killed_at)
            wait_for(lambda: len(alive_workers(read_status(app.url))) == 2)
    # The best of three: the machine that tests run on may be busy.
    assert min(delays) <= 0.25
    app.close()


def alive_workers(status: AppStatus) -> list[int]:
    return [worker.pid for worker in status.workers if worker.alive]


def test_a_task_that_kills_its_worker_ends_in_the_dead_letters_with_the_cause(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def poison():
            note("begun")
            os.kill(os.getpid(), signal.SIGKILL)

        @app.task(crash_retries=0)
        def once():
            note("once")
            os._exit(5)

        @app.task
        def fine(n):
            return n
        """,
    )
    app = load_app(str(path))
    jobs = [app.tasks["poison"].send(), app.tasks["once"].send()]
    good = app.tasks["fine"].send_many((n,) for n in range(20))
    outcome = run_until_empty(path)
    assert (outcome.reason, outcome.deaths) == ("drained", 4)
    assert len(notes(tmp_path, "begun")) == 3
    assert len(notes(tmp_path, "once")) == 1
    assert [job.result(5) for job in good] == list(range(20))
    for job, words in zip(jobs, ["killed by SIGKILL", "left with exit code 5"], strict=True):
        with pytest.raises(errors.JobFailed) as failure:
            job.result(5)
        assert failure.value.kind == "WorkerDied"
        assert words in failure.value.text
        assert any(words in error for error in dead(app))
    app.close()


def test_the_neighbours_of_a_job_that_kills_its_worker_are_not_buried_with_it(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def fine(n):
            note("ended", n)

        @app.task
        def poison():
            os._exit(3)

        @app.consumer("rows", batch=10)
        def rows(rows):
            if 13 in rows:
                os._exit(3)
            for row in rows:
                note("booked", row)
        """,
    )
    app = load_app(str(path))
    app.tasks["fine"].send_many((n,) for n in range(20))
    app.tasks["poison"].send()
    app.tasks["fine"].send_many((n,) for n in range(20, 40))
    app.queue("rows").put_many(range(30))
    assert run_until_empty(path, processes=1).reason == "drained"
    # Who had ended and was not acknowledged yet comes a second time, and is settled before the culprit's second turn.
    assert {notes(tmp_path, "ended").count(str(n)) for n in range(40)} <= {1, 2}
    assert [row.value["task"] for row in app.queue().scan("dead")] == ["poison"]
    assert [row.value for row in app.queue("rows").scan("dead")] == [13]
    assert {int(row) for row in notes(tmp_path, "booked")} == set(range(30)) - {13}
    app.close()


def test_jobs_that_ran_beside_one_that_kills_its_worker_are_not_buried_with_it(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def fine(n):
            time.sleep(0.2)
            note("ended", n)

        @app.task
        def poison():
            time.sleep(0.1)
            os._exit(3)
        """,
    )
    app = load_app(str(path))
    app.tasks["poison"].send()
    app.tasks["fine"].send_many((n,) for n in range(9))
    assert run_until_empty(path, processes=1, threads=4).reason == "drained"
    assert [row.value["task"] for row in app.queue().scan("dead")] == ["poison"]
    assert {int(n) for n in notes(tmp_path, "ended")} == set(range(9))
    app.close()


def test_retries_end_in_the_dead_letters(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task(retries=2, retry_delay=0.01)
        def never(n):
            note("begun")
            raise ValueError(f"no {n}")

        @app.task(retries=2, retry_delay=0.01)
        def at_last():
            note("tried")
            if len((HERE / "tried").read_text()) < 3:
                raise OSError("not yet")
            return "well"
        """,
    )
    app = load_app(str(path))
    bad, good = app.tasks["never"].send(7), app.tasks["at_last"].send()
    assert run_until_empty(path).reason == "drained"
    assert len(notes(tmp_path, "begun")) == 3
    assert good.result(5) == "well"
    with pytest.raises(errors.JobFailed, match="ValueError: no 7") as failure:
        bad.result(5)
    assert failure.value.attempts == 3
    assert 'raise ValueError(f"no {n}")' in failure.value.traceback
    (why,) = dead(app)
    assert why.startswith("attempt 3: Traceback")
    assert why.rstrip().endswith("ValueError: no 7")
    app.close()


def test_term_finishes_what_runs_and_gives_the_rest_back(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def slow(n):
            note("begun", n)
            time.sleep(0.5)
            note("ended", n)
        """,
    )
    app = load_app(str(path))
    app.tasks["slow"].send_many((n,) for n in range(20))
    with RunningApp(path, processes=2) as running:
        wait_for(lambda: len(notes(tmp_path, "begun")) == 2)
        running.signal(signal.SIGTERM)
        outcome, said = running.outcome()
    assert (outcome["exit_code"], outcome["reason"]) == (0, "stopped")
    assert said == ["stopping"]
    assert sorted(notes(tmp_path, "ended")) == sorted(notes(tmp_path, "begun"))
    rows = list(app.queue().scan("ready", "claimed"))
    assert len(rows) == 20 - len(notes(tmp_path, "ended"))
    assert {(row.state, row.attempt) for row in rows} == {("ready", 0)}
    app.close()


def test_the_second_term_gives_everything_back(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def endless():
            note("begun", os.getpid())
            time.sleep(600)
        """,
    )
    app = load_app(str(path))
    app.tasks["endless"].send()
    with RunningApp(path, processes=1) as running:
        wait_for(lambda: notes(tmp_path, "begun"))
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGINT)
        outcome, _ = running.outcome()
    assert (outcome["exit_code"], outcome["reason"]) == (130, "killed")
    assert is_gone(int(notes(tmp_path, "begun")[0]))
    assert app.queue().stats().ready == 1
    (item,) = app.queue().claim(start=False)
    assert item.attempt == 1
    app.close()


def test_workers_leave_after_their_job_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def piece():
            note("begun", os.getpid())
            while not (HERE / "go").exists():
                time.sleep(0.01)
            time.sleep(0.1)  # longer than a busy worker goes without looking at its supervisor
            note("ended")
        """,
    )
    app = load_app(str(path))
    jobs = [app.tasks["piece"].send() for _ in range(3)]
    with RunningApp(path, processes=1) as running:
        wait_for(lambda: notes(tmp_path, "begun"))
        worker = int(notes(tmp_path, "begun")[0])
        running.signal(signal.SIGKILL)
        running.process.wait()
        assert is_alive(worker)
        (tmp_path / "go").touch()
        wait_for(lambda: is_gone(worker))
    assert len(notes(tmp_path, "ended")) == 1
    assert jobs[0].result(5) is None
    assert app.queue().stats().ready == 2
    assert not read_status(app.url).running
    app.close()


def test_what_is_no_task_of_the_app_is_buried_not_dropped(tmp_path: Path) -> None:
    path = write_app(tmp_path, "@app.task\ndef known():\n    pass\n")
    app = load_app(str(path))
    for message in (
        {"id": "a1", "task": "unknown"},
        {"task": "known"},
        ["known"],
        {"id": "a", "task": "known", "args": 1},
    ):
        app.queue().put(message)
    assert run_until_empty(path).reason == "drained"
    assert len(dead(app)) == 4
    assert any(error.startswith("TaskNotFound: the app has no task 'unknown'") for error in dead(app))
    with pytest.raises(errors.JobFailed) as failure:
        app.job("a1").result(5)
    assert failure.value.kind == "TaskNotFound"
    app.close()


def test_until_empty_waits_for_delayed_jobs(tmp_path: Path) -> None:
    path = write_app(tmp_path, "@app.task\ndef later():\n    return time.time()\n")
    app = load_app(str(path))
    sent = time.time()
    job = app.tasks["later"].options(delay=0.5).send()
    assert job.status() == "delayed"
    run_until_empty(path)
    assert job.result(5) >= sent + 0.5
    app.close()


def test_a_task_can_send_and_await(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        import asyncio

        @app.task
        async def double(n):
            await asyncio.sleep(0)
            return 2 * n

        @app.task
        def send_double(n):
            return double.send(n).id
        """,
    )
    app = load_app(str(path))
    first = app.tasks["send_double"].send(21)
    run_until_empty(path)
    assert app.job(first.result(5)).result(5) == 42
    app.close()


def test_long_jobs_are_shared_out_one_by_one(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task(results=False)
        def slow():
            time.sleep(0.2)
            note("by", os.getpid())
        """,
    )
    load_app(str(path)).tasks["slow"].send_many(() for _ in range(8))
    run_until_empty(path)
    by = notes(tmp_path, "by")
    assert len(by) == 8
    assert min(by.count(pid) for pid in set(by)) >= 3


def test_a_result_does_not_wait_for_a_job_that_is_known_to_be_long(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def quick(n):
            return n

        @app.task
        def wait_for_file(name):
            while not os.path.exists(name):
                time.sleep(0.01)
        """,
    )
    app = load_app(str(path))
    quick, wait_for_file = app.tasks["quick"], app.tasks["wait_for_file"]
    first, gate = tmp_path / "first", tmp_path / "gate"
    learned = wait_for_file.send(str(first))
    # Enough quick ones for the worker to claim ahead, so that the long one lies in a batch with those before it.
    jobs = [quick.send(n) for n in range(1500)]
    wait_for_file.send(str(gate))
    with RunningApp(path, processes=1) as running:
        wait_for(lambda: learned.status() == "running")
        first.touch()
        assert jobs[-1].result(timeout=20) == 1499
        gate.touch()
        running.signal(signal.SIGTERM)
        running.outcome()
    app.close()


def test_a_result_that_json_can_not_hold_fails_the_job(tmp_path: Path) -> None:
    path = write_app(tmp_path, "@app.task\ndef odd():\n    return {1, 2}\n")
    app = load_app(str(path))
    job = app.tasks["odd"].send()
    run_until_empty(path)
    with pytest.raises(errors.JobFailed, match="what odd returned can not be kept as a result"):
        job.result(5)
    assert job.status() == "failed"
    app.close()


def test_hooks_run_around_jobs_and_processes(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        class Notes(Hook):
            def on_start(self, role): note("hooks", f"start {role}")
            def on_stop(self, role): note("hooks", f"stop {role}")
            def before_run(self, run): note("hooks", f"before {run.task.name} {run.args}")
            def after_run(self, run): note("hooks", f"after {run.value}")
            def on_failure(self, run): note("hooks", f"failure {run.error!r} {run.retry_in}")
            def on_dead(self, run): note("hooks", f"dead after {run.attempt}")

        app.add_hook(Notes())

        @app.task
        def half(n):
            return 8 / n
        """,
    )
    app = load_app(str(path))
    app.tasks["half"].send(2)
    app.tasks["half"].send(0)
    run_until_empty(path, processes=1)
    assert notes(tmp_path, "hooks") == [
        "start worker default",
        "before half [2]", "after 4.0",
        "before half [0]", "failure ZeroDivisionError('division by zero') None", "dead after 1",
        "stop worker default",
    ]  # fmt: skip
    app.close()


def test_hooks_see_a_job_sent_claimed_and_tried_again_and_wrap_its_task(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        class Notes(Hook):
            def before_enqueue(self, sending):
                note("sent", f"before {sending.queue} {sending.delay:g}")
                sending.message["args"] = [sending.message["args"][0] + 1]
            def after_enqueue(self, sending): note("sent", f"after {sending.message['args']}")
            def on_claim(self, run): note("claims", f"{run.task.name} {run.attempt}")
            def on_retry(self, run): note("claims", f"retry in {run.retry_in:g}")
            def wrap(self, task, function):
                return lambda *args: function(*args) * 10
            def on_supervisor_start(self): note("supervisor", "start")
            def on_supervisor_stop(self): note("supervisor", "stop")

        app.add_hook(Notes())

        @app.task(retries=1, retry_delay=Backoff(0.01, jitter=False))
        def half(n):
            note("ran", n)
            if n == 1:
                raise ValueError(n)
            return n // 2
        """,
    )
    app = load_app(str(path))
    first = app.tasks["half"].send(0)
    many = app.tasks["half"].send_many([(3,), (5,)])
    run_until_empty(path, processes=1)
    assert [job.result(10) for job in many] == [20, 30]
    assert first.status() == "failed"
    assert notes(tmp_path, "sent") == [
        "before default 0", "after [1]", "before default 0", "before default 0", "after [4]", "after [6]",
    ]  # fmt: skip
    assert sorted(notes(tmp_path, "claims")) == ["half 1"] * 3 + ["half 2", "retry in 0.01"]
    assert notes(tmp_path, "supervisor") == ["start", "stop"]
    app.close()


def test_a_hook_postpones_and_drops_jobs_before_they_are_counted(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        class Gatekeeper(Hook):
            def __init__(self): self.seen = set()
            def on_claim(self, run):
                note("claims", f"{run.args[0]} {run.attempt}")
                if run.args[0] == "never":
                    run.drop()
                elif run.args[0] not in self.seen:
                    self.seen.add(run.args[0])
                    run.postpone(0.05)

        app.add_hook(Gatekeeper())

        @app.task
        def show(what):
            note("ran", what)
        """,
    )
    app = load_app(str(path))
    app.tasks["show"].send_many([("later",), ("never",)])
    run_until_empty(path, processes=1)
    assert notes(tmp_path, "ran") == ["later"]
    assert notes(tmp_path, "claims") == ["later 1", "never 1", "later 1"]
    assert dead(app) == []
    app.close()


def test_only_the_bad_rows_of_a_batch_go_to_the_dead_letters(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.consumer("rows", batch=10, retry_delay=0.01, retries=1)
        def collect(rows):
            if 13 in rows:
                note("thirteen", len(rows))
                raise ValueError("13")
            for row in rows:
                note("collected", row)
        """,
    )
    app = load_app(str(path))
    app.queue("rows").put_many(range(30))
    run_until_empty(path)
    assert sorted(map(int, notes(tmp_path, "collected"))) == [n for n in range(30) if n != 13]
    # Once in company, twice alone.
    assert notes(tmp_path, "thirteen") == ["10", "1", "1"]
    (row,) = app.queue("rows").scan("dead")
    assert (row.value, row.attempt) == (13, 3)
    app.close()


def test_a_consumer_of_single_rows_retries_and_buries_them(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.consumer("rows", retries=1, retry_delay=0.01, processes=2)
        def collect(row):
            note("tried", row)
            if row == "deadly":
                os._exit(1)
            if row == "bad":
                raise ValueError(row)
        """,
    )
    app = load_app(str(path))
    app.queue("rows").put_many(["good", "bad", "deadly"])
    assert run_until_empty(path).reason == "drained"
    tried = notes(tmp_path, "tried")
    assert (tried.count("good"), tried.count("bad"), tried.count("deadly")) == (1, 2, 3)
    assert sorted(row.value for row in app.queue("rows").scan("dead")) == ["bad", "deadly"]
    app.close()


def test_a_producer_waits_for_room(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        f"""
        app = App({str(tmp_path / "small")!r}, max_rows=10)

        @app.producer(queue="rows")
        def numbers():
            for n in range(200):
                yield n

        @app.consumer("rows")
        def collect(row):
            if app.queue("rows").stats().ready > 10:
                note("too many")
            note("collected", row)
        """,
    )
    assert run_until_empty(path).reason == "drained"
    assert sorted(map(int, notes(tmp_path, "collected"))) == list(range(200))
    assert notes(tmp_path, "too many") == []


def test_a_producer_that_waits_for_room_can_be_stopped(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        f"""
        app = App({str(tmp_path / "small")!r}, max_rows=1)

        @app.producer
        def numbers():
            yield "rows", 1
            note("full")
            yield "rows", 2
        """,
    )
    with RunningApp(path) as running:
        wait_for(lambda: notes(tmp_path, "full"))
        running.signal(signal.SIGTERM)
        outcome, _ = running.outcome()
    assert outcome["reason"] == "stopped"


def test_a_producer_that_names_no_queue_stops_the_run_with_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_app(tmp_path, "@app.producer\ndef rows():\n    yield 'where to?'\n")
    outcome = run_until_empty(path)
    assert (outcome.exit_code, outcome.reason) == (1, "failed")
    assert outcome.error is not None
    assert "BadCall: the producer rows yielded 'where to?', which names no queue" in outcome.error


def test_an_app_that_only_workers_can_not_load_stops_the_run(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        import multiprocessing
        if multiprocessing.parent_process() is not None:
            import no_such_module_at_all

        @app.task
        def never():
            pass
        """,
    )
    outcome = run_until_empty(path)
    assert (outcome.exit_code, outcome.reason, outcome.restarts) == (BOOT_EXIT, "boot", 0)
    assert outcome.error is not None
    assert "No module named 'no_such_module_at_all'" in outcome.error


def test_an_app_whose_folder_depends_on_the_process_is_refused(tmp_path: Path) -> None:
    path = write_app(
        tmp_path, f"app = App({str(tmp_path)!r} + f'/jobs-{{os.getpid()}}')\n@app.task\ndef t():\n    pass\n"
    )
    outcome = run_until_empty(path)
    assert outcome.exit_code == BOOT_EXIT
    assert "do not let the folder depend on the process" in str(outcome.error)


@pytest.mark.parametrize(
    ("body", "words"),
    [pytest.param("", "has nothing to run", id="nothing to run"), pytest.param("del app", "has no app", id="no app")],
)
def test_what_can_not_be_run_is_refused_before_any_process(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(errors.BootError, match=words):
        run(str(write_app(tmp_path, body)))


def test_status_shows_who_runs_what(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def hold():
            note("begun")
            while not (HERE / "go").exists():
                time.sleep(0.01)

        @app.consumer("rows")
        def rows(row):
            pass
        """,
    )
    app = load_app(str(path))
    job = app.tasks["hold"].send()
    with RunningApp(path, processes=1, until_empty=True) as running:
        wait_for(lambda: notes(tmp_path, "begun"))
        wait_for(lambda: len(alive_workers(read_status(app.url))) == 2)
        status = read_status(app.url)
        assert (status.running, status.pid, status.app) == (True, running.process.pid, str(path))
        assert [queue.name for queue in status.queues] == ["default", "rows"]
        worker, consumer = status.workers
        assert (worker.role, worker.alive, worker.task, worker.job) == ("worker default", True, "hold", job.id)
        assert worker.since is not None
        assert (consumer.role, consumer.alive, consumer.job) == ("consumer rows", True, None)
        assert job.status() == "running"
        (tmp_path / "go").touch()
        assert running.outcome()[0]["reason"] == "drained"
    assert job.status() == "done"
    status = read_status(app.url)
    assert (status.running, status.workers, status.dead) == (False, [], 0)
    app.close()


def test_hup_brings_new_code(tmp_path: Path) -> None:
    path = write_app(tmp_path, "@app.task\ndef version():\n    return 1\n")
    app = load_app(str(path))
    with RunningApp(path, processes=1) as running:
        assert app.tasks["version"].send().result(30) == 1
        path.write_text(path.read_text().replace("return 1", "return 'two'"))
        running.signal(signal.SIGHUP)
        wait_for(lambda: app.tasks["version"].send().result(30) == "two")
        running.signal(signal.SIGTERM)
        assert running.outcome()[0]["restarts"] == 0
    app.close()


def test_an_app_object_can_be_run_by_its_own_file(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def where():
            note("ran", __name__)

        if __name__ == "__main__":
            from pistributer.workers.run import run
            where.send()
            print(run(app, processes=1, until_empty=True).reason)
        """,
    )
    done = subprocess.run([sys.executable, str(path)], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "drained\n", done.stderr
    assert notes(tmp_path, "ran") == [path.stem]


def test_a_run_leaves_only_what_its_layout_says(tmp_path: Path) -> None:
    path = write_app(tmp_path, "@app.task\ndef one():\n    return 1\n")
    app = load_app(str(path))
    app.tasks["one"].send()
    run_until_empty(path)
    home = tmp_path / "jobs"
    assert sorted(entry.name for entry in home.iterdir()) == ["history", "queues", "results", "run"]
    assert sorted(entry.name for entry in (home / "run").iterdir()) == ["last_run.json", "run.lock", "running"]
    assert list((home / "run" / "running").iterdir()) == []
    (line,) = [json.loads(line) for log in (home / "results").glob("*.jsonl") for line in log.read_text().splitlines()]
    assert (line["ok"], line["value"]) == (True, 1)
    app.close()
