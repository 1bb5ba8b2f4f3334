"""`pistributer pause`, `resume`, `scale`, `restart`, `stop` and the options of `run`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import Pool
from pistributer.cli import exits, run_command
from pistributer.cli.root import pistributer
from pistributer.workers import run as runs_app
from pistributer.workers.loading import load_app
from pistributer.workers.supervision.supervisor import Outcome
from tests.test_control import running
from tests.worker_tools import write_app

IDLE = "@app.task\ndef nothing():\n    pass\n"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(pistributer, [str(argument) for argument in arguments])


def test_a_running_app_is_controlled_from_the_command_line(tmp_path: Path) -> None:
    path = write_app(tmp_path, IDLE)
    home = tmp_path / "jobs"
    with running(path, processes=1) as run:
        pid = run.process.pid
        paused = invoke("pause", home, "default", "--json")
        assert (paused.exit_code, json.loads(paused.output)) == (
            0,
            {"queue": "default", "changed": True, "seen_by": [pid]},
        )
        assert invoke("pause", home, "default").output == "default was paused already\n"
        assert "paused" in invoke("status", home).output
        assert json.loads(invoke("status", home, "--json").output)["queues"][0]["paused"] is True
        assert invoke("resume", home, "default").output == "resumed default\n"
        scaled = invoke("scale", home, "default", "+1", "--json")
        assert json.loads(scaled.output) == [{"pid": pid, "role": "worker default", "processes": 2, "asked": 1}]
        assert invoke("scale", home, "default", "-1").output == f"supervisor {pid} has 1 process for worker default\n"
        assert invoke("restart", home).output == f"supervisor {pid} replaces worker default\n"
        assert invoke("stop", home, "--pid", pid).output == f"supervisor {pid} has stopped\n"
        assert run.outcome()[0]["reason"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("scale", "{home}", "default", "2"), exits.UNAVAILABLE, "no supervisor is running"),
        (("restart", "{home}"), exits.UNAVAILABLE, "start one with `pistributer run`"),
        (("stop", "{home}", "--pid", "1"), exits.UNAVAILABLE, "no supervisor with process id 1"),
        (("pause", "{home}", "nothing"), exits.FAILURE, "no queue 'nothing'"),
        (("stop", "{home}/missing"), exits.UNAVAILABLE, "there is no app"),
        (("pause", "memory:", "default"), exits.USAGE, "an app lives in a folder"),
        (("scale", "{home}", "default"), exits.USAGE, "Missing argument"),
    ],
)
def test_what_can_not_be_done_has_an_exit_code_and_a_way_out(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    app = load_app(str(write_app(tmp_path, IDLE)))
    app.tasks["nothing"].send()
    app.close()
    result = invoke(*(argument.format(home=tmp_path / "jobs") for argument in arguments))
    assert result.exit_code == code
    assert words in result.output


def test_a_pause_without_a_supervisor_says_for_whom_it_is(tmp_path: Path) -> None:
    app = load_app(str(write_app(tmp_path, IDLE)))
    app.tasks["nothing"].send()
    app.close()
    result = invoke("pause", tmp_path / "jobs", "default")
    assert (result.stdout, result.stderr) == ("paused default\n", "no supervisor is running; the next one will know\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), {"processes": None, "grace": 10.0, "recycle_jobs": None, "recycle_memory": None, "reload": False}),
        (("--processes", "3"), {"processes": 3}),
        (("--processes", "2:8"), {"processes": (2, 8)}),
        (("--recycle-jobs", "100", "--recycle-memory", "1.5G"), exits.USAGE),
        (("--recycle-jobs", "100", "--recycle-memory", "500M"), {"recycle_jobs": 100, "recycle_memory": 500_000_000}),
        (("--recycle-memory", "2 gb"), {"recycle_memory": 2_000_000_000}),
        (("--preload", "json", "--preload", "csv"), {"preload": ("json", "csv")}),
        (("--reload", "--grace", "2.5"), {"reload": True, "grace": 2.5}),
        (("--pool", "web=high:processes=2:most=8:recycle_jobs=9"),
         {"pools": [Pool("web", ["high"], processes=2, most=8, recycle_jobs=9)]}),
        (("--processes", "0"), exits.USAGE),
        (("--processes", "8:2"), exits.USAGE),
        (("--processes", "2:"), exits.USAGE),
        (("--processes", "many"), exits.USAGE),
        (("--recycle-memory", "0"), exits.USAGE),
    ],
    ids=str,
)  # fmt: skip
def test_the_options_of_run(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: Any) -> None:
    heard: dict[str, Any] = {}

    def fake(app: str, **options: Any) -> Outcome:
        heard.update(options)
        return Outcome(0, "finished")

    monkeypatch.setattr(runs_app, "run", fake)
    result = invoke("run", "app.py", *arguments)
    if isinstance(told, int):
        assert result.exit_code == told
    else:
        assert result.exit_code == 0, result.output
        assert told.items() <= heard.items()


@pytest.mark.parametrize(
    ("by", "outcome", "code"),
    [
        ("SIGTERM", Outcome(0, "stopped"), exits.TERMINATED),
        ("SIGINT", Outcome(0, "stopped"), exits.INTERRUPTED),
        ("stop", Outcome(0, "stopped"), exits.OK),
    ],
)
def test_who_stopped_a_run_shows_in_its_exit_code(by: str, outcome: Outcome, code: int) -> None:
    from pistributer.workers.supervision.decisions import Say

    watch = run_command._Watch()
    watch.event(Say("stopping", f"{by}: finishing what runs in 2 processes"))
    assert watch.exit_code(outcome) == code
