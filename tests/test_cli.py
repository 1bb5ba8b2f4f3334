"""What every command has in common: help, exit codes, errors, colours, streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pistributer import errors
from pistributer.cli import exits
from pistributer.cli.root import LazyGroup, pistributer

ROOT = Path(__file__).resolve().parent.parent
#: Python modules that a help page has no use for.
HEAVY = {"psutil", "orjson", "sqlite3", "asyncio", "multiprocessing", "http", "filelock", "yaml", "mmap"}


def commands(command: click.Command = pistributer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


COMMANDS = list(commands())


def shell(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A real process with the command line."""
    command = [sys.executable, "-m", "pistributer", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


# -- help


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "pistributer")
def test_every_command_has_help_with_an_example_and_the_exit_codes(path: tuple[str, ...], flag: str) -> None:
    result = CliRunner().invoke(pistributer, [*path, flag])
    assert result.exit_code == 0
    assert "Examples:\n" in result.output
    assert f"  pistributer {' '.join(path)}".rstrip() in result.output
    assert "Exit codes: 0 ok" in result.output


@pytest.mark.parametrize("name", LazyGroup.commands_at)
def test_the_list_of_commands_says_what_each_command_says_of_itself(name: str) -> None:
    """The list is written down in one place and the commands in others, so that listing imports nothing."""
    command = LazyGroup.get_command(pistributer, click.Context(pistributer), name)
    assert command is not None
    summary = LazyGroup.commands_at[name][1].rstrip(".").split(":")[0]
    assert command.help is not None
    assert command.name == name
    assert summary


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "pistributer")
def test_help_imports_nothing_heavy(path: tuple[str, ...]) -> None:
    script = (
        "import sys\n"
        "from pistributer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *path, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert result.returncode == 0
    assert result.stderr.strip() == ""


def test_version_is_that_of_the_package() -> None:
    from pistributer import __version__

    assert shell("--version").stdout == f"pistributer {__version__}\n"


# -- mistakes


@pytest.mark.parametrize(
    ("args", "told", "hint"),
    [
        (["stauts"], "no such command: 'stauts'", "did you mean 'pistributer status'?"),
        (["queue", "peak"], "no such command: 'peak'", "did you mean 'pistributer queue peek'?"),
        (["xyzzy"], "no such command: 'xyzzy'", "try 'pistributer --help'"),
        (["stress", "--writer", "3"], "no such option: --writer", "did you mean --writers?"),
        (["queue", "ls"], "Missing argument", "try 'pistributer queue ls --help'"),
        (["stress", "--rows", "none"], "Invalid value for '--rows'", "try 'pistributer stress --help'"),
        (["stress", "--shared", "99"], "shared must be between", ""),
        (["stress", "--threads", "--kill-every", "1"], "threads can not be killed", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_named_with_the_way_out_and_exits_2(args: list[str], told: str, hint: str) -> None:
    result = CliRunner().invoke(pistributer, args)
    assert result.exit_code == exits.USAGE
    assert result.stdout == ""
    assert f"error: {told}" in result.stderr
    assert not hint or f"hint:  {hint}" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BootError("x"), exits.CONFIG),
        (errors.FolderMissing("x"), exits.UNAVAILABLE),
        (errors.DiskFull("x"), exits.UNAVAILABLE),
        (errors.UnsafeFilesystem("x"), exits.UNAVAILABLE),
        (errors.NotAQueue("x"), exits.FAILURE),
        (errors.QueueFull("x"), exits.FAILURE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_error_has_its_exit_code(error: errors.PistributerError, code: int) -> None:
    assert exits.code_of(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (exits.Terminated(), exits.TERMINATED),
        (click.Abort(), exits.INTERRUPTED),
        (ZeroDivisionError("what"), exits.FAILURE),
        (errors.BootError("no", hint="do this"), exits.CONFIG),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_leaves_by_its_code_without_a_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PISTRIBUTER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as left:
        exits.exit_for(error)
    assert left.value.code == code
    told = capsys.readouterr().err
    assert told.startswith("error:")
    assert "Traceback" not in told


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_traceback_comes_only_when_asked_for(how: str, tmp_path: Path) -> None:
    target = str(tmp_path / "nowhere")
    plain = shell("status", target)
    debug = (
        shell("--debug", "status", target) if how == "flag" else shell("status", target, env={"PISTRIBUTER_DEBUG": "1"})
    )
    assert plain.returncode == debug.returncode == exits.UNAVAILABLE
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "error: " in debug.stderr


# -- streams and colours


@pytest.mark.parametrize(
    ("env", "colored"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
    ids=["a pipe", "forced", "forbidden"],
)
def test_colour_follows_the_environment(env: dict[str, str], colored: bool) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
    command = [sys.executable, "-m", "pistributer", "nonsense"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**clean, "PYTHONPATH": str(ROOT), **env}
    )
    assert ("\x1b[" in result.stderr) == colored


def test_a_broken_pipe_is_silent(tmp_path: Path) -> None:
    from pistributer import open_queue

    with open_queue(tmp_path / "q") as queue:
        queue.put_many({"number": number, "text": "x" * 1000} for number in range(500))
    command = [sys.executable, "-m", "pistributer", "queue", "peek", str(tmp_path / "q"), "-n", "500"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_term_ends_a_stress_run_with_143_and_takes_its_folder_along(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pistributer", "stress", "--writers", "2", "--readers", "2", "--rows", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        try:
            _wait_for_rows(tmp_path, child)
            child.send_signal(signal.SIGTERM)
            output, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == exits.TERMINATED
    assert "interrupted by SIGTERM" in output
    assert not list(tmp_path.glob("pistributer-stress-*"))


def _wait_for_rows(folder: Path, child: subprocess.Popen[str]) -> None:
    while child.poll() is None and not list(folder.glob("pistributer-stress-*/ledger/writer-*")):
        os.sched_yield()
