"""What a sender may say of one call, or of many, beside its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

from pistributer import errors

from .checks import at_least
from .tickets.wishes import Unique

if TYPE_CHECKING:
    from .jobs import Job
    from .messages import Call, Follower
    from .tasks import Task

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asks:
    """What a sender asks the tickets for, beside what its task asks for always."""

    key: str | None = None
    unique: Unique | None = None
    unique_key: str | None = None
    idempotency_id: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """All that goes with a call."""

    #: Where it waits (home.py).
    lane: str
    #: Fields of its message, beside what it calls.
    fields: dict[str, Any]
    #: None: it does not go through the tickets.
    asks: Asks | None
    #: Seconds.
    delay: float = 0.0
    #: Whether its result is kept; None: as the task says.
    kept: bool | None = None


class Sender(Generic[P, T]):
    """A task with options for sending."""

    __slots__ = ("_choice", "_task")

    def __init__(self, task: Task[P, T], choice: Choice) -> None:
        self._task = task
        self._choice = choice

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """As `Task.send`."""
        return self._task._send(args, kwargs, self._choice)

    def send_many(self, calls: Iterable[tuple[Any, ...]]) -> list[Job[T]]:
        """As `Task.send_many`, each call with these options; with a delay, in a write for each.

        BadCall with `idempotency_id` or `unique_key`, which say that all of them are one job.
        """
        self._refuse(
            "send_many", "they would be one job for all calls; send each with its own", "idempotency_id", "unique_key"
        )
        return self._task._send_many(calls, self._choice)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """As `Task.call`, with these options. BadCall with `delay`, `at` or `idempotency_id`, which are about sending."""
        self._refuse("call", "it is about the moment of sending", "delay", "idempotency_id")
        return self._task._call(args, kwargs, self._choice)

    def then(self: Sender[Concatenate[A, Q], T], *args: Q.args, **kwargs: Q.kwargs) -> Follower[A, T]:
        """As `Task.then`, with these options. BadCall with those that `call` refuses, and with `unique`: what follows from a
        job is sent once in any case.
        """
        self._refuse("then", "it is about the moment of sending", "delay", "idempotency_id", "unique", "unique_key")
        return self._task._then(args, kwargs, self._choice)

    def _refuse(self, what: str, why: str, *names: str) -> None:
        for name in names:
            if name == "delay" and self._choice.delay:
                said = "delay= or at="
            elif name != "delay" and getattr(self._choice.asks, name, None) is not None:
                said = f"{name}="
            else:
                continue
            task = self._task.name
            raise errors.BadCall(f"{task}.options(…).{what} does not take {said}", hint=why, task=task)


def check_unique(unique: Unique | None) -> Unique | None:
    """`unique`, or ValueError for a word that means nothing."""
    if unique is not None and unique not in get_args(Unique):
        raise ValueError(f"unique is one of {', '.join(get_args(Unique))}, not {unique!r}")
    return unique


def seconds_until(delay: float | timedelta, at: datetime | None, now: Callable[[], float]) -> float:
    """Seconds from now. ValueError for both, and for a moment without a time zone."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if at is None:
        return at_least(0.0, "delay", seconds)
    if seconds:
        raise ValueError("delay and at exclude each other")
    if at.tzinfo is None:
        raise ValueError(f"at={at.isoformat()!r} has no time zone; say datetime(…, tzinfo=UTC) or ….astimezone()")
    return max(0.0, at.timestamp() - now())
