"""What senders of jobs with keys, uniqueness and ids get, before any worker has looked at them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pistributer import App, Follower, JobSkipped, RateLimit, chain, chord, errors
from pistributer.cli.root import pistributer
from pistributer.workers.inspection.status import read_status
from pistributer.workers.messages import compose, find_fault
from pistributer.workers.sending import send_by_name
from pistributer.workers.tickets.rates import read_rate

from .gate_tools import tickets, work
from .worker_tools import APP_DRIVERS, app_url


@pytest.fixture(params=APP_DRIVERS)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    app = App(app_url(tmp_path, request.param))
    yield app
    app.close()


def waiting(app: App) -> list[Any]:
    """The arguments of what is in the default queue."""
    return [row.value["args"] for row in app.queue().scan("ready", "delayed")]


def test_a_job_that_asks_for_nothing_makes_no_tickets(app: App) -> None:
    task = app.task(lambda n: n, name="plain")
    task.send(1)
    task.send_many([(2,)])
    assert not app.gate.tickets.exists()


# -- keys


def test_only_the_first_jobs_of_a_key_are_in_the_queue(app: App) -> None:
    @app.task(key="customer", key_limit=2)
    def book(customer: str, n: int) -> None: ...

    jobs = [book.send("a", n) for n in range(4)] + [book.send("b", 4)]
    assert waiting(app) == [["a", 0], ["a", 1], ["b", 4]]
    assert [job.status() for job in jobs] == ["queued", "queued", "held", "held", "queued"]
    assert [queue.held for queue in read_status(app.url).queues] == [2]


def test_a_key_is_a_parameter_a_function_or_what_the_sender_says(app: App) -> None:
    @app.task(key=lambda order, **more: None if order is None else order["customer"])
    def ship(order: dict[str, Any] | None, **more: Any) -> None: ...

    for order in ({"customer": 7}, {"customer": 7}, None, None):
        ship.send(order)
    ship.options(key="x").send({"customer": 8})
    ship.options(key="x").send({"customer": 9})
    assert [args[0] for args in waiting(app)] == [{"customer": 7}, None, None, {"customer": 8}]
    keys = [row.value.get("key") for row in app.queue().scan("ready")]
    assert keys == ["7", None, None, "x"]


def test_keys_of_two_tasks_have_nothing_to_do_with_each_other(app: App) -> None:
    first = app.task(key="n", name="first")(lambda n: n)
    second = app.task(key="n", name="second")(lambda n: n)
    first.send(1)
    second.send(1)
    assert len(waiting(app)) == 2


def test_ten_thousand_jobs_of_one_key_are_one_row(app: App) -> None:
    task = app.task(key="k", name="task")(lambda k, n: n)
    jobs = task.send_many(("same", n) for n in range(10_000))
    assert (len(jobs), app.gate.held(), waiting(app)) == (10_000, 9_999, [["same", 0]])


def test_purge_takes_held_jobs_along(app: App) -> None:
    task = app.task(key="k", name="task")(lambda k: k)
    jobs = [task.send("same") for _ in range(5)]
    assert app.purge() == 5
    assert (tickets(app), waiting(app)) == ([], [])
    assert jobs[4].status() == "lost"
    task.send("same")
    assert len(waiting(app)) == 1  # nobody stands in its way


@pytest.mark.parametrize(
    "options",
    [{"key": "m"}, {"unique_key": "n"}, {"unique": "first"}, {"unique": "skip", "unique_key": "m"}, {"key_limit": 0},
     {"results": 0.0}, {"rate_limit": "often"}, {"rate_limit": "0/s"}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(app: App, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each says something else)
        app.task(name="task", **options)(lambda n: n)


def test_a_key_is_text_or_a_number(app: App) -> None:
    task = app.task(key="n", name="task")(lambda n: n)
    with pytest.raises(errors.BadCall, match="a key is a text or an integer"):
        task.send([1])
    assert tickets(app) == []


# -- uniqueness


def test_join_gives_the_pending_job(app: App) -> None:
    task = app.task(unique="join", name="task")(lambda n, m=1: n)
    first = task.send(1)
    assert task.send(1) == first
    assert task.send(1, m=1) == first
    assert task.send(1, m=2) != first
    assert len(waiting(app)) == 2


def test_skip_gives_a_job_that_names_the_pending_one(app: App) -> None:
    task = app.task(unique="skip", name="task")(lambda n: n)
    first, second = task.send(1), task.send(1)
    assert (second.status(), second.done(), len(waiting(app))) == ("skipped", True, 1)
    with pytest.raises(JobSkipped, match=first.id) as caught:
        pickle.loads(pickle.dumps(second)).result(timeout=1)
    assert caught.value.job_id == first.id  # type: ignore[attr-defined]
    second.cancel()
    assert first.status() == "queued"


def test_replace_calls_the_pending_one_off(app: App) -> None:
    ran: list[int] = []
    task = app.task(name="task", unique="replace", unique_key="who")(lambda who, n: ran.append(n))
    first, second, other = task.send("a", 1), task.send("a", 2), task.send("b", 3)
    assert (first.status(), second.status(), other.status()) == ("cancelled", "queued", "queued")
    work(app)
    assert sorted(ran) == [2, 3]
    with pytest.raises(errors.JobFailed, match=f"replaced by job {second.id}"):
        first.result(timeout=1)


def test_unique_can_be_said_with_each_send(app: App) -> None:
    task = app.task(lambda n: n, name="task")
    first = task.options(unique="join", unique_key="x").send(1)
    assert task.options(unique="join", unique_key="x").send(2) == first
    assert task.send(1) != first
    with pytest.raises(ValueError, match="unique_key"):
        task.options(unique_key="x")


def test_a_job_that_was_called_off_is_not_pending(app: App) -> None:
    task = app.task(unique="join", name="task")(lambda n: n)
    first = task.send(1)
    first.cancel()
    second = task.send(1)
    assert second != first
    work(app)
    assert (first.status(), second.status()) == ("cancelled", "done")


def test_a_job_that_has_begun_is_not_pending(app: App) -> None:
    ran: list[int] = []

    @app.task(unique="join")
    def again(n: int) -> None:
        ran.append(n)
        if len(ran) == 1:
            again.send(n)

    again.send(1)
    work(app)
    assert ran == [1, 1]


# -- idempotency


def test_a_second_send_with_the_same_id_sends_nothing(app: App) -> None:
    task = app.task(lambda n: n, name="task")
    other = app.task(lambda n: n, name="other")
    first = task.options(idempotency_id="order-17").send(1)
    assert task.options(idempotency_id="order-17").send(2) == first
    assert task.options(idempotency_id="order-18").send(2) != first
    assert other.options(idempotency_id="order-17").send(1) != first
    work(app)
    assert task.options(idempotency_id="order-17").send(1).result(timeout=1) == 1
    assert waiting(app) == []


def test_an_id_is_forgotten_after_its_time(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", idempotency_age=0.0)
    task = app.task(lambda n: n, name="task")
    first = task.options(idempotency_id="order-17").send(1)
    assert task.options(idempotency_id="order-17").send(1) != first
    app.close()


def test_what_could_not_be_put_was_not_sent(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_row_bytes=200)
    task = app.task(key="k", name="task")(lambda k, text: k)
    with pytest.raises(errors.BadCall):
        task.options(idempotency_id="x").send("a", "long" * 100)
    assert tickets(app) == []
    assert task.options(idempotency_id="x").send("a", "short").status() == "queued"
    app.close()


# -- tags, retention, rates, messages


def test_tags_stand_in_the_message(app: App) -> None:
    task = app.task(tags=["import"], name="task")(lambda n: n)
    task.send(1)
    task.options(tags=["eu"]).send(2)
    task.send_many([(3,)])
    app.task(lambda n: n, name="plain").send(4)
    assert [row.value.get("tags") for row in app.queue().scan()] == [["import"], ["import", "eu"], ["import"], None]
    with pytest.raises(TypeError, match="tags are texts"):
        task.options(tags="eu")


def test_results_are_kept_as_long_as_their_task_says(app: App) -> None:
    short = app.task(results=0.001, name="short")(lambda n: n)
    long = app.task(results=3600.0, name="long")(lambda n: n)
    jobs = [short.send(1), long.send(2)]
    work(app)
    assert [job.done() for job in jobs] == [False, True]
    with pytest.raises(errors.ResultLost):
        jobs[0].result(timeout=30)


def test_a_rate_can_be_a_short_text() -> None:
    assert read_rate("10/s") == RateLimit(10)
    assert read_rate("5000/h") == RateLimit(5000, per=3600.0)
    assert read_rate(None) is None
    for wrong in ("10", "10/w", "-1/s", "1.5/s"):
        with pytest.raises(ValueError, match="rate limit"):
            read_rate(wrong)
    for count, per, burst in ((0, 1.0, None), (1, 0.0, None), (2, 1.0, 3)):
        with pytest.raises(ValueError):  # noqa: PT011 (each says something else)
            RateLimit(count, per, burst)


@pytest.mark.parametrize(
    "field",
    [{"ticket": "1"}, {"ticket": -1}, {"ticket": True}, {"tags": "eu"}, {"tags": [1]}, {"ticket": 0, "key": 7},
     {"ticket": 0, "chord": []}, {"ticket": 0, "chord": ["c", -1]}, {"ticket": 0, "then": {}}, {"ticket": 0, "then": [1]},
     {"ticket": 0, "then": [{"id": "b", "task": "t"}]},
     {"ticket": 0, "then": [{"id": "b", "task": "t", "queue": "q", "then": []}]},
     {"ticket": 0, "then": [{"id": "b", "task": "t", "queue": "q", "retries": -1}]}],
)  # fmt: skip
def test_a_fault_in_a_field_is_found(field: dict[str, Any]) -> None:
    assert find_fault({"id": "a", "task": "t", **field})


def test_a_message_with_every_field_is_sound() -> None:
    follower = {"id": "b", "task": "t", "queue": "q", "chord": ["c", 1]}
    fields = {"ticket": 2, "tags": ["eu"], "key": "k", "chord": ["c", 0], "then": [follower]}
    assert find_fault({"id": "a", "task": "t", **fields}) is None


def test_the_command_purges_held_jobs_too(app: App) -> None:
    task = app.task(key="k", name="task")(lambda k: k)
    for _ in range(4):
        task.send("same")
    app.close()
    said = CliRunner().invoke(pistributer, ["queue", "purge", app.url, "--yes"])
    assert said.output == "purged 4 rows of default\n"
    assert tickets(app) == []


def test_what_waited_behind_a_job_that_could_not_be_put_goes_on(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_row_bytes=300)
    task = app.task(key="k", name="task", results=False)(lambda k, text: k)
    with pytest.raises(errors.BadCall):
        task.send_many([("a", "long" * 100), ("a", "behind it")])
    assert tickets(app) == []
    # Another sender comes in between: it waits behind the job that is about to fail.
    put = app.gate.put
    came: list[str] = []

    def put_late(*args: Any, **kwargs: Any) -> None:
        if not came:
            came.append("other")
            task.send("a", "other")
        put(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.gate, "put", put_late)
        with pytest.raises(errors.BadCall):
            task.send("a", "long" * 100)
    assert [state for _, state, _ in tickets(app)] == [1]
    work(app)
    assert (app.gate.held(), waiting(app)) == (0, [])
    app.close()


def test_a_callback_that_does_not_fit_fails(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs", max_row_bytes=400)
    long = app.task(name="long")(lambda n: "x" * 200)
    total = app.task(name="total")(lambda values: len(values))
    job = chain(long.call(0), total.then()).send()
    whole = chord([long.call(n) for n in range(3)], total.then()).send()
    work(app)
    assert job.result(timeout=5) == 200
    with pytest.raises(errors.JobFailed, match="can not be put into default"):
        whole.result(timeout=5)
    assert tickets(app) == []
    app.close()


def test_arguments_that_give_no_key_end_in_the_dead_letters(app: App) -> None:
    app.task(key="k", name="task")(lambda k: k)
    app.task(key=lambda values: str(values[0]), name="first")(lambda values: values)
    app.task(name="one")(lambda n: n)
    by_name = send_by_name(app, "task", (), {}, queue=app.queue_names()[0])
    whole = chord([app.tasks["one"].call(1)], Follower(app, "default", compose("first", (2,), {}))).send()
    work(app)
    with pytest.raises(errors.JobFailed, match="these arguments give no key"):
        by_name.result(timeout=1)
    with pytest.raises(errors.JobFailed, match="it could not be sent"):
        whole.result(timeout=1)
    assert tickets(app) == []
