"""Copying the rows of one queue into another, of any driver, so that a copy that is killed can be gone on with.

1. What is to be copied is written to a plan, a record file beside the new queue: a head, the rows, and an end with the plan's
   name, a digest of where the rows are from and of their ids.
2. The rows of the plan are put into the new queue through a source (`Queue.source`), each together with the checkpoint
   `[name of the plan, how many rows of it are in]`.
3. The plan is deleted.

Killed in 1: the plan has no end, and the next copy makes a new one; nothing was put. Killed in 2: the next copy finds the
plan whole and goes on behind its checkpoint, whether or not the rows that are in have been consumed meanwhile. Killed in or
after 3: the next copy makes the same plan, because the old queue is still, and finds it carried out to its end.

A delayed row can not be put through a source. It is put between two commits of the checkpoint, `[name, n, "doing"]` and
`[name, n + 1]`. Whether it got in when the copy was killed between the two, the delayed rows of the new queue tell. If that
one row fell due and was taken before the copy was started again, it comes twice: that is the only row that may.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.contract import Queue, Source, State
from pistributer.queues.opening import split_url
from pistributer.records import RecordReader, RecordWriter

from ..messages import new_id

#: Of the source in the new queue.
SOURCE = "copy"
#: Rows that are put at a time.
_BATCH = 1000
#: A row is the one that was put if it falls due within so many seconds of the time that was planned.
_SAME_TIME = 0.5

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What one copy did."""

    #: Rows that are in the new queue now, those of an earlier try included.
    rows: int
    #: Of these, how many an earlier try, which was interrupted, had put.
    before: int


def copy_queue(
    queue: Queue,
    to: Queue,
    *,
    states: Sequence[State] = ("ready", "delayed"),
    again: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Put the rows of `queue` that are in these states into `to`, in order; `queue` stays as it is.

    Each comes once, even if copying is killed at any moment and started again with the same two queues. It is then the plan
    of the first try that is carried out. Nothing happens if the last copy into `to` was of the same rows, unless `again` is
    set. Delayed rows keep their time; dead and retained ones are to be done again.

    `queue` must be still meanwhile: a row that moves while the plan is made may be missed. Raises RowError for a row that
    the driver of `to` can not hold, SourceBusy while another copy into `to` runs, and what `Queue.put` does; then go on later.
    """
    if to.driver == "memory":
        raise ValueError("what is copied into memory can not be gone on with")
    with to.source(SOURCE) as source:
        path = plan_path(to)
        plan = _find_end(path) or _write_plan(path, queue, states, new_id() if again else "")
        done = _carry_out(path, plan, queue, to, source, progress)
        os.unlink(path)
        return done


def plan_path(to: Queue) -> str:
    """Where the plan of a copy into `to` lies while it is under way."""
    return f"{os.path.abspath(split_url(to.url)[1])}.copying"


def is_under_way(to: Queue) -> bool:
    """Whether a copy into `to` was begun and has not ended."""
    return _find_end(plan_path(to)) is not None


# -- the plan


def _write_plan(path: str, queue: Queue, states: Sequence[State], salt: str) -> str:
    """Write it down, durably, and return its name."""
    seen: set[str] = set()
    name = hashlib.sha256(f"{queue.url}\n{salt}\n".encode())
    with RecordWriter(path) as writer:
        writer.write_record(orjson.dumps({"from": queue.url}))
        for row in queue.scan(*states):
            if row.id not in seen:  # one that moved meanwhile comes twice
                seen.add(row.id)
                name.update(f"{row.id}\n".encode())
                writer.write_record(orjson.dumps({"value": row.value, "due": row.due}))
        plan = name.hexdigest()[:24]
        writer.write_record(orjson.dumps({"plan": plan}))
        writer.sync()
    return plan


def _find_end(path: str) -> str | None:
    """The name of the plan at `path`; None if there is none, or no whole one."""
    if not os.path.exists(path):
        return None
    try:
        last = deque(_read(path), maxlen=1)
    except errors.RecordError:
        return None  # cut off by the kill
    return last[0].get("plan") if last else None


def _read(path: str) -> Iterator[dict[str, Any]]:
    with RecordReader(path) as reader:
        for record in reader:
            yield orjson.loads(memoryview(record))


# -- carrying it out


def _carry_out(path: str, plan: str, queue: Queue, to: Queue, source: Source, progress: Progress | None) -> Copied:
    records = _read(path)
    head = next(records)
    if head["from"] != queue.url:
        raise errors.QueueError(
            f"a copy of {head['from']} into {to.url} was begun and has not ended",
            hint=f"start that one again, or delete {path!r} to leave it as it is",
        )
    before, doubtful = _position(source, plan)
    copy = _Copy(to, source, plan, before, progress)
    rows = (record for record in islice(records, before, None) if "value" in record)
    if doubtful:
        copy.put_again(next(rows), earlier=islice(_read(path), 1, before + 1))
    for is_delayed, group in groupby(rows, lambda row: row["due"] is not None and row["due"] > time.time()):
        put = copy.put_delayed if is_delayed else copy.put
        put(group)
    return Copied(copy.done, before)


class _Copy:
    def __init__(self, to: Queue, source: Source, plan: str, done: int, progress: Progress | None) -> None:
        self._to, self._source, self._plan, self._progress = to, source, plan, progress
        self.done = done

    def put(self, rows: Iterator[dict[str, Any]]) -> None:
        while batch := list(islice(rows, _BATCH)):
            self._source.put_many((row["value"], [self._plan, self.done + n]) for n, row in enumerate(batch, 1))
            self.done += len(batch)
            self._tell()

    def put_delayed(self, rows: Iterator[dict[str, Any]]) -> None:
        for row in rows:
            self._source.commit([self._plan, self.done, "doing"])
            self._to.put(row["value"], delay=max(0.0, row["due"] - time.time()))
            self._did()

    def put_again(self, row: dict[str, Any], *, earlier: Iterable[dict[str, Any]]) -> None:
        """Put a delayed row unless it is there: there are more of its kind than were put before it, then."""
        there = sum(_are_same(row, {"value": it.value, "due": it.due}) for it in self._to.scan("delayed"))
        if there > sum(_are_same(row, it) for it in earlier):
            self._did()
        else:
            self.put_delayed(iter([row]))

    def _did(self) -> None:
        self.done += 1
        self._source.commit([self._plan, self.done])
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.done)


def _are_same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    due = other["due"]
    return bool(other["value"] == row["value"]) and due is not None and abs(due - row["due"]) < _SAME_TIME


def _position(source: Source, plan: str) -> tuple[int, bool]:
    """How many rows of the plan are in, and whether the next one may be, too."""
    match source.checkpoint:
        case [found, int(done), *doing] if found == plan:
            return done, bool(doing)
        case _:
            return 0, False
