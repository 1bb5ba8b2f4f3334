"""The app of a chaos run, and the ledger that its processes keep beside the queues.

Each process appends to a file of its own, `ledger/ROLE-PID-NANOSECONDS`, one `write` per line, so that a killed process
leaves all lines that it has written. The lines::

    put P N        row N of producer P is in the queue (written after the put returned)
    begin P N K    attempt K at that row begins
    end P N K      … and has ended
    left           the process leaves in good order; a killed one has no such line
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..app import App
from ..hooks import Hook, Run
from ..tasks import Task

#: Rows that may wait before producers wait.
_BACKLOG = 500
#: A job takes up to so many seconds.
_LONGEST = 0.004
#: Nobody ends in the dead letters: a row that is killed again and again is to be done all the same.
_ENDLESS = 1_000_000


def ledger_folder(folder: Path) -> Path:
    return folder / "ledger"


def enough(folder: Path) -> Path:
    """The file that tells the producers to come to an end."""
    return folder / "enough"


class Notes(Hook):
    """This process's file of the ledger."""

    def __init__(self, folder: Path) -> None:
        self._folder = ledger_folder(folder)
        self._file: IO[bytes] | None = None
        #: Of the run that is about to begin.
        self.attempt = 0

    def on_start(self, role: str) -> None:
        name = f"{role.replace(' ', '_')}-{os.getpid()}-{time.time_ns()}"
        self._file = (self._folder / name).open("ab", buffering=0)

    def on_stop(self, role: str) -> None:
        self.write("left")

    def before_run(self, run: Run) -> None:
        self.attempt = run.attempt

    def write(self, line: str) -> None:
        assert self._file is not None, "on_start comes first"
        self._file.write(line.encode() + b"\n")


def make_app(folder: Path, url: str, producers: int) -> App:
    """The app at `url`: endless producers, and one task."""
    app, notes = App(url, max_rows=_BACKLOG), Notes(folder)
    app.add_hook(notes)

    @app.task(results=False, crash_retries=_ENDLESS)
    def work(producer: int, number: int) -> None:
        row = f"{producer} {number} {notes.attempt}"
        notes.write(f"begin {row}")
        time.sleep(random.random() * _LONGEST)
        notes.write(f"end {row}")

    for index in range(producers):
        app.producer(name=f"producer-{index}")(_numbers(folder, index, work, notes))
    return app


def _numbers(folder: Path, index: int, work: Task[..., Any], notes: Notes) -> Callable[[Any], Iterator[Any]]:
    stop = enough(folder)

    def numbers(checkpoint: int | None) -> Iterator[Any]:
        for number in itertools.count(checkpoint or 0):
            if stop.exists():
                return
            yield work.call(index, number), number + 1
            notes.write(f"put {index} {number}")

    return numbers
