"""`open_queue`: from a URL to a queue object."""

from __future__ import annotations

import os
from typing import Any

from ..storage.durability import Sync, check_mode
from .contract import MAX_ROW_BYTES, Queue

_DRIVERS = ("jsonl", "txt", "sqlite", "memory")


def open_queue(
    url: str | os.PathLike[str],
    *,
    create: bool = True,
    sync: Sync | None = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
    retention: float | None = None,
    segment_bytes: int | None = None,
    objects: bool = False,
) -> Queue:
    """Open the queue at `url`, making it if there is none and `create` is true.

    `url` is a folder for the jsonl driver (`"jobs/"`, or in full `"jsonl:jobs/"`), `"txt:jobs/"`, `"sqlite:jobs.db"`, or
    `"memory:"` (one process, nothing on disk).

    sync           what a power cut may cost: "none" (the default; a killed process costs nothing), "group" or "each"
    max_rows, max_bytes
                   limits of what may wait in the queue; `put` then blocks or raises QueueFull
    max_row_bytes  longest row, 64 MiB
    retention      keep acknowledged rows for this many seconds, for `scan("retained")` and replay
    segment_bytes  size at which a file is rolled (jsonl, txt), 16 MiB
    objects        make a new txt queue so that dicts, too, may be put into it: as the line of their JSON. In it, a line
                   that is a JSON object comes back as a dict, any other as text. The other drivers always take objects

    Options given here hold for this object, `objects` for the queue. Limits hold only if every producer gives the same.

    Raises NotAQueue, DriverMismatch or NewerFormat if the path holds something else, FolderMissing if the parent folder
    does not exist (or the queue, with `create=False`), NotWritable, UnsafeFilesystem; ValueError for an option that makes
    no sense.
    """
    driver, path = split_url(url)
    options: dict[str, Any] = {
        "create": create,
        "sync": None if sync is None else check_mode(sync),
        "max_rows": _positive("max_rows", max_rows),
        "max_bytes": _positive("max_bytes", max_bytes),
        "max_row_bytes": _positive("max_row_bytes", max_row_bytes),
        "retention": _positive("retention", retention),
    }
    # Imported here so that `import pistributer` and a jsonl user pay for no other driver.
    if driver == "memory":
        from .memory import MemoryQueue

        return MemoryQueue(path, **options)
    if driver == "sqlite":
        from .sqlite import SqliteQueue

        return SqliteQueue(path, **options)
    from .sharded import JsonlQueue, TxtQueue

    kind = TxtQueue if driver == "txt" else JsonlQueue
    return kind(path, segment_bytes=_positive("segment_bytes", segment_bytes), objects=objects, **options)


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """`(driver, path)` of a queue URL. A path without a driver's name is jsonl."""
    text = os.fspath(url)
    name, colon, rest = text.partition(":")
    if colon and name in _DRIVERS:
        if not rest and name != "memory":
            raise ValueError(f"the queue URL {text!r} names no path after {name}:")
        return name, rest
    if not text:
        raise ValueError("a queue URL can not be empty")
    return "jsonl", text


def _positive(name: str, value: float | None) -> Any:
    if value is not None and value <= 0:
        raise ValueError(f"{name} must be positive, not {value!r}")
    return value
