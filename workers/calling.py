"""Running sync and `async def` functions alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Caller:
    """Makes plain functions of coroutine functions, which then run on one event loop of this process."""

    def __init__(self) -> None:
        self._runner: Any = None

    def plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, or for an `async def` a function that waits for it."""
        if not inspect.iscoroutinefunction(function):
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            return self._start_runner().run(function(*args, **kwargs))

        return run

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
