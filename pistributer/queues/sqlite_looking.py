"""Looking at a sqlite queue without a lock and without disturbing anybody: counts and scans."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..storage.sqlite_db import Database
from . import sqlite_schema as sql
from .contract import Row, State, Stats
from .rows import JSON
from .sqlite_owners import Owners
from .sqlite_steps import name

#: Rows read at a time; no statement stays open in between, which would hold up checkpoints.
_PAGE = 500
_LOWEST_INTEGER = -(2**63)


def stats(database: Database, owners: Owners) -> Stats:
    with database.snapshot() as connection:
        ready, ready_bytes, delayed, dead, quarantined = connection.execute(sql.COUNTS).fetchone()
        due, due_bytes = connection.execute(sql.IS_DUE, (time.time(),)).fetchone()
        held = connection.execute(sql.HELD).fetchall()
        known = connection.execute(sql.ALL_OWNERS).fetchall()
    living = owners.living(known)
    ready, ready_bytes, claimed = ready + due, ready_bytes + due_bytes, 0
    for owner, rows, size in held:
        if owner in living:
            claimed += rows
        else:
            ready, ready_bytes = ready + rows, ready_bytes + size
    return Stats(ready, claimed, delayed - due, dead, quarantined, ready_bytes)


def scan(database: Database, owners: Owners, state: State, retention: float | None) -> Iterator[Row]:
    for statement, third in _statements(database, owners, state, retention):
        yield from _rows(database, state, statement, third)


def _statements(
    database: Database, owners: Owners, state: State, retention: float | None
) -> Iterator[tuple[str, float]]:
    """What reads the rows in `state`: statements, each with its third parameter."""
    if state in ("ready", "claimed"):
        known = database.read(sql.ALL_OWNERS)
        living = owners.living(known)
        left = [sql.NOBODY, *(owner for owner, _ in known if owner not in living)]
        for owner in left if state == "ready" else sorted(living):
            yield sql.SCAN_HELD, owner
    if state == "ready":
        yield sql.SCAN_DUE, time.time()
        yield sql.SCAN_READY, 0
    elif state == "delayed":
        yield sql.SCAN_DELAYED, time.time()
    elif state == "dead":
        yield sql.SCAN_DEAD, 0
    elif state == "retained":
        yield sql.SCAN_RETAINED, time.time() - retention if retention else 0.0


def _rows(database: Database, state: State, statement: str, third: float) -> Iterator[Row]:
    last = _LOWEST_INTEGER
    while page := database.read(statement, (last, _PAGE, third)):
        for last, id, attempt, row, due, error, at in page:
            try:
                value = JSON.decode(row)
            except ValueError:
                continue  # the claim that meets it sets it aside
            yield Row(id or name(last), state, value, attempt, due if state == "delayed" else None, error, at)
