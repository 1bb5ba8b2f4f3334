"""What a job went through: each attempt with its error, its worker's death with the cause, its progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pistributer import App, Attempt, Job, JobFailed, progress
from pistributer.workers.execution.deaths import Deaths
from pistributer.workers.history import HistoryLog, last_deaths, read_attempts
from pistributer.workers.loading import load_app
from pistributer.workers.results import Finished
from pistributer.workers.run import run
from pistributer.workers.supervision.decisions import Say
from pistributer.workers.supervision.oom import OomWatch
from pistributer.workers.supervision.roles import Cause
from tests.crashing import every_kill
from tests.worker_tools import RunningApp, environment, notes, wait_for, write_app

TASKS = """
import asyncio, ctypes, logging, re, resource
from pistributer import Cancel, Snooze, current_run, progress

log = logging.getLogger("shop")

@app.task(retries=2, retry_delay=0.01)
def flaky(succeed_at):
    note("flaky")
    if len(open(HERE / "flaky").readlines()) < succeed_at:
        raise ValueError("not yet \\udcff")
    return "at last"

@app.task
def patient():
    if not (HERE / "slept").exists():
        note("slept")
        raise Snooze(0.01, "too early")
    raise Cancel("sold out")

@app.task(crash_retries=1)
def segfault():
    log.warning("about to read address %d", 0)
    ctypes.string_at(0)

@app.task(crash_retries=0)
def leave():
    os._exit(7)

@app.task(crash_retries=0)
def killed():
    progress(3, 10, "page 3")
    log.error("the end is near")
    time.sleep(1.5)  # the supervisor looks how much memory it uses
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
def hog():
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000, before[1]))
    try:
        return len(bytearray(1 << 32))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

@app.task(hard_time_limit=0.5, crash_retries=0)
def stuck():
    re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C, and deaf to signals

@app.task
async def walk(steps):
    for step in range(steps):
        progress(step + 1, steps, f"step {step + 1}")
    return current_run().attempt

@app.task
def beside(number, steps):
    for step in range(steps + 1):
        progress(step, steps, f"I am {number}")
        time.sleep(0.002)
    return current_run().job_id

@app.task
async def wander(number, steps):
    for step in range(steps + 1):
        progress(step, steps, f"I am {number}")
        await asyncio.sleep(0.002)
    return current_run().job_id

@app.task
def hold():
    progress(1, 2, "half way")
    note("held")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    progress(2, 2)

@app.consumer("rows", crash_retries=0)
def eat(row):
    log.warning("eating %s", row)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_app(tmp_path, TASKS)


@pytest.fixture
def app(path: Path) -> Iterator[App]:
    app = load_app(str(path))
    yield app
    app.close()


def run_out(path: Path, said: list[Say] | None = None) -> None:
    run(str(path), processes=1, until_empty=True, on_event=([] if said is None else said).append)


def shape(attempts: list[Attempt]) -> list[tuple[int, str]]:
    return [(attempt.number, attempt.what) for attempt in attempts]


# -- attempts


def test_each_attempt_is_told_with_its_error(path: Path, app: App) -> None:
    good, bad = app.tasks["flaky"].send(2), app.tasks["patient"].send()
    assert good.attempts() == []
    run_out(path)
    first, last = good.attempts()
    assert shape([first, last]) == [(1, "retried"), (2, "done")]
    assert (first.kind, first.text) == ("ValueError", "not yet \\udcff")
    assert 'raise ValueError("not yet' in first.traceback
    assert first.pid not in (None, os.getpid())
    assert first.at is not None
    assert first.again_in is not None
    assert last.at is not None
    assert first.at <= last.at
    assert last.seconds is not None
    assert last.seconds >= 0
    assert shape(bad.attempts()) == [(1, "snoozed"), (1, "cancelled")]
    assert [(it.kind, it.text) for it in bad.attempts()] == [("Snooze", "too early"), ("Cancel", "sold out")]


def test_a_job_that_failed_for_good_keeps_its_attempts_after_it_ended(path: Path, app: App) -> None:
    job = app.tasks["flaky"].send(99)
    run_out(path)
    app.queue().drop_dead()
    assert shape(job.attempts()) == [(1, "retried"), (2, "retried"), (3, "failed")]
    code = f"from pistributer import App; print(*(it.what for it in App({app.url!r}).job({job.id!r}).attempts()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["retried", "retried", "failed"]


def test_jobs_that_go_well_leave_no_history(path: Path, app: App) -> None:
    app.tasks["walk"].send(0)
    run_out(path)
    assert list(Path(app.home.history).glob("*.jsonl")) == []


# -- deaths


def dead_letter(app: App, job: Job[Any]) -> str:
    return next(row.error or "" for row in app.queue().scan("dead") if row.value["id"] == job.id)


def test_poison_tells_how_it_kills(path: Path, app: App) -> None:
    said: list[Say] = []
    jobs = {name: app.tasks[name].send() for name in ("segfault", "leave", "killed", "hog", "stuck")}
    run_out(path, said)
    what = {name: [attempt.what for attempt in job.attempts()] for name, job in jobs.items()}
    assert what == {
        "segfault": ["died", "died"], "leave": ["died"], "killed": ["died"], "hog": ["failed"], "stuck": ["died"],
    }  # fmt: skip
    deaths = {name: job.attempts()[-1].death for name, job in jobs.items() if name != "hog"}
    crashed, left, killed, stuck = (deaths[name] for name in ("segfault", "leave", "killed", "stuck"))
    assert crashed is not None
    assert (crashed.signal, crashed.exit_code, crashed.oom) == ("SIGSEGV", None, "no")
    assert "WARNING shop: about to read address 0" in crashed.log
    assert f'{path.name}", line' in crashed.stack
    assert "in segfault" in crashed.stack
    assert left is not None
    assert (left.signal, left.exit_code, left.log, left.stack) == (None, 7, "", "")
    assert killed is not None
    assert (killed.signal, killed.worker) == ("SIGKILL", "worker default[0]")
    assert "ERROR shop: the end is near" in killed.log
    assert "address 0" not in killed.log
    assert stuck is not None
    assert "in stuck" in stuck.stack
    assert jobs["hog"].attempts()[0].kind == "MemoryError"

    assert "was killed by SIGSEGV" in dead_letter(app, jobs["segfault"]).splitlines()[-1]
    assert "about to read address 0" in dead_letter(app, jobs["segfault"])
    assert "left with exit code 7" in dead_letter(app, jobs["leave"])
    assert "reached its hard time limit" in dead_letter(app, jobs["stuck"])
    with pytest.raises(JobFailed, match="SIGKILL"):
        jobs["killed"].result(1)
    crash = next(it for it in said if "was killed by SIGSEGV" in it.text)
    assert crash.cause is not None
    assert "about to read address 0" in crash.cause.log
    if killed.peak_bytes is not None:  # where /proc tells
        assert 1_000_000 < killed.peak_bytes < 1_000_000_000
        assert "peak memory" in dead_letter(app, jobs["killed"])
    assert jobs["killed"].progress() is not None
    assert getattr(jobs["killed"].progress(), "text", "") == "page 3"
    assert set(last_deaths(app.home.history)) == {job.id for name, job in jobs.items() if name != "hog"}


def test_the_dead_letter_of_a_row_says_what_killed_its_consumer(path: Path, app: App) -> None:
    app.queue("rows").put({"n": 1})
    run_out(path)
    (dead,) = app.queue("rows").scan("dead")
    assert "was killed by SIGKILL" in (dead.error or "")
    assert "eating {'n': 1}" in (dead.error or "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_death_is_told_under_every_start_method(path: Path, app: App, method: Any) -> None:
    job = app.tasks["segfault"].send()
    with RunningApp(path, processes=1, until_empty=True, start_method=method) as running:
        running.outcome()
    first, second = job.attempts()
    assert [(it.number, it.what, it.death and it.death.signal) for it in (first, second)] == [
        (1, "died", "SIGSEGV"), (2, "died", "SIGSEGV"),
    ]  # fmt: skip


def test_an_attempt_of_which_nobody_was_left_to_tell_is_counted(path: Path, app: App, tmp_path: Path) -> None:
    """Killed together with the supervisor, as by a crash of the machine."""
    job = app.tasks["hold"].send()
    with RunningApp(path, processes=1):
        wait_for(lambda: notes(tmp_path, "held"))
    (tmp_path / "go").touch()
    run_out(path)
    assert shape(job.attempts()) == [(1, "unknown"), (2, "done")]
    assert getattr(job.progress(), "done", None) == 2


# -- the log


def test_an_attempt_that_left_no_line_is_named(tmp_path: Path) -> None:
    log = HistoryLog(str(tmp_path))
    log.note("a", "retried", attempt=1, at=1.0)
    log.note("a", "died", attempt=3, at=3.0, text="was killed by SIGKILL")
    log.note("b", "failed", attempt=1, at=1.5)
    log.note("b", "retried", attempt=1, at=2.0, pid=7)  # its dead letter was put back
    log.note("b", "died", attempt=1, at=2.1, pid=7)  # before it could settle the row
    log.close()
    assert shape(read_attempts(str(tmp_path), "a")) == [(1, "retried"), (2, "unknown"), (3, "died")]
    assert shape(read_attempts(str(tmp_path), "b")) == [(1, "failed"), (1, "retried")]
    assert shape(read_attempts(str(tmp_path), "b", Finished(True, attempts=3))) == [
        (1, "failed"), (1, "retried"), (2, "unknown"), (3, "done"),
    ]  # fmt: skip
    assert read_attempts(str(tmp_path), "c") == []


def test_a_worker_that_dies_behind_its_last_line_is_no_attempt_of_its_own(tmp_path: Path) -> None:
    """It noted how the attempt ended, and was killed before it settled the row; so the job came again."""
    log = HistoryLog(str(tmp_path))
    log.note("a", "retried", attempt=1, at=1.0, pid=7)
    log.note("a", "failed", attempt=2, at=2.0, pid=7)
    log.note("a", "died", attempt=2, at=2.1, pid=7)
    log.note("a", "failed", attempt=3, at=3.0, pid=8)
    log.note("b", "failed", attempt=2, at=1.0, pid=7)  # the supervisor was killed with it
    log.note("b", "failed", attempt=3, at=2.0, pid=8)
    log.note("c", "died", attempt=1, at=1.0, pid=7)  # not to blame, so it was not counted
    log.note("c", "died", attempt=1, at=2.0, pid=8)
    log.close()
    assert shape(read_attempts(str(tmp_path), "a")) == [(1, "retried"), (2, "failed"), (3, "failed")]
    assert shape(read_attempts(str(tmp_path), "b")) == [(1, "unknown"), (2, "failed"), (3, "failed")]
    assert shape(read_attempts(str(tmp_path), "c")) == [(1, "died"), (1, "died")]


def test_ids_that_contain_each_other_are_not_mixed_up(tmp_path: Path) -> None:
    log = HistoryLog(str(tmp_path))
    log.note("ab", "failed", attempt=1, at=1.0, text='{"id":"a"')
    log.note("a", "failed", attempt=1, at=2.0, text="mine")
    log.close()
    assert [attempt.text for attempt in read_attempts(str(tmp_path), "a")] == ["mine"]


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_killed_worker_leaves_its_history_behind_before_it_settles_a_row(tmp_path: Path, torn: bool) -> None:
    """Killed at each change to the disk while a job fails: whenever its row has moved, its attempt is in the history."""
    jobs: dict[int, tuple[App, Job[Any]]] = {}

    def prepare(at: int) -> Any:
        folder = tmp_path / str(at)
        app = App(folder)

        @app.task
        def bad() -> None:
            raise ValueError("bad")

        jobs[at] = app, bad.send()
        app.close()

        def act(tell: Any) -> None:
            fail_one(app)

        return act

    for at, told in every_kill(prepare, torn=torn):
        app, job = jobs[at]
        dead = list(app.queue().scan("dead"))
        assert len(job.attempts()) == 1 or not dead
        assert not told.finished or dead
        app.close()
    assert at > 5


def fail_one(app: App) -> None:
    """What a worker does with one job, in this process."""
    from pistributer.workers.execution.calling import Caller
    from pistributer.workers.execution.lanes import Lanes
    from pistributer.workers.execution.worker import Logs, TaskLoop
    from pistributer.workers.pools import Pool
    from pistributer.workers.progress import Reports
    from pistributer.workers.supervision.board import Desk, create
    from pistributer.workers.supervision.pages import Page

    board = os.path.join(app.home.run, "board")
    create(board, 1)
    logs = Logs(app, Reports(Page(f"{board}.0", fresh=True)))
    before = signal.getsignal(signal.SIGURG)
    lanes = Lanes(app, Pool("default"))
    loop = TaskLoop(SimpleNamespace(jobs_left=None), app, lanes, Desk(board, 0), Caller(), logs)  # type: ignore[arg-type]
    items = lanes.claim(1, timeout=0.0)
    loop.queue = lanes.current
    for item in items:
        loop.handle(item)
    loop.settle()
    signal.signal(signal.SIGURG, before)
    for part in (logs, app):
        part.close()


# -- progress


def test_progress_is_seen_while_a_job_runs_and_after(path: Path, app: App, tmp_path: Path) -> None:
    from pistributer.workers.inspection.status import read_status

    job, walk = app.tasks["hold"].send(), app.tasks["walk"].send(100)
    assert job.progress() is None
    with RunningApp(path, processes=1, until_empty=True) as running:
        wait_for(lambda: notes(tmp_path, "held"))
        said = job.progress()
        assert said is not None
        assert (said.done, said.total, said.text) == (1, 2, "half way")
        assert [
            it.progress and it.progress.done for worker in read_status(app.url).workers for it in worker.running
        ] == [1]
        (tmp_path / "go").touch()
        running.outcome()
    for each, done, text in ((job, 2, ""), (walk, 100, "step 100")):
        said = App(app.url).job(each.id).progress()
        assert said is not None
        assert (said.done, said.total, said.text) == (done, done, text)
    assert walk.result(1) == 1
    # The next run begins with empty pages; the history remembers.
    run_out(path)
    assert getattr(job.progress(), "done", None) == 2


def test_jobs_that_run_at_once_do_not_mix_up_their_progress(path: Path, app: App) -> None:
    jobs = [app.tasks[name].send(number, 40 + number) for number in range(6) for name in ("beside", "wander")]
    run(str(path), processes=1, threads=4, concurrency=4, until_empty=True, on_event=lambda said: None)
    for place, job in enumerate(jobs):
        said, number = job.progress(), place // 2
        assert said is not None
        assert (said.done, said.total, said.text) == (40 + number, 40 + number, f"I am {number}")
        assert job.result(1) == job.id
    lines = [line for log in Path(app.home.history).glob("*.jsonl") for line in log.read_text().splitlines()]
    assert len(lines) == len(jobs)  # one for each, however often a neighbour was settled meanwhile


def test_the_cause_names_the_kernel_if_it_was_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OomWatch, "verdict", lambda self, pid: "yes" if pid == 42 else "perhaps")
    deaths = Deaths(str(tmp_path / "board"), HistoryLog(str(tmp_path)))
    killed = Cause("signal", signal.SIGKILL)
    assert str(deaths.examine(0, [], killed, 42)).startswith(
        "was killed by SIGKILL of the kernel, which was out of memory"
    )
    assert "perhaps of the kernel" in str(deaths.examine(0, [], killed, 41))
    assert "kernel" not in str(deaths.examine(0, [], killed, 42, "was killed because it took too long"))
    assert "kernel" not in str(deaths.examine(0, [], Cause("exit", 1), 42))
    assert deaths.examine(0, [], Cause("finished"), 42) == Cause("finished")
    deaths.close()


def test_progress_outside_of_a_worker_does_nothing() -> None:
    progress(1, 2, "three")
    from pistributer import current_run

    assert current_run() is None


def test_history_lines_are_json_for_everybody(path: Path, app: App) -> None:
    job = app.tasks["flaky"].send(2)
    run_out(path)
    (log,) = Path(app.home.history).glob("*.jsonl")
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["id"], line["what"], line["task"], line["queue"], line["attempt"]) == (
        job.id, "retried", "flaky", "default", 1,
    )  # fmt: skip
