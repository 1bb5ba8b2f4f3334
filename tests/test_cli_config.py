"""Defaults from files and the environment, completion, and colour."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pistributer import App, open_queue
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from tests.worker_tools import environment


def invoke(*args: object, **variables: str) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args], env=variables, prog_name="pistributer")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three rows in a queue, in whose subfolder the command is called."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    with open_queue(tmp_path / "sub" / "rows") as queue:
        queue.put_many([1, 2, 3])
    return tmp_path


def rows_peeked(*args: str, **variables: str) -> int:
    result = invoke(*args, "queue", "peek", "rows", "--json", **variables)
    assert result.exit_code == exits.OK, result.stderr
    return len(json.loads(result.stdout))


def test_a_flag_beats_the_environment_beats_the_files_beat_the_default(folder: Path) -> None:
    assert rows_peeked() == 3
    (folder / "pyproject.toml").write_text("[tool.pistributer.queue.peek]\ncount = 1\n")
    assert rows_peeked() == 1
    (folder / "pistributer.toml").write_text("[queue.peek]\ncount = 2\n")
    assert rows_peeked() == 2
    assert rows_peeked(PISTRIBUTER_QUEUE_PEEK_COUNT="1") == 1
    result = invoke("queue", "peek", "rows", "-n", "3", "--json", PISTRIBUTER_QUEUE_PEEK_COUNT="1")
    assert len(json.loads(result.stdout)) == 3


def test_a_file_that_is_named_counts_alone(folder: Path) -> None:
    (folder / "pistributer.toml").write_text("[queue.peek]\ncount = 2\n")
    (folder / "other.toml").write_text("[queue.peek]\ncount = 1\n")
    assert rows_peeked("--config", "../other.toml") == 1
    assert rows_peeked(PISTRIBUTER_CONFIG="../other.toml") == 1
    missing = invoke("--config", "none.toml", "queue", "ls", "rows")
    assert missing.exit_code == exits.CONFIG


def test_options_are_set_by_the_names_that_the_command_line_has(folder: Path) -> None:
    (folder / "pistributer.toml").write_text("[queue.ls]\njson = true\n[run]\nuntil-empty = true\n")
    assert json.loads(invoke("queue", "ls", "rows").stdout)[0]["ready"] == 3
    (folder / "pistributer.toml").unlink()
    assert json.loads(invoke("queue", "ls", "rows", PISTRIBUTER_QUEUE_LS_JSON="1").stdout)[0]["ready"] == 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[rum]\n", "'run'"),
        ("[run]\nproceses = 2\n", "'processes'"),
        ("[queue.peak]\n", "'peek'"),
        ("[queue.peek]\nzzz = 1\n", "there are: count"),
        ("run = 3\n", "[run]"),
        ("[run\n", "mend the file"),
    ],
)
def test_a_key_that_nobody_knows_is_refused_with_the_nearest_one(folder: Path, text: str, hint: str) -> None:
    (folder / "pistributer.toml").write_text(text)
    result = invoke("queue", "ls", "rows")
    assert result.exit_code == exits.CONFIG
    assert "pistributer.toml" in result.stderr
    assert hint in result.stderr


def test_run_takes_its_app_from_a_file(folder: Path) -> None:
    (folder / "work.py").write_text(
        "from pistributer import App\napp = App('jobs')\n\n@app.task\ndef one():\n    print('ran')\n"
    )
    (folder / "live.toml").write_text('[run]\napp = "work.py"\nprocesses = 1\nuntil_empty = true\n')
    send = "import work; work.one.send()"
    subprocess.run([sys.executable, "-c", send], cwd=folder, env=environment(), check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pistributer", "run", "--config", "live.toml"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == exits.OK, done.stderr
    assert done.stdout == "ran\n"


def test_config_show_tells_each_value_and_its_origin(folder: Path) -> None:
    assert invoke("config", "show").stdout == ""
    (folder / "pyproject.toml").write_text("[tool.pistributer.run]\nprocesses = 3\n")
    (folder / "pistributer.toml").write_text("[queue.peek]\ncount = 2\n")
    shown = json.loads(invoke("config", "show", "--json", PISTRIBUTER_TOP_INTERVAL="2").stdout)
    assert {it["key"]: (it["value"], it["origin"]) for it in shown} == {
        "run.processes": (3, str(folder / "pyproject.toml")),
        "queue.peek.count": (2, str(folder / "pistributer.toml")),
        "top.interval": ("2", "environment PISTRIBUTER_TOP_INTERVAL"),
    }
    table = invoke("config", "show", "--origin").stdout
    assert "run.processes = 3" in table
    assert "pyproject.toml" in table
    everything = {it["key"]: it for it in json.loads(invoke("config", "show", "--all", "--json").stdout)}
    assert "run.app" not in everything
    assert everything["run.until-empty"]["value"] is False
    assert everything["top.interval"] == {"key": "top.interval", "value": 1.0, "origin": "default"}


# -- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert "_PISTRIBUTER_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def completed(words: str, index: int) -> list[str]:
    variables = {"_PISTRIBUTER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}
    done = subprocess.run(
        [sys.executable, "-m", "pistributer"], env={**environment(), **variables}, capture_output=True, text=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_options_and_queue_names_are_completed(folder: Path) -> None:
    app = App(folder / "sub" / "jobs")
    app.queue("emails")
    app.queue("thumbs")
    app.close()
    assert completed("pistributer queue pe", 2) == ["peek"]
    assert "--state" in completed("pistributer queue peek --", 3)
    assert completed("pistributer queue peek jobs em", 4) == ["emails"]
    assert completed("pistributer dead ls jobs --queue ", 5) == ["emails", "thumbs"]
    assert completed("pistributer pause jobs th", 3) == ["thumbs"]


# -- colour


class Terminal:
    def __init__(self, is_one: bool = True) -> None:
        self.isatty = lambda: is_one


@pytest.mark.parametrize(
    ("variables", "is_terminal", "colored"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR_FORCE": "0"}, False, False),
        ({"CLICOLOR": "0"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
    ids=str,
)
def test_variables_decide_on_colour(
    variables: dict[str, str], is_terminal: bool, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert exits.color(Terminal(is_terminal)) is colored  # type: ignore[arg-type]


def test_the_option_beats_the_variables() -> None:
    command = [sys.executable, "-m", "pistributer", "--color", "always", "queue", "ls", "rows"]
    done = subprocess.run(command, env={**environment(), "NO_COLOR": "1"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("\x1b[1m")
    command[4] = "never"
    done = subprocess.run(
        command, env={**environment(), "FORCE_COLOR": "1"}, capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout
    assert os.path.isdir("rows")
