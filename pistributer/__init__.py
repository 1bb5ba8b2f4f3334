"""Tasks, supervised workers and queues in plain files.

Functions become tasks (`App`), a supervisor runs producer and consumer processes, and they talk through queues that are
folders of plain files (`open_queue`). Binary logs are record files (`RecordWriter`, `RecordReader`). The classic channels of
release 0.2.0 (`Pistributer`, `PistributerTxt`, `PistributerSqlite`) are here too.

The house, from top to bottom. A module imports from its own room and from lower floors, never upwards or sideways:

    cli        commands: parse, call one function, print
    workers    tasks, apps, the supervisor, producers, consumers, stress runs
    queues     the queue contract and its drivers, the classic channels
    records    binary record files
    storage    the only code that touches bytes on disk
    errors     one tree of errors

Public names are imported on first use, so that `import pistributer` costs a program next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

if TYPE_CHECKING:
    # isort: off
    from . import errors
    from .errors import (
        BadCall, BootError, ChannelEmpty, ClaimLost, DamagedRecords, DiskFull, DriverMismatch, FileInUse,
        FolderMissing, FormatError, JobFailed, NewerFormat, NotAQueue, NotARecordFile, NotWritable, PackageMissing,
        PistributerError, QueueClosed, QueueError, QueueFull, RecordError, RecordTooLarge, RecordTypeError,
        RecordsClosed, RecordsMissing, ResultLost, ResultTimeout, RowError, RowTooLarge, RowTypeError, ShardsFull,
        SourceBusy, StorageError, SyncFailed, TaskNotFound, TimeLimitExceeded, TooManyOpenFiles, UnknownCompression,
        UnsafeFilesystem, UnsupportedChunk, WorkError,
    )  # fmt: skip
    from .queues.classic import Pistributer, PistributerTxt
    from .queues.classic_sqlite import PistributerSqlite
    from .queues.contract import Item, Queue, Row, Source, Stats
    from .queues.opening import open_queue
    from .records.damage import CorruptionStrategy
    from .records.hot import Bytes
    from .records.index import RecordIndex
    from .records.reading import RecordReader
    from .records.sharded_reading import MultiThreadedReader
    from .records.sharded_writing import MultiThreadedWriter
    from .records.writing import RecordWriter
    from .storage.durability import Sync
    from .workers.app import App
    from .workers.child import Child
    from .workers.hooks import Hook, Run
    from .workers.jobs import Job
    from .workers.messages import Call
    from .workers.retries import Backoff, Cancel, Retry, Snooze
    from .workers.roles import Role
    from .workers.run import Progress, run
    from .workers.supervisor import Outcome, Supervisor
    from .workers.tasks import Task

__all__ = [
    "App", "Backoff", "BadCall", "BootError", "Bytes", "Call", "Cancel", "ChannelEmpty", "Child", "ClaimLost",
    "CorruptionStrategy", "DamagedRecords", "DiskFull", "DriverMismatch", "FileInUse", "FolderMissing",
    "FormatError", "Hook", "Item", "Job", "JobFailed", "MultiThreadedReader", "MultiThreadedWriter", "NewerFormat",
    "NotAQueue", "NotARecordFile", "NotWritable", "Outcome", "PackageMissing", "Pistributer", "PistributerError",
    "PistributerSqlite", "PistributerTxt", "Progress", "Queue", "QueueClosed", "QueueError", "QueueFull",
    "RecordError", "RecordIndex", "RecordReader", "RecordTooLarge", "RecordTypeError", "RecordWriter",
    "RecordsClosed", "RecordsMissing", "ResultLost", "ResultTimeout", "Retry", "Role", "Row", "RowError",
    "RowTooLarge", "RowTypeError", "Run", "ShardsFull", "Snooze", "Source", "SourceBusy", "Stats", "StorageError",
    "Supervisor", "Sync", "SyncFailed", "Task", "TaskNotFound", "TimeLimitExceeded", "TooManyOpenFiles",
    "UnknownCompression", "UnsafeFilesystem", "UnsupportedChunk", "WorkError", "__version__", "errors",
    "open_queue", "run",
]  # fmt: skip

#: Where each public name lives; what is not named here is an error class.
_HOMES = {
    "App": "workers.app",
    "Backoff": "workers.retries",
    "Bytes": "records.hot",
    "Call": "workers.messages",
    "Cancel": "workers.retries",
    "Child": "workers.child",
    "CorruptionStrategy": "records.damage",
    "Hook": "workers.hooks",
    "Item": "queues.contract",
    "Job": "workers.jobs",
    "MultiThreadedReader": "records.sharded_reading",
    "MultiThreadedWriter": "records.sharded_writing",
    "Outcome": "workers.supervisor",
    "Pistributer": "queues.classic",
    "PistributerSqlite": "queues.classic_sqlite",
    "PistributerTxt": "queues.classic",
    "Progress": "workers.run",
    "Queue": "queues.contract",
    "RecordIndex": "records.index",
    "RecordReader": "records.reading",
    "RecordWriter": "records.writing",
    "Retry": "workers.retries",
    "Role": "workers.roles",
    "Row": "queues.contract",
    "Run": "workers.hooks",
    "Snooze": "workers.retries",
    "Source": "queues.contract",
    "Stats": "queues.contract",
    "Supervisor": "workers.supervisor",
    "Sync": "storage.durability",
    "Task": "workers.tasks",
    "open_queue": "queues.opening",
    "run": "workers.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562) and keep it, so that this is called once a name."""
    if name == "errors":
        return importlib.import_module("pistributer.errors")
    if name not in __all__:
        raise AttributeError(f"module 'pistributer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pistributer.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
