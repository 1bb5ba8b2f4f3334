"""A real pool for a test: a supervisor in a process of its own, with real workers, in a temporary folder.

    the test ── `python -m pistributer.testing` ── fork server ── workers

The supervisor's process leads a session, in which everything that it starts stays. That is how what is left at the end is
found and killed, however a test ends; a child that left the session on purpose (a daemon) is not found.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from pistributer.workers.app import App
from pistributer.workers.home import Home
from pistributer.workers.inspection.status import AppStatus, WorkerStatus, read_status
from pistributer.workers.loading import source_of
from pistributer.workers.stand_in import REDIRECT

#: Seconds that starting and stopping may take on a busy machine, and between two looks.
_PATIENCE, _PAUSE = 60.0, 0.01
#: How long helpers of a supervisor that has ended may take to notice, in seconds.
_MOMENT = 5.0


class Pool:
    """A running pool. `pool(app)` makes it."""

    def __init__(self, app: App, process: subprocess.Popen[bytes], log: str) -> None:
        self.app = app
        #: The supervisor's.
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What the supervisor and its workers have written to stdout and stderr."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def status(self) -> AppStatus:
        """As `pistributer status` shows it."""
        return read_status(self.app.url)

    def workers(self) -> list[WorkerStatus]:
        """The processes that are alive; `role`, `pid` and `job` say which is which."""
        return [worker for worker in self.status().workers if worker.alive]

    def wait_until_empty(self, timeout: float = _PATIENCE) -> None:
        """Until nothing is ready, running or delayed in any queue. TimeoutError after `timeout` seconds."""
        self.wait_for(self._is_empty, timeout)

    def wait_for(self, condition: Callable[[], Any], timeout: float = _PATIENCE) -> None:
        """Until `condition()` is true. TimeoutError after `timeout` seconds, RuntimeError if the pool has ended."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(f"the pool ended with {self.process.returncode}; it wrote:\n{self.log}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout:g} s in vain; the pool wrote:\n{self.log}")
            time.sleep(_PAUSE)

    def stop(self, timeout: float = _PATIENCE) -> int:
        """TERM: let running jobs finish, and the supervisor end. Its exit code; TimeoutError after `timeout` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the pool has not ended {timeout:g} s after TERM; it wrote:\n{self.log}") from None

    def _is_empty(self) -> bool:
        counts = [queue.stats for queue in self.status().queues]
        return not any(it.ready or it.claimed or it.delayed for it in counts)

    def _is_up(self) -> bool:
        status = self.status()
        return status.running and bool(status.workers) and all(worker.alive for worker in status.workers)


@contextlib.contextmanager
def pool(
    app: App, *, processes: int = 1, timeout: float = _PATIENCE, grace: float | None = 10.0, **options: Any
) -> Iterator[Pool]:
    """Run `app` with real workers until the end of the block, in a temporary folder that the app has moved to meanwhile.

    processes  workers for each queue of tasks
    timeout    seconds that the start, and the end, may take
    options    as for `pistributer.run`

    The app is a global variable of a module that other processes can import. At the end the pool is asked to stop as TERM
    does. Whatever process it leaves behind is killed, and AssertionError says which; RuntimeError if it could not start.
    Results go to the temporary folder too, unless the app keeps them in a dictionary.
    """
    source, home, results = source_of(app), app.home, app.result_store
    with tempfile.TemporaryDirectory(prefix="pistributer-pool-", ignore_cleanup_errors=True) as folder:
        there = Home(f"{home.driver}:{os.path.join(folder, 'app')}")
        started = _start(source, app, there, os.path.join(folder, "log"), processes=processes, grace=grace, **options)
        app.move(there, results)
        running = Pool(app, started, os.path.join(folder, "log"))
        try:
            app.home.create()
            running.wait_for(running._is_up, timeout)
            yield running
            running.stop(timeout)
        finally:
            left = _end(started)
            app.move(home, results)
        assert not left, f"processes that the pool left behind, now killed: {left}"


def _start(source: str, app: App, there: Home, log: str, **options: Any) -> subprocess.Popen[bytes]:
    told = json.dumps({"source": source, "path": sys.path, "options": options})
    environment = {**os.environ, REDIRECT: json.dumps({app.made_for: there.url})}
    # A file, not a pipe: nobody reads while the test runs, and workers may outlive the supervisor.
    with open(log, "wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pistributer.testing", told],
            env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> list[str]:
    """Kill what is left of the pool, and say what it was. Children of multiprocessing need a moment to see the end."""
    deadline = time.monotonic() + (_MOMENT if process.poll() is not None else 0.0)
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    described = [_describe(it) for it in left]
    while left:
        for it in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                it.kill()
        process.poll()
        left = _session(process.pid)
    process.wait()
    return described


def _session(leader: int) -> list[psutil.Process]:
    found = []
    for it in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(it.pid) == leader and it.status() != psutil.STATUS_ZOMBIE:
                found.append(it)
    return found


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)
