"""What an app is made of: the functions that its decorators take, with their options, and when they run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, get_args, overload

from pistributer.queues.sources import check_source_name

from .checks import at_least, check_limit, check_retention, check_tags
from .home import DEFAULT_QUEUE, check_priority, check_queue_name
from .hooks import EnqueueSteps, Hook
from .retries import Backoff, RetryPolicy
from .schedules import Misfire, Schedule, check_cron, find_zone
from .tasks import AsyncTask, Key, Task
from .tickets.rates import RateLimit, read_rate
from .tickets.wishes import Unique

if TYPE_CHECKING:
    from .app import App

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Exceptions = type[BaseException] | tuple[type[BaseException], ...]

#: How often a job or row whose worker died is tried again, at least, if nothing else was said.
CRASH_RETRIES = 2


@dataclass(frozen=True)
class Producer:
    """A supervised generator. It yields calls of tasks, pairs `(queue, row)`, or rows of its own queue."""

    name: str
    function: Callable[..., Iterator[Any]]
    #: Where plain rows go; None: each must say where.
    queue: str | None
    #: Whether it is called with its last checkpoint, and yields `(what, checkpoint)`.
    resumes: bool


@dataclass(frozen=True)
class Consumer:
    """A supervised function that is called with the rows of a queue."""

    name: str
    function: Callable[..., Any]
    queue: str
    #: 1: called with one row; more: with a list of at most so many.
    batch: int
    #: Seconds that a row may wait for the others of its batch; None: none waits.
    max_wait: float | None
    policy: RetryPolicy
    crash_retries: int
    processes: int

    @property
    def most_attempts(self) -> int:
        """A row that was handed out this often is not handed out again."""
        # One more with batches: a failure in company does not count against a row, see execution/consumers.py.
        return max(self.policy.limit, self.crash_retries) + 1 + (self.batch > 1)


class Declarations:
    """The part of an app that its decorators fill; only `App` is one. Nothing is opened or made on disk here.

    The options of `task` stand here twice, once for type checkers and once to be read with their defaults: no way to say
    them once keeps names, types and defaults in sight of editors.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.producers: dict[str, Producer] = {}
        self.consumers: dict[str, Consumer] = {}
        self.schedules: dict[str, Schedule] = {}
        self.hooks: tuple[Hook, ...] = ()
        #: What they do around each job that is sent.
        self.enqueue_steps = EnqueueSteps(())

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncTask[P, T]: ...
    @overload
    def task(self, function: Callable[P, T], /) -> Task[P, T]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        retries: int = 0,
        retry_delay: float | Backoff = 1.0,
        retry_on: Exceptions = BaseException,
        stop_on: Exceptions = (),
        crash_retries: int = CRASH_RETRIES,
        soft_time_limit: float | None = None,
        hard_time_limit: float | None = None,
        results: bool | float = True,
        key: Key | None = None,
        key_limit: int = 1,
        unique: Unique | None = None,
        unique_key: Key | None = None,
        rate_limit: RateLimit | str | None = None,
        tags: Iterable[str] = (),
    ) -> _Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a task of a function: `@app.task`, or `@app.task(retries=2)`.

        name           how messages call it; the function's name
        queue          where its calls wait; each queue has workers of its own, unless `run` is given pools
        priority       0 to 9: of the calls that wait in one queue, higher ones are begun first
        retries        how often it is tried again after it raised; then the job goes to the dead letters
        retry_delay    seconds before the first of these at the longest; doubled each time, with full jitter, up to an
                       hour. A `Backoff` says it in detail.
        retry_on, stop_on
                       only these exceptions are tried again; these never are. A task itself decides by raising `Retry`,
                       `Snooze` or `Cancel`.
        crash_retries  how often a job whose worker died is tried again, at least. All attempts count together.
        soft_time_limit
                       seconds after which TimeLimitExceeded is raised inside the task, which may catch it and tidy up
        hard_time_limit
                       seconds after which its process is killed, within a quarter of a second. The attempt counts, as
                       for any worker that died.
        results        False: keep none, so `Job.result` does not work, and short tasks run faster. A number: keep them so
                       many seconds, instead of the app's `results_age`
        key            the name of a parameter, or a function of the arguments: jobs whose key is the same are begun one after
                       the other, in the order in which they were sent. Keys of different tasks have nothing to do with
                       each other. None: this job has no key
        key_limit      how many jobs of one key may run at once
        unique         what to do with a job while an equal one is pending, which is sent and has not begun: "skip" it,
                       "replace" the other one by it, or "join": give the other one's handle
        unique_key     as `key`: what makes jobs equal, instead of their arguments
        rate_limit     how many jobs may begin in a time, over all workers: a `RateLimit`, or a text such as "10/s"
        tags           texts that go with each message, for people and `jq`

        ValueError for a name that is taken.
        """
        if function is None:
            return functools.partial(self._add_task, **options)
        return self._add_task(function, **options)

    def _add_task(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        retries: int = 0,
        retry_delay: float | Backoff = 1.0,
        retry_on: Exceptions = BaseException,
        stop_on: Exceptions = (),
        crash_retries: int = CRASH_RETRIES,
        soft_time_limit: float | None = None,
        hard_time_limit: float | None = None,
        results: bool | float = True,
        key: Key | None = None,
        key_limit: int = 1,
        unique: Unique | None = None,
        unique_key: Key | None = None,
        rate_limit: RateLimit | str | None = None,
        tags: Iterable[str] = (),
    ) -> Task[..., Any]:
        name = name or _name_of(function)
        _require_free(name, self.tasks, "task")
        self.require_tasks_queue(queue)
        kind = AsyncTask if inspect.iscoroutinefunction(function) else Task
        self.tasks[name] = kind(
            cast("App", self), function, name=name, queue=queue, priority=check_priority(priority),
            policy=_policy(retries, retry_delay, retry_on, stop_on),
            crash_retries=at_least(0, "crash_retries", crash_retries), soft_time_limit=check_limit(soft_time_limit),
            hard_time_limit=check_limit(hard_time_limit), results=check_retention(results), key=key,
            key_limit=at_least(1, "key_limit", key_limit), unique=unique, unique_key=unique_key,
            rate_limit=read_rate(rate_limit), tags=check_tags(tags),
        )  # fmt: skip
        return self.tasks[name]

    @overload
    def producer(self, function: F, /) -> F: ...
    @overload
    def producer(self, /, *, queue: str | None = None, name: str | None = None) -> Callable[[F], F]: ...
    def producer(self, function: Any = None, /, **options: Any) -> Any:
        """Have a generator function run in a process of its own, once, to its end: `@app.producer`.

        It yields calls (`task.call(…)`), pairs `(queue, row)`, or, declared with `@app.producer(queue="rows")`, plain
        rows.

        A function with one parameter goes on where it was: it is called with its last checkpoint (None at first) and
        yields pairs `(call or row, checkpoint)`. A checkpoint is any JSON value, and is committed in one step with its
        row. Whenever the process is killed, and in the next run too, what follows the last checkpoint comes next, without
        a gap or a repeat; `rewind` changes that. A function without a parameter begins again from the start: make what
        it yields safe to be done twice.
        """
        if function is None:
            return functools.partial(self.producer, **options) if not options else self._producer_decorator(**options)
        return self._producer_decorator()(function)

    def _producer_decorator(self, *, queue: str | None = None, name: str | None = None) -> Callable[[F], F]:
        def register(function: F) -> F:
            if not inspect.isgeneratorfunction(function):
                raise TypeError(f"a producer is a generator function; {_name_of(function)} has no yield")
            chosen = name or _name_of(function)
            _require_free(chosen, self.producers, "producer")
            parameters = len(inspect.signature(function).parameters)
            if parameters > 1:
                raise TypeError(
                    f"a producer takes nothing or its last checkpoint; {chosen} takes {parameters} arguments"
                )
            if parameters:
                check_source_name(chosen)
            self.producers[chosen] = Producer(chosen, function, queue and check_queue_name(queue), bool(parameters))
            return function

        return register

    def consumer(
        self,
        queue: str,
        /,
        *,
        batch: int = 1,
        max_wait: float | None = None,
        name: str | None = None,
        retries: int = 0,
        retry_delay: float | Backoff = 1.0,
        retry_on: Exceptions = BaseException,
        stop_on: Exceptions = (),
        crash_retries: int = CRASH_RETRIES,
        processes: int = 1,
    ) -> Callable[[F], F]:
        """Have a function called with the rows of `queue`, in a process of its own: `@app.consumer("rows")`.

        batch      more than 1: it is called with a list of at most so many rows; of as many as there are, and at once
        max_wait   … unless this is given: then it waits for `batch` rows, but no longer than so many seconds from the moment
                   at which it has taken the first
        processes  how many processes do this

        A row is acknowledged when the function returns. If it raises, the row is tried again `retries` times and then
        goes to the dead letters; the rows of a batch that raised come back one by one, so that only the bad ones go
        there. The other options are those of `task`.
        """

        if max_wait is not None and (max_wait <= 0 or batch == 1):
            raise ValueError(f"max_wait is a number of seconds, and needs a batch to wait for; not {max_wait!r}")

        def register(function: F) -> F:
            chosen = name or _name_of(function)
            _require_free(chosen, self.consumers, "consumer")
            self._require_unlike(queue, [task.queue for task in self.tasks.values()], "task calls")
            self.consumers[chosen] = Consumer(
                chosen, function, check_queue_name(queue), at_least(1, "batch", batch), max_wait,
                _policy(retries, retry_delay, retry_on, stop_on), at_least(0, "crash_retries", crash_retries),
                at_least(1, "processes", processes),
            )  # fmt: skip
            return function

        return register

    def schedule(
        self,
        task: Task[..., Any],
        /,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        zone: str = "UTC",
        misfire: Misfire = "once",
        name: str | None = None,
    ) -> None:
        """Have a task called again and again: `app.schedule(report, cron="0 3 * * *", zone="Europe/Berlin")`.

        cron, every   one of the two: a cron expression (extra `cron`), or seconds or a timedelta. Intervals begin at
                      multiples of their length since the epoch, not at the start of the run
        args, kwargs  what the task is called with
        zone          the time zone of the cron expression
        misfire       moments that nobody was there for, a minute or longer: "once" runs once for all of them, "all"
                      once for each, "skip" not at all. A schedule that is new has missed nothing
        name          of the schedule, by which it remembers how far it has come; the task's name

        Each moment is run once, however often processes are killed. Raises ValueError for what makes no sense, BadCall
        for arguments that the task does not take, PackageMissing without cronsim.
        """
        if (cron is None) == (every is None):
            raise ValueError("a schedule has either cron= or every=")
        seconds = every.total_seconds() if isinstance(every, timedelta) else every
        if seconds is not None and seconds <= 0:
            raise ValueError(f"every must be positive, not {every!r}")
        if misfire not in get_args(Misfire):
            raise ValueError(f"misfire is one of {', '.join(get_args(Misfire))}, not {misfire!r}")
        chosen = check_source_name(name or task.name)
        _require_free(chosen, self.schedules, "schedule")
        task.call(*args, **(kwargs or {}))
        self.schedules[chosen] = Schedule(
            chosen, task.name, task.lane, args, kwargs or {},
            None if cron is None else check_cron(cron), seconds, find_zone(zone), misfire,
        )  # fmt: skip

    def add_hook(self, hook: Hook) -> None:
        """Have `hook` called around everything that is sent and run from now on; see `Hook`."""
        self.hooks = (*self.hooks, hook)
        self.enqueue_steps = EnqueueSteps(self.hooks)

    def require_tasks_queue(self, queue: str) -> None:
        """ValueError for what is no queue's name, or the queue of a consumer, which expects other rows."""
        check_queue_name(queue)
        self._require_unlike(queue, [consumer.queue for consumer in self.consumers.values()], "rows")

    def _require_unlike(self, queue: str, others: list[str], what: str) -> None:
        if queue in others:
            raise ValueError(f"the queue {queue!r} holds {what} already; tasks and consumers need different queues")


class _Decorator:
    """For type checkers only: what `app.task(…)` with options gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Task[P, T]: ...
    def __call__(self, function: Any, /) -> Any:
        raise NotImplementedError


def _policy(retries: int, delay: float | Backoff, retry_on: Exceptions, stop_on: Exceptions) -> RetryPolicy:
    backoff = delay if isinstance(delay, Backoff) else Backoff(at_least(0.0, "retry_delay", delay))
    return RetryPolicy(at_least(0, "retries", retries), backoff, _exceptions(retry_on), _exceptions(stop_on))


def _exceptions(given: Exceptions) -> tuple[type[BaseException], ...]:
    found: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retry_on and stop_on take exception classes, not {kind!r}")
    return found


def _name_of(function: Any) -> str:
    # Not the module: it differs between a script that runs and the same script loaded by a worker.
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _require_free(name: str, taken: dict[str, Any], what: str) -> None:
    if name in taken:
        raise ValueError(f"there is a {what} {name!r} already; give one of them another name=")
