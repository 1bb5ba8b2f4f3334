"""Tasks, supervised workers and queues in plain files.

Functions become tasks (`App`), a supervisor runs producer and consumer processes, and they talk through queues that are
folders of plain files (`open_queue`). Binary logs are record files (`RecordWriter`, `RecordReader`). The classic channels of
release 0.2.0 (`Pistributer`, `PistributerTxt`, `PistributerSqlite`) are here too.

The house, from top to bottom. A module imports from its own room and from lower floors, never upwards or sideways:

    testing    for the tests of users: apps without processes, a clock, real pools
    cli        commands: parse, call one function, print
    workers    tasks, apps, the supervisor, producers, consumers, stress runs
    queues     the queue contract and its drivers, durable queues, the classic channels
    records    binary record files
    dicts      persistent dictionaries: files, S3, memory, and wrappers around them
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
        BackendError, BadCall, BadKey, BadKeyType, BadValue, BootError, ChannelEmpty, ClaimLost,
        ConcurrencyConflictError, ControlError, DamagedRecords, DamagedValue, DictError, DictMismatch, DiskFull,
        DriverMismatch, FileInUse, FolderMissing, FormatError, InconsistentValue, JobFailed, JobSkipped,
        MutationPolicyError, NewerFormat, NoSupervisor, NotAQueue, NotARecordFile, NotAState, NotWritable,
        PackageMissing, PistributerError, QueueClosed, QueueError, QueueFull, QueueShutDown, RecordError,
        RecordTooLarge, RecordTypeError, RecordsClosed, RecordsMissing,
        ResultLost, ResultTimeout, RowError, RowTooLarge, RowTypeError, ShardsFull, SourceBusy, StateChanged,
        StateClosed, StateError, StateLocked, StateValueError, StorageError, SyncFailed, TaskNotFound,
        TimeLimitExceeded, TooManyOpenFiles, UnknownCompression, UnsafeFilesystem, UnsafeValue, UnsupportedChunk,
        WorkerDied,
        WorkError,
    )  # fmt: skip
    from .dicts.cached import AppendOnlyDictCached, MutableDictCached
    from .dicts.contract import PersiDict
    from .dicts.files import FileDirDict
    from .dicts.flags import DELETE_CURRENT, KEEP_CURRENT, ETagHasNotChangedFlag
    from .dicts.iodict import IODict
    from .dicts.keys import NonEmptySafeStrTuple, SafeStrTuple
    from .dicts.local import EmptyDict, LocalDict
    from .dicts.overlapping import OverlappingMultiDict
    from .dicts.s3 import S3Dict
    from .dicts.write_once import WriteOnceDict
    from .queues.asynchronous import AsyncDurableQueue, AsyncQueue
    from .queues.classic import Pistributer, PistributerTxt
    from .queues.classic_sqlite import PistributerSqlite
    from .queues.contract import Item, Queue, Row, Source, Stats
    from .queues.durable import DurableQueue
    from .queues.flushing import FlushQueue
    from .queues.opening import open_queue
    from .records.damage import CorruptionStrategy
    from .records.hot import Bytes
    from .records.index import RecordIndex
    from .records.reading import RecordReader
    from .records.sharded_reading import MultiThreadedReader
    from .records.sharded_writing import MultiThreadedWriter
    from .records.writing import RecordWriter
    from .state.persisted import PersistedState
    from .storage.durability import Sync
    from .workers.app import App
    from .workers.supervision.child import Child
    from .workers.composition import Chord, Group, GroupJob, chain, chord, group
    from .workers.tickets.rates import RateLimit
    from .workers.history import Attempt, Death
    from .workers.hooks import Hook, Run, Sending
    from .workers.jobs import Job
    from .workers.log_jobs import LogJobs
    from .workers.messages import Call, Follower
    from .workers.inspection.metrics import Metrics, TaskMetrics, read_metrics
    from .workers.supervision.pages import JobProgress
    from .workers.pools import Pool
    from .workers.progress import current_run, progress
    from .workers.retries import Backoff, Cancel, Retry, Snooze
    from .workers.supervision.roles import Role
    from .workers.run import Progress, run
    from .workers.supervision.supervisor import Outcome, Supervisor
    from .workers.tasks import Task

__all__ = [
    "DELETE_CURRENT", "KEEP_CURRENT", "App", "AppendOnlyDictCached", "AsyncDurableQueue", "AsyncQueue", "Attempt",
    "BackendError", "Backoff", "BadCall", "BadKey", "BadKeyType", "BadValue", "BootError", "Bytes", "Call", "Cancel",
    "ChannelEmpty", "Child", "Chord", "ClaimLost", "ConcurrencyConflictError", "ControlError", "CorruptionStrategy",
    "DamagedRecords", "DamagedValue", "Death", "DictError", "DictMismatch", "DiskFull", "DriverMismatch",
    "DurableQueue", "ETagHasNotChangedFlag", "EmptyDict", "FileDirDict", "FileInUse", "FlushQueue", "FolderMissing",
    "Follower", "FormatError", "Group", "GroupJob", "Hook", "IODict", "InconsistentValue", "Item", "Job", "JobFailed",
    "JobProgress", "JobSkipped", "LocalDict", "LogJobs", "Metrics", "MultiThreadedReader", "MultiThreadedWriter",
    "MutableDictCached", "MutationPolicyError", "NewerFormat", "NoSupervisor", "NonEmptySafeStrTuple", "NotAQueue",
    "NotARecordFile", "NotAState", "NotWritable", "Outcome", "OverlappingMultiDict", "PackageMissing", "PersiDict",
    "PersistedState", "Pistributer", "PistributerError", "PistributerSqlite", "PistributerTxt", "Pool", "Progress",
    "Queue", "QueueClosed", "QueueError", "QueueFull", "QueueShutDown", "RateLimit", "RecordError", "RecordIndex",
    "RecordReader", "RecordTooLarge", "RecordTypeError", "RecordWriter", "RecordsClosed", "RecordsMissing",
    "ResultLost", "ResultTimeout", "Retry", "Role", "Row", "RowError", "RowTooLarge", "RowTypeError", "Run", "S3Dict",
    "SafeStrTuple", "Sending", "ShardsFull", "Snooze", "Source", "SourceBusy", "StateChanged", "StateClosed",
    "StateError", "StateLocked", "StateValueError", "Stats", "StorageError", "Supervisor", "Sync", "SyncFailed",
    "Task", "TaskMetrics", "TaskNotFound", "TimeLimitExceeded", "TooManyOpenFiles", "UnknownCompression",
    "UnsafeFilesystem", "UnsafeValue", "UnsupportedChunk", "WorkError", "WorkerDied", "WriteOnceDict", "__version__",
    "chain", "chord", "current_run", "errors", "group", "open_queue", "progress", "read_metrics", "run",
]  # fmt: skip

#: Where each public name lives; what is not named here is an error class.
_HOMES = {
    "App": "workers.app",
    "AppendOnlyDictCached": "dicts.cached",
    "AsyncDurableQueue": "queues.asynchronous",
    "AsyncQueue": "queues.asynchronous",
    "Attempt": "workers.history",
    "Backoff": "workers.retries",
    "Bytes": "records.hot",
    "Call": "workers.messages",
    "Cancel": "workers.retries",
    "Child": "workers.supervision.child",
    "Chord": "workers.composition",
    "CorruptionStrategy": "records.damage",
    "DELETE_CURRENT": "dicts.flags",
    "Death": "workers.history",
    "DurableQueue": "queues.durable",
    "ETagHasNotChangedFlag": "dicts.flags",
    "EmptyDict": "dicts.local",
    "FileDirDict": "dicts.files",
    "FlushQueue": "queues.flushing",
    "Follower": "workers.messages",
    "Group": "workers.composition",
    "GroupJob": "workers.composition",
    "Hook": "workers.hooks",
    "IODict": "dicts.iodict",
    "Item": "queues.contract",
    "Job": "workers.jobs",
    "JobProgress": "workers.supervision.pages",
    "LogJobs": "workers.log_jobs",
    "Metrics": "workers.inspection.metrics",
    "TaskMetrics": "workers.inspection.metrics",
    "read_metrics": "workers.inspection.metrics",
    "KEEP_CURRENT": "dicts.flags",
    "LocalDict": "dicts.local",
    "MultiThreadedReader": "records.sharded_reading",
    "MultiThreadedWriter": "records.sharded_writing",
    "MutableDictCached": "dicts.cached",
    "NonEmptySafeStrTuple": "dicts.keys",
    "Outcome": "workers.supervision.supervisor",
    "OverlappingMultiDict": "dicts.overlapping",
    "PersiDict": "dicts.contract",
    "PersistedState": "state.persisted",
    "Pistributer": "queues.classic",
    "PistributerSqlite": "queues.classic_sqlite",
    "PistributerTxt": "queues.classic",
    "Pool": "workers.pools",
    "Progress": "workers.run",
    "Queue": "queues.contract",
    "RateLimit": "workers.tickets.rates",
    "RecordIndex": "records.index",
    "RecordReader": "records.reading",
    "RecordWriter": "records.writing",
    "Retry": "workers.retries",
    "Role": "workers.supervision.roles",
    "Row": "queues.contract",
    "Run": "workers.hooks",
    "S3Dict": "dicts.s3",
    "SafeStrTuple": "dicts.keys",
    "Sending": "workers.hooks",
    "Snooze": "workers.retries",
    "Source": "queues.contract",
    "Stats": "queues.contract",
    "Supervisor": "workers.supervision.supervisor",
    "Sync": "storage.durability",
    "Task": "workers.tasks",
    "WriteOnceDict": "dicts.write_once",
    "chain": "workers.composition",
    "chord": "workers.composition",
    "group": "workers.composition",
    "current_run": "workers.progress",
    "open_queue": "queues.opening",
    "progress": "workers.progress",
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
