"""Tasks, supervised workers and queues in plain files.

Functions become tasks (`App`), a supervisor runs producer and consumer processes, and they talk through queues that are
folders of plain files (`open_queue`). The classic channels of release 0.2.0 (`Pistributer`, `PistributerTxt`,
`PistributerSqlite`) are here too.

The house, from top to bottom. A module imports from its own room and from lower floors, never upwards or sideways:

    cli        commands: parse, call one function, print
    workers    tasks, apps, the supervisor, producers, consumers, stress runs
    queues     the queue contract and its drivers, the classic channels
    state      a small state in a YAML file, mapped to Python objects
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
        BadCall, BootError, ChannelEmpty, ClaimLost, DiskFull, DriverMismatch, FolderMissing, FormatError, JobFailed,
        NewerFormat, NotAQueue, NotAState, NotWritable, PackageMissing, PistributerError, QueueClosed, QueueError,
        QueueFull, QueueShutDown, ResultLost, ResultTimeout, RowError, RowTooLarge, RowTypeError, SourceBusy,
        StateChanged, StateClosed, StateError, StateLocked, StateValueError, StorageError, SyncFailed, TaskNotFound,
        TimeLimitExceeded, TooManyOpenFiles, UnsafeFilesystem, WorkError,
    )  # fmt: skip
    from .queues.asynchronous import AsyncDurableQueue, AsyncQueue
    from .queues.classic import Pistributer, PistributerTxt
    from .queues.classic_sqlite import PistributerSqlite
    from .queues.contract import Item, Queue, Row, Source, Stats
    from .queues.durable import DurableQueue
    from .queues.flushing import FlushQueue
    from .queues.opening import open_queue
    from .state.persisted import PersistedState
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
    "App", "AsyncDurableQueue", "AsyncQueue", "Backoff", "BadCall", "BootError", "Call", "Cancel", "ChannelEmpty",
    "Child", "ClaimLost", "DiskFull", "DriverMismatch", "DurableQueue", "FlushQueue", "FolderMissing", "FormatError",
    "Hook", "Item", "Job", "JobFailed", "NewerFormat", "NotAQueue", "NotAState", "NotWritable", "Outcome",
    "PackageMissing", "PersistedState", "Pistributer", "PistributerError", "PistributerSqlite", "PistributerTxt",
    "Progress", "Queue", "QueueClosed", "QueueError", "QueueFull", "QueueShutDown", "ResultLost", "ResultTimeout",
    "Retry", "Role", "Row", "RowError", "RowTooLarge", "RowTypeError", "Run", "Snooze", "Source", "SourceBusy",
    "StateChanged", "StateClosed", "StateError", "StateLocked", "StateValueError", "Stats", "StorageError",
    "Supervisor", "Sync", "SyncFailed", "Task", "TaskNotFound", "TimeLimitExceeded", "TooManyOpenFiles",
    "UnsafeFilesystem", "WorkError", "__version__", "errors", "open_queue", "run",
]  # fmt: skip

#: Where each public name lives; what is not named here is an error class.
_HOMES = {
    "App": "workers.app",
    "AsyncDurableQueue": "queues.asynchronous",
    "AsyncQueue": "queues.asynchronous",
    "Backoff": "workers.retries",
    "Call": "workers.messages",
    "Cancel": "workers.retries",
    "Child": "workers.child",
    "DurableQueue": "queues.durable",
    "FlushQueue": "queues.flushing",
    "Hook": "workers.hooks",
    "Item": "queues.contract",
    "Job": "workers.jobs",
    "Outcome": "workers.supervisor",
    "PersistedState": "state.persisted",
    "Pistributer": "queues.classic",
    "PistributerSqlite": "queues.classic_sqlite",
    "PistributerTxt": "queues.classic",
    "Progress": "workers.run",
    "Queue": "queues.contract",
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
