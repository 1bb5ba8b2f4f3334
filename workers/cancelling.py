"""Calling jobs off: `run/cancelled` in the app's folder (job_notes.py).

Whoever cancels adds a line. A worker looks at the file's size before each batch of jobs, and ends those that are named
without running them. A job that runs already is interrupted: the supervisor finds its id on the board and signals the
worker (SIGURG, which does nothing to a process that does not wait for it), which raises `Cancel` inside the task.
"""

from __future__ import annotations

from collections.abc import Iterable

from .job_notes import JobNotes
from .supervision.roles import NEWS

#: Tells a worker that its job may have been called off.
INTERRUPT = NEWS
#: What is said of a job that never began.
CALLED_OFF = "called off before it ran"


def call_off(folder: str, *jobs: str) -> None:
    """Note that nobody wants these jobs any more, in one write."""
    _notes(folder).add(*jobs)


def forget_all_but(folder: str, jobs: Iterable[str]) -> None:
    """Keep only the notes about these jobs."""
    _notes(folder).forget_all_but(jobs)


class CalledOff:
    """The ids of cancelled jobs, as far as one process has read them."""

    def __init__(self, folder: str) -> None:
        self._notes = _notes(folder)
        self._read: object = None
        self._jobs: frozenset[str] = frozenset()

    def read(self) -> frozenset[str]:
        """All of them; a look at the file's size unless that has changed."""
        found = self._notes.read()
        if found is not self._read:
            self._read, self._jobs = found, frozenset(found)
        return self._jobs


def _notes(folder: str) -> JobNotes:
    return JobNotes(folder, "cancelled")
