"""The tickets: one SQLite file per app that says which job may go where, whatever driver the queues use.

A job with a key, a uniqueness or an idempotency id, and one that follows from another, is a ticket here before it is a row
of its queue. It is an outbox with admission:

1. One transaction checks (is there room for this key? is an equal job pending? was this id seen?) and inserts the ticket,
   which holds the whole message.
2. The message is put into its queue, with the ticket's copy number in it.
3. A second transaction marks the ticket as put.

Killed before 1 is committed, nothing was sent. Between 1 and 3, the ticket is `OUT`: a sweep (sweep.py), each second and at
the start of a run, raises the copy number and puts the message again. Whether the first put had happened does not matter:
a worker asks for the ticket before it begins, and only the copy that the ticket names is begun. The other one is dropped
when it comes by. So a job is admitted exactly once.

The end is the same thing the other way round:

4. The result is in the log (results.py).
5. One transaction turns the ticket into a stub (`DONE` or `DEAD`), admits whoever waited for this end (the next job of the
   key, the next of the chain, the callback of the chord), and so makes them `OUT`.
6. Those are put and marked, as in 2 and 3.
7. The row is acknowledged, or buried. Then the stub is deleted.

Killed before 5 is committed, the job runs again, as any job of a killed worker: at least once. Between 5 and 7 the row comes
back, finds the stub, and is acknowledged or buried without running again; whoever was admitted is put by the sweep. So what
follows is sent exactly once, however often it runs.

A row without a ticket is new here: a producer yielded it, somebody sent it by the task's name, or it was a dead letter that
is tried again. Its worker admits it when it claims it: at once, or it parks it and acknowledges the row.

A file that lags behind its queues after a power cut holds tickets whose row is gone, or rows whose ticket is gone. The
second are new rows, as above. The first are found by the sweep when their queue has no row left, and put again.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json

from ..home import split_lane

if TYPE_CHECKING:
    import sqlite3

    from pistributer.storage.sqlite_db import Database

FORMAT: Final = 1
#: "PiGt", in the header of the file (PRAGMA application_id).
APPLICATION_ID: Final = 0x50694774

#: States of a ticket: it waits for its key; to be put; a row of its queue; begun at least once. Of a stub: its row is to
#: be acknowledged; to be buried; is settled, but an older copy may still come by.
PARKED, OUT, PUT, BEGUN, DONE, DEAD, OVER = range(7)
#: Seconds after which a stub goes whose row was never seen again.
STUB_AGE = 7 * 86400.0

_SCHEMA: Final = (
    # `n` is the order of sending. `copy`: which put of the message counts; 0: one that was made without a ticket.
    # `stray`: whether an older copy may be around. `equal`: what no other pending job may have. `off`: why nobody wants it
    # any more.
    """CREATE TABLE tickets (
        n INTEGER PRIMARY KEY, job TEXT NOT NULL UNIQUE, queue TEXT NOT NULL, state INTEGER NOT NULL,
        copy INTEGER NOT NULL, stray INTEGER NOT NULL, due REAL NOT NULL, key TEXT, key_limit INTEGER NOT NULL,
        equal TEXT, off TEXT, message TEXT, error TEXT, at REAL NOT NULL)""",
    "CREATE INDEX by_state ON tickets (state, queue)",
    "CREATE INDEX by_key ON tickets (key, state, n) WHERE key IS NOT NULL",
    "CREATE UNIQUE INDEX pending ON tickets (equal) WHERE equal IS NOT NULL",
    """CREATE TABLE ids (
        task TEXT NOT NULL, id TEXT NOT NULL, job TEXT NOT NULL, queue TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (task, id)) WITHOUT ROWID""",
    "CREATE INDEX ids_at ON ids (at)",
    # `missing` members have not ended well yet; `callback` is a message; `failed`: when a member failed for good.
    """CREATE TABLE chords (
        id TEXT PRIMARY KEY, missing INTEGER NOT NULL, job TEXT NOT NULL, queue TEXT NOT NULL, callback TEXT NOT NULL,
        failed REAL) WITHOUT ROWID""",
    "CREATE INDEX chords_job ON chords (job)",
    """CREATE TABLE parts (
        chord TEXT NOT NULL, place INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (chord, place)) WITHOUT ROWID""",
    # Rate limits (rates.py): times at which jobs of a task were begun, times that are promised to waiting ones.
    """CREATE TABLE rates (
        task TEXT NOT NULL, slot INTEGER NOT NULL, begun REAL NOT NULL, planned REAL NOT NULL,
        PRIMARY KEY (task, slot)) WITHOUT ROWID""",
    """CREATE TABLE pace (
        task TEXT PRIMARY KEY, size INTEGER NOT NULL, per REAL NOT NULL, begun INTEGER NOT NULL,
        planned INTEGER NOT NULL, tat REAL NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE promised (job TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

INSERT: Final = """INSERT INTO tickets (job, queue, state, copy, stray, due, key, key_limit, equal, message, at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
FIND: Final = "SELECT n, state, copy, key, off, error FROM tickets WHERE job = ?"
#: Jobs of the key that are in a queue, or will be in a moment; the parked are not.
ACTIVE: Final = f"SELECT count(*) FROM tickets WHERE key = ? AND state BETWEEN {OUT} AND {BEGUN}"
NEXT: Final = f"""SELECT n, key_limit FROM tickets WHERE key = ? AND state = {PARKED} ORDER BY n LIMIT 1"""
#: The same, and whether one is parked.
ROOM: Final = f"SELECT ({ACTIVE}), EXISTS (SELECT 1 FROM tickets WHERE key = ? AND state = {PARKED})"
RELEASE: Final = f"""UPDATE tickets SET state = {OUT}, copy = copy + 1 WHERE n = ?
    RETURNING job, queue, copy, due, message"""
MARK: Final = f"UPDATE tickets SET state = {PUT} WHERE job = ? AND copy = ? AND state = {OUT}"
#: The stub of an older life of this job, whose row has come back: a dead letter is tried again, an archive replayed.
FORGET: Final = "DELETE FROM tickets WHERE n = ?"
BEGIN: Final = f"UPDATE tickets SET state = {BEGUN}, equal = NULL WHERE n = ?"
END: Final = f"""UPDATE tickets SET state = ?, error = ?, message = NULL, equal = NULL, at = ?
    WHERE job = ? AND copy = ? AND state = {BEGUN}"""
#: The row is settled: nothing is left to be said about it, or that older copies are to be dropped.
DROP_STUB: Final = f"DELETE FROM tickets WHERE job = ? AND state IN ({DONE}, {DEAD}) AND NOT stray"
KEEP_STUB: Final = f"UPDATE tickets SET state = {OVER} WHERE job = ? AND state IN ({DONE}, {DEAD})"
#: A job was parked by whoever had claimed its row, and that row is acknowledged now.
NO_STRAY: Final = f"UPDATE tickets SET stray = 0 WHERE job = ? AND copy = ? AND state = {PARKED}"
DROP_OLD_STUBS: Final = f"DELETE FROM tickets WHERE state IN ({DONE}, {DEAD}, {OVER}) AND at < ?"

#: Rate limits that nobody has used for so long that whatever they counted is out of their window.
_DROP_OLD_PACE: Final = """DELETE FROM pace WHERE ? - per >
    (SELECT ifnull(max(max(begun, planned)), 0) FROM rates WHERE rates.task = pace.task)"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message that is to be put into its queue, and the copy of its ticket that it is."""

    job: str
    queue: str
    copy: int
    #: Not before then, seconds since the epoch; 0: at once.
    due: float
    message: dict[str, Any]

    def stamped(self) -> dict[str, Any]:
        """The message as it is put."""
        return {**self.message, "ticket": self.copy}


class Tickets:
    """The file of one app, opened on first use. Threads may share it.

    durable  whether a power cut may not take the last transactions along
    """

    def __init__(self, folder: str, *, durable: bool = False) -> None:
        self.path = os.path.join(folder, "tickets.db")
        self._durable = durable
        self._database: Database | None = None
        self._opening = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether this object has the file open."""
        return self._database is not None

    def exists(self) -> bool:
        """Whether there is anything to look at: most apps never make the file."""
        return self.is_open or os.path.exists(self.path)

    @property
    def database(self) -> Database:
        """The database, made if it is not there. The app's folder must exist."""
        return self._database or self._open()

    def _open(self) -> Database:
        from pistributer.storage.sqlite_db import Database  # here, because most apps never need SQLite

        with self._opening:
            if self._database is None:
                self._database = Database(self.path, prepare=_prepare, durable=self._durable)
            return self._database

    def close(self) -> None:
        """Let go of the file; it opens again on next use."""
        with self._opening:
            if self._database is not None:
                self._database.close()
                self._database = None


def count_held(tickets: Tickets) -> dict[str, int]:
    """By queue, the jobs that were sent and are in no queue yet."""
    held: dict[str, int] = {}
    sql = f"SELECT queue, count(*) FROM tickets WHERE state IN ({PARKED}, {OUT}) GROUP BY queue"
    for lane, count in tickets.database.read(sql):
        queue = split_lane(lane)[0]
        held[queue] = held.get(queue, 0) + count
    return held


def forget(tickets: Tickets, queue: str) -> int:
    """Give up the jobs of a queue, and of its lanes, that have not begun; how many of them were held.

    Whoever purges the queue calls this first: a row without a ticket is a new one, a ticket without a row is put again.
    """
    lanes = "(queue = ? OR queue GLOB ? || '@[1-9]')"
    with tickets.database.transaction() as connection:
        gone = connection.execute(
            f"DELETE FROM tickets WHERE state IN ({PARKED}, {OUT}, {PUT}) AND {lanes} RETURNING state", (queue, queue)
        ).fetchall()
        # Whatever is purged has its times planned; those who stay are planned anew when they come back.
        connection.execute("DELETE FROM promised")
        connection.execute("UPDATE rates SET planned = begun")
        connection.execute("UPDATE pace SET planned = begun, tat = 0.0")
    return sum(state != PUT for (state,) in gone)


def forget_old(tickets: Tickets) -> None:
    """Delete what nobody will ask for any more, by its age."""
    horizon = time.time() - STUB_AGE
    with tickets.database.transaction() as connection:
        connection.execute(DROP_OLD_STUBS, (horizon,))
        connection.execute("DELETE FROM parts WHERE chord IN (SELECT id FROM chords WHERE failed < ?)", (horizon,))
        connection.execute("DELETE FROM chords WHERE failed < ?", (horizon,))
        connection.execute("DELETE FROM promised WHERE at < ?", (horizon,))
        connection.execute(_DROP_OLD_PACE, (horizon,))
        connection.execute("DELETE FROM rates WHERE task NOT IN (SELECT task FROM pace)")


def _prepare(connection: sqlite3.Connection) -> None:
    [(application,)] = connection.execute("PRAGMA application_id").fetchall()
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if not tables:
        for statement in _SCHEMA:
            connection.execute(statement)
    elif application != APPLICATION_ID:
        raise errors.FormatError("this database holds no tickets of an app", hint="move it out of the app's folder")
    elif version > FORMAT:
        raise errors.NewerFormat(
            f"the tickets have format {version}; this release knows {FORMAT}", hint="upgrade pistributer"
        )


# -- steps of a transaction; each takes its connection


def add(
    connection: sqlite3.Connection, parcel: Parcel, state: int, now: float, *,
    key: str | None = None, key_limit: int = 1, equal: str | None = None, stray: bool = False,
) -> None:  # fmt: skip
    """Insert a ticket for the parcel. Raises RowError for a message that JSON can not hold."""
    text = encode_json(parcel.message)[:-1].decode()
    row = (parcel.job, parcel.queue, state, parcel.copy, stray, parcel.due, key, key_limit, equal, text, now)
    connection.execute(INSERT, row)


def has_room(connection: sqlite3.Connection, key: str | None, limit: int) -> bool:
    """Whether a job of this key may go into its queue now. One that is sent later never overtakes a parked one."""
    if key is None:
        return True
    [(active, is_parked)] = connection.execute(ROOM, (key, key)).fetchall()
    return active < limit and not is_parked


def release(connection: sqlite3.Connection, key: str | None) -> list[Parcel]:
    """Let go of as many parked jobs of the key, the oldest first, as there is room for."""
    released: list[Parcel] = []
    if key is None:
        return released
    [(active,)] = connection.execute(ACTIVE, (key,)).fetchall()
    while (found := connection.execute(NEXT, (key,)).fetchone()) is not None and active < found[1]:
        released.append(take_out(connection, found[0]))
        active += 1
    return released


def take_back(connection: sqlite3.Connection, parcel: Parcel, state: int, key: str | None) -> None:
    """Forget that a job was admitted, as if it had not been sent; whoever waited for it may go on."""
    gone = "DELETE FROM tickets WHERE job = ? AND copy = ? AND state = ?"
    if connection.execute(gone, (parcel.job, parcel.copy, state)).rowcount:
        connection.execute("DELETE FROM ids WHERE job = ?", (parcel.job,))
        release(connection, key)  # put by the next sweep


def take_out(connection: sqlite3.Connection, n: int) -> Parcel:
    """Make the ticket `n` one that is to be put, as a new copy."""
    [(job, queue, copy, due, message)] = connection.execute(RELEASE, (n,)).fetchall()
    return Parcel(job, queue, copy, due, orjson.loads(message))
