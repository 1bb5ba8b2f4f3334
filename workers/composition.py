"""Jobs made of jobs: one after the other, side by side, side by side and then one, or one for each value.

What follows from a job is sent in the transaction that notes its end (tickets/store.py): a killed worker neither loses nor
doubles it. The messages say all of it, so a chain that waits can be read in its queue: `then` and `chord` of messages.py.

Calling a composition off notes all its jobs in one write (cancelling.py): those that wait, the one that runs, and those that
follow and are in no queue yet. A worker looks before it begins a job, so nothing of it begins any more, whichever step it
is at and whoever is killed: what follows is sent by the outbox as ever, and ended by whoever claims it.

A member that fails for good ends what follows from it: those jobs never begin, and their `result()` raises JobFailed with
`kind` "MemberFailed", whose text names the member. If its dead letter is tried again and goes well, so does what follows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pistributer import errors

from .home import split_lane
from .jobs import Job, call_off_jobs
from .messages import Call, Follower, jobs_of, new_id
from .terms import results_wanted

if TYPE_CHECKING:
    from .app import App
    from .tasks import Task
    from .tickets.wishes import Answer

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
T = TypeVar("T")


@overload
def chain(first: Call[A], /) -> Call[A]: ...
@overload
def chain(first: Call[A], second: Follower[A, B], /) -> Call[B]: ...
@overload
def chain(first: Call[A], second: Follower[A, B], third: Follower[B, C], /) -> Call[C]: ...
@overload
def chain(first: Call[A], second: Follower[A, B], third: Follower[B, C], fourth: Follower[C, D], /) -> Call[D]: ...
@overload
def chain(
    first: Call[A], second: Follower[A, B], third: Follower[B, C], fourth: Follower[C, D], fifth: Follower[D, E], /
) -> Call[E]: ...
@overload
def chain(
    first: Call[Any],
    second: Follower[Any, Any],
    third: Follower[Any, Any],
    fourth: Follower[Any, Any],
    fifth: Follower[Any, Any],
    sixth: Follower[Any, Any],
    /,
    *rest: Follower[Any, Any],
) -> Call[Any]: ...
def chain(first: Call[Any], /, *rest: Follower[Any, Any]) -> Call[Any]:
    """A call, and those that follow it: each is called with the result of the one before as its first argument.

    `chain(load.call("a.csv"), clean.then(), store.then(table="t")).send()` gives the job of the last one. Send it once: its
    jobs have their ids already. A chain is a call like any other: a producer yields it, `group` and `chord` take it.
    """
    followers = [{**follower.message, "queue": follower.queue} for follower in rest]
    message = {**first.message, "id": new_id(), "ticket": 0}
    if followers or "then" in message:
        message["then"] = [*first.message.get("then", ()), *followers]
    return Call(first.queue, message, first.app)


class Group(Generic[T]):
    """Calls that are to run side by side. Made by `group`."""

    def __init__(self, calls: list[Call[T]]) -> None:
        self.calls = calls

    def send(self) -> GroupJob[T]:
        """Send them, in order. Killed in the middle, a prefix has been sent."""
        jobs: list[Job[T]] = []
        for app, group in groupby(self.calls, key=lambda call: call.app):
            together = list(group)
            if app is None:
                raise errors.BadCall("a call of a group was made without an app", hint="make it by task.call(…)")
            answers = app.gate.send_calls(together)
            jobs += [call.job(answer) for call, answer in zip(together, answers, strict=True)]
        return GroupJob(jobs)


class GroupJob(Generic[T]):
    """The jobs of a group, in the order of its calls."""

    def __init__(self, jobs: list[Job[T]]) -> None:
        self.jobs = jobs

    def result(self, timeout: float | None = None) -> list[T]:
        """The results in order, waited for at most `timeout` seconds in all. Raises what `Job.result` raises for the first
        that failed; the others go on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return [job.result(_left(deadline)) for job in self.jobs]

    async def wait(self, timeout: float | None = None) -> list[T]:
        """`result` for asyncio."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return [await job.wait(_left(deadline)) for job in self.jobs]

    def done(self) -> bool:
        """Whether all have ended, well or not."""
        return all(job.done() for job in self.jobs)

    def cancel(self) -> None:
        """Call all of them off, and what they are made of."""
        for app, together in groupby(self.jobs, key=lambda job: job._app):
            call_off_jobs(app, *(id for job in together for id in job._ids()))

    def __iter__(self) -> Iterator[Job[T]]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def group(calls: Iterable[Call[T]]) -> Group[T]:
    """Calls that run side by side: `group(resize.call(path) for path in paths).send().result()` is the list of results."""
    return Group(list(calls))


class ComposedJob(Job[T]):
    """The last job of a chain, or the callback of a chord: its result is that of the whole, and `cancel` calls off the whole."""

    __slots__ = ("ids",)

    def __init__(
        self, app: App, id: str, task: str, queue: str, kept: bool | None = None, ids: tuple[str, ...] = ()
    ) -> None:
        super().__init__(app, id, task, queue, kept)
        #: All jobs that it is made of, its own at the end.
        self.ids = ids

    def _ids(self) -> tuple[str, ...]:
        return self.ids

    def __reduce__(self) -> tuple[Any, ...]:
        make, fields = super().__reduce__()
        return (_same_composed, (make, fields, self.ids))


def _same_composed(make: Callable[..., Job[Any]], fields: tuple[Any, ...], ids: tuple[str, ...]) -> ComposedJob[Any]:
    job = make(*fields)
    return ComposedJob(job._app, job.id, job.task, job.queue, job._kept, ids)


def handle(call: Call[T], answer: Answer) -> Job[T]:
    """On what was sent: what `Call.send` gives."""
    assert call.app is not None
    message = {**call.message, "queue": call.queue}
    if answer.skipped:
        from .skipped import SkippedJob  # few calls are unique

        return SkippedJob(call.app, message["task"], split_lane(answer.queue)[0], answer.job)
    if answer.job != message["id"]:
        return Job(call.app, answer.job, message["task"], split_lane(answer.queue)[0])
    return _composed(call.app, [message, *message.get("then", ())][-1], tuple(jobs_of(message)))


def _composed(app: App, last: dict[str, Any], ids: tuple[str, ...]) -> Job[Any]:
    fields = (app, last["id"], last["task"], split_lane(last["queue"])[0], results_wanted(last))
    return Job(*fields) if len(ids) == 1 else ComposedJob(*fields, ids)


class Chord(Generic[T]):
    """A group and the call that follows when all of it has ended. Made by `chord`."""

    def __init__(self, calls: list[Call[Any]], callback: Follower[list[Any], T]) -> None:
        self.calls = calls
        self.callback = callback

    def send(self) -> Job[T]:
        """Send all calls, or none if this process is killed before; the job of the callback."""
        callback = self.callback
        if self.calls:
            callback.app.gate.send_chord(self.calls, callback)
        else:
            message = {**callback.message, "args": [[], *callback.message.get("args", ())]}
            callback.app.gate.send_calls([Call(callback.queue, message, callback.app)])
        ids = (*(id for call in self.calls for id in jobs_of(call.message)), callback.message["id"])
        return _composed(callback.app, {**callback.message, "queue": callback.queue}, ids)


def chord(calls: Iterable[Call[A]], callback: Follower[list[A], T]) -> Chord[T]:
    """Calls that run side by side, and one that is called with the list of their results, once, when all have ended well.

    `chord((count.call(part) for part in parts), total.then()).send()` gives the job of the callback. Send it once.
    """
    return Chord(list(calls), callback)


def map_values(task: Task[..., T], values: Iterable[Any], window: int, timeout: float | None) -> Iterator[T]:
    """What `Task.map` does."""
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window!r}")
    if task.results is False:
        raise ValueError(f"the task {task.name!r} keeps no results, so there is nothing to map to")
    return _map(task, iter(values), window, timeout)


def _map(task: Task[..., T], values: Iterator[Any], window: int, timeout: float | None) -> Iterator[T]:
    waiting: deque[Job[T]] = deque()
    some = task.app.watch_results()
    while True:
        # In quarters: sent one by one, a window of short jobs would cost a write and a wake-up each.
        if len(waiting) <= window - max(1, window // 4):
            sent = task.send_many(_take(values, window - len(waiting)))
            some.watch(job.id for job in sent)
            waiting += sent
        if not waiting:
            return
        job = waiting.popleft()
        yield job.result_from(some, timeout)
        some.forget(job.id)


def _take(values: Iterator[Any], most: int) -> Iterator[tuple[Any]]:
    for _, value in zip(range(most), values, strict=False):
        yield (value,)
