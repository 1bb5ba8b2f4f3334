"""A function that can be sent to workers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from pistributer import errors

from .checks import at_least
from .home import check_priority, lane_name, split_lane
from .jobs import Job
from .messages import Call, compose
from .retries import RetryPolicy

if TYPE_CHECKING:
    from .app import App

P = ParamSpec("P")
T = TypeVar("T")

_NO_KWARGS: dict[str, Any] = {}


class Task(Generic[P, T]):
    """Made by `@app.task`. Calling it runs the function here and now; `send` has a worker run it.

    Attributes: `name`, `queue`, `priority`, `policy` (when a failure is tried again), `crash_retries`, `soft_time_limit`,
    `hard_time_limit`, `results`, `function`.
    """

    def __init__(
        self,
        app: App,
        function: Callable[P, Any],
        *,
        name: str,
        queue: str,
        priority: int,
        policy: RetryPolicy,
        crash_retries: int,
        soft_time_limit: float | None,
        hard_time_limit: float | None,
        results: bool,
    ) -> None:
        self._app = app
        self.function = function
        self.name = name
        self.queue = queue
        self.priority = priority
        #: Where its calls wait (home.py).
        self.lane = lane_name(queue, priority)
        self.policy = policy
        self.crash_retries = crash_retries
        self.soft_time_limit = soft_time_limit
        self.hard_time_limit = hard_time_limit
        self.results = results
        self._signature = inspect.signature(function)
        self._arity = _plain_arity(self._signature)
        functools.update_wrapper(self, function)

    @property
    def retries(self) -> int:
        """How often a failed job is tried again."""
        return self.policy.limit

    def most_attempts(self, retries: int) -> int:
        """A job that was begun this often is not begun again: each time, it failed or its worker died."""
        return max(retries, self.crash_retries) + 1

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function here, as if it were no task. Of an `async def`, the coroutine is returned."""
        result: T = self.function(*args, **kwargs)
        return result

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Put a call into the task's queue, for a worker to run.

        Raises BadCall for arguments that the function does not take or that JSON can not hold, and what `Queue.put`
        raises. JSON turns tuples into lists.
        """
        return self._send(args, kwargs, 0.0, _NO_KWARGS, self.lane)

    def send_many(self, calls: Iterable[tuple[Any, ...]]) -> list[Job[T]]:
        """One call for each tuple of positional arguments, in order, in few writes; much faster than `send` in a loop.

        After an error a prefix may have been sent, in whole batches of about 1,000 after BadCall; the `stored` of
        DiskFull and QueueFull says how long it is.
        """
        jobs: list[Job[T]] = []
        messages, steps = self._compose_many(calls, jobs), self._app.enqueue_steps
        if not steps:
            self._put_many(messages)
            return jobs
        sendings = [steps.before(message, self.queue) for message in messages]
        self._put_many(sending.message for sending in sendings)
        for sending in sendings:
            steps.after(sending)
        return jobs

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """A call to be sent later: what a producer yields. BadCall for arguments that the function does not take."""
        self._check(args, kwargs)
        return Call(self.lane, compose(self.name, args, kwargs))

    def options(
        self,
        *,
        delay: float | timedelta = 0.0,
        at: datetime | None = None,
        retries: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
    ) -> Sender[P, T]:
        """The task with options for sending: `task.options(delay=60).send(…)` runs in a minute at the earliest.

        delay    seconds, or a timedelta, before which it does not run
        at       the same as a moment: a datetime with a time zone, in which summer time is minded. Not with `delay`.
        retries  instead of the task's own
        queue    likewise. It waits there until a pool takes from that queue; `run` says which no pool takes from.
        priority
                 likewise

        Raises ValueError for options that make no sense.
        """
        options = {} if retries is None else {"retries": at_least(0, "retries", retries)}
        return Sender(self, _delay(delay, at, self._app.now), options, self._other_lane(queue, priority))

    def _other_lane(self, queue: str | None, priority: int | None) -> str:
        if queue is not None:
            self._app.require_tasks_queue(queue)
        level = self.priority if priority is None else check_priority(priority)
        return lane_name(self.queue if queue is None else queue, level)

    def _send(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], delay: float, options: dict[str, Any], lane: str
    ) -> Job[T]:
        if kwargs or self._arity is None or not self._arity[0] <= len(args) <= self._arity[1]:
            self._check(args, kwargs)
        message = compose(self.name, args, kwargs)
        message.update(options)
        steps = self._app.enqueue_steps
        queue = self.queue if lane is self.lane else split_lane(lane)[0]
        sending = steps.before(message, queue, delay) if steps else None
        try:
            self._app.queue(lane).put(message, delay=delay)
        except errors.RowError as error:
            raise self._bad_call(error) from error
        if sending is not None:
            steps.after(sending)
        return Job(self._app, message["id"], self.name, queue)

    def _compose_many(self, calls: Iterable[Any], jobs: list[Job[T]]) -> Iterator[dict[str, Any]]:
        """Messages for `calls`, which are checked; their jobs go to `jobs`."""
        app, name, queue = self._app, self.name, self.queue
        least, most = (1, 0) if self._arity is None else self._arity
        for args in calls:
            if not isinstance(args, tuple) or not least <= len(args) <= most:
                self._check(args, _NO_KWARGS)
            message = compose(name, args, _NO_KWARGS)
            jobs.append(Job(app, message["id"], name, queue))
            yield message

    def _put_many(self, messages: Iterable[dict[str, Any]]) -> None:
        try:
            self._app.queue(self.lane).put_many(messages)
        except errors.RowError as error:
            raise self._bad_call(error) from error

    def _check(self, args: Any, kwargs: dict[str, Any]) -> None:
        if not isinstance(args, tuple):
            raise self._bad_call(f"send_many takes tuples of arguments, not {type(args).__name__}")
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._bad_call(error) from error

    def _bad_call(self, why: object) -> errors.BadCall:
        return errors.BadCall(f"{self.name}{self._signature}: {why}", task=self.name)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class AsyncTask(Task[P, T]):
    """A task made of an `async def`: a worker awaits it, and calling it here gives the coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:  # type: ignore[override]
        """The coroutine of the function."""
        result: Coroutine[Any, Any, T] = self.function(*args, **kwargs)
        return result


class Sender(Generic[P, T]):
    """A task with options for sending."""

    __slots__ = ("_delay", "_lane", "_options", "_task")

    def __init__(self, task: Task[P, T], delay: float, options: dict[str, Any], lane: str) -> None:
        self._task = task
        self._delay = delay
        self._lane = lane
        #: What goes into the message.
        self._options = options

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """As `Task.send`."""
        return self._task._send(args, kwargs, self._delay, self._options, self._lane)


def _delay(delay: float | timedelta, at: datetime | None, now: Callable[[], float]) -> float:
    """Seconds from now."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if at is None:
        return at_least(0.0, "delay", seconds)
    if seconds:
        raise ValueError("delay and at exclude each other")
    if at.tzinfo is None:
        raise ValueError(f"at={at.isoformat()!r} has no time zone; say datetime(…, tzinfo=UTC) or ….astimezone()")
    return max(0.0, at.timestamp() - now())


def _plain_arity(signature: inspect.Signature) -> tuple[int, int] | None:
    """How many positional arguments fit without a closer look; None if that can not be told from their number."""
    parameters = list(signature.parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind not in plain for parameter in parameters):
        return None
    return sum(parameter.default is parameter.empty for parameter in parameters), len(parameters)
