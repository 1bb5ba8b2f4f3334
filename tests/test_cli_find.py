"""`queue show|grep|requeue|copy`, `replay`, and the filters that they share with `dead`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import App, Queue, errors, open_queue
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.workers.inspection import copying
from pistributer.workers.inspection.copying import copy_queue, plan_path
from pistributer.workers.inspection.moments import parse_moment
from tests import crashing, processes
from tests.worker_tools import APP_DRIVERS, app_url

DRIVERS = ("jsonl", "txt", "sqlite")


def invoke(*args: object) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args])


def url_of(driver: str, path: Path) -> str:
    return f"{driver}:{path}{'.db' if driver == 'sqlite' else ''}"


@pytest.fixture(params=APP_DRIVERS)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """One call that waits, one that is delayed, one dead, and a dead row of another queue."""
    found = App(app_url(tmp_path, request.param), retention=3600.0)
    resize = found.task(name="resize")(lambda path: None)
    dead = resize.send("a.png")
    found.queue().bury(found.queue().claim(), error="Traceback\nOSError: [Errno 28] no space")
    resize.send("user-42.png")
    resize.options(delay=3600).send("later.png")
    found.queue("rows").put({"user": "user-42", "tags": ["x"]})
    found.queue("rows").bury(found.queue("rows").claim(), error="ValueError: bad")
    found.dead_id = dead.id  # type: ignore[attr-defined]
    found.close()
    yield found
    found.close()


def test_show_finds_a_row_by_the_job_wherever_it_is(app: App) -> None:
    job = app.dead_id  # type: ignore[attr-defined]
    shown = invoke("queue", "show", app.url, job)
    assert shown.exit_code == exits.OK
    for words in ("state     dead", "task      resize", '"a.png"', "OSError: [Errno 28]"):
        assert words in shown.stdout
    document = json.loads(invoke("queue", "show", app.url, job, "--json").stdout)
    assert (document["state"], document["attempts"], document["queue"]) == ("dead", 1, "default")
    missing = invoke("queue", "show", app.url, "nobody")
    assert missing.exit_code == exits.FAILURE
    assert "grep" in missing.stderr


def test_grep_looks_into_every_state_and_queue(app: App) -> None:
    lines = invoke("queue", "grep", app.url, "user-42").stdout.splitlines()
    assert [line.split(":")[:2] for line in lines] == [["default", "ready"], ["rows", "dead"]]
    assert '"args":["user-42.png"]' in lines[0]
    assert invoke("queue", "grep", app.url, "LATER", "-i", "--count").stdout == "1\n"
    assert invoke("queue", "grep", app.url, "png", "--state", "delayed", "--count").stdout == "1\n"
    assert invoke("queue", "grep", app.url, ".", "--task", "resize", "--count").stdout == "3\n"
    assert invoke("queue", "grep", app.url, r"^\{", "--queue", "rows", "-c").stdout == "1\n"
    found = [json.loads(line) for line in invoke("queue", "grep", app.url, "png", "--json").stdout.splitlines()]
    assert {row["state"] for row in found} == {"ready", "delayed", "dead"}


def test_jobs_that_wait_for_their_key_are_found_though_no_queue_has_them(app: App) -> None:
    book = app.task(name="book", key="account")(lambda account, cents: None)
    jobs = [book.options(priority=n).send("alice", 1000 + n) for n in range(3)]
    app.close()
    lines = invoke("queue", "grep", app.url, "alice").stdout.splitlines()
    assert [line.split(":")[1:3] for line in lines] == [
        ["ready", jobs[0].id], ["held", jobs[1].id], ["held", jobs[2].id],
    ]  # fmt: skip
    assert "1002" in invoke("queue", "show", app.url, jobs[2].id).stdout
    assert invoke("queue", "grep", app.url, "alice", "--state", "held", "--count").stdout == "2\n"


def test_grep_that_finds_nothing_says_so_by_its_exit_code(app: App) -> None:
    assert invoke("queue", "grep", app.url, "nothing like it").exit_code == exits.FAILURE
    bad = invoke("queue", "grep", app.url, "(")
    assert bad.exit_code == exits.USAGE
    assert r"'\\('" in bad.stderr


def test_tags_are_those_of_the_message(app: App) -> None:
    app.queue().put({"id": "0", "task": "import", "tags": ["nightly", "big"]})
    app.close()
    assert invoke("queue", "grep", app.url, ".", "--tag", "big", "--count").stdout == "1\n"


def test_requeue_of_dead_rows(app: App) -> None:
    assert invoke("queue", "requeue", app.url).exit_code == exits.USAGE
    assert invoke("queue", "requeue", app.url, "--error", r"Errno (27|28)", "--dry-run").stdout == "would requeue 1\n"
    assert invoke("queue", "requeue", app.url, "--error", r"Errno (27|28)").stdout == "requeued 1\n"
    assert [row.value["args"] for row in app.queue().scan("ready")] == [["user-42.png"], ["a.png"]]
    app.close()
    document = json.loads(invoke("queue", "requeue", app.url, "--all", "--json").stdout)
    assert document["requeued"] == {"default": 0, "rows": 1}


def test_dead_letters_of_a_time(app: App) -> None:
    assert len(json.loads(invoke("dead", "ls", app.url, "--since", "1h", "--json").stdout)) == 2
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3600))
    assert json.loads(invoke("dead", "ls", app.url, "--since", later, "--json").stdout) == []
    bad = invoke("dead", "ls", app.url, "--since", "yesterday")
    assert bad.exit_code == exits.USAGE
    assert "30m" in bad.stderr


def test_the_cause_of_death_of_a_job_that_killed_its_workers(app: App) -> None:
    app.queue().put({"id": "1", "task": "oom"})
    words = "WorkerDied: begun 3 times and never ended: each time its worker died; the last time the worker was killed by SIGKILL"
    while items := app.queue().claim():
        app.queue().bury(items, error=words)
    app.close()
    (letter,) = json.loads(invoke("dead", "ls", app.url, "--task", "oom", "--json").stdout)
    assert letter["cause"] == "was killed by SIGKILL"


# -- what is done


@pytest.fixture
def done(app: App) -> App:
    """Two jobs that are done, a minute apart as far as the driver knows."""
    app.queue().ack(app.queue().claim())
    app.task(name="mail")(lambda: None).send()
    app.queue().ack(app.queue().claim())
    app.close()
    return app


def test_what_is_done_and_retained_comes_again(done: App) -> None:
    replayed = ["replay", done.url, "--from", "1h", "--undated"]
    assert invoke(*replayed, "--task", "mail", "--dry-run").stdout == "would requeue 1\n"
    assert invoke(*replayed, "--task", "mail").stdout == "requeued 1\n"
    assert [row.value["task"] for row in done.queue().scan("ready")] == ["mail"]


def test_rows_whose_time_nobody_knows_are_left_out_and_counted(tmp_path: Path) -> None:
    with open_queue(tmp_path / "rows", retention=3600.0) as queue:
        queue.put(1)
        queue.ack(queue.claim())
    left_out = invoke("replay", tmp_path / "rows", "--from", "1h")
    assert left_out.stdout == "requeued 0\n"
    assert "1 rows are left out" in left_out.stderr
    assert "--undated" in left_out.stderr


def test_an_archive_is_replayed_by_task(done: App, tmp_path: Path) -> None:
    over = tmp_path / "over.records"
    assert invoke("queue", "archive", done.url, "--to", over, "--state", "retained").exit_code == exits.OK
    assert invoke("replay", done.url, "--from", over, "--task", "mail", "--dry-run").stdout.startswith("would put 1 ")
    assert invoke("replay", done.url, "--from", over, "--task", "mail").stdout.startswith("put 1 ")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", 999_910.0),
        ("1.5h", 994_600.0),
        ("2001-09-09T01:46:40+00:00", 1_000_000_000.0),
        ("1970-01-12T13:46:40Z", 1_000_000.0),
    ],
)
def test_moments(text: str, moment: float) -> None:
    assert parse_moment(text, 1_000_000.0) == moment


def test_a_time_alone_is_the_last_one() -> None:
    noon = 1_000_000.0 - 1_000_000.0 % 86400 + 43200
    assert parse_moment("11:00+00:00", noon) == noon - 3600
    assert parse_moment("13:00+00:00", noon) == noon - 23 * 3600


# -- copies


def fill(queue: Queue, *, text: bool) -> list[Any]:
    rows: list[Any] = [f"row {n}" if text else {"n": n} for n in range(20)]
    queue.put_many(rows)
    queue.put("delayed" if text else {"delayed": 1}, delay=3600)
    queue.nack(queue.claim(3), error="again")
    return rows[3:] + rows[:3]


def contents(queue: Queue) -> list[tuple[str, Any]]:
    return [(row.state, row.value) for row in queue.scan("ready", "delayed")]


@pytest.mark.parametrize("source", DRIVERS)
@pytest.mark.parametrize("target", DRIVERS)
def test_any_driver_is_copied_to_any(source: str, target: str, tmp_path: Path) -> None:
    old, new = url_of(source, tmp_path / "old"), url_of(target, tmp_path / "new")
    with open_queue(old) as queue:
        fill(queue, text="txt" in (source, target))
        wanted = contents(queue)
    copied = invoke("queue", "copy", old, new)
    assert copied.stdout == f"copied 21 rows of {old} to {new}\n", copied.stderr
    with open_queue(new) as queue, open_queue(old) as before:
        assert contents(queue) == contents(before) == wanted
        (delayed,) = queue.scan("delayed")
        assert 3500 < (delayed.due or 0) - time.time() < 3700
        assert not os.path.exists(plan_path(queue))


def test_a_row_that_the_new_driver_can_not_hold_is_refused_and_the_copy_can_go_on(tmp_path: Path) -> None:
    old = tmp_path / "old"
    with open_queue(old) as queue:
        queue.put_many(["text", {"no": "text"}])
    refused = invoke("queue", "copy", old, f"txt:{tmp_path / 'new'}")
    assert refused.exit_code == exits.FAILURE
    assert "txt" in refused.stderr


def test_what_is_being_worked_on_is_not_copied_behind_the_workers_back(tmp_path: Path) -> None:
    with open_queue(tmp_path / "old") as queue:
        queue.put_many([1, 2])
        queue.claim()
        assert invoke("queue", "copy", tmp_path / "old", tmp_path / "new").exit_code == exits.LOCKED
        assert "copied 1 rows" in invoke("queue", "copy", tmp_path / "old", tmp_path / "new", "--live").stdout
    assert invoke("queue", "copy", tmp_path / "old", tmp_path / "old").exit_code == exits.USAGE
    assert invoke("queue", "copy", tmp_path / "old", tmp_path / "new", "--dry-run").stdout.startswith("would copy 2 ")


def test_a_copy_of_another_queue_does_not_take_up_the_one_that_was_begun(tmp_path: Path, monkeypatch: Any) -> None:
    with open_queue(tmp_path / "a") as a, open_queue(tmp_path / "b") as b, open_queue(tmp_path / "new") as new:
        a.put_many([1, 2])
        b.put_many([3, 4])
        monkeypatch.setattr(copying.os, "unlink", lambda path: None)
        copy_queue(a, new)
        monkeypatch.undo()
        with pytest.raises(errors.QueueError, match="has not ended"):
            copy_queue(b, new)
        assert copy_queue(a, new) == copying.Copied(rows=2, before=2)
        assert copy_queue(b, new) == copying.Copied(rows=2, before=0)
        assert copy_queue(b, new) == copying.Copied(rows=2, before=2)
        assert [row.value for row in new.scan("ready")] == [1, 2, 3, 4]
        assert copy_queue(b, new, again=True) == copying.Copied(rows=2, before=0)


ROWS = [f"row {n}" for n in range(5)], [("due a", 3600), ("due a", 3600), ("due b", 7200)]


def _fill_old(old: str) -> None:
    with open_queue(old) as queue:
        queue.put_many(ROWS[0])
        for row, delay in ROWS[1]:
            queue.put(row, delay=delay)


def _copy(old: str, new: str) -> None:
    with open_queue(old) as queue, open_queue(new) as to:
        copy_queue(queue, to)


def _every_row_once(new: str) -> None:
    with open_queue(new) as queue:
        assert [row.value for row in queue.scan("ready")] == ROWS[0]
        assert sorted(row.value for row in queue.scan("delayed")) == sorted(row for row, _ in ROWS[1])
        assert not os.path.exists(plan_path(queue))


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
def test_a_copy_killed_at_any_change_to_the_disk_goes_on_without_a_loss_or_a_repeat(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BATCH", 2)
    old = f"jsonl:{tmp_path / 'old'}"
    _fill_old(old)
    kills = 0
    for kills, _ in crashing.every_kill(lambda at: lambda tell: _copy(old, url_of(driver, tmp_path / f"new{at}"))):
        new = url_of(driver, tmp_path / f"new{kills}")
        _copy(old, new)
        _every_row_once(new)
    assert kills > 20


def _copy_and_die(pipe: Any, old: str, new: str, at: int) -> None:
    """Killed before the `at`-th step that changes the new queue."""
    steps = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    with open_queue(old) as queue, open_queue(new) as to:
        source = to.source
        to.put = counted(to.put)  # type: ignore[method-assign]

        def watched(name: str) -> Any:
            found = source(name)
            found.put_many, found.commit = counted(found.put_many), counted(found.commit)  # type: ignore[method-assign]
            return found

        to.source = watched  # type: ignore[method-assign]
        copy_queue(queue, to)


def test_a_copy_into_sqlite_killed_between_any_two_steps_goes_on(tmp_path: Path) -> None:
    old = f"jsonl:{tmp_path / 'old'}"
    _fill_old(old)
    for at in range(1, 12):
        new = f"sqlite:{tmp_path / f'new{at}.db'}"
        with processes.Child(_copy_and_die, old, new, at) as child:
            processes.wait_for(lambda child=child: not child.alive)  # type: ignore[misc]
        _copy(old, new)
        _every_row_once(new)
