"""What a worker asks of the tickets: may this row begin, and what follows from its end. store.py says why.

Each worker process has one `WorkerTickets`. Everything that ended since the last flush ends in one transaction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json

from . import store
from .store import Parcel
from .wishes import ticket_key

if TYPE_CHECKING:
    import sqlite3

    from pistributer.queues.contract import Item, Queue

    from ..app import App
    from ..hooks import Run, Sending
    from ..result_dict import DictResults
    from ..results import ResultLog
    from ..tasks import Task

_log = logging.getLogger("pistributer.gate")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a claimed row. "drop": acknowledge it, "off": end it as called off, "bury": as `text` says."""

    what: Literal["run", "drop", "off", "bury"]
    text: str = ""


_RUN, _DROP = Verdict("run"), Verdict("drop")


@dataclass(slots=True)
class _Begun:
    """A job with a ticket that this process has begun."""

    job: str
    copy: int
    key: str | None
    message: dict[str, Any]
    #: Set when it has ended: how, and why it is dead.
    state: int = store.DONE
    error: str | None = None
    #: The result as JSON, for a chord; the next of the chain.
    value: str | None = None
    next: _Follower | None = None


@dataclass(frozen=True, slots=True)
class _Follower:
    parcel: Parcel
    key: str | None
    limit: int
    #: What the hooks are told when it has been sent.
    sending: Sending


@dataclass(slots=True)
class _Settled:
    """What the next transaction may tidy up, because its rows are settled by then."""

    ended: list[str] = field(default_factory=list)
    parked: list[tuple[str, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ended or self.parked)


class WorkerTickets:
    """The jobs with tickets that one worker process has begun and not settled. Threads may share it."""

    def __init__(self, app: App, log: ResultLog | DictResults) -> None:
        self._app = app
        self._gate = app.gate
        self._results = log
        self._lock = threading.Lock()
        #: By job id. If it is empty, there is nothing to ask or tell here.
        self.begun: dict[str, _Begun] = {}
        self._ended: list[_Begun] = []
        #: Followers that the hooks have yet to hear of.
        self._sent: list[Sending] = []
        #: Rows that are settled when the next transaction begins, and those that are settled after this one.
        self._settled, self._settling = _Settled(), _Settled()

    # -- beginning

    def begin(self, item: Item, task: Task[..., Any] | None, queue: Queue) -> Verdict:
        """Whether the job in a row that was claimed from `queue` is to be run, before its attempt is counted.

        Raises BadCall for a row without a ticket whose arguments give no key.
        """
        message = item.value
        job, copy = message["id"], message.get("ticket", 0)
        with self._gate.tickets.database.transaction() as connection:
            found = connection.execute(store.FIND, (job,)).fetchone()
            if found is None:
                return self._admit(connection, message, task, queue, stray=False)
            n, state, held, key, off, error = found
            if copy == held and _has_come_back(state, item.attempt):
                connection.execute(store.FORGET, (n,))
                return self._admit(connection, message, task, queue, stray=True)
            if copy != held or state in (store.PARKED, store.DONE):
                return self._drop(job, copy, state, held)
            if state != store.DEAD:
                connection.execute(store.BEGIN, (n,))
                self.begun[job] = _Begun(job, copy, key, message)
                return _RUN if off is None else Verdict("off", off)
        self._settling.ended.append(job)
        return Verdict("bury", error)

    def _admit(
        self,
        connection: sqlite3.Connection,
        message: dict[str, Any],
        task: Task[..., Any] | None,
        queue: Queue,
        *,
        stray: bool,
    ) -> Verdict:
        """Let in a row that has no ticket, or park it."""
        job, copy = message["id"], message.get("ticket", 0)
        key, limit = key_of(message, task)
        whole = {name: value for name, value in message.items() if name != "ticket"}
        parcel, now = Parcel(job, self._app.name_of(queue), copy, 0.0, whole), self._app.now()
        if store.has_room(connection, key, limit):
            store.add(connection, parcel, store.BEGUN, now, key=key, key_limit=limit, stray=stray)
            self.begun[job] = _Begun(job, copy, key, message)
            return _RUN
        store.add(connection, parcel, store.PARKED, now, key=key, key_limit=limit, stray=True)
        self._settling.parked.append((job, copy))
        return _DROP

    def _drop(self, job: str, copy: int, state: int, held: int) -> Verdict:
        if copy == held and state == store.DONE:
            self._settling.ended.append(job)
        elif copy == held and state == store.PARKED:
            self._settling.parked.append((job, copy))
        return _DROP

    # -- ending

    def hand_on(self, run: Run) -> None:
        """After a run: keep what the task returned for those that follow. Raises RowError if JSON can not hold it, and what
        their key functions raise.
        """
        begun, value = self.begun.get(run.job_id), run.value
        if begun is None:
            return
        if "chord" in begun.message:
            begun.value = encode_json(value)[:-1].decode()
        if begun.message.get("then"):
            begun.next = self._next(begun.message["then"], value)

    def _next(self, then: list[dict[str, Any]], value: Any) -> _Follower:
        first, rest = then[0], then[1:]
        message = {name: part for name, part in first.items() if name != "queue"}
        message["args"] = [value, *first.get("args", ())]
        if rest:
            message["then"] = rest
        encode_json(message)
        return self._follower(message, first["queue"])

    def _follower(self, message: dict[str, Any], queue: str) -> _Follower:
        sending = self._app.enqueue_steps.before(message, queue)
        key, limit = key_of(sending.message, self._app.tasks.get(message["task"]))
        return _Follower(Parcel(message["id"], sending.queue, 1, 0.0, sending.message), key, limit, sending)

    def done(self, job: str) -> None:
        """The job ended well, or was called off; its row is about to be acknowledged."""
        self._end(job, store.DONE, None)

    def dead(self, messages: Iterable[Any], error: str) -> bool:
        """These failed for good, and their rows are about to be buried. Whether any of them has a ticket."""
        jobs = [message.get("id") for message in messages if isinstance(message, dict)]
        return sum(self._end(job, store.DEAD, error) for job in jobs) > 0

    def _end(self, job: Any, state: int, error: str | None) -> bool:
        begun = self.begun.pop(job, None)
        if begun is None:
            return False
        begun.state, begun.error = state, error
        self._ended.append(begun)
        return True

    def again(self, jobs: Iterable[str]) -> None:
        """These are given back: their tickets stay as they are, begun."""
        for job in jobs:
            self.begun.pop(job, None)

    def failed(self, message: dict[str, Any], error: BaseException) -> None:
        """The job, with a ticket or without, failed for good or was called off."""
        self._gate.fail_followers(self._results, message, error)

    # -- settling

    def flush(self) -> None:
        """End what has ended. Called when the results are on disk, and before the rows are settled."""
        if not self._ended:
            return
        with self._lock:
            ended, self._ended = self._ended, []
            out: list[Parcel] = []
            with self._gate.tickets.database.transaction() as connection:
                self._tidy(connection)
                for begun in ended:
                    self._end_one(connection, begun, out)
            self._settling.ended += [begun.job for begun in ended]
        self._put(out)

    def _end_one(self, connection: sqlite3.Connection, begun: _Begun, out: list[Parcel]) -> None:
        changed = connection.execute(
            store.END, (begun.state, begun.error, self._app.now(), begun.job, begun.copy)
        ).rowcount
        if not changed:
            return  # given up by a purge, or put again because its row seemed to be gone: that one's end counts
        if begun.next is not None:
            self._send(connection, begun.next, out)
        if begun.value is not None:
            self._add_part(connection, begun, out)
        out += store.release(connection, begun.key)

    def _send(self, connection: sqlite3.Connection, follower: _Follower, out: list[Parcel]) -> None:
        parcel = follower.parcel
        if connection.execute(store.FIND, (parcel.job,)).fetchone() is not None:
            return  # its predecessor was replayed
        has_room = store.has_room(connection, follower.key, follower.limit)
        if not has_room:
            parcel = Parcel(parcel.job, parcel.queue, 0, 0.0, parcel.message)
        state = store.OUT if has_room else store.PARKED
        store.add(connection, parcel, state, self._app.now(), key=follower.key, key_limit=follower.limit)
        out += [parcel] if has_room else []
        self._sent.append(follower.sending)

    def _add_part(self, connection: sqlite3.Connection, begun: _Begun, out: list[Parcel]) -> None:
        """Note a chord's member; the last one sends the callback."""
        chord, place = begun.message["chord"]
        known = connection.execute("SELECT 1 FROM chords WHERE id = ?", (chord,)).fetchone()
        if known is None:
            return
        added = connection.execute("INSERT OR IGNORE INTO parts VALUES (?, ?, ?)", (chord, place, begun.value)).rowcount
        less = "UPDATE chords SET missing = missing - ? WHERE id = ? RETURNING missing, queue, callback"
        [(missing, queue, callback)] = connection.execute(less, (added, chord)).fetchall()
        if missing:
            return
        values = connection.execute("SELECT value FROM parts WHERE chord = ? ORDER BY place", (chord,)).fetchall()
        message = orjson.loads(callback)
        message["args"] = [[orjson.loads(value) for (value,) in values], *message.get("args", ())]
        connection.execute("DELETE FROM parts WHERE chord = ?", (chord,))
        connection.execute("DELETE FROM chords WHERE id = ?", (chord,))
        try:
            follower = self._follower(message, queue)
        except Exception as error:  # noqa: BLE001 (a user's key function or hook; the members have ended all the same)
            _log.exception("the callback of a chord can not be sent")
            self._results.add_failure(message["id"], type(error).__name__, f"it could not be sent: {error}", "", 0)
        else:
            self._send(connection, follower, out)

    def _put(self, out: list[Parcel]) -> None:
        """What does not fit into its queue now, the sweep puts; waiting here could stop all workers for ever."""
        try:
            self._gate.put(out, block=False)
        except errors.RowError as error:
            _log.warning("%s; the sweep deals with it", error)
        sent, self._sent = self._sent, []
        for sending in sent:
            self._app.enqueue_steps.after(sending)

    def settle(self) -> None:
        """The rows that this process dropped, ended or parked are settled by now: tidy up behind them."""
        if self._settling:
            with self._lock:
                settled, self._settling = self._settling, _Settled()
                self._settled.ended += settled.ended
                self._settled.parked += settled.parked

    def tidy(self) -> None:
        """Delete the stubs of settled rows. Whoever flushes does it by the way."""
        if self._settled:
            with self._lock, self._gate.tickets.database.transaction() as connection:
                self._tidy(connection)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        settled, self._settled = self._settled, _Settled()
        for job in settled.ended:
            connection.execute(store.DROP_STUB, (job,))
            connection.execute(store.KEEP_STUB, (job,))
        connection.executemany(store.NO_STRAY, settled.parked)


def _has_come_back(state: int, attempt: int) -> bool:
    """Whether a row whose job is over is there to be run once more: a dead letter is tried again, an archive replayed.

    Such a row comes without attempts. One that was begun, and whose worker died before it could be settled, has some; one
    that ended without an attempt may as well end so again.
    """
    return state == store.OVER or (state in (store.DONE, store.DEAD) and not attempt)


def key_of(message: dict[str, Any], task: Task[..., Any] | None) -> tuple[str | None, int]:
    """The key of a message, as tickets have it, and how many of that key may run. BadCall if the arguments give none."""
    key = message.get("key")
    if key is None and task is not None:
        try:
            key = task.key_for(message.get("args", ()), message.get("kwargs", {}))
        except Exception as error:
            raise errors.BadCall(f"{task.name}: these arguments give no key: {error}", task=task.name) from error
    return ticket_key(message["task"], key), 1 if task is None else task.key_limit
