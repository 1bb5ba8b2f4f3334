"""Calling jobs off: `run/cancelled` in the app's folder, one job's id a line.

Whoever cancels adds a line. A worker looks at the file's size before each batch of jobs, and ends those that are named
without running them. A job that runs already is interrupted: the supervisor finds its id on the board and signals the
worker (SIGURG, which does nothing to a process that does not wait for it), which raises `Cancel` inside the task.

The supervisor forgets the ids of jobs that have ended when it starts. Killed while it does: the file is replaced as a whole,
so the old one or the new one stands; a line that was added meanwhile is not lost, because both hold the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from pistributer.storage.appending import append_once
from pistributer.storage.locks import Flock
from pistributer.storage.replacing import replace_file

from .roles import NEWS

#: Tells a worker that its job may have been called off.
INTERRUPT = NEWS


def call_off(folder: str, job: str) -> None:
    """Note that nobody wants the job any more."""
    with _lock(folder):
        append_once(_path(folder), job.encode() + b"\n")


def forget_all_but(folder: str, jobs: Iterable[str]) -> None:
    """Keep only the notes about these jobs."""
    if not os.path.exists(_path(folder)):
        return
    with _lock(folder):
        noted = _read(_path(folder))
        if noted:  # only then is it worth finding out which jobs there are
            kept = sorted(set(jobs).intersection(noted.decode().split()))
            replace_file(_path(folder), "".join(f"{job}\n" for job in kept).encode(), durable=False)


class CalledOff:
    """The ids of cancelled jobs, as far as one process has read them."""

    def __init__(self, folder: str) -> None:
        self._path = _path(folder)
        self._seen: tuple[int, int] | None = None
        self._jobs: frozenset[str] = frozenset()

    def read(self) -> frozenset[str]:
        """All of them; a look at the file's size unless that has changed."""
        try:
            state = os.stat(self._path)
        except FileNotFoundError:
            return self._jobs
        if self._seen != (state.st_ino, state.st_size):
            self._seen = state.st_ino, state.st_size
            self._jobs = frozenset(_read(self._path).decode().split())
        return self._jobs


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def _path(folder: str) -> str:
    return os.path.join(folder, "cancelled")


def _lock(folder: str) -> Flock:
    return Flock(os.path.join(folder, "cancelled.lock"))
