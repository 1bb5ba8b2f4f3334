"""Waiting for conditions, and asking the system about processes, for the tests of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pistributer.workers.supervision.decisions import Say

#: What an app's queues may be.
APP_DRIVERS = ("jsonl", "txt", "sqlite")
#: Far longer than anything takes on a busy machine; only a failing test waits so long.
DEADLINE = 30.0


def app_url(folder: Path, driver: str) -> str:
    """Where an app on that driver lives in `folder`."""
    return (
        f"sqlite:{folder / 'jobs.db'}"
        if driver == "sqlite"
        else f"txt:{folder / 'jobs'}"
        if driver == "txt"
        else str(folder / "jobs")
    )


def wait_for(condition: Callable[[], Any], step: Callable[[float], object] = time.sleep) -> Any:
    """Until `condition()` is true, and what it returned. Meanwhile `step(seconds)` is called: a sleep, or a supervisor's."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        step(0.005)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


def marked(mark: str) -> dict[int, str]:
    """The living processes that have this mark: process id and command line. A new process with an old id has not."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            if f"LIFE_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return {pid: command for pid, command in found.items() if is_alive(pid)}


def environment(**extra: str) -> dict[str, str]:
    """For a Python process that imports this checkout."""
    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": str(root), **extra}


def write_app(folder: Path, body: str, url: str | None = None) -> Path:
    """A file that defines `app`, with its queues in `folder / "jobs"`; its name is used once per test session."""
    path = folder / f"app_{uuid.uuid4().hex}.py"
    head = f"""
import os, signal, time
from pathlib import Path
from pistributer import App, Backoff, Hook

HERE = Path({str(folder)!r})
app = App({url or str(folder / "jobs")!r})

def note(name, text=""):
    with open(HERE / name, "a") as file:
        file.write(f"{{text}}\\n")
"""
    path.write_text(head + textwrap.dedent(body))
    return path


def notes(folder: Path, name: str) -> list[str]:
    """What the app's `note` wrote, line by line."""
    return (folder / name).read_text().split("\n")[:-1] if (folder / name).exists() else []


class RunningApp:
    """`run(app)` in a process group of its own, because signals go to whole processes and none may be left behind.

    Its processes, and all that come of them, have `mark` in their environment, if one is given.
    """

    def __init__(self, app: Path, mark: str = "", **options: Any) -> None:
        # Files, not pipes: workers inherit them and may outlive a killed supervisor.
        self._out = app.with_suffix(".out")
        command = [sys.executable, "-m", "tests.worker_tools", str(app), json.dumps(options)]
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                command,
                env=environment(LIFE_MARK=mark),
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=app.parent,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def outcome(self) -> tuple[dict[str, Any], list[str]]:
        """How the run ended, and the actions it told."""
        self.process.wait(DEADLINE)
        told = json.loads(self._out.read_text().splitlines()[-1])
        return told["outcome"], told["said"]

    def output(self) -> str:
        """What its processes have written."""
        return self._out.read_text()

    def __enter__(self) -> RunningApp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _main(app: str, options: str) -> None:
    from pistributer.workers.pools import parse_pool
    from pistributer.workers.run import run

    said: list[str] = []
    wanted = json.loads(options)
    noted = wanted.pop("note_events", None)
    sys.path += wanted.pop("path", [])
    if isinstance(wanted.get("processes"), list):
        wanted["processes"] = tuple(wanted["processes"])  # JSON has none

    if "pools" in wanted:
        wanted["pools"] = [parse_pool(text) for text in wanted["pools"]]  # as on the command line

    def hear(told: Say) -> None:
        said.append(told.action)
        if noted is not None:
            with open(noted, "a") as file:
                file.write(f"{told.action}\n")

    outcome = run(app, on_event=hear, **wanted)
    print(json.dumps({"outcome": dataclasses.asdict(outcome), "said": said}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
