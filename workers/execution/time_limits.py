"""Soft time limits: TimeLimitExceeded is raised inside the task, which may catch it and tidy up.

The limit of a plain function is a timer of the process (SIGALRM), whose handler raises in the main thread. That reaches
Python code only: a loop in C goes on until it returns, which is what the hard limit is for. The limit of a coroutine is
asyncio's own. In a process that runs several jobs at once, the limit of a plain function is minded by the main thread
(concurrency.py).
"""

from __future__ import annotations

import functools
import inspect
import signal
import threading
from collections.abc import Callable
from typing import Any

from pistributer import errors

from ..hooks import Hook
from ..tasks import Task


class SoftTimeLimits(Hook):
    """Holds what it wraps to a limit of so many seconds; None: to none."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit

    def wrap(self, task: Task[Any, Any], function: Callable[..., Any]) -> Callable[..., Any]:
        if self.limit is None:
            return function
        limited = _limited_coroutine if inspect.iscoroutinefunction(function) else _limited
        return limited(function, self.limit)


class CoroutineTimeLimits(SoftTimeLimits):
    """Holds only coroutines to it."""

    def wrap(self, task: Task[Any, Any], function: Callable[..., Any]) -> Callable[..., Any]:
        return super().wrap(task, function) if inspect.iscoroutinefunction(function) else function


def time_is_up(limit: float) -> type[errors.TimeLimitExceeded]:
    """TimeLimitExceeded as a class that needs no arguments, to be raised in another thread (attempts.py)."""

    class TimeLimitExceeded(errors.TimeLimitExceeded):
        def __init__(self) -> None:
            super().__init__(**_words(limit))

    return TimeLimitExceeded


def _limited_coroutine(function: Callable[..., Any], limit: float) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # here, because most workers never need it

        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                return await function(*args, **kwargs)
        except TimeoutError as error:
            if not timeout.expired():
                raise  # the task's own
            raise _exceeded(limit) from error

    return run


def _limited(function: Callable[..., Any], limit: float) -> Callable[..., Any]:
    alarm = _Alarm(limit)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)  # in a test (pistributer.testing); no signal comes here
        alarm.set()
        try:
            return function(*args, **kwargs)
        finally:
            alarm.clear()

    return run


class _Alarm:
    """Raises TimeLimitExceeded in the main thread, once, `limit` seconds after `set`, unless `clear` comes before."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._is_set = False

    def set(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)  # each time: the task before may have used it for itself
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, self._limit)

    def clear(self) -> None:
        # First the mark: a signal that has come and waits for its handler must find nothing to do.
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _ring(self, number: int, frame: object) -> None:
        if self._is_set:
            self._is_set = False
            raise _exceeded(self._limit)


def _exceeded(limit: float) -> errors.TimeLimitExceeded:
    return errors.TimeLimitExceeded(**_words(limit))


def _words(limit: float) -> dict[str, Any]:
    return {
        "message": f"still running after its soft time limit of {limit:g} s",
        "hint": "make it faster, or raise the limit",
        "limit": limit,
    }
