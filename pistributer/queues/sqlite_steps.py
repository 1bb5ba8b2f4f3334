"""Steps inside a transaction of the sqlite driver: rows in, out and elsewhere. Functions of an open connection only."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from sqlite3 import Connection

from . import sqlite_schema as sql

#: place, id or None, attempts so far, row
Taken = tuple[int, str | None, int, bytes]
#: first place of a range, and its rows
Range = tuple[int, list[Taken]]
#: For each row, its `place` and its `upto`.
Places = tuple[range, list[int]]


def name(place: int) -> str:
    """The id of a row that still is where it was put first."""
    return str(place) if place > 0 else f"d{-place}"


# -- putting


def put_at_back(connection: Connection, rows: list[bytes]) -> None:
    places, uptos = places_at_back(connection, [len(row) + 1 for row in rows])
    connection.executemany(sql.PUT_AT, zip(places, uptos, rows, strict=True))


def put_delayed(connection: Connection, rows: list[bytes], due: float) -> None:
    places, uptos = places_delayed(connection, [len(row) + 1 for row in rows], due)
    connection.executemany(sql.PUT_AT, zip(places, uptos, rows, strict=True))


def places_at_back(connection: Connection, sizes: list[int]) -> Places:
    """Where rows of these sizes go; the caller puts them there in the same transaction."""
    place, upto = connection.execute(sql.BACK).fetchone()
    return range(place + 1, place + 1 + len(sizes)), list(accumulate(sizes, initial=upto))[1:]


def places_delayed(connection: Connection, sizes: list[int], due: float) -> Places:
    """The same for rows that are to fall due: places that no row has ever had."""
    connection.execute(sql.TAKE_LOWEST, (len(sizes),))
    ((lowest,),) = connection.execute(sql.LOWEST)
    places = range(lowest + len(sizes) - 1, lowest - 1, -1)
    connection.executemany(sql.DELAY, [(place, due, size) for place, size in zip(places, sizes, strict=True)])
    return places, [0] * len(sizes)


def fitting(connection: Connection, rows: list[bytes], max_rows: int | None, max_bytes: int | None) -> int:
    """How many of `rows` fit now. A row longer than the whole limit fits an empty queue."""
    waiting_rows, waiting_bytes = waiting(connection)
    count = len(rows)
    if max_rows is not None:
        count = min(count, max(0, max_rows - waiting_rows))
    if max_bytes is None:
        return count
    for index in range(count):
        waiting_bytes += len(rows[index]) + 1
        if waiting_bytes > max_bytes and (index or waiting_rows):
            return index
    return count


def waiting(connection: Connection) -> tuple[int, int]:
    """Rows and bytes that wait: ready, given back, delayed."""
    rows, size = connection.execute(sql.WAITING).fetchone()
    given_back_rows, given_back_size = connection.execute(sql.GIVEN_BACK_WAITING).fetchone()
    return rows + given_back_rows, size + given_back_size


# -- claiming


def take(connection: Connection, owner: int, n: int, started: int, now: float) -> list[Range]:
    """Up to `n` rows for `owner`: what was given back first, then what is due, then the head of the queue."""
    ranges = _take_given_back(connection, owner, n, started)
    n -= sum(len(rows) for _, rows in ranges)
    if n:
        due = _take_due(connection, owner, n, started, now)
        ranges += due
        n -= len(due)
    if n:
        ranges += _take_ready(connection, owner, n, started)
    return ranges


def _take_given_back(connection: Connection, owner: int, n: int, started: int) -> list[Range]:
    ranges: list[Range] = []
    while n and (found := connection.execute(sql.GIVEN_BACK).fetchone()):
        first, last = found
        rows: list[Taken] = connection.execute(sql.IN_RANGE, (first, last, n)).fetchall()
        # Fewer than asked for: that was all of the range.
        end = rows[-1][0] if len(rows) == n else last
        if end < last:
            connection.execute(sql.SHORTEN_GIVEN_BACK, (first, end + 1))
        else:
            connection.execute(sql.DROP_CLAIM, (sql.NOBODY, first))
        if rows:
            connection.execute(sql.CLAIM, (owner, first, end, started))
            ranges.append((first, rows))
        n -= len(rows)
    return ranges


def _take_due(connection: Connection, owner: int, n: int, started: int, now: float) -> list[Range]:
    places = [place for (place,) in connection.execute(sql.DUE, (now, n))]
    connection.executemany(sql.UNDELAY, [(place,) for place in places])
    connection.executemany(sql.CLAIM, [(owner, place, place, started) for place in places])
    return [(place, connection.execute(sql.IN_RANGE, (place, place, 1)).fetchall()) for place in places]


def _take_ready(connection: Connection, owner: int, n: int, started: int) -> list[Range]:
    rows = connection.execute(sql.READY, (n,)).fetchall()
    if not rows:
        return []
    first, (last, *_, upto) = rows[0][0], rows[-1]
    connection.execute(sql.CLAIM, (owner, first, last, started))
    connection.execute(sql.ADVANCE, (last, upto))
    return [(first, [row[:4] for row in rows])]


# -- settling


def delete(connection: Connection, places: Iterable[int]) -> None:
    connection.executemany(sql.DELETE_RANGE, _runs(places))


def _runs(places: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive places as (first, last): a batch that was claimed together is deleted in one statement."""
    runs: list[tuple[int, int]] = []
    first = last = None
    for place in sorted(places):
        if last is not None and place == last + 1:
            last = place
            continue
        if first is not None and last is not None:
            runs.append((first, last))
        first = last = place
    if first is not None and last is not None:
        runs.append((first, last))
    return runs


# -- dead letters and purging


def dead_ids(connection: Connection, ids: Iterable[str] | None) -> list[str]:
    return [id for (id,) in connection.execute(sql.DEAD_IDS)] if ids is None else list(dict.fromkeys(ids))


def requeue(connection: Connection, ids: list[str]) -> int:
    """Dead rows to the back of the queue, without attempts; how many there were."""
    place, upto = connection.execute(sql.BACK).fetchone()
    requeued = 0
    for id in ids:
        found = connection.execute(sql.DEAD_SIZE, (id,)).fetchone()
        if found is not None:
            requeued, upto = requeued + 1, upto + found[0]
            connection.execute(sql.REQUEUE, (place + requeued, upto, id))
            connection.execute(sql.DROP_DEAD, (id,))
    return requeued


def purge(connection: Connection) -> int:
    """Delete what waits; return how many rows that were."""
    count, _ = waiting(connection)
    ((head,),) = connection.execute(sql.HEAD)
    connection.execute(sql.ADVANCE, connection.execute(sql.BACK).fetchone())
    for statement in (sql.PURGE_GIVEN_BACK, sql.DROP_GIVEN_BACK, sql.PURGE_DELAYED, sql.DROP_DELAYED):
        connection.execute(statement)
    connection.execute(sql.PURGE_READY, (head,))
    return count
