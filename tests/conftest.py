"""What every test shares: a command line to run, seeded hypothesis on CI, and no child left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from pistributer import App
from pistributer.workers.loading import load_app

from .worker_tools import APP_DRIVERS, app_url, write_app

ROOT = Path(__file__).resolve().parent.parent

# Assertions of the conformance classes explain themselves as those of test files do.
for _path in Path(__file__).parent.glob("conformance*.py"):
    pytest.register_assert_rewrite(f"tests.{_path.stem}")

# Deadlines measure the machine's load, not the code; and a CI run must fail for the change, not for the dice.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

#: Children that the multiprocessing module keeps for itself until this process ends.
_KEPT = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")


@pytest.fixture(scope="session")
def cli_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a shell finds the `pistributer` and `python` of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    # Scripts and not links: through a link Python does not find the environment that it is part of.
    for name, module in (("pistributer", "-m pistributer"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "100"}


@pytest.fixture(params=APP_DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an app lives, once for each driver."""
    return app_url(tmp_path, request.param)


@pytest.fixture
def app_file(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Path:
    """A file that defines an app with the `TASKS` of the test's module."""
    return write_app(tmp_path, request.module.TASKS, url)


@pytest.fixture
def app(app_file: Path) -> Iterator[App]:
    """That app, imported."""
    app = load_app(str(app_file))
    yield app
    app.close()


@pytest.fixture(autouse=True)
def no_child_is_left_behind() -> Iterator[None]:
    """A test that ends while a process of its own still runs would disturb those after it, and hide a leak of ours."""
    before = _children()
    yield
    left = {pid: command for pid, command in _children().items() if pid not in before}
    assert not left, f"processes still running after the test: {left}"


def _children() -> dict[int, bytes]:
    """Direct children of this process with their command lines; none where /proc can not tell."""
    lists = [_read(path) for path in Path("/proc/self/task").glob("*/children")]
    commands = {int(pid): _read(Path(f"/proc/{int(pid)}/cmdline")) for pids in lists for pid in pids.split()}
    return {pid: command for pid, command in commands.items() if not any(kept in command for kept in _KEPT)}


def _read(path: Path) -> bytes:
    """What /proc says of a thread or a process; nothing if it has ended between two looks."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
