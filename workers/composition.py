"""Jobs made of jobs: one after the other, side by side, side by side and then one, or one for each value.

What follows from a job is sent in the transaction that notes its end (tickets/store.py): a killed worker neither loses nor
doubles it. The messages say all of it, so a chain that waits can be read in its queue: `then` and `chord` of messages.py.

A member that fails for good ends what follows from it: those jobs never begin, and their `result()` raises JobFailed with
`kind` "MemberFailed", whose text names the member. If its dead letter is tried again and goes well, so does what follows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pistributer import errors

from .home import split_lane
from .jobs import Job
from .messages import Call, Follower, new_id

if TYPE_CHECKING:
    from .tasks import Task

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
        for app, together in groupby(self.calls, key=lambda call: call.app):
            if app is None:
                raise errors.BadCall("a call of a group was made without an app", hint="make it by task.call(…)")
            app.gate.send_calls(list(together))
        return GroupJob([call.job() for call in self.calls])


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
        """Call all of them off."""
        for job in self.jobs:
            job.cancel()

    def __iter__(self) -> Iterator[Job[T]]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def group(calls: Iterable[Call[T]]) -> Group[T]:
    """Calls that run side by side: `group(resize.call(path) for path in paths).send().result()` is the list of results."""
    return Group(list(calls))


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
        return Job(callback.app, callback.message["id"], callback.message["task"], split_lane(callback.queue)[0])


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
