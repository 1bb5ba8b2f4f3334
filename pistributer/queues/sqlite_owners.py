"""Who holds claims in a sqlite queue, and whether he is alive.

An owner is a queue object that claims. It holds the kernel lock on `NNNN.lock` in the folder beside the database, until
it is closed or its process dies, and stands in the table `owners` under an id that is never used again. Numbers are
used again: whoever takes one gives back, in the same transaction, what its dead predecessor held, so that nobody adopts
a claim without counting it. Killed between taking the lock and that transaction: the lock is free, nothing has changed.
"""

from __future__ import annotations

import itertools
import os
import sqlite3

from ..storage.locks import Flock, is_held
from ..storage.sqlite_db import Database
from . import sqlite_schema as sql


class Owners:
    """This object's ownership and a view of the others'. Not thread-safe: the queue's claim lock stands in front."""

    def __init__(self, database: Database, folder: str) -> None:
        self._database = database
        self._folder = folder
        self._lock: Flock | None = None
        #: Names the waiter on the doorbell, too.
        self.number = -1
        #: 0 as long as this object owns nothing.
        self.id = sql.NOBODY

    def take(self) -> int:
        """This object's id as an owner, taken on first use."""
        if self._lock is None:
            lock, number = self._take_number()
            try:
                with self._database.transaction() as connection:
                    for (predecessor,) in connection.execute(sql.OWNERS_OF_NUMBER, (number,)).fetchall():
                        give_back(connection, predecessor)
                    self.id = connection.execute(sql.NEW_OWNER, (number,)).lastrowid or 0
            except BaseException:
                lock.close()
                raise
            self._lock, self.number = lock, number
        return self.id

    def _take_number(self) -> tuple[Flock, int]:
        for number in itertools.count():
            lock = Flock(self._lock_path(number))
            if lock.acquire(timeout=0.0):
                return lock, number
            lock.close()
        raise AssertionError("itertools.count() has no end")

    def rescue(self) -> bool:
        """Give back what dead owners held; True if there was something."""
        rescued = False
        for owner, number in self._database.read(sql.OWNERS_WITH_CLAIMS):
            if owner != self.id:
                rescued |= self._rescue(owner, number)
        return rescued

    def _rescue(self, owner: int, number: int) -> bool:
        # Holding the lock meanwhile keeps a new owner from taking the number.
        lock = Flock(self._lock_path(number))
        try:
            if not lock.acquire(timeout=0.0):
                return False
            with self._database.transaction() as connection:
                give_back(connection, owner)
            return True
        finally:
            lock.close()

    def living(self, owners: list[tuple[int, int]]) -> set[int]:
        """Which of these (id, number) are alive."""
        return {owner for owner, number in owners if owner == self.id or is_held(self._lock_path(number))}

    def is_alive(self, number: int) -> bool:
        """Whether somebody owns claims under this number."""
        return is_held(self._lock_path(number))

    def release(self) -> bool:
        """Give everything back and stop owning. True if this object was an owner."""
        lock, self._lock = self._lock, None
        if lock is None:
            return False
        try:
            with self._database.transaction() as connection:
                give_back(connection, self.id)
        finally:
            self.id = sql.NOBODY
            lock.close()
        return True

    def forget(self) -> None:
        """In a forked child: the parent is the owner. The lock has closed its copy by itself."""
        self._lock = None
        self.id = sql.NOBODY

    def _lock_path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:04d}.lock")


def give_back(connection: sqlite3.Connection, owner: int) -> None:
    """Make the rows of `owner` claimable, with their attempts counted, and forget the owner."""
    connection.execute(sql.COUNT_STARTED, (owner,))
    connection.execute(sql.DROP_EMPTY_CLAIMS, (owner,))
    connection.execute(sql.GIVE_BACK, (owner,))
    connection.execute(sql.DROP_OWNER, (owner,))
