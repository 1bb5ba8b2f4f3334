"""Durable queues and the classic channels. Knows storage; knows nothing of tasks and workers.

    contract, opening            what every queue promises; from a URL to a queue
    rows, refusals               values to rows and back; what drivers refuse, worded once
    sharded                      the file drivers, jsonl and txt: a folder of shards
      folder, shard              where things lie; one shard, its writer and its cursor
      claiming, journal, items   taking rows, and keeping them in a file that outlives the consumer
      delayed, setaside, room    rows that are not due, damaged or dead; limits
      envelope, looking          rows with a history; counting and scanning
    sqlite, sqlite_*             the sqlite driver
    memory, memory_store         the driver without a disk
    durable, durable_*           `DurableQueue`: queue.Queue on the sqlite driver; iodict's folders
    flushing                     `FlushQueue`: from memory to disk and back
    asynchronous                 the same for asyncio
    classic, classic_*           the channels of release 0.2.0

What the bytes on disk mean is in docs/format.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asynchronous import AsyncDurableQueue, AsyncQueue
    from .contract import Item, Queue, Row, Stats
    from .durable import DurableQueue
    from .flushing import FlushQueue
    from .opening import open_queue

__all__ = [
    "AsyncDurableQueue",
    "AsyncQueue",
    "DurableQueue",
    "FlushQueue",
    "Item",
    "Queue",
    "Row",
    "Stats",
    "open_queue",
]

_HOMES = {
    "AsyncDurableQueue": "asynchronous", "AsyncQueue": "asynchronous", "DurableQueue": "durable", "FlushQueue": "flushing",
    "Item": "contract", "Queue": "contract", "Row": "contract", "Stats": "contract", "open_queue": "opening",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # On first use, because who opens a queue of files should not pay for sqlite3 and asyncio.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
