"""Running sync and `async def` functions alike, until they are interrupted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from .retries import Cancel


class Caller:
    """Makes plain functions of coroutine functions, which then run on one event loop of this process."""

    def __init__(self) -> None:
        self._runner: Any = None
        #: The coroutine that runs, as asyncio's task, and whether it was interrupted.
        self._running: Any = None
        self._interrupted = False

    def plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, or for an `async def` a function that waits for it."""
        if not inspect.iscoroutinefunction(function):
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            return self._start_runner().run(self._await(function(*args, **kwargs)))

        return run

    def interrupt(self) -> None:
        """End what runs with `Cancel`. From a signal handler, and only while something runs."""
        if self._running is None:
            raise Cancel("called off while it ran")
        self._interrupted = True
        self._running.get_loop().call_soon_threadsafe(self._running.cancel)

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        self._running, self._interrupted = asyncio.current_task(), False
        try:
            return await coroutine
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
