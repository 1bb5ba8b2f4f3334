"""Limits, results and rates that a sender chooses for one call: they hold for each attempt, in each kind of process."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pistributer import App, BadCall, Hook, Job, JobFailed, RateLimit, ResultLost, chain
from pistributer.testing import eager, memory
from pistributer.workers import segment_log
from pistributer.workers.execution import ready
from pistributer.workers.loading import load_app
from pistributer.workers.longest import Longest
from pistributer.workers.results import ResultLog, ResultReader
from pistributer.workers.run import run

from .gate_tools import work
from .worker_tools import is_gone, notes, write_app

#: No task of this app has a limit of its own, but for the two whose limit is switched off.
TASKS = """
import asyncio, re
from pistributer import TimeLimitExceeded

@app.task
def spin(seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    return "through"

@app.task
async def doze(seconds=60):
    await asyncio.sleep(seconds)
    return "awake"

@app.task(soft_time_limit=0.05)
def hurried(seconds):
    return spin(seconds)

@app.task(soft_time_limit=0.05)
async def hurried_await(seconds):
    return await doze(seconds)

@app.task(crash_retries=1)
def stuck():
    note("stuck", os.getpid())
    re.fullmatch("(a+)+b", "a" * 64)  # for ages, in C, and deaf to signals

@app.task(crash_retries=3)
def dies_first():
    note("began", os.getpid())
    if len((HERE / "began").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    spin()
"""

HARD = """
@app.task(hard_time_limit=0.2, crash_retries=0)
def limited(seconds):
    time.sleep(seconds)
    return "through"
"""

WAYS: dict[str, dict[str, Any]] = {
    "forkserver": {},
    "fork": {"start_method": "fork"},
    "spawn": {"start_method": "spawn"},
    "threads": {"threads": 3},
    "concurrency": {"concurrency": 3},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_app(tmp_path, TASKS)


def finish(path: Path, **options: Any) -> list[str]:
    said: list[str] = []
    run(str(path), processes=1, until_empty=True, on_event=lambda it: said.append(it.action), **options)
    return said


def late(job: Job[Any]) -> None:
    with pytest.raises(JobFailed, match=r"soft time limit of 0\.0[67] s") as failure:
        job.result(1)
    assert failure.value.kind == "TimeLimitExceeded"


# -- time limits


@pytest.mark.parametrize("way", WAYS)
def test_a_soft_limit_of_one_call(path: Path, way: str) -> None:
    app = load_app(str(path))
    spin, doze = app.tasks["spin"], app.tasks["doze"]
    limited = [task.options(soft_time_limit=0.06).send() for task in (spin, doze)]
    others = [spin.send(0.0), doze.send(0.0), *spin.options(soft_time_limit=60).send_many([(0.0,), (0.1,)])]
    freed = [app.tasks[name].options(soft_time_limit=None).send(0.2) for name in ("hurried", "hurried_await")]
    wider = app.tasks["hurried"].options(soft_time_limit=0.07).send(60)
    finish(path, **WAYS[way])
    for job in (*limited, wider):
        late(job)
    assert [job.result(1) for job in others + freed] == ["through", "awake", "through", "through", "through", "awake"]
    app.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_hard_limit_of_one_call_in_an_app_that_has_none(path: Path, tmp_path: Path, way: str) -> None:
    app = load_app(str(path))
    assert not any(task.hard_time_limit for task in app.tasks.values())
    job = app.tasks["stuck"].options(hard_time_limit=0.2).send()
    started = time.monotonic()
    said = finish(path, **WAYS[way])
    assert time.monotonic() - started < 30
    pids = [int(pid) for pid in notes(tmp_path, "stuck")]
    assert len(set(pids)) == len(pids) == 2  # crash_retries, and both attempts counted
    assert all(map(is_gone, pids))
    assert said.count("time_limit") == 2
    with pytest.raises(JobFailed, match="was killed because stuck reached its hard time limit"):
        job.result(1)
    app.close()


def test_a_hard_limit_can_be_switched_off_for_one_call(tmp_path: Path) -> None:
    path = write_app(tmp_path, HARD)
    app = load_app(str(path))
    freed = app.tasks["limited"].options(hard_time_limit=None).send(1.0)
    held = app.tasks["limited"].send(60)
    finish(path)
    assert freed.result(1) == "through"
    with pytest.raises(JobFailed, match="hard time limit"):
        held.result(1)
    app.close()


def test_a_limit_holds_for_the_attempt_after_a_killed_worker(path: Path, tmp_path: Path) -> None:
    app = load_app(str(path))
    job = app.tasks["dies_first"].options(soft_time_limit=0.06).send()
    said = finish(path)
    assert len(notes(tmp_path, "began")) == 2
    assert "restart" in said
    late(job)
    app.close()


def test_limits_in_the_testing_kit(path: Path) -> None:
    app = load_app(str(path))
    with memory(app) as stage:
        job = app.tasks["spin"].options(soft_time_limit=0.06).send()
        freed = app.tasks["hurried"].options(soft_time_limit=None).send(0.1)
        stage.run_until_empty()
        late(job)
        assert freed.result() == "through"
    with eager(app):
        late(app.tasks["doze"].options(soft_time_limit=0.06).send())


@pytest.mark.parametrize("option", ["soft_time_limit", "hard_time_limit", "results"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "5", [3]])
def test_what_is_no_limit_is_refused_at_once(tmp_path: Path, option: str, value: Any) -> None:
    app = App(tmp_path / "jobs")
    task = app.task(name="task")(print)
    with pytest.raises(ValueError, match="positive"):
        task.options(**{option: value})
    with pytest.raises(ValueError, match="positive"):
        app.task(name="other", **{option: value})(print)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [[], {"hard_time_limit": "5"}, {"soft_time_limit": True}, {"results": "long"}, {"rate_limit": "5/s"},
     {"rate_limit": [5, 1.0]}, {"rate_limit": [1.5, 1.0, None]}, {"rate_limit": [0, 1.0, None]},
     {"rate_limit": [5, 1.0, {}]}],
)  # fmt: skip
def test_a_message_with_options_that_make_no_sense_is_buried(tmp_path: Path, options: Any) -> None:
    app = App(tmp_path / "jobs")
    app.task(name="task")(print)
    app.queue().put({"id": "x", "task": "task", "options": options})
    work(app)
    [dead] = app.queue().scan("dead")
    assert '"options"' in (dead.error or "")
    app.close()


def test_options_of_a_later_release_are_passed_over(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    app.task(name="task")(lambda: 5)
    app.queue().put({"id": "x", "task": "task", "options": {"colour": "red", "results": 60.0}})
    work(app)
    assert app.job("x", task="task").result(1) == 5
    app.close()


class _CountWraps(Hook):
    def __init__(self) -> None:
        self.wrapped: list[str] = []

    def wrap(self, task: Any, function: Any) -> Any:
        self.wrapped.append(task.name)
        return function


def test_what_is_made_for_a_limit_is_made_once(tmp_path: Path) -> None:
    app, hook = App(tmp_path / "jobs"), _CountWraps()
    app.add_hook(hook)
    task = app.task(name="task")(lambda n: n)
    made: list[Any] = []
    make = ready.Preparing._make

    def note_made(*args: Any) -> Any:
        made.append(args)
        return make(*args)

    with mock.patch.object(ready.Preparing, "_make", note_made), mock.patch.object(ready, "_MOST_TERMS", 3):
        jobs = [task.options(soft_time_limit=5.0).send(n) for n in range(20)]
        jobs += task.send_many((n,) for n in range(20))
        work(app)
        assert len(made) == 2  # the task's own, and that of five seconds
        jobs += [task.options(soft_time_limit=10.0 + n).send(n) for n in range(10)]
        work(app)
        assert len(made) == 13
    assert [job.result(1) for job in jobs] == [*range(20), *range(20), *range(10)]
    assert hook.wrapped == ["task"] * 2  # once in each process; a limit of a call does not wrap it anew
    app.close()


# -- results


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App(tmp_path / "jobs")
    app.task(name="kept")(lambda n: n)
    app.task(name="unkept", results=False)(lambda n: n)
    app.task(name="add")(lambda a, b=1: a + b)
    app.task(name="mail", rate_limit="2/m")(lambda n: ran.append(n))
    ran: list[int] = []
    app.ran = ran  # type: ignore[attr-defined]
    return app


def test_results_of_one_call(app: App) -> None:
    wanted = app.tasks["unkept"].options(results=True).send(1)
    timed = app.tasks["unkept"].options(results=60.0).send(2)
    plain = app.tasks["unkept"].send(3)
    unwanted = app.tasks["kept"].options(results=False).send(4)
    elsewhere = pickle.loads(pickle.dumps(wanted))
    by_id = app.job(wanted.id, task="unkept")
    for job in (elsewhere, by_id):
        with pytest.raises(TimeoutError):  # not ResultLost: its message says that there will be one
            job.result(0.01)
    for job in (plain, unwanted):
        with pytest.raises(ResultLost, match=r"the task 'unkept' keeps no results|this call of 'kept' keeps no result"):
            job.result(1)
    work(app)
    assert [job.result(1) for job in (wanted, timed, elsewhere, by_id)] == [1, 2, 1, 1]
    for job in (plain, unwanted):
        assert job.status() == "lost"
    app.close()


def test_a_held_job_is_known_to_keep_its_result(app: App) -> None:
    first, second = (app.tasks["unkept"].options(results=True, key="k").send(n) for n in range(2))
    assert (first.status(), second.status()) == ("queued", "held")
    with pytest.raises(TimeoutError):
        app.job(second.id, task="unkept").result(0.01)
    app.close()


def test_a_result_is_kept_as_long_as_its_sender_said(app: App) -> None:
    short = app.tasks["kept"].options(results=0.001).send(1)
    called_off = app.tasks["unkept"].options(results=True).send(2)
    called_off.cancel()
    work(app)
    with pytest.raises(ResultLost):
        short.result(30)
    assert called_off.status() == "cancelled"
    app.close()


def test_one_process_does_not_delete_what_another_was_asked_to_keep(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with mock.patch.object(segment_log, "SEGMENT_BYTES", 1):
        asked, other = ResultLog(folder, max_age=10.0), ResultLog(folder, max_age=10.0)
        now = time.time()
        asked.add("a", 1, now + 1000.0)
        for log in (asked, other, other):
            log.add("b", 2)
            log.flush()
        for found in segment_log.segments(folder):
            os.utime(found.path, (now - 500.0, now - 500.0))
        for log in (asked, other):
            log.add("c", 3)
            log.flush()
        assert ResultReader(folder).find("a") is not None
        with mock.patch.object(time, "time", return_value=now + 3000.0):
            other.add("d", 4)
            other.flush()
        assert ResultReader(folder).find("a") is None
        asked.close()
        other.close()


def test_the_longest_retention_is_noted_rarely_and_never_forgotten_early(tmp_path: Path) -> None:
    one, other = (Longest(str(tmp_path), 10.0) for _ in range(2))
    now = time.time()
    one.keep_until(now + 5.0)
    assert os.listdir(tmp_path) == []  # everything is kept so long anyway
    with mock.patch.object(Longest, "_extend", autospec=True, side_effect=Longest._extend) as written:
        for _ in range(100):
            one.keep_until(time.time() + 600.0)
        other.keep_until(now + 50.0)
        assert written.call_count == 2
    assert one.read() == other.read() == pytest.approx(600.0, abs=2.0)
    (tmp_path / "longest").write_bytes(b"")  # as after a power cut
    assert one.read() == 0.0


# -- rates


def test_a_rate_of_one_call_counts_by_itself(app: App) -> None:
    mail, ran = app.tasks["mail"], app.ran  # type: ignore[attr-defined]
    with memory(app) as stage:
        mail.send_many((n,) for n in range(3))
        mail.options(rate_limit="1/m").send_many((10 + n,) for n in range(3))
        mail.options(rate_limit=RateLimit(1, 60.0, 1)).send(20)  # another burst, so another limit
        mail.options(rate_limit=None).send_many((30 + n,) for n in range(3))
        app.tasks["kept"].options(rate_limit="1/m").send_many((n,) for n in range(2))
        stage.run_due()
        assert ran == [0, 1, 10, 20, 30, 31, 32]
        stage.clock.advance(62.0)
        stage.run_due()
        assert sorted(ran[7:]) == [2, 11]
        start = stage.clock.now()
        stage.run_until_empty()
        assert sorted(ran[7:]) == [2, 11, 12]
        assert stage.clock.now() - start == pytest.approx(60.0, abs=3.0)


def test_rates_that_nobody_uses_any_more_are_forgotten(app: App) -> None:
    from pistributer.workers.tickets import store

    app.tasks["mail"].options(rate_limit="1/s").send(1)
    app.tasks["mail"].options(rate_limit="1/h").send(2)
    work(app)
    database = app.gate.tickets.database
    count = "SELECT (SELECT count(*) FROM pace), (SELECT count(*) FROM rates)"
    store.forget_old(app.gate.tickets)
    assert database.read(count) == [(2, 2)]
    database.write("UPDATE rates SET begun = begun - ?, planned = planned - ?", (7 * 86400.0 + 2, 7 * 86400.0 + 2))
    store.forget_old(app.gate.tickets)
    assert database.read(count) == [(1, 1)]  # that of an hour may still matter
    app.close()


# -- many calls with options


def test_send_many_with_every_option_that_makes_sense(app: App) -> None:
    kept = app.tasks["kept"]
    jobs = kept.options(
        queue="other", priority=7, retries=3, tags=["a"], soft_time_limit=9.0, hard_time_limit=None, results=60.0,
        rate_limit="5/s",
    ).send_many((n,) for n in range(3))  # fmt: skip
    rows = [row.value for row in app.queue("other@7").scan()]
    assert [row["args"] for row in rows] == [[0], [1], [2]]
    assert [job.queue for job in jobs] == ["other"] * 3
    assert [job.id for job in jobs] == [row["id"] for row in rows]
    for row in rows:
        assert (row["retries"], row["tags"]) == (3, ["a"])
        assert row["options"] == {
            "soft_time_limit": 9.0, "hard_time_limit": None, "results": 60.0, "rate_limit": [5, 1.0, None]
        }  # fmt: skip
    app.close()


def test_send_many_delayed_keyed_and_unique(app: App) -> None:
    kept = app.tasks["kept"]
    with memory(app) as stage:
        delayed = kept.options(delay=60).send_many((n,) for n in range(3))
        keyed = kept.options(key="k", delay=60).send_many((n,) for n in range(2))
        joined = kept.options(unique="join").send_many([(5,), (6,), (5,)])
        skipped = kept.options(unique="skip").send_many([(5,), (7,)])
        assert joined[0] == joined[2] != joined[1]
        assert [job.status() for job in (*delayed, *keyed, *skipped)] == [
            "delayed", "delayed", "delayed", "delayed", "held", "skipped", "queued"
        ]  # fmt: skip
        stage.run_due()
        assert [job.status() for job in delayed] == ["delayed"] * 3
        stage.clock.advance(60)
        stage.run_until_empty()
        assert [job.result() for job in (*delayed, *keyed, *joined)] == [0, 1, 2, 0, 1, 5, 6, 5]


@pytest.mark.parametrize("options", [{"idempotency_id": "x"}, {"unique": "skip", "unique_key": "x"}])
def test_send_many_refuses_what_would_make_all_calls_one(app: App, options: Any) -> None:
    with pytest.raises(BadCall, match=r"kept\.options\(…\)\.send_many does not take (idempotency_id|unique_key)="):
        app.tasks["kept"].options(**options).send_many([(1,)])
    assert app.queue().stats().ready == 0
    app.close()


def test_hooks_see_many_calls_with_options(app: App) -> None:
    seen: list[tuple[str, float]] = []

    class Watch(Hook):
        def before_enqueue(self, sending: Any) -> None:
            seen.append((sending.queue, sending.delay))

    app.add_hook(Watch())
    app.tasks["kept"].options(queue="other", delay=5.0).send_many([(1,), (2,)])
    assert seen == [("other", 5.0)] * 2
    app.close()


# -- calls with options


def test_calls_and_followers_with_options(app: App) -> None:
    add = app.tasks["add"]
    with memory(app) as stage:
        job = chain(
            add.options(hard_time_limit=9.0, results=False).call(1),
            add.options(queue="other", priority=3, retries=2, key="k").then(10),
        ).send()
        [first] = [row.value for row in app.queue().scan()]
        assert first["options"] == {"hard_time_limit": 9.0, "results": False}
        stage.run_until_empty()
        assert job.result() == 12
        assert (job.queue, app.job(first["id"], task="add").status()) == ("other", "lost")


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [("call", {"delay": 5}, "delay="), ("call", {"idempotency_id": "x"}, "idempotency_id="),
     ("then", {"delay": 5}, "delay="), ("then", {"unique": "skip"}, "unique="),
     ("then", {"idempotency_id": "x"}, "idempotency_id=")],
)  # fmt: skip
def test_calls_refuse_what_is_about_sending(app: App, method: str, options: Any, said: str) -> None:
    with pytest.raises(BadCall, match=f"does not take {said}"):
        getattr(app.tasks["add"].options(**options), method)()
    app.close()
