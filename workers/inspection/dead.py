"""Dead letters as a person looks for them: what `finding` finds, with the cause of death."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pistributer.queues.contract import Queue

from ..history import Death, row_id
from .finding import Found, Wanted, find

#: How the worker's words about a job that killed its workers begin, before the cause (execution/worker.py).
_CAUSE = re.compile(r"; the last time the worker (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job, or a row, that was given up."""

    #: The name of its queue.
    queue: str
    #: Of the row in its queue.
    id: str
    #: Of the job, and the name of its task; None for a row that is no task message.
    job: str | None
    task: str | None
    attempts: int
    #: What was raised, with its traceback, or how the worker died.
    error: str
    #: How the worker died that ran it last, if that is why it was given up: "was killed by SIGKILL".
    cause: str | None
    #: When it was given up, seconds since the epoch, where the driver knows.
    at: float | None
    value: Any
    #: How a worker died that ran it, the last time that one did.
    death: Death | None = None

    @property
    def reason(self) -> str:
        """The last line of `error`, which names what was raised."""
        return self.error.strip().rpartition("\n")[2]


def find_dead(
    queue: Queue, name: str, wanted: Wanted, deaths: Mapping[str, Death] | None = None
) -> Iterator[DeadLetter]:
    """The dead letters of `queue`, which the app calls `name`, that are wanted, oldest first.

    deaths  those that the app's history knows of (`history.last_deaths`)
    """
    return (letter_of(row, deaths or {}) for row in find(queue, name, wanted, "dead"))


def letter_of(row: Found, deaths: Mapping[str, Death]) -> DeadLetter:
    """A dead row as a letter."""
    cause = _CAUSE.search(row.error)
    return DeadLetter(
        row.queue, row.id, row.job, row.task, row.attempts, row.error, cause and cause[1], row.at, row.value,
        deaths.get(row.job or row_id(row.queue, row.id)),
    )  # fmt: skip
