"""Rows as a person looks for them: by id, task, tag, error, time, or by what stands in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pistributer.queues.contract import Queue, Row, State
from pistributer.queues.rows import encode_json

from ..home import split_lane

if TYPE_CHECKING:
    from ..app import App

#: A row that is over: the state, and how `requeue` brings it back.
OVER: tuple[State, ...] = ("dead", "retained")
#: Rows that are put back at a time.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """A row of a queue, and what it says if it is a call of a task."""

    #: The name of its queue.
    queue: str
    #: Of the row in its queue.
    id: str
    #: "held": it is in no queue, because it waits for others of its key.
    state: State | Literal["held"]
    #: Of the job, and the name of its task; None for a row that is no task message.
    job: str | None
    task: str | None
    tags: tuple[str, ...]
    attempts: int
    #: When a delayed row falls due, seconds since the epoch.
    due: float | None
    #: What was raised, with its traceback, or how the worker died.
    error: str
    #: When it was given up or done, seconds since the epoch, where the driver knows.
    at: float | None
    value: Any

    @property
    def raw(self) -> str:
        """As it lies on disk: text, or compact JSON."""
        return self.value if isinstance(self.value, str) else encode_json(self.value).decode().rstrip("\n")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows are meant: those to which everything applies that is given."""

    #: Ids of jobs or rows.
    ids: Collection[str] = ()
    task: str | None = None
    tag: str | None = None
    #: What is found in the error, and in the row.
    error: re.Pattern[str] | None = None
    pattern: re.Pattern[str] | None = None
    #: Not over before then, seconds since the epoch. A row of unknown time is not wanted, unless `undated` is set.
    since: float | None = None
    undated: bool = False

    @property
    def is_everything(self) -> bool:
        return self == Wanted(undated=self.undated)

    def __contains__(self, row: Found) -> bool:
        return (
            (not self.ids or row.id in self.ids or row.job in self.ids)
            and self.task in (None, row.task)
            and (self.tag is None or self.tag in row.tags)
            and self._in_time(row)
            and (self.error is None or self.error.search(row.error) is not None)
            and (self.pattern is None or self.pattern.search(row.raw) is not None)
        )

    def _in_time(self, row: Found) -> bool:
        return self.since is None or (self.undated if row.at is None else row.at >= self.since)


class Undated:
    """`wanted`, counting what is left out only because nobody knows its time."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._whenever = replace(wanted, undated=True)
        self.count = 0

    def __contains__(self, row: Found) -> bool:
        if row in self._wanted:
            return True
        self.count += row.at is None and row in self._whenever
        return False


def find(queue: Queue, name: str, wanted: Wanted | Undated, *states: State) -> Iterator[Found]:
    """The rows of `queue`, which the app calls `name`, that are wanted, in the order in which `Queue.scan` gives them.

    A row that waits or is dead is not shown as retained too: a file queue retains segments, not rows.
    """
    elsewhere: set[str] = set()
    if "retained" in states:
        elsewhere = {row.id for row in queue.scan()}
    for row in queue.scan(*states):
        if row.state != "retained" or row.id not in elsewhere:
            found = describe(name, row)
            if found in wanted:
                yield found


def find_held(app: App, name: str, wanted: Wanted | Undated) -> Iterator[Found]:
    """The jobs for the queue `name` that wait for others of their key, if they are wanted."""
    for lane, due, message in app.gate.parked_rows():
        if split_lane(lane)[0] == name:
            row = Row(message["id"], "ready", message, 0, due=due or None)
            found = replace(describe(name, row), state="held")
            if found in wanted:
                yield found


def describe(name: str, row: Row) -> Found:
    """`row` of the queue `name`, read as a call of a task if it is one."""
    is_call = isinstance(row.value, dict) and isinstance(row.value.get("task"), str)
    message = row.value if is_call else {}
    tags = message.get("tags", ())
    return Found(
        name, row.id, row.state, message.get("id"), message.get("task"),
        tuple(map(str, tags)) if isinstance(tags, list) else (), row.attempt, row.due, row.error or "", row.at, row.value,
    )  # fmt: skip


def requeue(queue: Queue, rows: Iterable[Found]) -> int:
    """Put rows that are over back into `queue`, with no attempts; how many.

    Dead ones leave the dead letters in the same step. Retained ones are put as new ones, because they are done: a second
    call puts them again.
    """
    count = 0
    batch: list[Found] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            count += _requeue(queue, batch)
            batch.clear()
    return count + _requeue(queue, batch)


def _requeue(queue: Queue, rows: list[Found]) -> int:
    dead = [row.id for row in rows if row.state == "dead"]
    done = [row.value for row in rows if row.state != "dead"]
    return (queue.requeue_dead(dead) if dead else 0) + (queue.put_many(done) if done else 0)
