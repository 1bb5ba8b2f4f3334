"""Rate limits: at most so many jobs of a task begin in any span of so many seconds, over all workers of an app.

Two things are kept for each task, in the tickets' file:

* When its last `count` jobs began: a ring of times. A job begins only if the oldest of these is `per` seconds old. This is
  the promise, and it holds whatever else goes wrong: a time is committed before its job begins, so a worker that is killed
  in between has used up a place for nothing, and never one too many is begun.
* For when the next ones are planned, so that each waiting job is put off once, to a time of its own, and comes back to find
  room: the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A), with the ring as its second
  bound. A job that comes back too late to fit is planned once more.

Plans are a hundredth of `per` wider (at most 20 ms) than they had to be, which takes up the time that it takes a worker to
come back to a job; so a long line moves up to 1 % slower than the limit allows.

A limit that is given at sending counts by itself: the jobs of a task that were sent with equal limits share one, and neither
count for the task's own nor wait for it. Refused: to count them for both, because a limit that changes from job to job has no
window of which anything could be promised.

The clock is that of the machine (time.time), because a limit of a thousand an hour must hold over a reboot. Not promised:
what happens to a window in which somebody sets it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..hooks import Hook, Run

if TYPE_CHECKING:
    import sqlite3

    from ..app import App

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHORT = re.compile(r"(\d+)/([smhd])")
#: More than this would make the ring a burden; say 1000/s instead of 60000/m.
_MOST = 100_000
#: How much wider than `per` plans are, as a part of it and in seconds.
_MARGIN, _MOST_MARGIN = 0.01, 0.02
#: A job that finds no room, and would in so small a part of `per`, keeps its place in the line.
_SOON = 0.25


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` jobs begin in any `per` seconds.

    burst   how many of these may begin at the same moment, 1 to `count`; the others are spread evenly. All, unless given.

    `"10/s"`, `"100/m"`, `"5000/h"` and `"9/d"` say the same without a burst.
    """

    count: int
    per: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.count <= _MOST:
            raise ValueError(f"the count of a rate limit is 1 to {_MOST:,}, not {self.count!r}")
        if not 0 < self.per < float("inf"):
            raise ValueError(f"per must be positive, a number of seconds, not {self.per!r}")
        if self.burst is not None and not 1 <= self.burst <= self.count:
            raise ValueError(f"burst is 1 to {self.count}, the count of the limit, not {self.burst!r}")


class RateLimits(Hook):
    """Puts off the jobs of a task that would be too many."""

    def __init__(self, app: App, limit: RateLimit, rated: str) -> None:
        """`rated` is whose begins are counted: a task's name, or those that were sent with this limit (terms.py)."""
        self._app = app
        self._limit = limit
        self._rated = rated

    def on_claim(self, run: Run) -> None:
        with self._app.gate.tickets.database.transaction() as connection:
            wait = begin(connection, self._rated, self._limit, run.job_id, self._app.now())
        if wait:
            run.postpone(wait)


def read_rate(given: RateLimit | str | None) -> RateLimit | None:
    """A rate limit as a user may write it. ValueError for what is none."""
    if given is None or isinstance(given, RateLimit):
        return given
    match = _SHORT.fullmatch(given)
    if match is None:
        raise ValueError(f"a rate limit is a RateLimit or a text such as '10/s', '100/m' or '5000/h', not {given!r}")
    return RateLimit(int(match[1]), _UNITS[match[2]])


def begin(connection: sqlite3.Connection, task: str, limit: RateLimit, job: str, now: float) -> float:
    """0.0: the job may begin at `now`, and is counted. Else so many seconds until it should ask again."""
    begun = _state(connection, task, limit)[0]
    free_at = _time(connection, "begun", task, begun % limit.count) + limit.per
    [promised] = connection.execute("SELECT at FROM promised WHERE job = ?", (job,)).fetchone() or (None,)
    if promised is None:
        promised = _plan(connection, task, limit, max(now, free_at))
    elif promised <= now < free_at:
        soon = free_at - now <= limit.per * _SOON
        promised = free_at if soon else _plan(connection, task, limit, free_at)
    if promised > now:
        connection.execute("INSERT OR REPLACE INTO promised VALUES (?, ?)", (job, promised))
        return float(promised - now)
    _set_time(connection, "begun", task, begun % limit.count, now)
    connection.execute("UPDATE pace SET begun = begun + 1 WHERE task = ?", (task,))
    connection.execute("DELETE FROM promised WHERE job = ?", (job,))
    return 0.0


def _plan(connection: sqlite3.Connection, task: str, limit: RateLimit, earliest: float) -> float:
    """The next time that is free, not before `earliest`."""
    _, planned, tat = _state(connection, task, limit)
    wide = limit.per + min(limit.per * _MARGIN, _MOST_MARGIN)
    increment = wide / limit.count
    slot = planned % limit.count
    # A microsecond less, which is more than these sums are off by.
    after_burst = tat - ((limit.burst or limit.count) - 1) * increment - 1e-6
    at = max(earliest, _time(connection, "planned", task, slot) + wide, after_burst)
    _set_time(connection, "planned", task, slot, at)
    update = "UPDATE pace SET planned = planned + 1, tat = ? WHERE task = ?"
    connection.execute(update, (max(tat, at) + increment, task))
    return at


def _state(connection: sqlite3.Connection, task: str, limit: RateLimit) -> tuple[int, int, float]:
    """How many have begun and were planned, each by its place in its ring, and the theoretical arrival time."""
    found = connection.execute("SELECT size, per, begun, planned, tat FROM pace WHERE task = ?", (task,)).fetchone()
    if found is not None and found[:2] == (limit.count, limit.per):
        return found[2], found[3], found[4]
    # New, or the limit was changed: the last times go on in rings of the new size, and plans are made anew.
    last = connection.execute(
        "SELECT begun FROM rates WHERE task = ? AND begun > 0 ORDER BY begun DESC LIMIT ?", (task, limit.count)
    ).fetchall()
    connection.execute("DELETE FROM rates WHERE task = ?", (task,))
    rows = [(task, slot, at, at) for slot, (at,) in enumerate(reversed(last))]
    connection.executemany("INSERT INTO rates (task, slot, begun, planned) VALUES (?, ?, ?, ?)", rows)
    pace = (task, limit.count, limit.per, len(rows), len(rows))
    connection.execute("INSERT OR REPLACE INTO pace VALUES (?, ?, ?, ?, ?, 0.0)", pace)
    return len(rows), len(rows), 0.0


def _time(connection: sqlite3.Connection, what: str, task: str, slot: int) -> float:
    found = connection.execute(f"SELECT {what} FROM rates WHERE task = ? AND slot = ?", (task, slot)).fetchone()
    return float(found[0]) if found is not None else float("-inf")


def _set_time(connection: sqlite3.Connection, what: str, task: str, slot: int, at: float) -> None:
    connection.execute("INSERT OR IGNORE INTO rates VALUES (?, ?, 0.0, 0.0)", (task, slot))
    connection.execute(f"UPDATE rates SET {what} = ? WHERE task = ? AND slot = ?", (at, task, slot))
