"""Defining and sending tasks, without any worker process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers.app import App
from pistributer.workers.execution.producers import route
from pistributer.workers.home import Home
from pistributer.workers.inspection.status import read_status
from pistributer.workers.messages import Call, new_id
from pistributer.workers.supervision.board import SLOT, Board, Desk, Totals, create
from pistributer.workers.supervision.child import Child
from tests.worker_tools import environment


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path / "jobs")
    yield app
    app.close()


def add(a: int, b: int = 1) -> int:
    return a + b


def messages(app: App, queue: str = "default") -> list[Any]:
    return [row.value for row in app.queue(queue).scan("ready")]


# -- tasks


def test_a_task_called_is_the_function(app: App) -> None:
    task = app.task(add)
    assert task(2, b=3) == 5
    assert (task.__name__, task.__doc__, task.name) == ("add", add.__doc__, "add")


def test_an_async_task_called_gives_its_coroutine(app: App) -> None:
    @app.task
    async def double(n: int) -> int:
        return 2 * n

    coroutine = double(4)
    with pytest.raises(StopIteration, match="8"):
        coroutine.send(None)


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    app.task(add)
    app.consumer("rows")(print)
    assert list(tmp_path.iterdir()) == []
    app.tasks["add"].send(1)
    app.close()
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["history", "queues", "results", "run"]


def test_a_message_is_plain_json(app: App) -> None:
    task = app.task(add)
    first, second = task.send(1), task.send(1, b=2)
    assert messages(app) == [
        {"id": first.id, "task": "add", "args": [1]},
        {"id": second.id, "task": "add", "args": [1], "kwargs": {"b": 2}},
    ]


def test_send_many_is_many_sends_in_order(app: App) -> None:
    task = app.task(add)
    jobs = task.send_many((n,) for n in range(3000))
    found = messages(app)
    assert [message["args"] for message in found] == [[n] for n in range(3000)]
    assert [message["id"] for message in found] == [job.id for job in jobs]
    assert len({job.id for job in jobs}) == 3000


BAD_ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "too few": ((), {}, "missing a required argument: 'a'"),
    "too many": ((1, 2, 3), {}, "too many positional arguments"),
    "unknown keyword": ((1,), {"c": 2}, "unexpected keyword argument 'c'"),
    "twice": ((1,), {"a": 2}, "multiple values for argument 'a'"),
    "not JSON": ((object(),), {}, "can not be a JSON row"),
    "a set inside": (([{1}],), {}, "can not be a JSON row"),
    "NaN": ((float("nan"),), {}, "NaN"),
    "too large a number": ((1 << 64,), {}, "can not be a JSON row"),
}


@pytest.mark.parametrize(
    ("args", "kwargs", "words"), [pytest.param(*row, id=name) for name, row in BAD_ARGUMENTS.items()]
)
def test_a_bad_call_is_refused_when_it_is_sent(app: App, args: Any, kwargs: Any, words: str) -> None:
    task = app.task(add)
    with pytest.raises(errors.BadCall, match=words) as failure:
        task.send(*args, **kwargs)
    assert str(failure.value).startswith("add(a: 'int', b: 'int' = 1) -> 'int': ")
    assert isinstance(failure.value, TypeError)
    if not kwargs:
        with pytest.raises(errors.BadCall, match=words):
            task.send_many([args])
    assert messages(app) == []


def test_send_many_takes_tuples_only(app: App) -> None:
    with pytest.raises(errors.BadCall, match="takes tuples of arguments, not str"):
        app.task(add).send_many(["ab"])  # type: ignore[list-item]


def test_tasks_with_star_arguments_take_anything(app: App) -> None:
    def anything(*args: int, **kwargs: int) -> None: ...

    task = app.task(anything)
    task.send()
    task.send(1, 2, 3, x=4)
    task.send_many([(), (1,), (1, 2)])
    assert len(messages(app)) == 5


def test_a_delayed_call_waits(app: App) -> None:
    job = app.task(add).options(delay=60.0).send(1)
    stats = app.queue().stats()
    assert (stats.ready, stats.delayed) == (0, 1)
    assert job.status() == "delayed"


def test_options_of_one_sending(app: App) -> None:
    task = app.task(add)
    now = time.time()
    task.options(delay=timedelta(minutes=2)).send(1)
    task.options(at=datetime.now(UTC) + timedelta(minutes=3), retries=5).send(1)
    task.options(at=datetime.now(UTC) - timedelta(minutes=3)).send(1)
    two, three = sorted(row.due or 0.0 for row in app.queue().scan("delayed"))
    assert two - now == pytest.approx(120, abs=5)
    assert three - now == pytest.approx(180, abs=5)
    assert app.queue().stats().ready == 1  # its moment has passed
    assert [row.value.get("retries") for row in app.queue().scan("delayed") if row.due == three] == [5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delay": -1}, "delay must be at least 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"at": datetime(2030, 1, 1)}, "has no time zone"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "exclude each other"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(app: App, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        app.task(add).options(**options)


def test_names_and_options_are_checked(app: App) -> None:
    app.task(add)
    app.consumer("rows")(print)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: app.task(add), "there is a task 'add' already"),
        (lambda: app.task(name="x", queue="rows")(add), "holds rows already"),
        (lambda: app.task(name="x", queue="../rows")(add), "a queue's name is letters"),
        (lambda: app.task(name="x", retries=-1)(add), "retries must be at least 0"),
        (lambda: app.consumer("default")(add), "holds task calls already"),
        (lambda: app.consumer("rows", batch=0)(add), "batch must be at least 1"),
        (lambda: app.consumer("more")(print), "there is a consumer 'print' already"),
        (lambda: app.queue("no/such"), "a queue's name is letters"),
    ]
    for attempt, words in refused:
        with pytest.raises(ValueError, match=words):
            attempt()
    with pytest.raises(TypeError, match="has no yield"):
        app.producer(add)


def test_options_of_a_task(app: App) -> None:
    task = app.task(name="sum", queue="slow", retries=4, results=False)(add)
    task.send(1)
    assert (task.name, task.queue, task.retries, task.results, task.most_attempts(4)) == ("sum", "slow", 4, False, 5)
    assert app.queue_names() == ["slow"]
    assert messages(app, "slow")[0]["task"] == "sum"


# -- jobs


def test_a_job_without_a_worker_times_out(app: App) -> None:
    job = app.task(add).send(1)
    with pytest.raises(errors.ResultTimeout, match=r"no result of add after 0\.01 s") as failure:
        job.result(0.01)
    assert isinstance(failure.value, TimeoutError)
    assert (job.status(), job.done()) == ("queued", False)


def test_a_purged_job_is_lost(app: App) -> None:
    job = app.task(add).send(1)
    app.queue().purge()
    assert job.status() == "lost"
    with pytest.raises(errors.ResultLost, match="neither a job"):
        job.result(30)


def test_a_task_without_results_says_so_at_once(app: App) -> None:
    job = app.task(results=False)(add).send(1)
    with pytest.raises(errors.ResultLost, match="keeps no results"):
        job.result(30)


def test_a_job_that_somebody_buried_by_hand_has_failed(app: App) -> None:
    job = app.task(add).send(1)
    app.queue().bury(app.queue().claim(), error="not today")
    assert job.status() == "failed"
    with pytest.raises(errors.JobFailed, match="not today"):
        job.result(30)


def test_a_job_travels(app: App) -> None:
    job = app.task(add).send(1)
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    assert (again.id, again.task, again.queue) == (job.id, "add", "default")
    assert again.status() == "queued"


def test_job_ids_are_unique_across_threads_and_forks() -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = [id for part in pool.map(lambda _: [new_id() for _ in range(5000)], range(4)) for id in part]
    code = """
import os, sys
from pistributer.workers.messages import new_id
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        print(new_id(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
print(new_id())
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    ids += done.stdout.split()
    assert len(set(ids)) == len(ids) == 20004
    assert {len(id) for id in ids} == {24}


# -- producers


@pytest.mark.parametrize(
    ("queue", "yielded", "expected"),
    [
        pytest.param(None, ("rows", 1), ("rows", 1), id="a pair"),
        pytest.param("own", {"a": 1}, ("own", {"a": 1}), id="a plain row"),
        pytest.param("own", ("rows", 1), ("own", ("rows", 1)), id="a pair is a row of a producer with a queue"),
        pytest.param("own", Call("q", {"id": "1"}), ("q", {"id": "1"}), id="a call goes to its task's queue"),
    ],
)
def test_where_a_row_goes(app: App, queue: str | None, yielded: Any, expected: Any) -> None:
    def generate() -> Iterator[Any]:
        yield yielded

    app.producer(queue=queue)(generate)
    assert route(app.producers["generate"], yielded) == expected


def test_call_checks_arguments_and_sends_nothing(app: App) -> None:
    task = app.task(add)
    call = task.call(1, b=2)
    assert (call.queue, call.message["args"], call.message["kwargs"]) == ("default", (1,), {"b": 2})
    assert call.id == call.message["id"]
    with pytest.raises(errors.BadCall):
        task.call()  # type: ignore[call-arg]
    assert messages(app) == []


# -- places


def test_an_app_needs_a_driver_that_processes_share() -> None:
    with pytest.raises(ValueError, match="lives in a folder, in 'txt:FOLDER' or in 'sqlite:FILE'"):
        App("memory:")


def test_an_app_on_txt_has_calls_and_texts_in_files_of_lines(tmp_path: Path) -> None:
    app = App(f"txt:{tmp_path / 'jobs'}")
    job = app.task(add).send(1, b=2)
    app.queue("lines").put("any text")
    lines = [path.read_text() for path in sorted(Path(app.home.queues).rglob("*.txt"))]
    assert lines == [f'{{"id":"{job.id}","task":"add","args":[1],"kwargs":{{"b":2}}}}\n', "any text\n"]
    app.close()


def test_a_folder_goes_on_with_the_driver_that_it_has(tmp_path: Path) -> None:
    for driver, other in (("txt", "jsonl"), ("jsonl", "txt")):
        folder = tmp_path / driver
        App(f"{driver}:{folder}").queue("rows").close()
        assert Home(folder).driver == driver
        App(folder).queue("more").close()
        with pytest.raises(
            errors.DriverMismatch, match=f"are {driver} queues, not {other} .open the app as '{driver}:"
        ):
            App(f"{other}:{folder}").queue("rows")


def test_sqlite_keeps_a_database_per_queue(tmp_path: Path) -> None:
    app = App(f"sqlite:{tmp_path / 'jobs.db'}")
    app.task(add).send(1)
    app.queue("rows").put(1)
    assert app.home.queue_names() == ["default", "rows"]
    app.close()
    assert (tmp_path / "jobs.db").is_file()
    assert (tmp_path / "jobs.db.app" / "queues" / "rows.db").is_file()
    assert [queue.stats.ready for queue in read_status(app.url).queues] == [1, 1]


def test_a_queue_is_no_place_for_an_app(tmp_path: Path) -> None:
    from pistributer.queues.opening import open_queue

    open_queue(tmp_path / "jobs").close()
    with pytest.raises(errors.NotAQueue, match="keeps its queues in a folder of its own"):
        App(tmp_path / "jobs").queue()


def test_an_app_moves_with_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = App("jobs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert app.url == str(tmp_path / "jobs")


def test_status_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.FolderMissing, match="there is no app at"):
        read_status(tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()


def test_a_folder_that_can_not_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.StorageError, match="make the app's folder"):
        App(tmp_path / "file" / "jobs").queue()


# -- the board


def test_a_desk_shows_what_its_child_does_and_counts_on_after_a_death(tmp_path: Path) -> None:
    path = str(tmp_path / "board")
    create(path, 3)
    board = Board(path)
    assert len(board.page) == 3 * SLOT
    desk = Desk(path, 1)
    desk.running("5f0c", b"resize", 2)
    desk.count(done=3, failed=1, put=2)
    desk.count(done=1, retried=1)
    slot = board.slot(1)
    assert (slot.pid, slot.job, slot.task, slot.attempt) == (os.getpid(), "5f0c", "resize", 2)
    assert (slot.done, slot.failed, slot.retried, slot.put) == (4, 1, 1, 2)
    assert slot.since > 0
    again = Desk(path, 1)
    assert board.slot(1).since == 0
    again.count(done=1)
    assert [board.slot(number).done for number in range(3)] == [0, 5, 0]
    assert board.totals() == Totals(done=5, failed=1, retried=1, put=2)
    assert board.totals().settled == 7
    assert [pid for pid, _ in board.pids()] == [os.getpid()]
    board.close()


def test_a_cut_off_name_on_the_board_is_still_text(tmp_path: Path) -> None:
    path = str(tmp_path / "board")
    create(path, 1)
    Desk(path, 0).running("x" * 40, "ä".encode() * 40, 1)
    board = Board(path)
    assert board.slot(0).job == "x" * 24
    assert board.slot(0).task == "ä" * 18
    board.close()


# -- types


def test_wrong_arguments_fail_in_a_type_checker(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    source = tmp_path / "typed.py"
    source.write_text(
        """
from pistributer import App, Job, Task
app = App("jobs")

@app.task
def add(a: int, b: int = 0) -> int:
    return a + b

@app.task(retries=2)
def shout(text: str) -> str:
    return text.upper()

@app.task
async def wait(seconds: float) -> bool:
    return True

number: int = add(1) + add.send(1, b=2).result()
text: str = shout.send("a").result() + shout("b")
truth: bool = wait.send(1.0).result()
jobs: list[Job[int]] = add.send_many([(1,), (2, 3)])
delayed: Job[str] = shout.options(delay=1.0).send("a")

add.send("1")
shout.send(1)
add.send()
wait.send(seconds="long")
add.options(delay=1.0).send(None)
wrong: str = add.send(1).result()
""",
        encoding="utf-8",
    )
    root = Path(__file__).resolve().parent.parent
    os.environ["MYPYPATH"] = str(root)
    try:
        out, err, _ = api.run(["--strict", "--no-error-summary", "--cache-dir", str(root / ".mypy_cache"), str(source)])
    finally:
        del os.environ["MYPYPATH"]
    found = [line.split("error: ")[1].split("  [")[1] for line in out.splitlines() if "typed.py:" in line]
    assert found == ["arg-type]", "arg-type]", "call-arg]", "arg-type]", "arg-type]", "assignment]"], (out, err)


def test_child_says_what_targets_may_use() -> None:
    assert {"ready", "stop_requested", "wait_stop"} <= set(vars(Child))


def test_home_of_an_app_is_the_same_from_its_url(tmp_path: Path) -> None:
    for url in (
        str(tmp_path / "jobs"),
        f"sqlite:{tmp_path / 'jobs.db'}",
        f"jsonl:{tmp_path / 'jobs'}",
        f"txt:{tmp_path / 'jobs'}",
    ):
        home = Home(url)
        assert vars(Home(home.url)) == vars(home)
