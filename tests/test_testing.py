"""What users test their tasks with behaves as workers do, without processes and without waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pistributer import (
    App,
    Backoff,
    BadCall,
    Cancel,
    Hook,
    JobFailed,
    QueueFull,
    ResultLost,
    ResultTimeout,
    Retry,
    Run,
    Snooze,
    TimeLimitExceeded,
    WorkError,
    chain,
    chord,
    current_run,
    group,
    progress,
)
from pistributer.testing import Stage, eager, memory

START = datetime(2026, 3, 28, 12, tzinfo=UTC)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "jobs")


@pytest.fixture
def run(app: App) -> Iterator[Stage]:
    with eager(app, start=START) as stage:
        yield stage


@pytest.fixture
def box(app: App) -> Iterator[Stage]:
    with memory(app, start=START) as stage:
        yield stage


# -- eager


def test_the_current_run_is_that_of_the_job_that_runs(app: App, run: Stage) -> None:
    seen: list[str | None] = []

    def see() -> None:
        now = current_run()
        seen.append(None if now is None else now.task.name)

    @app.task
    def inner() -> None:
        see()

    @app.task
    def outer() -> None:
        inner.send()
        see()

    outer.send()
    see()
    assert seen == ["inner", "outer", None]


def test_an_eager_send_has_run_when_it_returns(app: App, run: Stage) -> None:
    seen: list[Any] = []
    note = app.task(name="note")(seen.append)
    assert note.send({"a": (1, 2)}).result() is None
    assert seen == [{"a": [1, 2]}]  # as JSON brings it


def test_an_async_task_runs_eagerly_from_plain_code_and_from_a_running_loop(app: App, run: Stage) -> None:
    @app.task
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main() -> int:
        return await double.send(4)

    assert double.send(3).result() == 6
    assert asyncio.run(main()) == 8


def test_a_whole_stage_fits_into_a_running_loop(app: App) -> None:
    double = app.task(name="double")(lambda n: 2 * n)

    @app.task
    async def half(n: int) -> float:
        await asyncio.sleep(0)
        return n / 2

    async def main() -> tuple[int, float]:
        with eager(app):
            return await double.send(2), await half.send(2)

    assert asyncio.run(main()) == (4, 1.0)


def test_nothing_is_written_where_the_app_lives(app: App) -> None:
    home = app.home
    with eager(app):
        app.task(name="none")(lambda: None).send()
    assert app.home is home
    assert not Path(app.home.folder).exists()


def test_what_json_can_not_hold_fails_as_in_production(app: App, run: Stage) -> None:
    back = app.task(name="back")(lambda value: {1, 2})
    with pytest.raises(BadCall):
        back.send({3})
    with pytest.raises(BadCall):
        back.send(1, 2)
    with pytest.raises(JobFailed, match="can not be kept as a result"):
        back.send(1).result()


def test_retries_wait_for_the_clock_or_for_whoever_wants_the_result(app: App, run: Stage) -> None:
    times: list[datetime] = []

    @app.task(retries=3, retry_delay=Backoff(60.0, jitter=False))
    def flaky() -> int:
        times.append(run.clock.datetime())
        if len(times) < 3:
            raise OSError("down")
        return len(times)

    job = flaky.send()
    assert job.status() == "delayed"
    run.clock.advance(59)
    assert len(times) == 1
    run.clock.advance(timedelta(seconds=1))
    assert len(times) == 2
    assert job.result() == 3
    assert times == [START, START + timedelta(seconds=60), START + timedelta(seconds=180)]


def test_the_end_of_the_retries_is_a_dead_letter_and_a_failed_job(app: App, run: Stage) -> None:
    @app.task(retries=1)
    def hopeless() -> None:
        raise ValueError("no")

    with pytest.raises(JobFailed) as failed:
        hopeless.send().result()
    assert (failed.value.kind, failed.value.attempts) == ("ValueError", 2)
    assert [letter.reason for letter in run.dead()] == ["ValueError: no"]


def test_a_sender_is_told_what_failed_if_it_asks_for_it(app: App) -> None:
    @app.task
    def divide(n: int) -> float:
        return 1 / n

    with eager(app, propagate=True) as stage:
        assert divide.send(2).result() == 0.5
        with pytest.raises(ZeroDivisionError):
            divide.send(0)
        assert len(stage.dead()) == 1
    assert app.hooks == ()


def test_a_task_decides_as_in_a_worker(app: App, run: Stage) -> None:
    answers: list[Exception] = [Snooze(3600), Retry(after=60), Cancel("sold out")]

    @app.task(retries=1)
    def decide() -> None:
        raise answers.pop(0)

    job = decide.send()
    run.clock.advance(3600)
    assert len(answers) == 1
    run.clock.advance(60)
    assert job.status() == "cancelled"
    assert run.dead() == []


def test_a_delayed_job_comes_when_it_is_due(app: App, run: Stage) -> None:
    seen: list[str] = []
    note = app.task(name="note")(seen.append)
    note.options(delay=3600).send("b")
    note.options(at=START + timedelta(minutes=30)).send("a")
    run.clock.advance(1800)
    assert seen == ["a"]
    run.clock.advance(1800)
    assert seen == ["a", "b"]


def test_waiting_for_a_result_takes_time_of_the_test_only(app: App, run: Stage) -> None:
    job = app.task(name="late")(lambda: 7).options(delay=3600).send()
    with pytest.raises(ResultTimeout):
        job.result(timeout=60)
    assert run.clock.datetime() == START + timedelta(seconds=60)
    assert job.result(timeout=86400) == 7
    assert run.clock.datetime() == START + timedelta(hours=1)


def test_a_job_that_snoozes_for_ever_does_not_hang_the_test(app: App, run: Stage) -> None:
    @app.task
    def wait() -> None:
        raise Snooze(1)

    with pytest.raises(ResultTimeout):
        wait.send().result()


def test_a_result_that_will_never_come_is_lost(app: App, run: Stage) -> None:
    with pytest.raises(ResultLost):
        app.task(name="mute", results=False)(lambda: 1).send().result()


def test_a_job_may_send_another_and_wait_for_it(app: App, run: Stage) -> None:
    @app.task
    async def inner(n: int) -> int:
        return n + 1

    @app.task
    def outer(n: int) -> int:
        return inner.send(n).result() * 10

    assert outer.send(1).result() == 20


def test_many_and_from_several_threads(app: App, run: Stage) -> None:
    square = app.task(name="square")(lambda n: n * n)
    assert [job.result() for job in square.send_many([(1,), (2,), (3,)])] == [1, 4, 9]
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(square.send(5).result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [25] * 4


def test_time_limits_hold_in_the_main_thread(app: App, run: Stage) -> None:
    @app.task(soft_time_limit=0.01)
    def slow(loops: bool) -> None:
        while loops:
            pass

    with pytest.raises(JobFailed) as failed:
        slow.send(True).result()
    assert failed.value.kind == TimeLimitExceeded.__name__
    thread = threading.Thread(target=slow.send, args=(False,))
    thread.start()
    thread.join()
    assert len(run.dead()) == 1


def test_ctrl_c_in_a_task_stops_the_test(app: App, run: Stage) -> None:
    @app.task(retries=5)
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.send()


def test_hooks_are_called_around_jobs_and_around_the_processes_that_are_played(app: App) -> None:
    told: list[str] = []

    class Tell(Hook):
        def on_start(self, role: str) -> None:
            told.append(f"start {role}")

        def on_stop(self, role: str) -> None:
            told.append(f"stop {role}")

        def before_run(self, run: Run) -> None:
            told.append(run.task.name)

    app.add_hook(Tell())
    task = app.task(name="task")(lambda: None)
    with eager(app):
        task.send()
        task.send()
    assert told == ["start worker default", "task", "task", "stop worker default"]


def test_rows_of_a_consumer_are_consumed(app: App, run: Stage) -> None:
    seen: list[Any] = []
    app.consumer("rows")(seen.append)
    app.consumer("batches", batch=10, name="batches")(seen.append)
    app.queue("rows").put({"n": 1})
    app.queue("batches").put_many([1, 2, 3])
    assert seen == [{"n": 1}, [1, 2, 3]]
    app.queue("others").put("nobody takes this")
    assert app.queue("others").stats().ready == 1


def test_a_job_tells_its_attempts_and_its_progress(app: App, run: Stage) -> None:
    @app.task(retries=1)
    def flaky() -> None:
        progress(1, 2, "half")
        raise OSError("down")

    job = flaky.send()
    with pytest.raises(JobFailed):
        job.result()
    assert [(it.number, it.what, it.text) for it in job.attempts()] == [(1, "retried", "down"), (2, "failed", "down")]
    told = job.progress()
    assert told is not None
    assert told.text == "half"


def test_the_app_can_be_staged_again(app: App) -> None:
    task = app.task(name="task")(lambda: 1)
    for _ in range(2):
        with eager(app) as stage:
            assert task.send().result() == 1
            assert len(stage.sent) == 1


# -- memory


def test_in_memory_mode_nothing_runs_before_it_is_told_to(app: App, box: Stage) -> None:
    seen: list[str] = []

    @app.task
    def greet(name: str, *, loud: bool = False) -> str:
        seen.append(name)
        return name.upper() if loud else name

    job = greet.send("ann", loud=True)
    greet.options(delay=60).send("bob")
    assert seen == []
    assert [(it.task, it.args, it.kwargs, it.delay) for it in box.calls(greet)] == [
        ("greet", ["ann"], {"loud": True}, 0.0), ("greet", ["bob"], {}, 60.0),
    ]  # fmt: skip
    with pytest.raises(ResultTimeout, match="run_until_empty"):
        job.result()
    box.run_due()
    assert (job.result(), seen) == ("ANN", ["ann"])
    assert [it.args for it in box.waiting()] == [["bob"]]
    box.run_until_empty()
    assert seen == ["ann", "bob"]
    assert box.clock.datetime() == START + timedelta(seconds=60)
    assert box.waiting() == []


def test_a_job_that_never_ends_is_named(app: App, box: Stage) -> None:
    @app.task
    def wait() -> None:
        raise Snooze(1)

    wait.send()
    with pytest.raises(WorkError, match="wait"):
        box.run_until_empty()


def test_a_cancelled_job_does_not_run(app: App, box: Stage) -> None:
    seen: list[int] = []
    note = app.task(name="note")(seen.append)
    note.send(1).cancel()
    note.send(2)
    box.run_until_empty()
    assert seen == [2]


def test_schedules_follow_the_clock(app: App, box: Stage) -> None:
    hours: list[int] = []
    report = app.task(name="report")(lambda: hours.append(box.clock.datetime().hour))
    app.schedule(report, every=6 * 3600)
    app.schedule(report, cron="30 2 * * *", zone="Europe/Berlin", name="night")
    box.clock.advance(86400)
    assert len(box.waiting()) == 5
    with eager(app, start=START) as run:
        app.tasks["report"].function = lambda: hours.append(run.clock.datetime().hour)
        run.clock.advance(86400)
    # 2:30 in Berlin does not exist on 29 March 2026; it comes right after the hour that is left out.
    assert hours == [18, 0, 1, 6, 12]


def test_producers_run_to_their_end_and_make_room_by_consuming(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_rows=2)
    seen: list[int] = []

    @app.producer(queue="numbers")
    def numbers(checkpoint: int | None) -> Iterator[tuple[int, int]]:
        for number in range(checkpoint or 0, 7):
            yield number, number + 1

    with memory(app) as box:
        with pytest.raises(QueueFull):
            box.run_producers()
        app.consumer("numbers")(seen.append)
        box.run_producers()
        box.run_until_empty()
    assert seen == list(range(7))


def test_a_full_queue_is_refused_at_once_because_nobody_makes_room(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_rows=1)
    task = app.task(name="task")(lambda: None)
    with memory(app):
        task.send()
        with pytest.raises(QueueFull):
            task.send()


def test_time_does_not_go_back(box: Stage) -> None:
    with pytest.raises(ValueError, match="go back"):
        box.clock.advance(-1)


def test_priorities_and_other_queues_are_minded(app: App, box: Stage) -> None:
    seen: list[str] = []
    note = app.task(name="note")(seen.append)
    note.send("a")
    note.options(priority=7).send("b")
    note.options(queue="other").send("c")
    app.task(name="fail")(lambda: 1 / 0).options(priority=2).send()
    assert [(it.queue, it.priority) for it in box.sent] == [
        ("default", 0),
        ("default", 7),
        ("other", 0),
        ("default", 2),
    ]
    assert len(box.waiting()) == 4
    box.run_due()
    assert seen == ["b", "a", "c"]
    assert [(letter.queue, letter.task) for letter in box.dead()] == [("default", "fail")]


def test_a_batch_that_waits_for_company_does_not_wait_here(app: App, run: Stage) -> None:
    seen: list[Any] = []
    app.consumer("rows", batch=10, max_wait=60.0)(seen.append)
    app.queue("rows").put_many([1, 2])
    assert seen == [[1, 2]]


def test_keys_uniqueness_and_followers_are_minded(app: App) -> None:
    seen: list[str] = []

    @app.task(key="name", unique="skip")
    def note(name: str, text: str) -> str:
        seen.append(text)
        return text

    @app.task
    def shout(text: str) -> str:
        return text.upper()

    with memory(app) as box:
        first = note.send("ann", "one")
        note.send("ann", "two")
        assert note.send("ann", "one").status() == "skipped"
        assert [it.args[1] for it in box.waiting()] == ["one"]  # the other is held
        box.run_until_empty()
        assert (seen, first.result()) == (["one", "two"], "one")
    with eager(app):
        assert chain(note.call("bob", "three"), shout.then()).send().result() == "THREE"


@pytest.mark.parametrize("mode", [eager, memory])
def test_jobs_made_of_jobs_come_to_their_end(app: App, mode: Any) -> None:
    length = app.task(name="length")(lambda text: len(text))
    total = app.task(name="total")(lambda numbers: sum(numbers))
    with mode(app) as stage:
        several = group(length.call(text) for text in ("a", "bb")).send()
        whole = chord((length.call(text) for text in ("a", "bb")), total.then()).send()
        stage.run_until_empty()
        assert (several.result(), whole.result()) == ([1, 2], 3)
    with eager(app):
        assert list(length.map(["a", "bb", "ccc"], window=2)) == [1, 2, 3]


def test_a_rate_limit_goes_by_the_clock_of_the_test(app: App, box: Stage) -> None:
    times: list[datetime] = []
    tick = app.task(name="tick", rate_limit="1/m")(lambda: times.append(box.clock.datetime()))
    tick.send_many([()] * 3)
    box.run_due()
    assert len(times) == 1
    box.run_until_empty()
    assert len(times) == 3
    assert times[2] - times[0] >= timedelta(seconds=120)


def test_a_task_may_send_with_a_key_and_wait(app: App, run: Stage) -> None:
    @app.task(key="n")
    def inner(n: int) -> int:
        return n + 1

    @app.task(key="n")
    def outer(n: int) -> int:
        return sum(inner.send(n).result() for _ in range(2))

    assert outer.send(1).result() == 4
