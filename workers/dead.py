"""Dead letters as a person looks for them: by task, by error, by the job's id or the row's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pistributer.queues.contract import Queue, Row

from .history import Death, row_id


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
    #: When it was given up, seconds since the epoch, where the driver knows.
    at: float | None
    value: Any
    #: How a worker died that ran it, the last time that one did.
    death: Death | None = None

    @property
    def reason(self) -> str:
        """The last line of `error`, which names what was raised."""
        return self.error.strip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: those to which everything applies that is given."""

    #: Ids of jobs or rows.
    ids: Collection[str] = ()
    task: str | None = None
    #: Words that stand in the error.
    error: str | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id in self.ids or letter.job in self.ids)
            and self.task in (None, letter.task)
            and (self.error is None or self.error in letter.error)
        )


def find_dead(
    queue: Queue, name: str, wanted: Wanted, deaths: Mapping[str, Death] | None = None
) -> Iterator[DeadLetter]:
    """The dead letters of `queue`, which the app calls `name`, that are wanted, oldest first.

    deaths  those that the app's history knows of (`history.last_deaths`)
    """
    for row in queue.scan("dead"):
        letter = _letter(name, row, deaths or {})
        if letter in wanted:
            yield letter


def _letter(name: str, row: Row, deaths: Mapping[str, Death]) -> DeadLetter:
    message = row.value if isinstance(row.value, dict) and isinstance(row.value.get("task"), str) else {}
    job = message.get("id")
    return DeadLetter(
        name, row.id, job, message.get("task"), row.attempt, row.error or "", row.at, row.value,
        deaths.get(job or row_id(name, row.id)),
    )  # fmt: skip
