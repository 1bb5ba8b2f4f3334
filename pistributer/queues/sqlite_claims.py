"""The consumer's side of a sqlite queue: what this object holds, and where it goes when it is settled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from sqlite3 import Connection
from typing import Any

from ..storage.sqlite_db import Database
from . import sqlite_schema as sql
from . import sqlite_steps as steps
from .contract import Item
from .rows import JSON
from .sqlite_owners import Owners

#: Seconds between two deletions of retained rows that have expired.
_EXPIRE_EVERY = 1.0

#: What to do with held items, by place, in a transaction.
Apply = Callable[[Connection, dict[int, Item]], object]
#: What else to do when the owner with this id has so many rows acknowledged, in the same transaction.
Also = Callable[[Connection, int, int], object]


class _Claim:
    """A range of places that this object holds."""

    __slots__ = ("first", "left", "started")

    def __init__(self, first: int, started: int, left: int) -> None:
        self.first = first
        #: 1 if the attempt was counted for the range, 0 if `start` counts it for each row.
        self.started = started
        #: Rows not settled yet; with the last one the range goes.
        self.left = left


class Claims:
    """The claims of one queue object. Not thread-safe: the queue's claim lock stands in front.

    A token is (owner id, place). The pair is the fence: an owner's id is never used again, and a row gets another place
    whenever it comes back to an owner that lives.
    """

    def __init__(self, database: Database, owners: Owners, retention: float | None) -> None:
        self._database = database
        self._owners = owners
        self._retention = retention
        self._next_expiry = 0.0
        #: What this object holds, by place.
        self._held: dict[int, _Claim] = {}

    def claim(self, n: int, started: int) -> list[Item]:
        owner = self._owners.take()
        with self._database.transaction() as connection:
            ranges = steps.take(connection, owner, n, started, time.time())
        return self._hand_out_all(owner, ranges, started)

    def exchange(self, done: list[Item], also: Also) -> list[Item]:
        """Acknowledge `done`, do `also`, and claim the next row, in one transaction."""
        owner = self._owners.take()
        held, _ = self._split(done)
        with self._database.transaction() as connection:
            if held and connection.execute(sql.STILL_OWNER, (owner,)).fetchone() is not None:
                self.ack(connection, held)
                also(connection, owner, len(held))
                self._drop_finished(connection, held)
            ranges = steps.take(connection, owner, 1, 1, time.time())
        self._forget(held)
        return self._hand_out_all(owner, ranges, 1)

    def _hand_out_all(self, owner: int, ranges: list[steps.Range], started: int) -> list[Item]:
        return [item for first, rows in ranges for item in self._hand_out(owner, first, rows, started)]

    def _hand_out(self, owner: int, first: int, rows: list[steps.Taken], started: int) -> list[Item]:
        self._held.update(dict.fromkeys([row[0] for row in rows], _Claim(first, started, len(rows))))
        try:
            values = JSON.decode_many([row[3] for row in rows])
        except ValueError:
            rows, values = self._set_damaged_aside(rows)
        return [
            Item(id or steps.name(place), value, row, attempt + started, (owner, place))
            for (place, id, attempt, row), value in zip(rows, values, strict=True)
        ]

    def _set_damaged_aside(self, rows: list[steps.Taken]) -> tuple[list[steps.Taken], list[Any]]:
        """To the quarantine with rows that are not JSON: somebody else has written to the database."""
        good: list[steps.Taken] = []
        values: list[Any] = []
        bad: dict[int, tuple[str, bytes, str, float]] = {}
        for taken in rows:
            place, id, _, row = taken
            try:
                values.append(JSON.decode(row))
                good.append(taken)
            except ValueError as error:
                bad[place] = (id or steps.name(place), row, str(error), time.time())
        with self._database.transaction() as connection:
            connection.executemany(sql.QUARANTINE, list(bad.values()))
            steps.delete(connection, bad)
            self._drop_finished(connection, bad)
        self._forget(bad)
        return good, values

    def start(self, item: Item) -> bool:
        """Count an attempt; False if the item is not held."""
        if not self._is_held(item):
            return False
        self._database.write(sql.START, (item.token[1],))
        item.attempt += 1
        return True

    # -- settling

    def settle(self, given: list[Item], apply: Apply) -> list[Item]:
        """In one transaction, `apply` what was decided to those that are held and forget them. Returns the others."""
        held, lost = self._split(given)
        return given if held and not self._settle_held(held, apply) else lost

    def _settle_held(self, held: dict[int, Item], apply: Apply) -> bool:
        """False if these rows were given back meanwhile, which takes somebody who deletes our lock file."""
        with self._database.transaction() as connection:
            if connection.execute(sql.STILL_OWNER, (self._owners.id,)).fetchone() is None:
                return False
            apply(connection, held)
            self._drop_finished(connection, held)
        self._forget(held)
        return True

    def _is_held(self, item: Item) -> bool:
        token = item.token
        return isinstance(token, tuple) and token[0] == self._owners.id and token[1] in self._held

    def _split(self, given: list[Item]) -> tuple[dict[int, Item], list[Item]]:
        """Those that are held, by place, and those that are not or are named twice."""
        held: dict[int, Item] = {}
        lost = []
        for item in given:
            if self._is_held(item) and item.token[1] not in held:
                held[item.token[1]] = item
            else:
                lost.append(item)
        return held, lost

    def _drop_finished(self, connection: Connection, places: Iterable[int]) -> None:
        """Delete the claims of which these places are the last ones."""
        settled = Counter(map(self._held.__getitem__, places))
        owner = self._owners.id
        finished = [(owner, claim.first) for claim, count in settled.items() if count == claim.left]
        connection.executemany(sql.DROP_CLAIM, finished)

    def _forget(self, places: Iterable[int]) -> None:
        """After the transaction: a failed one leaves the rows held."""
        for place in places:
            self._held.pop(place).left -= 1

    # -- where settled rows go

    def ack(self, connection: Connection, held: dict[int, Item]) -> None:
        if self._retention is not None:
            self._retain(connection, held, time.time())
        steps.delete(connection, held)

    def _retain(self, connection: Connection, held: dict[int, Item], now: float) -> None:
        retained = [(item.id, self._extra(place), now, place) for place, item in held.items()]
        connection.executemany(sql.RETAIN, retained)
        if self._retention is not None and now >= self._next_expiry:
            self._next_expiry = now + _EXPIRE_EVERY
            connection.execute(sql.EXPIRE, (now - self._retention,))

    def bury(self, connection: Connection, held: dict[int, Item], *, error: str | None) -> None:
        now = time.time()
        buried = [(item.id, self._extra(place), error, now, place) for place, item in held.items()]
        connection.executemany(sql.BURY, buried)
        steps.delete(connection, held)

    def nack(
        self, connection: Connection, held: dict[int, Item], *, due: float | None, error: str | None, counted: bool
    ) -> None:
        sizes = [len(item.raw) + 1 for item in held.values()]
        if due is None:
            places, uptos = steps.places_at_back(connection, sizes)
        else:
            places, uptos = steps.places_delayed(connection, sizes, due)
        moves = [
            (to, upto, item.id, self._extra(place) - (not counted), error, place)
            for to, upto, (place, item) in zip(places, uptos, held.items(), strict=True)
        ]
        connection.executemany(sql.MOVE, moves)

    def _extra(self, place: int) -> int:
        """The attempt that the claim counted and the row does not say yet."""
        return self._held[place].started

    # -- letting go

    def release(self) -> None:
        """Give everything back and stop owning."""
        self._held.clear()
        self._owners.release()

    def forget(self) -> None:
        """In a forked child: the parent holds it all."""
        self._held = {}
        self._owners.forget()
