"""An app with jobs that need tickets, and a worker without a supervisor: a process that dies where a test wants it to."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from pistributer import App
from pistributer.workers.execution import loop
from pistributer.workers.execution.calling import Caller
from pistributer.workers.execution.lanes import Lanes
from pistributer.workers.execution.worker import Logs, TaskLoop
from pistributer.workers.pools import Pool
from pistributer.workers.progress import Reports
from pistributer.workers.supervision import board
from pistributer.workers.supervision.board import Desk
from pistributer.workers.supervision.pages import Page


class _Leash:
    """As much of a supervised child as a loop needs: it stops when its queue is empty."""

    jobs_left = None
    role, index, jobs_left = "worker default", 0, None

    def __init__(self) -> None:
        self.stopped = False

    def stop_requested(self) -> bool:
        return self.stopped


def work(app: App, *, until: Callable[[], bool] = lambda: True, ready_only: bool = False) -> None:
    """Run the jobs of the app's default queue in this process, until it is empty and `until()` is true.

    `ready_only`: delayed rows do not count.
    """
    os.makedirs(app.home.run, exist_ok=True)
    path = os.path.join(app.home.run, f"board-{os.getpid()}")
    board.create(path, 1)
    logs = Logs(app, Reports(Page(f"{path}.0", fresh=True)))
    leash, before = _Leash(), signal.getsignal(signal.SIGURG)

    class Loop(TaskLoop):
        def idle(self) -> None:
            super().idle()
            app.gate.sweep()
            left = next(app.queue().scan("ready", *(() if ready_only else ("delayed",))), None)
            leash.stopped = left is None and not app.gate.held() and until()

    worker = Loop(leash, app, Lanes(app, Pool("default")), Desk(path, 0), Caller(), logs)  # type: ignore[arg-type]
    try:
        with mock.patch.object(loop, "WAIT", 0.002):
            worker.run()
        worker.idle()
    finally:
        signal.signal(signal.SIGURG, before)
        logs.close()


def tickets(app: App) -> list[tuple[Any, ...]]:
    """(job, state, copy) of every ticket, in order."""
    if not os.path.exists(app.gate.tickets.path):
        return []
    with closing(sqlite3.connect(app.gate.tickets.path)) as connection:
        return connection.execute("SELECT job, state, copy FROM tickets ORDER BY n").fetchall()


def note(folder: Path, name: str, text: str) -> None:
    """Add a line, in one write, so that a line of a killed process is whole or not there."""
    with open(folder / name, "a", buffering=1) as file:
        file.write(f"{text}\n")
