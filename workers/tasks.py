"""A function that can be sent to workers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from pistributer import errors

from .checks import at_least, check_tags
from .home import check_priority, lane_name, split_lane
from .jobs import Job
from .messages import Call, Follower, compose
from .options import Asks, Choice, Sender, check_unique, seconds_until
from .retries import RetryPolicy
from .terms import AS_TASK, AsTask, chosen, results_wanted
from .tickets.gate import put_each
from .tickets.rates import RateLimit
from .tickets.wishes import Answer, Unique, Wish, equality, ticket_key

if TYPE_CHECKING:
    from .app import App

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
T = TypeVar("T")
#: The name of a parameter, or a function of the arguments. None: this call has none.
Key = str | Callable[..., str | int | None]

_NO_KWARGS: dict[str, Any] = {}
_NO_WISH = Wish()


class Task(Generic[P, T]):
    """Made by `@app.task`. Calling it runs the function here and now; `send` has a worker run it.

    Attributes: `name`, `queue`, `priority`, `policy` (when a failure is tried again), `crash_retries`, `soft_time_limit`,
    `hard_time_limit`, `results`, `key`, `key_limit`, `unique`, `unique_key`, `rate_limit`, `tags`, `function`.
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
        results: bool | float,
        key: Key | None = None,
        key_limit: int = 1,
        unique: Unique | None = None,
        unique_key: Key | None = None,
        rate_limit: RateLimit | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.app = app
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
        self._places = {name: place for place, name in enumerate(self._signature.parameters)}
        self.key = key
        self.key_limit = key_limit
        self.unique = unique
        self.unique_key = unique_key
        self.rate_limit = rate_limit
        self.tags = tags
        self._check_keys()
        asks = Asks() if key is not None or unique is not None else None
        #: What goes with a call that is sent without options.
        self._plain = Choice(self.lane, {"tags": list(tags)} if tags else _NO_KWARGS, asks)
        functools.update_wrapper(self, function)

    def _check_keys(self) -> None:
        check_unique(self.unique)
        for option, key in (("key", self.key), ("unique_key", self.unique_key)):
            if isinstance(key, str) and key not in self._signature.parameters:
                known = ", ".join(self._signature.parameters) or "none"
                raise ValueError(f"{option}={key!r} names no parameter of {self.name}; it has: {known}")
        if self.unique_key is not None and self.unique is None:
            raise ValueError("unique_key= says which jobs are equal; say with unique= what is done about it")

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
        return self._send(args, kwargs, self._plain)

    def send_many(self, calls: Iterable[tuple[Any, ...]]) -> list[Job[T]]:
        """One call for each tuple of positional arguments, in order, in few writes; much faster than `send` in a loop.

        After an error a prefix may have been sent, in whole batches of about 1,000 after BadCall; the `stored` of
        DiskFull and QueueFull says how long it is.
        """
        return self._send_many(calls, self._plain)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """A call to be sent later: what a producer yields, and `chain`, `group` and `chord` take.

        Its key and its uniqueness, if the task has any, go with it; its uniqueness not into a chain or chord. BadCall for
        arguments that the function does not take.
        """
        return self._call(args, kwargs, self._plain)

    def then(self: Task[Concatenate[A, Q], T], *args: Q.args, **kwargs: Q.kwargs) -> Follower[A, T]:
        """A call that follows another one, whose result is its first argument: `chain(a.call(1), b.then(width=80))`.

        The arguments given here are the others. BadCall if the function does not take them.
        """
        return self._then(args, kwargs, self._plain)

    def map(self, values: Iterable[Any], *, window: int = 1000, timeout: float | None = None) -> Iterator[T]:
        """Run a job for each value, and yield the results in order, while later jobs run.

        window   how many jobs there are at once, at most: so many values and results are in memory, however long the
                 iterable is. The next value is taken from it when a result has been fetched.
        timeout  seconds to wait for one result

        Raises what `send` and `Job.result` raise; JobFailed for the value that failed, and the jobs that were sent by then
        go on. ValueError if the task keeps no results.
        """
        from .composition import map_values

        # `Task[Concatenate[A, ...], T]` would check the values in pyright, and refuse all of them in mypy.
        return map_values(self, values, window, timeout)

    def options(
        self,
        *,
        delay: float | timedelta = 0.0,
        at: datetime | None = None,
        retries: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        soft_time_limit: float | AsTask | None = AS_TASK,
        hard_time_limit: float | AsTask | None = AS_TASK,
        results: bool | float | None = None,
        rate_limit: RateLimit | str | AsTask | None = AS_TASK,
        key: str | None = None,
        unique: Unique | None = None,
        unique_key: str | None = None,
        idempotency_id: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Sender[P, T]:
        """The task with options for sending: `task.options(delay=60).send(…)` runs in a minute at the earliest.

        delay    seconds, or a timedelta, before which it does not run
        at       the same as a moment: a datetime with a time zone, in which summer time is minded. Not with `delay`.
        retries  instead of the task's own
        queue    likewise. It waits there until a pool takes from that queue; `run` says which no pool takes from.
        priority
                 likewise
        soft_time_limit, hard_time_limit
                 likewise, in seconds; None: none, whatever the task says
        results  likewise: whether its result is kept, or how many seconds
        rate_limit
                 likewise. The jobs of this task that were sent with this limit are counted by themselves: they do not count
                 for the task's own limit, nor wait for it. None: it waits for none
        key      instead of what the task's `key` gives
        unique, unique_key
                 instead of the task's own; here the key itself is given
        idempotency_id
                 a second send of this task with the same id, within the app's `idempotency_age`, gives the first one's job
        tags     in addition to the task's own

        Raises ValueError for options that make no sense.
        """
        fields = dict(self._plain.fields)
        if retries is not None:
            fields["retries"] = at_least(0, "retries", retries)
        if tags is not None:
            fields["tags"] = [*self.tags, *check_tags(tags)]
        if options := chosen(soft_time_limit, hard_time_limit, results, rate_limit):
            fields["options"] = options
        if unique_key is not None and (unique or self.unique) is None:
            raise ValueError("unique_key= says which jobs are equal; say with unique= what is done about it")
        asks = Asks(key, check_unique(unique), unique_key, idempotency_id)
        wanted = self._plain.asks if asks == Asks() else asks
        seconds = seconds_until(delay, at, self.app.now)
        return Sender(self, Choice(self._other_lane(queue, priority), fields, wanted, seconds, results_wanted(fields)))

    def _other_lane(self, queue: str | None, priority: int | None) -> str:
        if queue is not None:
            self.app.require_tasks_queue(queue)
        level = self.priority if priority is None else check_priority(priority)
        return lane_name(self.queue if queue is None else queue, level)

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any], choice: Choice) -> Job[T]:
        if kwargs or self._arity is None or not self._arity[0] <= len(args) <= self._arity[1]:
            self._check(args, kwargs)
        message = compose(self.name, args, kwargs)
        message.update(choice.fields)
        steps, lane, asks = self.app.enqueue_steps, choice.lane, choice.asks
        queue = self._queue_of(choice)
        sending = steps.before(message, queue, choice.delay) if steps else None
        job: Job[T] = Job(self.app, message["id"], self.name, queue, choice.kept)
        try:
            if asks is not None and (wish := self._wish(message, asks)) != _NO_WISH:
                job = self._job(self.app.gate.send(lane, message, choice.delay, wish), job)
            else:
                self.app.queue(lane).put(message, delay=choice.delay)
        except errors.RowError as error:
            raise self._bad_call(error) from error
        if sending is not None and job.id == message["id"]:
            steps.after(sending)
        return job

    def _send_many(self, calls: Iterable[tuple[Any, ...]], choice: Choice) -> list[Job[T]]:
        jobs: list[Job[T]] = []
        messages, steps = self._compose_many(calls, jobs, choice), self.app.enqueue_steps
        if not steps:
            return self._put_many(messages, jobs, choice)
        sendings = [steps.before(message, self._queue_of(choice), choice.delay) for message in messages]
        sent = self._put_many((sending.message for sending in sendings), jobs, choice)
        for sending, job in zip(sendings, sent, strict=True):
            if job.id == sending.message["id"]:
                steps.after(sending)
        return sent

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], choice: Choice) -> Call[T]:
        self._check(args, kwargs)
        message = compose(self.name, args, kwargs)
        message.update(choice.fields)
        wish = None if choice.asks is None else self._wish(message, choice.asks)
        return Call(choice.lane, message, self.app, wish if wish is not None and wish.unique is not None else None)

    def _then(self, args: tuple[Any, ...], kwargs: dict[str, Any], choice: Choice) -> Follower[Any, T]:
        self._check((None, *args), kwargs)
        message = {**compose(self.name, args, kwargs), **choice.fields}
        if choice.asks is not None and choice.asks.key is not None:
            message["key"], message["ticket"] = choice.asks.key, 0
        return Follower(self.app, choice.lane, message)

    def _queue_of(self, choice: Choice) -> str:
        return self.queue if choice.lane is self.lane else split_lane(choice.lane)[0]

    def _job(self, answer: Answer, asked: Job[T]) -> Job[T]:
        queue = split_lane(answer.queue)[0]
        if answer.skipped:
            from .skipped import SkippedJob

            return SkippedJob(self.app, self.name, queue, answer.job)
        return asked if answer.job == asked.id else Job(self.app, answer.job, self.name, queue)

    def _wish(self, message: dict[str, Any], asks: Asks) -> Wish:
        """What the tickets are asked for; marks the message as one that has a ticket, and gives it its key."""
        args, kwargs = message.get("args", ()), message.get("kwargs", _NO_KWARGS)
        key = asks.key if asks.key is not None else self.key_for(args, kwargs)
        if key is not None:
            message["key"], message["ticket"] = key, 0
        unique = asks.unique or self.unique
        equal = None if unique is None else self._equality(args, kwargs, asks.unique_key)
        return Wish(
            ticket_key(self.name, key), self.key_limit if key is not None else 1, unique, equal, asks.idempotency_id
        )

    def _equality(self, args: Any, kwargs: dict[str, Any], given: str | None) -> str:
        key = given if given is not None else self._value_of(self.unique_key, args, kwargs)
        if key is not None:
            return f"{self.name}\n{key}"
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return equality(self.name, bound.arguments)

    def key_for(self, args: Any, kwargs: dict[str, Any]) -> str | None:
        """The key of a call with these arguments; None if it has none. Raises what the task's `key` function raises."""
        return self._value_of(self.key, args, kwargs)

    def _value_of(self, key: Key | None, args: Any, kwargs: dict[str, Any]) -> str | None:
        if key is None:
            return None
        found: Any
        if callable(key):
            found = key(*args, **kwargs)
        elif self._arity is not None and not kwargs and (place := self._places.get(key, len(args))) < len(args):
            found = args[place]  # what binding would find, at a tenth of its price
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            found = bound.arguments[key]
        if found is not None and not isinstance(found, (str, int)):
            raise self._bad_call(f"a key is a text or an integer, not {type(found).__name__}")
        return None if found is None else str(found)

    def _compose_many(self, calls: Iterable[Any], jobs: list[Job[T]], choice: Choice) -> Iterator[dict[str, Any]]:
        """Messages for `calls`, which are checked; their jobs go to `jobs`."""
        app, name, queue, fields, kept = self.app, self.name, self._queue_of(choice), choice.fields, choice.kept
        least, most = (1, 0) if self._arity is None else self._arity
        for args in calls:
            if not isinstance(args, tuple) or not least <= len(args) <= most:
                self._check(args, _NO_KWARGS)
            message = compose(name, args, _NO_KWARGS)
            if fields:
                message.update(fields)
            jobs.append(Job(app, message["id"], name, queue, kept))
            yield message

    def _put_many(self, messages: Iterable[dict[str, Any]], jobs: list[Job[T]], choice: Choice) -> list[Job[T]]:
        """Send the messages of these jobs; the jobs that they are, which may be others."""
        lane, asks, delay = choice.lane, choice.asks, choice.delay
        try:
            if asks is not None:
                wishes = ((message, self._wish(message, asks)) for message in messages)
                answers = self.app.gate.send_many(lane, wishes, delay)
                return [self._job(answer, jobs[number]) for number, answer in enumerate(answers)]
            if delay:
                put_each(self.app.queue(lane), messages, delay)
            else:
                self.app.queue(lane).put_many(messages)
            return jobs
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


def _plain_arity(signature: inspect.Signature) -> tuple[int, int] | None:
    """How many positional arguments fit without a closer look; None if that can not be told from their number."""
    parameters = list(signature.parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind not in plain for parameter in parameters):
        return None
    return sum(parameter.default is parameter.empty for parameter in parameters), len(parameters)
