"""Sending through tickets: who may go into a queue now, who waits, and who is not sent at all. store.py says why.

Jobs that ask for none of this never come here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json

from ..cancelling import CALLED_OFF, CalledOff
from ..home import split_lane
from ..messages import Call, Follower, jobs_of, new_id
from ..retries import Cancel
from . import store
from .store import Parcel, Tickets
from .sweep import Sweeper
from .wishes import Answer, Wish, ticket_key

if TYPE_CHECKING:
    import sqlite3

    from pistributer.queues.contract import Queue

    from ..app import App
    from ..result_dict import DictResults
    from ..results import ResultLog

#: Tickets that are admitted in one transaction, and put in one write.
_BATCH = 500
#: The `kind` of JobFailed for a job that never began because one that it follows from failed.
MEMBER_FAILED = "MemberFailed"


@dataclass(frozen=True, slots=True)
class _Admitted:
    parcel: Parcel
    state: int
    key: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """A job that is in no queue: where it stands."""

    #: It was called off, for this reason.
    off: str | None
    #: What it will be called with; None: that is part of what it follows from.
    message: dict[str, Any] | None = None


class Gate:
    """The tickets of one app, as those see them who send and those who look."""

    def __init__(self, app: App, *, durable: bool) -> None:
        self._app = app
        self.tickets = Tickets(app.home.folder, durable=durable)
        self._sweeper = Sweeper(app, self)

    # -- sending

    def send(
        self, queue: str, message: dict[str, Any], delay: float, wish: Wish, timeout: float | None = None
    ) -> Answer:
        """Admit one job, and put it into its queue if it may go there now. Raises what `Queue.put` raises."""
        [answer] = self.send_many(queue, [(message, wish)], delay, timeout)
        return answer

    def send_many(
        self,
        queue: str,
        jobs: Iterable[tuple[dict[str, Any], Wish]],
        delay: float = 0.0,
        timeout: float | None = None,
    ) -> Iterator[Answer]:
        """Admit jobs in order, in few transactions. Raises as `Queue.put_many`; what was admitted and not put is taken back."""
        if not self.tickets.is_open:
            self._app.home.create()
        jobs = iter(jobs)
        while batch := list(itertools.islice(jobs, _BATCH)):
            now = self._app.now()
            due = now + delay if delay else 0.0
            admitted: list[_Admitted] = []
            with self.tickets.database.transaction() as connection:
                answers = [self._admit(connection, queue, message, due, wish, now, admitted) for message, wish in batch]
            self._put_or_take_back(admitted, timeout)
            yield from answers

    def send_calls(self, calls: Sequence[Call[Any]]) -> list[Answer]:
        """Send calls, in order, by way of the tickets those that ask for it. The jobs that they are, which may be others.

        Raises BadCall and what `Queue.put_many` raises.
        """
        steps = self._app.enqueue_steps
        sendings = [steps.before(call.message, split_lane(call.queue)[0]) for call in calls]
        sent = [(call, sending.message) for call, sending in zip(calls, sendings, strict=True)]
        answers: list[Answer] = []
        try:
            for (lane, gated), group in itertools.groupby(sent, lambda one: (one[0].queue, is_gated(*one))):
                together = list(group)
                if gated:
                    answers += self.send_many(
                        lane, ((message, self.wish_of(message, call)) for call, message in together)
                    )
                else:
                    self._app.queue(lane).put_many([message for _, message in together])
                    answers += [Answer(message["id"], lane) for _, message in together]
        except errors.RowError as error:
            names = ", ".join(sorted({call.message["task"] for call in calls}))
            raise errors.BadCall(f"{names}: {error}", task=names) from error
        for sending, answer in zip(sendings, answers, strict=True):
            if answer.job == sending.message["id"]:
                steps.after(sending)
        return answers

    def wish_of(self, message: dict[str, Any], call: Call[Any] | None = None) -> Wish:
        """What the message of a call asks for."""
        if call is not None and call.wish is not None:
            return call.wish
        task = self._app.tasks.get(message["task"])
        return Wish(ticket_key(message["task"], message.get("key")), 1 if task is None else task.key_limit)

    def send_chord(self, calls: Sequence[Call[Any]], callback: Follower[Any, Any]) -> None:
        """Admit all calls in one transaction, with the callback that the last of them to end will send."""
        self._app.home.create()
        chord, now = new_id(), self._app.now()
        admitted: list[_Admitted] = []
        row = (chord, len(calls), callback.message["id"], callback.queue, encode_json(callback.message).decode())
        with self.tickets.database.transaction() as connection:
            connection.execute("INSERT INTO chords VALUES (?, ?, ?, ?, ?, NULL)", row)
            for place, call in enumerate(calls):
                message = _as_member(call.message, [chord, place])
                self._admit(connection, call.queue, message, 0.0, self.wish_of(message), now, admitted)
        try:
            self._put_or_take_back(admitted)
        except BaseException:
            self.tickets.database.write("DELETE FROM chords WHERE id = ?", (chord,))
            raise

    def _admit(
        self, connection: sqlite3.Connection, queue: str, message: dict[str, Any], due: float, wish: Wish, now: float,
        admitted: list[_Admitted],
    ) -> Answer:  # fmt: skip
        job, task, id = message["id"], message["task"], wish.idempotency_id
        answer = self._known(connection, task, id, now) or self._pending(connection, wish, job)
        if answer is None:
            answer = Answer(job, queue)
            has_room = store.has_room(connection, wish.key, wish.key_limit)
            parcel = Parcel(job, queue, int(has_room), due, message)
            state = store.OUT if has_room else store.PARKED
            store.add(connection, parcel, state, now, key=wish.key, key_limit=wish.key_limit, equal=wish.equal)
            admitted.append(_Admitted(parcel, state, wish.key))
        if id is not None and not answer.skipped:
            connection.execute(
                "INSERT OR IGNORE INTO ids VALUES (?, ?, ?, ?, ?)", (task, id, answer.job, answer.queue, now)
            )
        return answer

    def _known(self, connection: sqlite3.Connection, task: str, id: str | None, now: float) -> Answer | None:
        """The job that was sent with this idempotency id."""
        if id is None:
            return None
        connection.execute("DELETE FROM ids WHERE at < ?", (now - self._app.idempotency_age,))
        found = connection.execute("SELECT job, queue FROM ids WHERE task = ? AND id = ?", (task, id)).fetchone()
        return None if found is None else Answer(*found)

    def _pending(self, connection: sqlite3.Connection, wish: Wish, job: str) -> Answer | None:
        """The equal job that is pending, if that is why this one is not sent."""
        if wish.unique is None:
            return None
        found = connection.execute("SELECT n, job, queue FROM tickets WHERE equal = ?", (wish.equal,)).fetchone()
        if found is None:
            return None
        n, other, queue = found
        if wish.unique == "replace":
            reason = f"replaced by job {job}"
            connection.execute("UPDATE tickets SET equal = NULL, off = ? WHERE n = ?", (reason, n))
            return None
        if other in CalledOff(self._app.home.run).read():
            connection.execute("UPDATE tickets SET equal = NULL WHERE n = ?", (n,))  # it will never begin
            return None
        return Answer(other, queue, skipped=wish.unique == "skip")

    def _put_or_take_back(self, admitted: list[_Admitted], timeout: float | None = None) -> None:
        left = {one.parcel.job: one for one in admitted}
        try:
            out = [one.parcel for one in admitted if one.state == store.OUT]
            self.put(out, timeout=timeout, done=lambda parcel: left.pop(parcel.job))
        except BaseException:
            # Killed before this is committed, or if this fails too: the sweep sends them.
            with self.tickets.database.transaction() as connection:
                for one in reversed(left.values()):  # else the first would let the second go on
                    store.take_back(connection, one.parcel, one.state, one.key)
            raise

    def send_next(self, call: Call[Any], place: str, timeout: float | None) -> Answer:
        """Send a call whose sender then notes elsewhere how far it has come: once, however often it is asked for at `place`.

        When that is noted, `forget_id` is due. Killed in between, the next one who asks is told of the first one's job, for as
        long as idempotency ids are remembered. Raises what `Queue.put` raises.
        """
        return self.send(
            call.queue, call.message, 0.0, replace(self.wish_of(call.message, call), idempotency_id=place), timeout
        )

    def forget_id(self, task: str, id: str) -> None:
        """An idempotency id will not come again."""
        self.tickets.database.write("DELETE FROM ids WHERE task = ? AND id = ?", (task, id))

    # -- putting what was admitted

    def put(
        self,
        parcels: Sequence[Parcel],
        *,
        block: bool = True,
        timeout: float | None = None,
        done: Callable[[Parcel], object] | None = None,
    ) -> bool:
        """Put parcels into their queues, and mark their tickets. False if some did not fit (`block=False`); they stay as they
        are.
        """
        all_fit = True
        for (queue, due), group in itertools.groupby(parcels, key=lambda parcel: (parcel.queue, parcel.due)):
            together, error = list(group), None
            try:
                stored = self._put(queue, due, together, block, timeout)
            except errors.PistributerError as raised:
                error, stored = raised, int(getattr(raised, "stored", 0))
            self._mark(together[:stored])
            for parcel in together[:stored] if done else ():
                done(parcel)  # type: ignore[misc]
            if error is not None and (block or not isinstance(error, errors.QueueFull)):
                raise error
            all_fit &= error is None
        return all_fit

    def _put(self, queue: str, due: float, parcels: list[Parcel], block: bool, timeout: float | None) -> int:
        """How many were stored: all, unless this raises an error that says how many (`stored`)."""
        opened, delay = self._app.queue(queue), max(0.0, due - self._app.now())
        rows = (parcel.stamped() for parcel in parcels)
        if not delay and len(parcels) > 1:
            return opened.put_many(rows, block=block, timeout=timeout)
        return put_each(opened, rows, delay, block, timeout)

    def _mark(self, parcels: list[Parcel]) -> None:
        if len(parcels) == 1:
            self.tickets.database.write(store.MARK, (parcels[0].job, parcels[0].copy))
        elif parcels:
            with self.tickets.database.transaction() as connection:
                connection.executemany(store.MARK, [(parcel.job, parcel.copy) for parcel in parcels])

    def sweep(self) -> None:
        """Put what was admitted by somebody who has died since. Called about once a second, by each supervisor."""
        if self.tickets.exists():
            self._sweeper.sweep()

    # -- failing

    def fail_followers(self, log: ResultLog | DictResults, message: dict[str, Any], error: BaseException) -> None:
        """A job failed for good or was called off: note it for those that follow from it, which will never begin."""
        if "then" not in message and "chord" not in message:
            return
        why = (
            f"{message['task']} (job {message['id']}), which this follows from, failed: {type(error).__name__}: {error}"
        )
        called_off = CalledOff(self._app.home.run).read()
        for job in self._followers(message):
            if job in called_off:
                log.add_failure(job, Cancel.__name__, CALLED_OFF, "", 0)
            else:
                log.add_failure(job, MEMBER_FAILED, why, "", 0)

    def _followers(self, message: dict[str, Any]) -> Iterator[str]:
        for one in (message, *message.get("then", ())):
            if one is not message:
                yield one["id"]
            if "chord" in one:
                [chord, _] = one["chord"]
                self.tickets.database.write("UPDATE chords SET failed = ? WHERE id = ?", (self._app.now(), chord))
                for (callback,) in self.tickets.database.read("SELECT callback FROM chords WHERE id = ?", (chord,)):
                    found = orjson.loads(callback)
                    yield found["id"]
                    yield from self._followers(found)

    # -- looking

    def held(self, queue: str | None = None) -> int:
        """Jobs that were sent and are in no queue yet: most of them wait for others of their key."""
        counted = store.count_held(self.tickets) if self.tickets.exists() else {}
        return sum(counted.values()) if queue is None else counted.get(queue, 0)

    def find(self, job: str) -> Held | None:
        """Where a job stands that is in no queue; None: it has no ticket."""
        if not self.tickets.exists():
            return None
        over = f"({store.DONE}, {store.DEAD}, {store.OVER})"
        found = self.tickets.database.read(
            f"SELECT off, message FROM tickets WHERE job = ? AND state NOT IN {over}", (job,)
        )
        for sql in (
            "SELECT NULL, NULL FROM chords WHERE job = ? AND failed IS NULL",
            # It follows from one of these, whose message holds its own.
            f"SELECT NULL, NULL FROM tickets WHERE state NOT IN {over} AND instr(message, ?)",
            "SELECT NULL, NULL FROM chords WHERE failed IS NULL AND instr(callback, ?)",
        ):
            found = found or self.tickets.database.read(sql, (job,))
        if not found:
            return None
        [off, message] = found[0]
        return Held(off, message and orjson.loads(message))

    def parked(self) -> list[str]:
        """The ids of all jobs that are in no queue."""
        if not self.tickets.exists():
            return []
        states = f"({store.PARKED}, {store.OUT})"
        return [job for (job,) in self.tickets.database.read(f"SELECT job FROM tickets WHERE state IN {states}")]

    def awaited(self) -> Iterator[str]:
        """The ids of jobs that follow from others: from those that are in no queue, and the callbacks of chords."""
        if self.tickets.exists():
            for _, _, message in self.parked_rows():
                yield from jobs_of(message)
            for (job,) in self.tickets.database.read("SELECT job FROM chords"):
                yield job

    def parked_rows(self) -> Iterator[tuple[str, float, Any]]:
        """Queue or lane, due time (0.0: none) and message of each job that is in no queue, in the order of sending."""
        if self.tickets.exists():
            states = f"({store.PARKED}, {store.OUT})"
            sql = f"SELECT queue, due, message FROM tickets WHERE state IN {states} AND message IS NOT NULL ORDER BY n"
            for queue, due, message in self.tickets.database.read(sql):
                yield queue, due, orjson.loads(message)

    def forget(self, queue: str) -> int:
        """Give up the jobs of a queue that have not begun; how many of them were held. Call it before `Queue.purge`."""
        return store.forget(self.tickets, queue) if self.tickets.exists() else 0

    def close(self) -> None:
        """Let go of the file."""
        self.tickets.close()


def is_gated(call: Call[Any], message: dict[str, Any]) -> bool:
    """Whether this call, whose message it is, goes by way of the tickets."""
    return call.wish is not None or "key" in message


def put_each(
    queue: Queue, values: Iterable[Any], delay: float, block: bool = True, timeout: float | None = None
) -> int:
    """Put delayed rows, one by one, and return how many. An error of ours says how many were stored (`stored`)."""
    stored = 0
    try:
        for value in values:
            queue.put(value, delay=delay, block=block, timeout=timeout)
            stored += 1
    except errors.PistributerError as error:
        error.stored = stored  # type: ignore[attr-defined]
        raise
    return stored


def _as_member(message: dict[str, Any], chord: list[Any]) -> dict[str, Any]:
    """The message as one of a chord; of a chain, the last call's result is what counts."""
    if "then" not in message:
        return {**message, "chord": chord}
    return {**message, "then": [*message["then"][:-1], {**message["then"][-1], "chord": chord}]}
