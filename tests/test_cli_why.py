"""`why`, `rerun`, `tail` and `dead`: the life of a job, from its app's folder alone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import App
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import APP_DRIVERS, DEADLINE, RunningApp, app_url, environment, wait_for, write_app

TASKS = """
@app.task
def double(n):
    if not (HERE / "mended").exists():
        raise ValueError(f"can not double {n}")
    return 2 * n

@app.task(crash_retries=0)
def die():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
async def fine(n, *, by=1):
    from pistributer import current_run, progress
    progress(1, 4, "a quarter")
    return n * by
"""


@pytest.fixture(params=APP_DRIVERS)
def ran(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[App, dict[str, str]]:
    """An app in which one job went well, one failed, one killed its worker, and one waits; and their ids."""
    path = write_app(tmp_path, TASKS, app_url(tmp_path, request.param))
    app = load_app(str(path))
    ids = {
        "fine": app.tasks["fine"].send(3, by=2).id, "double": app.tasks["double"].send(21).id,
        "die": app.tasks["die"].send().id,
    }  # fmt: skip
    run(str(path), processes=1, until_empty=True, on_event=lambda said: None)
    ids["later"] = app.tasks["fine"].options(delay=3600).send(1).id
    ids["source"] = str(path)
    app.close()
    return app, ids


def invoke(*args: object) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args])


def told(*args: object) -> Any:
    result = invoke(*args, "--json")
    assert result.exit_code == exits.OK, result.output
    return json.loads(result.stdout)


def test_why_tells_where_a_job_is_and_how_it_came_there(ran: tuple[App, dict[str, str]]) -> None:
    app, ids = ran
    lives = {name: told("why", ids[name], app.url) for name in ("fine", "double", "die", "later")}
    assert {name: life["state"] for name, life in lives.items()} == {
        "fine": "done", "double": "dead", "die": "dead", "later": "delayed",
    }  # fmt: skip
    assert lives["fine"]["result"]["value"] == 6
    assert lives["fine"]["progress"]["text"] == "a quarter"
    assert [it["kind"] for it in lives["double"]["attempts"]] == ["ValueError"]
    assert lives["double"]["message"]["args"] == [21]
    assert lives["die"]["attempts"][0]["death"]["signal"] == "SIGKILL"
    assert "falls due" in lives["later"]["next"]
    shown = invoke("why", ids["double"], app.url).stdout
    assert "ValueError: can not double 21" in shown
    assert 'raise ValueError(f"can not double' in shown
    assert "the worker was killed by SIGKILL" in invoke("why", ids["die"], app.url).stdout
    # By its row's id too.
    row = lives["double"]["row"]["id"]
    found = told("why", row, app.url)
    assert ids["double"] in [life["id"] for life in (found if isinstance(found, list) else [found])]


def test_why_of_nothing_says_so(
    ran: tuple[App, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, ids = ran
    result = invoke("why", "5f0c", app.url)
    assert result.exit_code == exits.FAILURE
    assert "nothing is known of '5f0c'" in result.stderr
    assert invoke("why", "5f0c", tmp_path / "none").exit_code == exits.UNAVAILABLE
    monkeypatch.chdir(tmp_path)
    assert told("why", ids["double"])["state"] == "dead"  # the only app in the working directory
    App("other").home.create()
    assert "say which" in invoke("why", ids["double"]).stderr


def test_dead_letters_name_the_cause_of_death(ran: tuple[App, dict[str, str]]) -> None:
    app, ids = ran
    letters = {letter["job"]: letter for letter in told("dead", "ls", app.url)}
    assert letters[ids["double"]]["death"] is None
    assert letters[ids["die"]]["death"]["signal"] == "SIGKILL"
    assert told("dead", "show", app.url, ids["die"])["death"]["worker"] == "worker default[0]"
    assert "was killed by SIGKILL" in invoke("dead", "ls", app.url).stdout


def test_rerun_runs_a_job_here_and_leaves_everything_as_it_is(ran: tuple[App, dict[str, str]], tmp_path: Path) -> None:
    app, ids = ran
    failed = invoke("rerun", ids["double"], app.url)
    assert failed.exit_code == exits.ITEMS_FAILED
    assert "double(21)" in failed.stderr
    assert "ValueError: can not double 21" in failed.stderr
    (tmp_path / "mended").touch()
    assert invoke("rerun", ids["double"], app.url).stdout == "42\n"
    assert told("why", ids["double"], app.url)["state"] == "dead"
    assert invoke("rerun", ids["later"], app.url, "--app", ids["source"]).stdout == "1\n"
    assert invoke("rerun", ids["later"], app.url, "--settle").exit_code == exits.USAGE
    assert invoke("rerun", ids["double"], app.url, "--settle").stdout == "42\n"
    assert told("why", ids["double"], app.url)["state"] == "done"
    assert app.job(ids["double"]).result(1) == 42
    gone = invoke("rerun", "5f0c", app.url)
    assert gone.exit_code == exits.FAILURE
    assert "jobs that are done are gone" in gone.stderr
    app.close()


def test_rerun_starts_the_debugger_where_the_task_raised(ran: tuple[App, dict[str, str]]) -> None:
    app, ids = ran
    assert "--pdb needs a terminal" in invoke("rerun", ids["double"], app.url, "--pdb").stderr
    pid, terminal = pty.fork()
    if pid == 0:
        command = ["-m", "pistributer", "rerun", ids["double"], app.url, "--pdb"]
        os.execve(sys.executable, [sys.executable, *command], environment())
    said = b""
    os.write(terminal, b"p n * 1000\nq\n")
    with contextlib.suppress(OSError):  # how a terminal says that nobody is left
        while part := os.read(terminal, 4096):
            said += part
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == exits.ITEMS_FAILED
    assert b"21000" in said
    assert b"rerun_command.py" not in said


def test_tail_shows_what_ended_and_what_failed(ran: tuple[App, dict[str, str]]) -> None:
    app, ids = ran
    result = invoke("tail", app.url, "-n", "10", "--no-follow", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(it["what"], it["task"], it["id"]) for it in events} == {
        ("done", "fine", ids["fine"]), ("failed", "double", ids["double"]), ("died", "die", ids["die"]),
        ("failed", "die", ids["die"]),
    }  # fmt: skip
    shown = invoke("tail", app.url, "-n", "10", "--no-follow", "--failed", "--task", "double").stdout
    assert len(shown.splitlines()) == 1
    assert "ValueError: can not double 21" in shown


def test_tail_follows(ran: tuple[App, dict[str, str]], tmp_path: Path) -> None:
    app, ids = ran
    out = tmp_path / "tail.out"
    command = [sys.executable, "-m", "pistributer", "tail", app.url, "-n", "1", "--json"]
    with out.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(PYTHONUNBUFFERED="1"), stdout=file, stderr=subprocess.DEVNULL
        )
    try:
        wait_for(lambda: out.read_text().count("\n") == 1)
        job = app.tasks["fine"].send(5)
        app.close()
        with RunningApp(Path(ids["source"]), processes=1):
            job.result(DEADLINE)
        wait_for(lambda: job.id in out.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == exits.INTERRUPTED
    app.close()


def test_a_job_that_waits_for_another_is_held(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")

    @app.task(key=lambda who: who)
    def serve(who: str) -> None:
        pass

    first, second = serve.send("ann"), serve.send("ann")
    assert told("why", first.id, app.url)["state"] == "queued"
    life = told("why", second.id, app.url)
    assert (life["state"], life["attempts"]) == ("held", [])
    assert invoke("rerun", second.id, app.url).exit_code == exits.FAILURE
    app.close()
