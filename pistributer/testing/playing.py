"""What the loops of real worker processes need around them when they run in a test's own process."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.contract import Item
from pistributer.queues.memory import MemoryQueue
from pistributer.queues.memory_store import Store
from pistributer.queues.rows import encode_json
from pistributer.workers.app import App
from pistributer.workers.execution.calling import Caller
from pistributer.workers.execution.lanes import Lanes
from pistributer.workers.home import Home
from pistributer.workers.pools import Pool
from pistributer.workers.supervision.child import Child

#: Called with a queue's name, the rows that were put, their delay, and why the others were not.
_Tell = Callable[[str, list[bytes], float, errors.QueueFull | None], object]


class Player(Child):
    """A worker process as its loop sees it, that is no process: it is told to leave when there is nothing to claim."""

    def __init__(self, role: str) -> None:
        # Not super().__init__: there is no supervisor, so there are no pipes to it and no signals from it.
        self.role = role
        self.index = 0
        self.jobs_left = None
        self.leaves = False

    def ready(self) -> None:
        pass

    def stop_requested(self) -> bool:
        return self.leaves

    def wait_stop(self, timeout: float | None = None) -> bool:
        return True


class Shelf(Home):
    """An app's home whose queues lie in memory; the rest, notes about jobs and the like, is in a real folder."""

    def __init__(self, folder: str, now: Callable[[], float]) -> None:
        super().__init__(folder)
        self._now = now
        self._stores: dict[str, Store] = {}

    def store(self, name: str) -> Store:
        """Of a queue or a lane, made on first use."""
        return self._stores.setdefault(name, Store(self._now))

    def lane_names(self) -> list[str]:
        return sorted(self._stores)


class PlayedLanes(Lanes):
    """Lanes as a player's loop sees them: nothing to claim is the end, not a reason to wait."""

    def __init__(self, app: App, queue: str, player: Player) -> None:
        self._player = player
        super().__init__(app, Pool(queue))

    def claim(self, n: int, timeout: float, *, start: bool = False) -> list[Item]:
        # One by one what is not meant as a batch: a job may wait for another one that would be claimed with it.
        items = super().claim(n if start else 1, 0.0, start=start)
        self._player.leaves = not items
        return items

    def _changed(self) -> int:
        return len(self._app.home.lane_names())


class Puts(MemoryQueue):
    """A queue as the app sees it. Tells what was put; raises QueueFull at once, since nobody makes room meanwhile."""

    def __init__(self, name: str, store: Store, options: Mapping[str, Any], tell: _Tell) -> None:
        super().__init__(name, _store=store, **options)
        self._tell = tell

    def put_rows(
        self,
        rows: list[bytes],
        delay: float,
        block: bool,
        timeout: float | None,
        stored: Callable[[int], object] = lambda index: None,
    ) -> None:
        try:
            super().put_rows(rows, delay, False, None, stored)
        except errors.QueueFull as error:
            self._tell(self._name, rows[: error.stored], delay, error)
            raise
        self._tell(self._name, rows, delay, None)


class PlainCaller(Caller):
    """Calls tasks from whatever thread the test is in, and from within an event loop too."""

    def __init__(self, interrupted: Callable[[KeyboardInterrupt], object]) -> None:
        super().__init__()
        self._tell = interrupted

    def plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        plain = super().plain(function)
        is_async = inspect.iscoroutinefunction(function)

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return _beside_a_loop(lambda: plain(*args, **kwargs)) if is_async else plain(*args, **kwargs)
            except KeyboardInterrupt as error:
                self._tell(error)  # a worker takes it for a failure of the task; here somebody wants to stop the test
                raise

        return run

    def close(self) -> None:
        _beside_a_loop(super().close)


def _beside_a_loop(call: Callable[[], Any]) -> Any:
    """Call what runs an event loop; in a thread of its own where one runs already, because they do not nest."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    result: Any = None
    failure: BaseException | None = None

    def run() -> None:
        nonlocal result, failure
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            failure = error

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,))
    thread.start()
    thread.join()
    if failure is not None:
        raise failure
    return result


class JsonDict:
    """As much of a persistent dictionary as keeping results takes. Values go through JSON, as in a worker's log."""

    append_only = False

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self._rows[key] = encode_json(value)

    def get(self, key: str) -> Any:
        return orjson.loads(self._rows[key]) if key in self._rows else None
