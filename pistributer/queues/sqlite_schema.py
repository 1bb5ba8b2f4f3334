"""What lies in a sqlite queue's database, and every statement that touches it.

All rows that are not finished lie in one table, ordered by `place`. Rows behind the head's place are ready, in order;
those before it are claimed. A claim is a *range* of places, one row in `claims`, so that taking 256 rows writes three
small rows and copies nothing; settled rows leave the range by being deleted or moved. A row with a history (a retry, a
delay) has a place unlike its id, and then carries its id.

Refused: a state column with partial indexes (a put, a claim and an ack then change seven b-trees a row instead of two,
and counting what waits for `max_rows` takes time in proportion to it), and AUTOINCREMENT for places (it writes a second
page per put, +60 %; the head's place does the same job, because it never moves back).

Negative places belong to rows that are or were delayed: they are out of the order, and are claimed by name.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

import orjson

from .. import errors

FORMAT: Final = 1
#: "PiSQ", in the header of the file (PRAGMA application_id), where file(1) finds it too.
APPLICATION_ID: Final = 0x50695351
#: Owner of a claim whose owner closed or died.
NOBODY: Final = 0

_SCHEMA: Final = (
    # `upto`: bytes of all rows that were ever put at the back, up to this one. The difference of two says what waits.
    """CREATE TABLE rows (
        place INTEGER PRIMARY KEY, upto INTEGER NOT NULL DEFAULT 0, row TEXT NOT NULL,
        id TEXT, attempt INTEGER NOT NULL DEFAULT 0, error TEXT)""",
    # One row: the last place that was claimed and its `upto`, the lowest place of any delayed row, sums of `delayed`.
    """CREATE TABLE head (
        place INTEGER NOT NULL, upto INTEGER NOT NULL, lowest INTEGER NOT NULL,
        delayed_rows INTEGER NOT NULL, delayed_bytes INTEGER NOT NULL)""",
    "INSERT INTO head VALUES (0, 0, 0, 0, 0)",
    # The back of the queue: the last place that was given, and its `upto`.
    """CREATE VIEW back AS
        SELECT max(head.place, coalesce(tail.place, 0)) AS place, max(head.upto, coalesce(tail.upto, 0)) AS upto
        FROM head LEFT JOIN (SELECT place, upto FROM rows ORDER BY place DESC LIMIT 1) AS tail""",
    # Rows in places `first` to `last` are held by `owner`; `started`: one more attempt of each than its row says.
    """CREATE TABLE claims (
        owner INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, started INTEGER NOT NULL,
        PRIMARY KEY (owner, first)) WITHOUT ROWID""",
    # `number` names the lock file. An id is never used again, which makes it the fence.
    "CREATE TABLE owners (id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL)",
    "CREATE TABLE delayed (place INTEGER PRIMARY KEY, due REAL NOT NULL, size INTEGER NOT NULL)",
    "CREATE INDEX delayed_due ON delayed (due, place DESC)",
    """CREATE TRIGGER delayed_more AFTER INSERT ON delayed BEGIN
        UPDATE head SET delayed_rows = delayed_rows + 1, delayed_bytes = delayed_bytes + NEW.size; END""",
    """CREATE TRIGGER delayed_less AFTER DELETE ON delayed BEGIN
        UPDATE head SET delayed_rows = delayed_rows - 1, delayed_bytes = delayed_bytes - OLD.size; END""",
    """CREATE TABLE dead (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, attempt INTEGER NOT NULL, row TEXT NOT NULL,
        error TEXT, at REAL NOT NULL)""",
    """CREATE TABLE retained (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, attempt INTEGER NOT NULL, row TEXT NOT NULL, at REAL NOT NULL)""",
    "CREATE INDEX retained_at ON retained (at)",
    """CREATE TABLE quarantine (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, row BLOB, reason TEXT NOT NULL, at REAL NOT NULL)""",
    "CREATE TABLE sources (name TEXT PRIMARY KEY, checkpoint TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

# -- putting

#: The whole of `put`. ?1: the row; ?2: its bytes with a newline, which the file drivers count too.
PUT: Final = """INSERT INTO rows (place, upto, row) VALUES (
    max(coalesce((SELECT max(place) FROM rows), 0), (SELECT place FROM head)) + 1,
    max(coalesce((SELECT upto FROM rows ORDER BY place DESC LIMIT 1), 0), (SELECT upto FROM head)) + ?2,
    CAST(?1 AS TEXT))"""
PUT_AT: Final = "INSERT INTO rows (place, upto, row) VALUES (?, ?, CAST(? AS TEXT))"
BACK: Final = "SELECT place, upto FROM back"
HEAD: Final = "SELECT place FROM head"
#: Rows and bytes that wait, but for what was given back.
WAITING: Final = """SELECT back.place - head.place + delayed_rows, back.upto - head.upto + delayed_bytes
    FROM head, back"""
#: Rows and bytes that were given back.
GIVEN_BACK_WAITING: Final = f"""SELECT count(*), coalesce(sum(length(CAST(row AS BLOB)) + 1), 0)
    FROM claims CROSS JOIN rows ON place BETWEEN first AND last WHERE owner = {NOBODY}"""
SOURCES: Final = "SELECT name, checkpoint FROM sources ORDER BY name"
CHECKPOINT: Final = "SELECT checkpoint FROM sources WHERE name = ?"
#: checkpoint, name
SET_CHECKPOINT: Final = "INSERT OR REPLACE INTO sources (checkpoint, name) VALUES (CAST(? AS TEXT), ?)"
#: ?1: how many places.
TAKE_LOWEST: Final = "UPDATE head SET lowest = lowest - ?"
LOWEST: Final = "SELECT lowest FROM head"
DELAY: Final = "INSERT INTO delayed (place, due, size) VALUES (?, ?, ?)"

# -- claiming

#: Whether a claim is worth a transaction. ?1: now.
MAY_HAVE_ROWS: Final = f"""SELECT EXISTS (SELECT 1 FROM rows WHERE place > (SELECT place FROM head))
    OR EXISTS (SELECT 1 FROM claims WHERE owner = {NOBODY}) OR EXISTS (SELECT 1 FROM delayed WHERE due <= ?)"""
NEXT_DUE: Final = "SELECT min(due) FROM delayed"
_FIELDS: Final = "place, id, attempt, CAST(row AS BLOB)"
READY: Final = f"""SELECT {_FIELDS}, upto FROM rows WHERE place > (SELECT place FROM head) ORDER BY place LIMIT ?"""
IN_RANGE: Final = f"SELECT {_FIELDS} FROM rows WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?"
GIVEN_BACK: Final = f"SELECT first, last FROM claims WHERE owner = {NOBODY} ORDER BY first LIMIT 1"
SHORTEN_GIVEN_BACK: Final = f"UPDATE claims SET first = ?2 WHERE owner = {NOBODY} AND first = ?1"
DROP_CLAIM: Final = "DELETE FROM claims WHERE owner = ? AND first = ?"
DUE: Final = "SELECT place FROM delayed WHERE due <= ? ORDER BY due, place DESC LIMIT ?"
UNDELAY: Final = "DELETE FROM delayed WHERE place = ?"
#: owner, first, last, started
CLAIM: Final = "INSERT INTO claims VALUES (?, ?, ?, ?)"
ADVANCE: Final = "UPDATE head SET place = ?, upto = ?"
START: Final = "UPDATE rows SET attempt = attempt + 1 WHERE place = ?"
STILL_OWNER: Final = "SELECT 1 FROM owners WHERE id = ?"

# -- settling

DELETE_RANGE: Final = "DELETE FROM rows WHERE place BETWEEN ? AND ?"
#: place to be, upto, id, attempts to add, error, place now
MOVE: Final = """UPDATE rows SET place = ?, upto = ?, id = ?, attempt = max(0, attempt + ?), error = ?
    WHERE place = ?"""
#: id, attempts to add, at, place
RETAIN: Final = "INSERT INTO retained (id, attempt, row, at) SELECT ?, attempt + ?, row, ? FROM rows WHERE place = ?"
EXPIRE: Final = "DELETE FROM retained WHERE at < ?"
#: id, attempts to add, error, at, place
BURY: Final = """INSERT INTO dead (id, attempt, row, error, at)
    SELECT ?, attempt + ?, row, ?, ? FROM rows WHERE place = ?"""
QUARANTINE: Final = "INSERT INTO quarantine (id, row, reason, at) VALUES (?, ?, ?, ?)"

# -- owners

NEW_OWNER: Final = "INSERT INTO owners (number) VALUES (?)"
OWNERS_OF_NUMBER: Final = "SELECT id FROM owners WHERE number = ?"
OWNERS_WITH_CLAIMS: Final = "SELECT id, number FROM owners WHERE EXISTS (SELECT 1 FROM claims WHERE owner = owners.id)"
COUNT_STARTED: Final = """UPDATE rows SET attempt = attempt + 1 WHERE place IN (
    SELECT rows.place FROM claims CROSS JOIN rows ON rows.place BETWEEN first AND last WHERE owner = ? AND started)"""
DROP_EMPTY_CLAIMS: Final = """DELETE FROM claims
    WHERE owner = ? AND NOT EXISTS (SELECT 1 FROM rows WHERE place BETWEEN first AND last)"""
GIVE_BACK: Final = f"UPDATE claims SET owner = {NOBODY}, started = 0 WHERE owner = ?"
DROP_OWNER: Final = "DELETE FROM owners WHERE id = ?"

# -- dead letters

DEAD_IDS: Final = "SELECT id FROM dead ORDER BY number"
#: place, upto, id
REQUEUE: Final = "INSERT INTO rows (place, upto, row, id) SELECT ?, ?, row, id FROM dead WHERE id = ?"
DEAD_SIZE: Final = "SELECT length(CAST(row AS BLOB)) + 1 FROM dead WHERE id = ?"
DROP_DEAD: Final = "DELETE FROM dead WHERE id = ?"

# -- looking

#: Rows and bytes per owner.
HELD: Final = """SELECT owner, count(*), sum(length(CAST(row AS BLOB)) + 1)
    FROM claims CROSS JOIN rows ON place BETWEEN first AND last GROUP BY owner"""
IS_DUE: Final = "SELECT count(*), coalesce(sum(size), 0) FROM delayed WHERE due <= ?"
COUNTS: Final = """SELECT back.place - head.place, back.upto - head.upto, delayed_rows,
    (SELECT count(*) FROM dead), (SELECT count(*) FROM quarantine) FROM head, back"""
ALL_OWNERS: Final = "SELECT id, number FROM owners"
#: place, id, attempt, row, due, error, at; ?1: the last place or number seen, ?2: how many, ?3: owner or now
SCAN_HELD: Final = """SELECT place, id, attempt + started, CAST(row AS BLOB), NULL, error, NULL
    FROM claims CROSS JOIN rows ON place BETWEEN first AND last
    WHERE owner = ?3 AND place > ?1 ORDER BY place LIMIT ?2"""
SCAN_READY: Final = """SELECT place, id, attempt, CAST(row AS BLOB), NULL, error, NULL FROM rows
    WHERE place > max(?1, (SELECT place FROM head)) AND ?3 IS NOT NULL ORDER BY place LIMIT ?2"""
SCAN_DUE: Final = """SELECT place, id, attempt, CAST(row AS BLOB), due, error, NULL
    FROM delayed JOIN rows USING (place) WHERE place > ?1 AND due <= ?3 ORDER BY place LIMIT ?2"""
SCAN_DELAYED: Final = SCAN_DUE.replace("<=", ">")
SCAN_DEAD: Final = """SELECT number, id, attempt, CAST(row AS BLOB), NULL, error, at FROM dead
    WHERE number > ?1 AND ?3 IS NOT NULL ORDER BY number LIMIT ?2"""
SCAN_RETAINED: Final = """SELECT number, id, attempt, CAST(row AS BLOB), NULL, NULL, at FROM retained
    WHERE number > ?1 AND at >= ?3 ORDER BY number LIMIT ?2"""

# -- purging

PURGE_GIVEN_BACK: Final = f"""DELETE FROM rows WHERE place IN (
    SELECT rows.place FROM claims CROSS JOIN rows ON rows.place BETWEEN first AND last WHERE owner = {NOBODY})"""
DROP_GIVEN_BACK: Final = f"DELETE FROM claims WHERE owner = {NOBODY}"
PURGE_DELAYED: Final = "DELETE FROM rows WHERE place IN (SELECT place FROM delayed)"
DROP_DELAYED: Final = "DELETE FROM delayed"
PURGE_READY: Final = "DELETE FROM rows WHERE place > ?"


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables in a new file; FormatError for a file that this release may not open."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application == APPLICATION_ID:
        _check_version(version, path)
        return
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if application or version or tables:
        _refuse_foreign(tables, path)
    for statement in _SCHEMA:
        connection.execute(statement)


def _check_version(version: int, path: str) -> None:
    if version > FORMAT:
        raise errors.NewerFormat(
            f"{path!r} has format {version}, and this release knows up to {FORMAT}",
            hint="upgrade pistributer",
            path=path,
            found=version,
            known=FORMAT,
        )


def _refuse_foreign(tables: list[str], path: str) -> None:
    classic = "pistributer_queue" in tables
    raise errors.NotAQueue(
        f"{path!r} is {'a classic channel' if classic else 'a database of another program'}, not a queue",
        hint="open it with PistributerSqlite(path)" if classic else "give the queue a file of its own",
        path=path,
    )


def refuse_folder(path: str) -> None:
    """FormatError if a folder lies at `path`: a queue of the file drivers, or something else."""
    if not os.path.isdir(path):
        return
    try:
        with open(os.path.join(path, "pistributer.json"), "rb") as file:
            driver = str(orjson.loads(file.read())["driver"])
    except (OSError, ValueError, KeyError, TypeError):
        raise errors.NotAQueue(
            f"{path!r} is a folder, and a sqlite queue is a file", hint="name the file, for example jobs.db", path=path
        ) from None
    raise errors.DriverMismatch(
        f"{path!r} is a {driver} queue, not sqlite",
        hint=f"open it as '{driver}:{path}'",
        path=path,
        found=driver,
        asked="sqlite",
    )
