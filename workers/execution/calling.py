"""Running sync and `async def` functions alike, until they are interrupted.

`Caller` is for a process that runs one job at a time, in its main thread. `SharedLoop` is for one that runs many, each in a
thread: their coroutines run side by side on one event loop, and the threads wait for them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..retries import Cancel


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


class SharedLoop:
    """One event loop, in a thread of its own, for the coroutines of all other threads."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        #: By the thread that waits for it: the coroutine, as asyncio's task, and what it was interrupted with.
        self._tasks: dict[int, Any] = {}
        self._interrupts: dict[int, type[BaseException]] = {}

    def plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, or for an `async def` a function that waits for it in the calling thread."""
        if not inspect.iscoroutinefunction(function):
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            import asyncio

            coroutine = self._await(function(*args, **kwargs), threading.get_ident())
            # The context of this thread, which hooks may have set, goes along.
            value, error = asyncio.run_coroutine_threadsafe(coroutine, self._start()).result()
            if error is not None:
                raise error
            return value

        return run

    def interrupt(self, thread: int, error: type[BaseException]) -> None:
        """End the coroutine that `thread` waits for, or is about to wait for, with `error`."""
        self._interrupts[thread] = error
        task = self._tasks.get(thread)
        if task is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    def forget_interrupt(self, thread: int) -> None:
        """What `thread` waits for next is another coroutine."""
        self._interrupts.pop(thread, None)

    async def _await(self, coroutine: Coroutine[Any, Any, Any], thread: int) -> tuple[Any, BaseException | None]:
        """What it returned and what it raised. Raised here, a SystemExit would end the loop, and all coroutines with it."""
        import asyncio

        self._tasks[thread] = task = asyncio.current_task()
        if task is not None and thread in self._interrupts:
            task.cancel()  # it was interrupted before this line
        try:
            return await coroutine, None
        except asyncio.CancelledError as error:
            kind = self._interrupts.get(thread)
            return None, error if kind is None else kind()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            return None, error
        finally:
            del self._tasks[thread]

    def _start(self) -> Any:
        with self._starting:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="coroutines", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """End the event loop, if there is one. No coroutine of a job runs any more."""
        if self._loop is None or self._thread is None:
            return
        import asyncio

        asyncio.run_coroutine_threadsafe(self._tidy(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    async def _tidy(self) -> None:
        """What jobs have left behind: their own asyncio tasks, generators, threads."""
        import asyncio

        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()
