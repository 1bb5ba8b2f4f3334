"""Looking for tickets whose sender, or whose row, is gone; store.py says what that may come from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pistributer import errors

from . import store
from .store import Parcel

if TYPE_CHECKING:
    from ..app import App
    from .gate import Gate

#: Tickets of one queue that are looked at in one sweep.
_BATCH = 500
#: Sweeps between two looks for tickets whose row is gone.
_LOOK_FOR_LOST = 3
#: … and between two times that old stubs are deleted.
_FORGET_OLD = 3600

_log = logging.getLogger("pistributer.gate")


class Sweeper:
    """What one process has seen of an app's tickets, from sweep to sweep."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._tickets = gate.tickets
        #: (ticket, copy) that the sweep before this one saw, and left as they were.
        self._seen: set[tuple[int, int]] = set()
        #: By queue, those that had no row the last time.
        self._rowless_before: dict[str, set[tuple[int, int]]] = {}
        self._sweeps = 0

    def sweep(self) -> None:
        """What `Gate.sweep` does.

        A ticket that is to be put is left alone the first time that it is seen, but for the first sweep: most likely its
        sender is just doing it.
        """
        self._sweeps += 1
        if self._sweeps % _LOOK_FOR_LOST == 1:
            self._find_lost()
        if self._sweeps % _FORGET_OLD == 1:
            store.forget_old(self._tickets)
        seen, self._seen = self._seen, set()
        for (queue,) in self._tickets.database.read(f"SELECT DISTINCT queue FROM tickets WHERE state = {store.OUT}"):
            self._sweep_queue(queue, seen)

    def _sweep_queue(self, queue: str, seen: set[tuple[int, int]]) -> None:
        out = f"SELECT n, copy FROM tickets WHERE state = {store.OUT} AND queue = ? ORDER BY n LIMIT {_BATCH}"
        has_room = True
        for n, copy in self._tickets.database.read(out, (queue,)):
            if has_room and (self._sweeps == 1 or (n, copy) in seen):
                has_room = self._put_again(n, copy)
            else:
                self._seen.add((n, copy))

    def _put_again(self, n: int, copy: int) -> bool:
        """False if the queue is full."""
        with self._tickets.database.transaction() as connection:
            still = f"SELECT 1 FROM tickets WHERE n = ? AND copy = ? AND state = {store.OUT}"
            if connection.execute(still, (n, copy)).fetchone() is None:
                return True
            parcel = store.take_out(connection, n)
            connection.execute("UPDATE tickets SET stray = 1 WHERE n = ?", (n,))
        try:
            if self._gate.put([parcel], block=False):
                return True
        except errors.RowError as error:
            self._refuse(parcel, error)
            return True
        self._seen.add((n, parcel.copy))
        return False

    def _refuse(self, parcel: Parcel, error: errors.RowError) -> None:
        """A message that grew on its way (results of others are in it) and does not fit into its queue: it has failed."""
        text = f"the call of {parcel.message['task']} can not be put into {parcel.queue}: {error.message}"
        _log.error("%s", text)
        log = self._app.open_result_log()
        try:
            log.add_failure(parcel.job, type(error).__name__, text, "", 0)
            self._gate.fail_followers(log, parcel.message, error)
        finally:
            log.close()
        with self._tickets.database.transaction() as connection:
            gone = connection.execute("DELETE FROM tickets WHERE job = ? RETURNING key", (parcel.job,)).fetchall()
            for (key,) in gone:
                store.release(connection, key)  # put by the next sweep

    def _find_lost(self) -> None:
        """Tickets of a queue that has no row, seen twice: their rows went with a power cut, or behind our back."""
        before, self._rowless_before = self._rowless_before, {}
        for queue in self._app.lane_names():
            rowless = self._rowless(queue)
            lost = rowless & before.get(queue, set())
            for n, copy in lost:
                self._tickets.database.write(
                    f"UPDATE tickets SET state = {store.OUT}, stray = 1 WHERE n = ? AND copy = ?"
                    f" AND state IN ({store.PUT}, {store.BEGUN})",
                    (n, copy),
                )
            self._rowless_before[queue] = rowless - lost

    def _rowless(self, queue: str) -> set[tuple[int, int]]:
        wanted = f"SELECT n, copy FROM tickets WHERE state IN ({store.PUT}, {store.BEGUN}) AND queue = ? LIMIT {_BATCH}"
        found = set(self._tickets.database.read(wanted, (queue,)))
        if found and next(self._app.queue(queue).scan("ready", "claimed", "delayed"), None) is not None:
            return set()
        return found
