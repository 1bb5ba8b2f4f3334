"""`run --reload`: new processes when the app's code changes, for development.

Once a second the supervisor looks at the times of the app's own files: those of modules that lie below the folder of the app's
file, and their neighbours. If one has changed, a process of its own tries to load the app. If that works, the supervisor
reloads, as HUP does; if not, the error is told and the old processes stay. They keep the code that they have: no job runs
with half of a change.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from .app import App
from .loading import load_app

_LOOK_EVERY = 1.0
_TRY = "import sys; from pistributer.workers.reloading import try_to_load; try_to_load(sys.argv[1])"


class Reloader:
    """Watches the code of `app`, loaded from `source`. Calls `reload()` when it has changed, `say(text)` when it is broken."""

    def __init__(self, app: App, source: str, reload: Callable[[], object], say: Callable[[str], object]) -> None:
        self._source, self._reload, self._say = source, reload, say
        file = getattr(sys.modules.get(app.module), "__file__", None) or source.partition(":")[0]
        self._folder = os.path.dirname(os.path.abspath(file))
        self._parts = _parts(app)
        self._seen = self._times()
        self._due = 0.0
        self._trial: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Called often; does something once a second."""
        if self._trial is not None:
            if self._trial.poll() is not None:
                self._judge(self._trial)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_EVERY
            if (times := self._times()) != self._seen:
                self._seen = times
                # Not a pipe: one that is full would hold it up.
                self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when it has ended)
                self._trial = subprocess.Popen(
                    [sys.executable, "-c", _TRY, self._source],
                    stdin=subprocess.DEVNULL, stdout=self._told, stderr=subprocess.STDOUT,
                )  # fmt: skip

    def _judge(self, trial: subprocess.Popen[bytes]) -> None:
        with self._told as file:
            file.seek(0)
            told = file.read()
        self._trial = None
        last = told.rstrip().rpartition("\n")[2]
        if trial.returncode:
            self._say(f"the code has changed and can not be loaded; the processes keep what they have\n{told.rstrip()}")
        elif last != self._parts:
            self._say(
                "the app has other queues, producers, consumers or schedules now; stop the run and start it again"
            )
            self._reload()
        else:
            self._reload()

    def _times(self) -> dict[str, int]:
        """When each file was last changed."""
        found = {}
        for path in self._files():
            try:
                found[path] = os.stat(path).st_mtime_ns
            except OSError:
                continue  # an editor may be about to put it in place
        return found

    def _files(self) -> set[str]:
        ours = {path for path in map(_file_of, list(sys.modules.values())) if self._is_ours(path)}
        return ours | set(_sources({self._folder, *map(os.path.dirname, ours)}))

    def _is_ours(self, path: str) -> bool:
        inside = os.path.relpath(path, self._folder) if path else ".."
        return not inside.startswith("..") and "site-packages" not in inside

    def close(self) -> None:
        if self._trial is not None:
            self._trial.kill()
            self._trial.wait()
            self._told.close()


def try_to_load(source: str) -> None:
    """In a process of its own: load the app and print what it is made of; exit with the error if that fails."""
    try:
        print(_parts(load_app(source)))
    except Exception as error:  # noqa: BLE001 (told to whoever changed the code)
        sys.exit(str(error))


def _parts(app: App) -> str:
    """What the supervisor has made processes for."""
    queues = sorted({task.queue for task in app.tasks.values()})
    consumers = sorted((it.name, it.queue, it.processes) for it in app.consumers.values())
    return repr((app.url, queues, sorted(app.producers), consumers, bool(app.schedules)))


def _file_of(module: object) -> str:
    return os.path.abspath(getattr(module, "__file__", None) or "") if getattr(module, "__file__", None) else ""


def _sources(folders: Iterable[str]) -> Iterable[str]:
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        yield from (os.path.join(folder, name) for name in names if name.endswith(".py"))
