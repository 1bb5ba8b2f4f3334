"""Queues for asyncio: `await queue.get()` without blocking the loop.

What a queue does takes microseconds, or with `sync="each"` milliseconds; what may take long is waiting. So each object has
two threads: one in which everything is done, in the order in which it was called, and one that waits, for all tasks that
wait. A task that is cancelled while a claim is on its way loses nothing: what was claimed goes to the next one that asks.

Refused: a thread for each call (puts of one task would overtake each other), and watching the doorbell's FIFO from the
loop (a ring can be lost, so somebody has to look around all the same, and selectors differ between loops).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from .. import errors
from .contract import Item, Queue, Stats
from .durable import DurableQueue
from .opening import open_queue

#: Longest call of the thread that waits, in seconds. After its task was cancelled, it goes on for so long at most.
_SLICE = 0.25
#: Seconds between two looks of `join`.
_LOOK = 0.01

_Result = TypeVar("_Result")
_Claimed = TypeVar("_Claimed")


class _Threads(Generic[_Claimed]):
    """The two threads of one queue object, and what was claimed for tasks that were cancelled meanwhile."""

    def __init__(self, name: str, wait: Callable[[float], object]) -> None:
        self._doing = ThreadPoolExecutor(1, f"pistributer-{name}")
        self._waiting = ThreadPoolExecutor(1, f"pistributer-{name}-waits")
        self._wait = wait
        self._turn = asyncio.Lock()
        self._left: deque[_Claimed] = deque()
        self._closed = False

    async def do(self, function: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
        return await asyncio.wrap_future(self._submit(self._doing, partial(function, *args, **options)))

    def _submit(self, thread: ThreadPoolExecutor, function: Callable[..., _Result], *args: Any) -> Future[_Result]:
        if self._closed:
            raise errors.QueueClosed("this queue was closed", hint="open it again")
        return thread.submit(function, *args)

    async def take(self, claim: Callable[[], list[_Claimed]], n: int, timeout: float | None) -> list[_Claimed]:
        """Up to `n` things that `claim` returns, an empty list after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (taken := await self._take(claim, n)):
            if deadline is not None and time.monotonic() >= deadline:
                break
            await self._sleep(deadline)
        return taken

    async def _take(self, claim: Callable[[], list[_Claimed]], n: int) -> list[_Claimed]:
        if self._left:
            return [self._left.popleft() for _ in range(min(n, len(self._left)))]
        future = self._submit(self._doing, claim)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._keep)
            raise

    def _keep(self, future: Future[list[_Claimed]]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._left.extend(future.result())

    async def _sleep(self, deadline: float | None) -> None:
        """Until something may be there. One task sleeps in the thread; the others sleep until it is their turn."""
        left = _SLICE if deadline is None else min(_SLICE, max(0.0, deadline - time.monotonic()))
        try:
            async with asyncio.timeout(left + _SLICE if deadline is None else left), self._turn:
                await asyncio.wrap_future(self._submit(self._waiting, self._wait, left))
        except TimeoutError:
            pass  # the caller looks once more, and at the clock

    async def close(self, close: Callable[[], None]) -> None:
        if self._closed:
            return
        closing = self._submit(self._doing, close)
        self._closed = True
        try:
            await asyncio.wrap_future(closing)
        finally:
            self._doing.shutdown(wait=False)
            self._waiting.shutdown(wait=False)


class AsyncQueue:
    """A `Queue` for asyncio. Each method does what the one of the same name in the contract does; `get` is new.

    `queue` is a URL or path, opened with `options` as by `open_queue`, or an open Queue, which is closed with this object.
    Make it inside a running loop, and use it in that loop only.
    """

    def __init__(self, queue: Queue | str | os.PathLike[str], **options: Any) -> None:
        self.queue = queue if isinstance(queue, Queue) else open_queue(queue, **options)
        self._threads: _Threads[Item] = _Threads("queue", self.queue.wait)

    async def put(self, value: Any, *, delay: float = 0.0, timeout: float | None = None) -> None:
        """Add one row; on a full queue wait for room, at most `timeout` seconds, then raise QueueFull."""
        await _patiently(
            lambda: self._threads.do(self.queue.put, value, delay=delay, block=False), timeout, errors.QueueFull
        )

    async def put_many(self, values: Iterable[Any]) -> int:
        """Add the values in order and return how many there were. A full queue raises QueueFull, with `stored`."""
        return await self._threads.do(self.queue.put_many, values, block=False)

    async def get(self, timeout: float | None = None) -> Item:
        """Claim one row, as soon as there is one. TimeoutError after `timeout` seconds. Settle it as any claimed row."""
        items = await self.claim(1, timeout=timeout)
        if not items:
            raise TimeoutError(f"no row in {self.queue.url} for {timeout} seconds")
        return items[0]

    async def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        """Take up to `n` rows; wait for the first one at most `timeout` seconds (0: do not wait, None: without limit)."""
        return await self._threads.take(partial(self.queue.claim, n, timeout=0.0, start=start), n, timeout)

    async def start(self, item: Item) -> None:
        """Count an attempt of a row that was claimed with `start=False`."""
        await self._threads.do(self.queue.start, item)

    async def ack(self, items: Item | Iterable[Item]) -> None:
        """Done: forget these rows."""
        await self._threads.do(self.queue.ack, items)

    async def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        """Not done: give these rows back."""
        await self._threads.do(self.queue.nack, items, delay=delay, error=error, counted=counted)

    async def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        """Never again: move these rows to the dead letters."""
        await self._threads.do(self.queue.bury, items, error=error)

    async def stats(self) -> Stats:
        """Row counts at this moment."""
        return await self._threads.do(self.queue.stats)

    async def close(self) -> None:
        """Close the queue; what was claimed and not settled goes back at once."""
        await self._threads.close(self.queue.close)

    async def __aenter__(self) -> AsyncQueue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncDurableQueue:
    """A `DurableQueue` with the methods of `asyncio.Queue`; all of them are awaited, because all of them use the disk.

    `queue` is a path, opened with `options` as by `DurableQueue`, or an open one, which is closed with this object. An item
    is in the hand of the task that got it, as it otherwise is in that of a thread. Make it inside a running loop, and use
    it in that loop only.
    """

    def __init__(self, queue: DurableQueue | str | os.PathLike[str], **options: Any) -> None:
        self.queue = queue if isinstance(queue, DurableQueue) else DurableQueue(queue, **options)
        self._threads: _Threads[tuple[Item, Any]] = _Threads("durable", self.queue.wait)

    async def put(self, item: Any) -> None:
        """Add `item` at the back; on a full queue wait for room. Raises QueueShutDown and RowError."""
        await _patiently(lambda: self._threads.do(self.queue.put_nowait, item), None, errors.QueueFull)

    async def get(self) -> Any:
        """Take the oldest item, as soon as there is one. Raises QueueShutDown and RowError."""
        task = _this_task()
        ((row, item),) = await self._threads.take(partial(self._claim, task), 1, None)
        return self.queue.hand_over(row, item, task)

    def _claim(self, task: asyncio.Task[Any]) -> list[tuple[Item, Any]]:
        found = self.queue.claim(task)
        return [] if found is None else [found]

    async def task_done(self) -> None:
        """Say that an item that was got is done with: this task's oldest, else one of this object, else any."""
        await self._threads.do(self.queue.finish, _this_task())

    async def join(self) -> None:
        """Wait until every item that was put has been got and finished with `task_done`, in any process."""
        while await self._threads.do(lambda: self.queue.unfinished_tasks):
            await asyncio.sleep(_LOOK)

    async def qsize(self) -> int:
        """How many items wait, at this moment."""
        return await self._threads.do(self.queue.qsize)

    async def empty(self) -> bool:
        """Whether no item waits, at this moment."""
        return await self._threads.do(self.queue.empty)

    async def full(self) -> bool:
        """Whether so many items wait as `maxsize` allows, at this moment."""
        return await self._threads.do(self.queue.full)

    async def shutdown(self, immediate: bool = False) -> None:
        """Have `put` raise QueueShutDown from now on, and `get` as soon as the queue is empty; as `DurableQueue.shutdown`."""
        await self._threads.do(self.queue.shutdown, immediate)

    async def close(self) -> None:
        """Let go of the files; no item is deleted."""
        await self._threads.close(self.queue.close)

    async def __aenter__(self) -> AsyncDurableQueue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    return task


async def _patiently(attempt: Callable[[], Any], timeout: float | None, unless: type[Exception]) -> None:
    """Await `attempt()` again and again while it raises `unless`, for `timeout` seconds at most."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            await attempt()
        except unless:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            await asyncio.sleep(_LOOK)
        else:
            return
