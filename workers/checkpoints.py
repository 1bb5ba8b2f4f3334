"""How far producers have come.

A producer may put into several queues, and each commits the checkpoint with its own rows (`Queue.source`). So each stores
`[n, checkpoint]`, where n counts all rows of the producer: the highest n is how far it has come. Killed between any two
rows, the next process goes on behind the last one that is in a queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pistributer import errors
from pistributer.queues.contract import Queue, Source

from .app import App

#: Seconds between two tries to get a source whose last holder is about to end.
_BUSY_PAUSE = 0.1


class Checkpoints:
    """The sources of one producer in all queues of an app."""

    def __init__(self, app: App, name: str, wait: Callable[[float], bool]) -> None:
        """`wait(seconds)` is called while another process holds a source, and returns true to give up with SourceBusy."""
        self._app = app
        self._name = name
        self._wait = wait
        self._sources: dict[str, Source] = {}
        for queue in app.lane_names():
            if name in app.queue(queue).sources():
                self._hold(queue)
        found = [source.checkpoint for source in self._sources.values() if source.checkpoint is not None]
        self._n: int
        #: Where to go on; None at first.
        self.checkpoint: Any
        self._n, self.checkpoint = max(found, key=lambda state: int(state[0]), default=(0, None))

    def put(self, queue: str, row: Any, checkpoint: Any, *, timeout: float) -> None:
        """Put a row and, in one step, note that the producer has come as far as `checkpoint`. Raises as `Queue.put`."""
        source = self._sources.get(queue) or self._hold(queue)
        source.put(row, checkpoint=[self._n + 1, checkpoint], timeout=timeout)
        self._n, self.checkpoint = self._n + 1, checkpoint

    @property
    def place(self) -> str:
        """A name for the next row, the same until it is committed, that no other row of any producer has."""
        return f"producer\n{self._name}\n{self._n + 1}"

    def commit(self, checkpoint: Any, queue: str | None = None) -> None:
        """Set the checkpoint without a row, in `queue` if that matters."""
        queue = queue or next(iter(self._sources), None) or self._app.queue_names()[0]
        (self._sources.get(queue) or self._hold(queue)).commit([self._n + 1, checkpoint])
        self._n, self.checkpoint = self._n + 1, checkpoint

    def close(self) -> None:
        """Let go of the sources."""
        for source in self._sources.values():
            source.close()

    def _hold(self, queue: str) -> Source:
        self._sources[queue] = hold_source(self._app.queue(queue), self._name, self._wait)
        return self._sources[queue]


def hold_source(queue: Queue, name: str, wait: Callable[[float], bool]) -> Source:
    """The source `name` of `queue`.

    While its last holder is about to end, `wait(seconds)` is called; if that returns true, SourceBusy is raised.
    """
    while True:
        try:
            return queue.source(name)
        except errors.SourceBusy:
            if wait(_BUSY_PAUSE):
                raise
