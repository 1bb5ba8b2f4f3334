"""`run --reload`: the run begins anew when the app's code changes, for development.

Once a second the supervisor looks at the times of the app's own files: those of modules that lie below the folder of the app's
file, and their neighbours. If one has changed, a process of its own tries to load the app. If that fails, the error is told
and everything stays as it is. If it works, the run stops as at a first TERM, the supervisor forgets the app's modules, loads
them again, and starts what they define now. So nothing can be left of the old code, whatever the change was: other queues,
producers, schedules, hooks, limits.

What the trial does not find (there is no task any more, a worker can not boot) is told, too; then nothing runs until the
next change that loads.

Refused: replacing workers one by one, as HUP does, and only the processes that are new besides: that would be a second way to
start a run, with the old app in its supervisor. Refused too: `exec` of the whole program, which would do again what a script
does before it calls `run`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, Protocol

from pistributer import errors

from .app import App
from .loading import load_app
from .supervision.decisions import Say
from .supervision.roles import BOOT_EXIT
from .supervision.supervisor import Outcome

_LOOK_EVERY = 1.0
#: Seconds between two looks while nothing runs.
_NAP = 0.2
_TRY = "import sys; from pistributer.workers.reloading import try_to_load; try_to_load(*sys.argv[1:])"


class Start(Protocol):
    """Runs an app, until it ends or `code` has changed."""

    def __call__(self, app: App, code: Code) -> Outcome: ...


def run_anew(app: App, source: str, start: Start, tell: Callable[[Say], object]) -> Outcome:
    """Start `app`, loaded from `source`, and again each time its code has changed. How the last of these runs ended.

    What is wrong with the code at first ends the run, as ever; what is wrong with a change of it is told and waited out.
    """
    with contextlib.closing(Code(app, source, lambda text: tell(Say("code", text)))) as code:
        outcome = start(app, code)
        restarts, deaths = outcome.restarts, outcome.deaths
        try:
            while outcome.reason == "changed":
                outcome = _start_changed(start, code)
                restarts, deaths = restarts + outcome.restarts, deaths + outcome.deaths
        except KeyboardInterrupt:  # between two supervisors, who would have seen to it
            outcome = Outcome(130, "stopped")
    return replace(outcome, restarts=restarts, deaths=deaths)


def _start_changed(start: Start, code: Code) -> Outcome:
    try:
        outcome = start(code.load(), code)
    except errors.BootError as error:
        outcome = Outcome(BOOT_EXIT, "boot", str(error))
    if outcome.reason in ("boot", "failed"):
        code.wait(str(outcome.error))
        return replace(outcome, reason="changed")
    return outcome


class Code:
    """The code of `app`, loaded from `source`. Calls `tell(text)` when a change of it can not be loaded."""

    def __init__(self, app: App, source: str, tell: Callable[[str], object]) -> None:
        self._source, self._tell = source, tell
        file = getattr(sys.modules.get(app.module), "__file__", None) or source.partition(":")[0]
        self._home = os.path.dirname(os.path.abspath(file))
        #: Where its files lie, and when each was last changed.
        self._folders = {self._home}
        self._seen: dict[str, int] = {}
        self._watch(folders_of(self._home))
        self._due = 0.0
        self._trial: _Trial | None = None

    def look(self) -> bool:
        """Whether it has changed and can be loaded. Called often; does something once a second."""
        if self._trial is not None:
            return self._trial.is_over() and self._judge(self._trial)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_EVERY
            if (times := self._times()) != self._seen:
                self._seen = times
                self._trial = _Trial(self._source, self._home)
        return False

    def _judge(self, trial: _Trial) -> bool:
        self._trial = None
        worked, told, folders = trial.result()
        self._watch(folders)
        if not worked:
            self._tell(f"the code has changed and can not be loaded; all stays as it is\n{told}")
        return worked

    def _watch(self, folders: set[str]) -> None:
        """These too, from now on."""
        self._folders |= folders
        self._seen = {**self._times(), **self._seen}  # a file that is new to us has not changed

    def wait(self, why: str) -> None:
        """Until it has changed and can be loaded."""
        self._tell(f"the changed code does not run; waiting for the next change\n{why}")
        while not self.look():
            time.sleep(_NAP)

    def load(self) -> App:
        """The app as it is now. BootError."""
        for name in modules_in(self._home):
            del sys.modules[name]
        importlib.invalidate_caches()
        try:
            return load_app(self._source)
        except SystemExit as error:
            raise errors.BootError(
                f"the code leaves by SystemExit: {error}", hint="raise it in a task, not at import"
            ) from error

    def _times(self) -> dict[str, int]:
        found = {}
        for path in _sources(self._folders):
            with contextlib.suppress(OSError):  # an editor may be about to put it in place
                found[path] = os.stat(path).st_mtime_ns
        return found

    def close(self) -> None:
        if self._trial is not None:
            self._trial.close()


class _Trial:
    """A process that tries to load the app, whose code lies below `home`."""

    def __init__(self, source: str, home: str) -> None:
        # Not pipes: one that is full would hold it up.
        self._folders: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when it has ended)
        self._told: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TRY, source, home, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL, stdout=self._folders, stderr=self._told,
        )  # fmt: skip

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> tuple[bool, str, set[str]]:
        """Whether the app could be loaded, what was said about it, and the folders that its modules lie in."""
        self._told.seek(0)
        self._folders.seek(0)
        told, folders = self._told.read().rstrip(), self._folders.read()
        self.close()
        # Without them it left, or was killed, in the middle.
        return self._process.returncode == 0 and bool(folders), told, set(json.loads(folders or "[]"))

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._told.close()
        self._folders.close()


def try_to_load(source: str, home: str, path: str) -> None:
    """In a process of its own: load the app and print where its code lies; exit with the error if that fails."""
    sys.path[:] = json.loads(path)
    answer = os.dup(1)
    os.dup2(2, 1)  # what the app prints is for people
    failure: object = 0
    try:
        load_app(source)
    except Exception as error:  # noqa: BLE001 (told to whoever changed the code)
        failure = str(error)
    except SystemExit:
        failure = traceback.format_exc()
    with open(answer, "w") as file:
        json.dump(sorted(folders_of(home)), file)
    sys.exit(failure)  # type: ignore[arg-type]


def modules_in(home: str) -> dict[str, str]:
    """The modules of this process whose files lie below `home`, and these. Neither ourselves, nor what was installed."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = os.path.abspath(getattr(module, "__file__", None) or "/")
        inside = os.path.relpath(path, home)
        ours = name == "__main__" or name.partition(".")[0] == "pistributer"
        if not (ours or inside.startswith("..") or "site-packages" in inside):
            found[name] = path
    return found


def folders_of(home: str) -> set[str]:
    return {os.path.dirname(path) for path in modules_in(home).values()}


def _sources(folders: Iterable[str]) -> Iterable[str]:
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from (os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".py"))
