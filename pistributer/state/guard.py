"""The lock in front of a shared state."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import Store


class SharedGuard:
    """A reentrant lock between threads and processes. Whoever gets it sees what the others have changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            if not self._depth:
                self._store.take()
            self._depth += 1
        except BaseException:
            if not self._depth:
                self._store.let_go()
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._depth -= 1
            if not self._depth:
                self._store.give()
        finally:
            self._threads.release()
