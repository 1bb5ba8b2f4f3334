"""`pistributer dead`: what was given up is found, tried again, or dropped, without the app's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pistributer import App, open_queue
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from tests.worker_tools import APP_DRIVERS, app_url


def invoke(*args: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args], input=answer)


def bury_all(app: App, queue: str, errors: list[str]) -> None:
    for error in errors:
        app.queue(queue).bury(app.queue(queue).claim(), error=error)


@pytest.fixture(params=APP_DRIVERS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An app in which two calls of `resize` and one of `send`, and a row of another queue, were given up."""
    target = app_url(tmp_path, request.param)
    app = App(target)
    resize = app.task(name="resize")(lambda path: None)
    send = app.task(name="send")(lambda to: None)
    for call in (resize.send("a.png"), resize.send("b.png"), send.send("me")):
        (tmp_path / call.task).write_text(call.id)
    bury_all(app, "default", ["Traceback\nOSError: no a", "killed by SIGKILL", "Traceback\nTimeoutError: late"])
    app.queue("rows").put({"n": 1})
    bury_all(app, "rows", ["ValueError: one"])
    app.close()
    return target


def listed(target: str, *filters: str) -> list[dict[str, object]]:
    result = invoke("dead", "ls", target, "--json", *filters)
    assert result.exit_code == exits.OK
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_ls_names_task_attempts_and_reason_of_each(target: str) -> None:
    letters = listed(target)
    assert [(it["queue"], it["task"], it["attempts"]) for it in letters] == [
        ("default", "resize", 1), ("default", "resize", 1), ("default", "send", 1), ("rows", None, 1),
    ]  # fmt: skip
    assert letters[1]["error"] == "killed by SIGKILL"
    table = invoke("dead", "ls", target).stdout
    assert "OSError: no a" in table
    assert "Traceback" not in table


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["--task", "resize"], 2),
        (["--error", "SIGKILL"], 1),
        (["--queue", "rows"], 1),
        (["--task", "resize", "--error", "OSError"], 1),
        (["--task", "nothing"], 0),
    ],
    ids=str,
)
def test_filters_narrow_the_list(target: str, filters: list[str], count: int) -> None:
    assert len(listed(target, *filters)) == count


def test_show_gives_the_whole_error_and_the_arguments(target: str, tmp_path: Path) -> None:
    job = (tmp_path / "send").read_text()
    shown = invoke("dead", "show", target, job).stdout
    assert "TimeoutError: late" in shown
    assert "Traceback" in shown
    assert '"me"' in shown
    assert json.loads(invoke("dead", "show", target, job, "--json").stdout)["job"] == job


def test_show_of_what_is_not_there_says_how_to_find_out(target: str) -> None:
    result = invoke("dead", "show", target, "nobody")
    assert result.exit_code == exits.FAILURE
    assert "dead ls" in result.stderr


def test_retry_puts_back_what_was_named_and_nothing_else(target: str, tmp_path: Path) -> None:
    job = (tmp_path / "send").read_text()
    assert invoke("dead", "retry", target, job, "--dry-run").stdout == "would retry 1\n"
    assert len(listed(target)) == 4
    assert invoke("dead", "retry", target, job).stdout == "retried 1\n"
    assert invoke("dead", "retry", target, "--task", "resize").stdout == "retried 2\n"
    assert [it["queue"] for it in listed(target)] == ["rows"]
    app = App(target)
    items = app.queue().claim(9)
    assert sorted(item.value["task"] for item in items) == ["resize", "resize", "send"]
    assert {item.attempt for item in items} == {1}
    app.close()


def test_drop_asks_unless_told_not_to(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = invoke("dead", "drop", target, "--all")
    assert refused.exit_code == exits.USAGE
    assert "delete 4 dead letters" in refused.stderr
    monkeypatch.setattr("pistributer.cli.terminal.is_interactive", lambda: True)
    assert invoke("dead", "drop", target, "--all", answer="n\n").exit_code == exits.INTERRUPTED
    assert len(listed(target)) == 4
    assert invoke("dead", "drop", target, "--queue", "rows", answer="y\n").stdout.endswith("dropped 1\n")
    assert invoke("dead", "drop", target, "--all", "--dry-run").stdout == "would drop 3\n"
    assert invoke("dead", "drop", target, "--all", "--yes").stdout == "dropped 3\n"
    assert listed(target) == []


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_nobody_settles_everything_by_accident(target: str, command: str) -> None:
    result = invoke("dead", command, target)
    assert result.exit_code == exits.USAGE
    assert "--all" in result.stderr


def test_a_queue_that_is_not_there_is_named(target: str) -> None:
    result = invoke("dead", "ls", target, "--queue", "emails")
    assert result.exit_code == exits.USAGE
    assert "it has: default, rows" in result.stderr


def test_dead_rows_of_a_single_queue(tmp_path: Path) -> None:
    with open_queue(f"txt:{tmp_path / 'lines'}") as queue:
        queue.put("a line")
        queue.bury(queue.claim(), error="no")
    (letter,) = listed(str(tmp_path / "lines"))
    assert (letter["queue"], letter["value"], letter["error"]) == ("lines", "a line", "no")
