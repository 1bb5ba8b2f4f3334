"""The main job of the README, with real processes: its totals are right, and a kill in the middle changes nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pistributer.workers.inspection.status import read_status

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "census.py"
#: Seconds that a run may take on a busy machine.
PATIENCE = 90


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 200 real modules, one that can not be parsed, and one that others have installed."""
    folder = tmp_path_factory.mktemp("library")
    for path in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        shutil.copy(path, folder)
    (folder / "broken.py").write_text("def (:\n")
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "foreign.py").write_text("import nothing\n")
    return folder


@pytest.fixture(scope="module")
def census(library: Path) -> ModuleType:
    """The script as a module, looking at `library`."""
    spec = importlib.util.spec_from_file_location("census", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CENSUS_OF", str(library))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(census: ModuleType) -> list[dict[str, object]]:
    """What a plain loop in this process measures: no queue, no worker."""
    names = census.list_modules()
    return [{"module": name, **census.measured((census.LIBRARY / name).read_bytes())} for name in names]


def start(folder: Path, library: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pistributer", "run", str(SCRIPT), "--until-empty", "--processes", "2"]
    return subprocess.Popen(
        command, cwd=folder, env={**env, "CENSUS_OF": str(library)}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(run: subprocess.Popen[str]) -> str:
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, err
    return out.strip()


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "census" / "census.jsonl").read_text().splitlines()]


def test_the_totals_are_those_of_a_plain_loop(
    census: ModuleType, expected: list[dict[str, object]], library: Path, tmp_path: Path, cli_env: dict[str, str]
) -> None:
    out = finish(start(tmp_path, library, cli_env))
    assert out == census.totals(expected, of=len(expected))
    assert written(tmp_path) == expected
    assert "1 unreadable" in out


@pytest.mark.parametrize("role", ["worker default", "consumer write"])
def test_a_kill_in_the_middle_changes_nothing(
    role: str,
    census: ModuleType,
    expected: list[dict[str, object]],
    library: Path,
    tmp_path: Path,
    cli_env: dict[str, str],
) -> None:
    run = start(tmp_path, library, cli_env)
    try:
        wait_until(lambda: 10 < lines_so_far(tmp_path) < len(expected) / 2, run)
        os.kill(pid_of(role, tmp_path), signal.SIGKILL)
        assert lines_so_far(tmp_path) < len(expected), "the kill came too late to show anything"
        out = finish(run)
    finally:
        run.kill()
        run.wait()
    assert out == census.totals(expected, of=len(expected))
    assert written(tmp_path) == expected


def lines_so_far(folder: Path) -> int:
    path = folder / "census" / "census.jsonl"
    return path.read_bytes().count(b"}\n") if path.exists() else 0


def pid_of(role: str, folder: Path) -> int:
    return next(worker.pid for worker in read_status(folder / "census").workers if worker.role == role)


def wait_until(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    """Until `condition` holds; the run must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.005)


def test_half_a_line_spoils_neither_the_next_nor_the_report(
    census: ModuleType, expected: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a consumer leaves that is killed inside its write; its batch was not acknowledged, so it comes again."""
    monkeypatch.chdir(tmp_path)
    census.OUTPUT.parent.mkdir()
    census.write(expected[:3])
    whole = census.OUTPUT.read_bytes()
    census.OUTPUT.write_bytes(whole[:-20])
    census.write(expected[:3])
    assert list(census.read_census().values()) == expected[:3]


def test_a_module_that_is_gone_is_not_counted(
    census: ModuleType, expected: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    census.OUTPUT.parent.mkdir()
    census.write([{**expected[0], "module": "gone.py"}, expected[0]])
    assert list(census.read_census().values()) == [expected[0]]


@pytest.mark.parametrize(
    ("source", "measures"),
    [
        pytest.param("", {"lines": 0, "functions": 0, "longest": [0, ""], "imports": []}, id="empty file"),
        pytest.param(
            "import os.path, sys\nfrom json import loads\nfrom . import x\n",
            {"lines": 3, "functions": 0, "longest": [0, ""], "imports": ["json", "os", "sys"]},
            id="imports count by their top level, relative ones not",
        ),
        pytest.param(
            "async def long():\n    pass\n\n    def inner(): pass\n",
            {"lines": 4, "functions": 2, "longest": [4, "long"], "imports": []},
            id="inner and async functions count",
        ),
        pytest.param("a = '\\d'\n", {"lines": 1, "functions": 0, "longest": [0, ""], "imports": []}, id="a warning"),
        pytest.param("x = \0\n", {"lines": 1, "unreadable": "SyntaxError"}, id="NUL bytes"),
    ],
)
def test_measured(census: ModuleType, source: str, measures: dict[str, object]) -> None:
    found = census.measured(source.encode())
    if found.get("unreadable") == "ValueError":  # what NUL bytes were before Python 3.12
        found["unreadable"] = "SyntaxError"
    assert found == measures
