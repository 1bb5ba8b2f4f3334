"""An archive of jobs that are over: rows go from a queue to a record file, and from there to a queue again.

A record is one row, as JSON::

    {"queue": "jobs/queues/default", "id": "0001-7", "state": "dead", "attempt": 3, "at": 1763715600.5, "error": "…",
     "value": {…}}

Order of the steps: the rows are written, the file is synced, and only then dead rows are dropped. Killed before the sync,
they are still dead; killed after it, they are in both places, and the next archiving drops them without writing them twice.
Rows that were done and are retained are copied: they expire by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import orjson

from pistributer import errors
from pistributer.queues.contract import Queue, Row
from pistributer.records import RecordReader, RecordWriter

from .finding import Found, Wanted, describe

#: Which rows are over: given up, or done and kept for `retention`.
Over = Literal["dead", "retained"]

#: Rows that are put back, and rows between two calls of `progress`, at a time.
_BATCH = 1000

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Archived:
    """What one call did."""

    #: Rows that were added to the archive.
    added: int
    #: Rows that were in it already.
    known: int
    #: Dead rows that were dropped from the queue.
    dropped: int


def archive(
    queue: Queue,
    path: str | os.PathLike[str],
    *,
    states: Sequence[Over] = ("dead",),
    keep: bool = False,
    compression: str | None = None,
    progress: Progress | None = None,
) -> Archived:
    """Append the rows that are over to the record file at `path`, durably, then drop the dead ones unless `keep` is set.

    A row that the file holds already is not added again. Raises FileInUse if another archiving is at it, NotARecordFile,
    and StorageErrors, on which nothing was dropped.
    """
    known = added = 0
    dead: list[str] = []
    with RecordWriter(path, compression, append=True) as writer:
        seen = _Seen(path, queue)
        for row in _over(queue, states):
            if seen.add(row):
                writer.write_record(orjson.dumps(_document(queue.url, row)))
                added += 1
            else:
                known += 1
            if row.state == "dead":
                dead.append(row.id)
            if progress is not None and (added + known) % _BATCH == 0:
                progress(added + known)
        writer.sync()
    dropped = queue.drop_dead(dead) if dead and not keep else 0
    return Archived(added, known, dropped)


def _over(queue: Queue, states: Sequence[Over]) -> Iterator[Row]:
    """The rows in these states, the dead first.

    A file queue retains segments, so it counts among the retained rows that wait or are dead as well; those are left out.
    """
    if "dead" in states:
        yield from queue.scan("dead")
    if "retained" in states:
        elsewhere = {row.id for row in queue.scan()}
        yield from (row for row in queue.scan("retained") if row.id not in elsewhere)


class _Seen:
    """Which rows are in the archive. Requeued and given up once more, a row is over once more; the time tells."""

    def __init__(self, path: str | os.PathLike[str], queue: Queue) -> None:
        self._queue = queue.url
        self._deaths = {(row["id"], row.get("at")) for row in self._archived(path) if row["state"] == "dead"}
        self._ids = {row["id"] for row in self._archived(path)}

    def _archived(self, path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
        return (row for row in read_archive(path) if row.get("queue") == self._queue)

    def add(self, row: Row) -> bool:
        """Whether the row is new here."""
        if row.state == "dead":
            new = (row.id, row.at) not in self._deaths
            self._deaths.add((row.id, row.at))
        else:
            new = row.id not in self._ids
        self._ids.add(row.id)
        return new


def replay(
    path: str | os.PathLike[str],
    queue: Queue,
    *,
    states: Sequence[Over] | None = None,
    wanted: Wanted | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> int:
    """Put the values of archived rows (all, or those of `states`, and of these the wanted ones) into `queue`, in order, as new
    rows; return how many. With `dry_run` they are only counted.

    The archive stays as it is, so a second replay puts them again, and one that was killed has put some of them: the rows
    of a queue say which. Raises what `RecordReader` and `Queue.put_many` do.
    """
    rows = (row for row in read_archive(path) if states is None or row["state"] in states)
    values = (row["value"] for row in rows if wanted is None or _describe(row) in wanted)
    done = 0
    while batch := list(islice(values, _BATCH)):
        done += len(batch) if dry_run else queue.put_many(batch)
        if progress is not None:
            progress(done)
    return done


def _describe(row: dict[str, Any]) -> Found:
    return describe(
        str(row.get("queue", "")),
        Row(row["id"], row["state"], row["value"], row.get("attempt", 0), error=row.get("error"), at=row.get("at")),
    )


def read_archive(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The archived rows, oldest first. NotARecordFile or RecordError for a file that is no archive."""
    with RecordReader(path) as reader:
        for number, record in enumerate(reader):
            try:
                row = orjson.loads(memoryview(record))
                if not isinstance(row, dict) or not {"id", "state", "value"} <= row.keys():
                    raise ValueError("it is not a row of a queue")
            except ValueError as error:
                raise errors.RecordError(
                    f"record {number:,} of {os.fspath(path)!r} is no archived row: {error}",
                    hint="give a file that `queue archive` wrote",
                    path=os.fspath(path),
                ) from error
            yield row


def _document(url: str, row: Row) -> dict[str, Any]:
    found = {"queue": url, "id": row.id, "state": row.state, "attempt": row.attempt, "at": row.at, "error": row.error}
    return {**found, "value": row.value}
