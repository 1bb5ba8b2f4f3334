"""`pistributer send`: a call by the task's name, from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import App
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from tests.worker_tools import RunningApp, write_app


def invoke(*args: object) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    app = App(tmp_path / "jobs")
    app.queue("default")
    app.queue("slow")
    app.close()
    return tmp_path / "jobs"


def sent(folder: Path, queue: str = "default") -> dict[str, Any]:
    app = App(folder)
    (row,) = app.queue(queue).scan()
    app.close()
    value: dict[str, Any] = row.value
    return value


def test_arguments_are_json_names_or_text(folder: Path) -> None:
    result = invoke("send", folder, "resize", "a.png", "80", '{"x":[1]}', "mode=fast", "size=3", "url=http://x/?a=b")
    assert result.exit_code == exits.OK
    message = sent(folder)
    assert message["id"] == result.stdout.strip()
    assert message["task"] == "resize"
    assert message["args"] == ["a.png", 80, {"x": [1]}]
    assert message["kwargs"] == {"mode": "fast", "size": 3, "url": "http://x/?a=b"}


def test_another_queue_and_a_delay(folder: Path) -> None:
    assert invoke("send", folder, "report", "--queue", "slow", "--delay", "60").exit_code == exits.OK
    assert sent(folder, "slow")["task"] == "report"
    app = App(folder)
    assert app.queue("slow").stats().delayed == 1
    app.close()


def test_a_key_an_id_and_tags(folder: Path) -> None:
    ids = [
        invoke("send", folder, "charge", 7, "--key", "ann", "--idempotency-id", "order-17", "--tag", "eu").stdout
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
    message = sent(folder)
    assert (message["key"], message["tags"], message["ticket"]) == ("ann", ["eu"], 1)
    assert invoke("send", folder, "charge", 8, "--key", "ann").exit_code == exits.OK
    assert sent(folder) == message, "the second waits for the first"


def test_limits_results_and_a_rate(folder: Path) -> None:
    told = "--retries 0 --soft-time-limit 1.5 --hard-time-limit none --results no --rate-limit 5/s".split()
    assert invoke("send", folder, "report", *told).exit_code == exits.OK
    message = sent(folder)
    assert message["retries"] == 0
    assert message["options"] == {
        "soft_time_limit": 1.5, "hard_time_limit": None, "results": False, "rate_limit": [5, 1.0, None]
    }  # fmt: skip


def test_none_is_no_rate_and_a_number_a_retention(folder: Path) -> None:
    assert invoke("send", folder, "report", "--rate-limit", "none", "--results", "60").exit_code == exits.OK
    assert sent(folder)["options"] == {"rate_limit": None, "results": 60.0}


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("send", "nothing", "task"), exits.UNAVAILABLE, "there is no app"),
        (("send", "jobs", "task", "--queue", "sloww"), exits.FAILURE, "it has: default, slow"),
        (("send", "jobs", "task", "a=1", "2"), exits.USAGE, "comes behind"),
        (("send", "jobs", "task", "--results", "maybe"), exits.USAGE, "neither a number nor one of: yes, no"),
        (("send", "jobs", "task", "--hard-time-limit", "0"), exits.FAILURE, "must be positive"),
        (("send", "jobs", "task", "--rate-limit", "many"), exits.FAILURE, "a rate limit is"),
    ],
    ids=["no app", "no such queue", "order", "results", "limit", "rate"],
)
def test_what_can_not_be_sent(
    folder: Path, args: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    result = invoke(*args)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (folder.parent / "nothing").exists()


def test_wait_prints_the_result(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def double(n):
            return [n, n]
        """,
    )
    App(tmp_path / "jobs").queue().close()
    with RunningApp(path, processes=1):
        result = invoke("send", tmp_path / "jobs", "double", "ab", "--wait", "30")
    assert json.loads(result.stdout) == ["ab", "ab"]
