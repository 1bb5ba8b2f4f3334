"""Running sync and `async def` functions alike, within a time limit if they have one, until they are interrupted.

The limit of a plain function is a timer of the process (SIGALRM), whose handler raises in the main thread. That reaches
Python code only: a loop in C goes on until it returns, which is what the hard limit is for. The limit of a coroutine is
asyncio's own.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from pistributer import errors

from .retries import Cancel


class Caller:
    """Makes plain functions of coroutine functions, which then run on one event loop of this process."""

    def __init__(self) -> None:
        self._runner: Any = None
        #: The coroutine that runs, as asyncio's task, and whether it was interrupted.
        self._running: Any = None
        self._interrupted = False

    def plain(self, function: Callable[..., Any], limit: float | None = None) -> Callable[..., Any]:
        """`function`, or for an `async def` a function that waits for it; TimeLimitExceeded after `limit` seconds."""
        if not inspect.iscoroutinefunction(function):
            return function if limit is None else _limited(function, limit)

        def run(*args: Any, **kwargs: Any) -> Any:
            return self._start_runner().run(self._await(function(*args, **kwargs), limit))

        return run

    def interrupt(self) -> None:
        """End what runs with `Cancel`. From a signal handler, and only while something runs."""
        if self._running is None:
            raise Cancel("called off while it ran")
        self._interrupted = True
        self._running.get_loop().call_soon_threadsafe(self._running.cancel)

    async def _await(self, coroutine: Coroutine[Any, Any, Any], limit: float | None) -> Any:
        import asyncio

        timeout = asyncio.timeout(limit)
        self._running, self._interrupted = asyncio.current_task(), False
        try:
            async with timeout:
                return await coroutine
        except TimeoutError as error:
            if limit is None or not timeout.expired():
                raise  # the task's own
            raise _exceeded(limit) from error
        except asyncio.CancelledError as error:
            if not self._interrupted:
                raise
            raise Cancel("called off while it ran") from error
        finally:
            self._running = None

    def close(self) -> None:
        """End the event loop, if there is one."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _start_runner(self) -> Any:
        if self._runner is None:
            # Imported here: most workers never need an event loop.
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner


def _limited(function: Callable[..., Any], limit: float) -> Callable[..., Any]:
    alarm = _Alarm(limit)

    def run(*args: Any, **kwargs: Any) -> Any:
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
    return errors.TimeLimitExceeded(
        f"still running after its soft time limit of {limit:g} s",
        hint="make it faster, or raise the limit",
        limit=limit,
    )
