"""Every error that pistributer raises on purpose, in one tree.

::

    PistributerError
    ├── QueueError
    │   ├── QueueFull          (also queue.Full)      put on a queue at its limit
    │   ├── QueueClosed        (also ValueError)      the object was closed
    │   ├── QueueShutDown      (also queue.ShutDown)  a DurableQueue was shut down
    │   ├── ClaimLost                                 the item is not yours any more
    │   ├── SourceBusy                                another object holds the source
    │   ├── RowError           (also ValueError)      this value can not be a row of this queue
    │   │   ├── RowTooLarge                           … because it is over the limit
    │   │   └── RowTypeError   (also TypeError)       … because JSON has no such type
    │   ├── ChannelEmpty       (also StopIteration)   classic next() on an empty channel
    │   └── FormatError                               this folder is not what was asked for
    │       ├── NotAQueue                             … nor any queue of ours
    │       ├── DriverMismatch                        … but a queue of another driver
    │       └── NewerFormat                           … but made by a newer release
    ├── RecordError            (also OSError)
    │   ├── RecordsClosed      (also ValueError)      the writer or reader was closed
    │   ├── RecordTypeError    (also TypeError)       a record is bytes, and this is not
    │   ├── RecordTooLarge     (also ValueError)      … and not as many as these
    │   ├── UnknownCompression (also ValueError)      there is no such compression
    │   ├── RecordsMissing     (also FileNotFoundError) no such file, or no shard of that name
    │   ├── FileInUse                                 another writer has the file open
    │   ├── ShardsFull                                every shard is at its limit and no new one may be made
    │   ├── NotARecordFile                            the file is something else
    │   ├── DamagedRecords                            bytes that are not what was written
    │   └── UnsupportedChunk                          sound bytes of a kind that this release can not read
    ├── StateError                                    about a PersistedState
    │   ├── StateLocked                               another process has the file open
    │   ├── StateClosed        (also ValueError)      the object was closed
    │   ├── StateChanged                              another program has changed the file meanwhile
    │   ├── StateValueError    (also TypeError, ValueError)  a value or key that a state can not hold
    │   └── NotAState          (also ValueError)      the file is no state, or an edit of it went wrong
    ├── StorageError           (also OSError)
    │   ├── DiskFull                                  no space, quota or file-size limit
    │   ├── NotWritable        (also PermissionError) read-only folder or filesystem
    │   ├── FolderMissing      (also FileNotFoundError)
    │   ├── TooManyOpenFiles                          descriptors exhausted
    │   ├── SyncFailed                                the disk refused to confirm; never retried
    │   └── UnsafeFilesystem                          a network filesystem, whose locks do not hold
    ├── DictError
    │   ├── BadKey             (also ValueError)      this can not be a key
    │   │   └── BadKeyType     (also TypeError)       … because it is not made of strings
    │   ├── BadValue           (also TypeError)       this can not be a value of this dictionary
    │   ├── MutationPolicyError (also KeyError, TypeError)  an append-only or write-once item would change
    │   ├── ConcurrencyConflictError (also RuntimeError)    others changed the item at each try
    │   ├── InconsistentValue  (also ValueError)      a second value for a write-once item is another
    │   ├── DamagedValue       (also ValueError)      what is stored can not be read
    │   ├── UnsafeValue        (also PermissionError) reading it could run somebody else's code
    │   ├── DictMismatch       (also ValueError)      this folder was written with other settings
    │   └── BackendError       (also RuntimeError)    the server failed, or can not be reached
    ├── PackageMissing         (also ImportError)     this needs an extra that is not installed
    └── WorkError
        ├── TaskNotFound       (also LookupError)     a message names a task that the app lacks
        ├── WorkerDied                                the process that ran a job died, each time
        ├── BadCall            (also TypeError)       arguments that a message can not carry
        ├── JobFailed                                 the task raised; carries what it raised
        ├── TimeLimitExceeded  (also TimeoutError)    raised inside a task by its soft time limit
        ├── ResultTimeout      (also TimeoutError)    no result yet
        ├── ResultLost                                the result was never kept or has expired
        ├── JobSkipped                                the job was not sent: an equal one is pending
        ├── BootError                                 the app could not be loaded
        ├── NoSupervisor                              nobody runs the app, so there is nobody to ask
        └── ControlError                              the supervisor refused, or did not answer

Each carries `hint`, the way out, beside its message, and whatever else a handler needs as plain attributes. All of them
survive pickling, because they travel from worker processes to whoever asked.
"""

from __future__ import annotations

import errno
import queue
from types import TracebackType
from typing import Any

__all__ = [
    "BackendError", "BadCall", "BadKey", "BadKeyType", "BadValue", "BootError", "ChannelEmpty", "ClaimLost",
    "ConcurrencyConflictError", "ControlError", "DamagedRecords", "DamagedValue", "DictError", "DictMismatch",
    "DiskFull", "DriverMismatch", "FileInUse", "FolderMissing", "FormatError", "InconsistentValue", "JobFailed",
    "JobSkipped", "MutationPolicyError", "NewerFormat", "NoSupervisor", "NotAQueue", "NotARecordFile", "NotAState",
    "NotWritable", "PackageMissing",
    "PistributerError", "QueueClosed", "QueueError", "QueueFull", "QueueShutDown", "RecordError", "RecordTooLarge",
    "RecordTypeError", "RecordsClosed", "RecordsMissing", "ResultLost", "ResultTimeout", "RowError", "RowTooLarge",
    "RowTypeError", "ShardsFull", "SourceBusy", "StateChanged", "StateClosed", "StateError", "StateLocked",
    "StateValueError", "StorageError", "SyncFailed", "TaskNotFound", "TimeLimitExceeded", "TooManyOpenFiles",
    "UnknownCompression", "UnsafeFilesystem", "UnsafeValue", "UnsupportedChunk", "WorkError", "WorkerDied",
]  # fmt: skip


class PistributerError(Exception):
    """Root of the tree. `hint` says what to do; other keyword arguments become attributes."""

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None, **attributes: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.__dict__.update(attributes)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError and StopIteration keep state outside __dict__; going through our own constructor keeps one path.
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[PistributerError], attributes: dict[str, Any]) -> PistributerError:
    return kind(attributes.pop("message"), **attributes)


class QueueError(PistributerError):
    """Something about a queue or a channel."""


class QueueFull(QueueError, queue.Full):
    """`put` found the queue at `max_rows` or `max_bytes` and was told not to wait, or waited in vain.

    Attribute `stored`: how many rows of a `put_many` are safely in the queue (0 for `put`).
    """

    stored: int = 0


class QueueClosed(QueueError, ValueError):
    """The queue object was closed; the queue on disk is unharmed. Open it again."""


class QueueShutDown(QueueError, getattr(queue, "ShutDown", Exception)):  # type: ignore[misc] # new in Python 3.13
    """The `DurableQueue` was shut down: nothing can be put, and nothing is left to get."""


class ClaimLost(QueueError):
    """The item is not held by this queue object any more: it was settled, given back, or claimed by another."""


class SourceBusy(QueueError):
    """`Queue.source` was asked for a name that another object holds. Attribute `name`."""

    name: str


class RowError(QueueError, ValueError):
    """The value can not be stored as a row of this queue and come back as it was. Nothing was written."""


class RowTooLarge(RowError):
    """The row is over `max_row_bytes`. Attributes: `size`, `limit` (bytes)."""


class RowTypeError(RowError, TypeError):
    """The value is of a type that JSON does not know. Classic channels promise `json.dumps`'s TypeError for these."""


class ChannelEmpty(QueueError, StopIteration):
    """A classic channel's `next()` found nothing unread."""


class FormatError(QueueError):
    """What lies at this path can not be opened as asked. Attribute: `path`."""


class NotAQueue(FormatError):
    """The path holds something that is not a queue of ours, or a queue whose description is damaged."""


class DriverMismatch(FormatError):
    """The queue was made by another driver. Attributes: `found`, `asked`."""


class NewerFormat(FormatError):
    """The queue was made by a newer release, in a format that this one does not know. Attributes: `found`, `known`."""


class StateError(PistributerError):
    """Something about a `PersistedState`."""


class StateLocked(StateError):
    """Another object, most likely of another process, has the state open. Attributes: `path`, `owner` (a process id or None)."""


class StateClosed(StateError, ValueError):
    """The `PersistedState` was closed; the file is unharmed. What is in memory can still be read."""


class StateChanged(StateError):
    """The file was edited, replaced or deleted by a program that does not lock it. It was left as that program made it.

    Attributes: `path`; `saved`, the file in which the state of this object stands.
    """


class StateValueError(StateError, TypeError, ValueError):
    """A value or key of a type that a state can not hold and give back as it was. Nothing was changed."""


class NotAState(StateError, ValueError):
    """The file holds no state, or an edit of it went wrong. Nothing was changed. Attributes: `path`, `line`."""


class _FileError(PistributerError, OSError):
    """Something about one file: `path` says which, `errno` what the operating system said, 0 if it said nothing."""

    def __init__(
        self, message: str, *, hint: str | None = None, errno: int = 0, path: str = "", **attributes: Any
    ) -> None:
        super().__init__(message, hint=hint, **attributes)
        self.errno = errno
        self.path = self.filename = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.__dict__ | {"errno": self.errno}))


class StorageError(_FileError):
    """The operating system refused. `errno` and `path` say what and where."""


class DiskFull(StorageError):
    """No space left, quota reached, or file-size limit. What was half written has been cut back to a row boundary.

    Attribute `stored`: how many rows of a `put_many` are safely in the queue (0 for `put`).
    """

    stored: int = 0


class NotWritable(StorageError, PermissionError):
    """The folder, the file or the filesystem is read-only for this user."""


class FolderMissing(StorageError, FileNotFoundError):
    """The folder that should hold the file does not exist."""


class TooManyOpenFiles(StorageError):
    """The process or the system is out of file descriptors."""


class SyncFailed(StorageError):
    """fsync failed, so the kernel may have dropped what it could not write. The object refuses to go on with that file.

    A second fsync would report success without the data being there (fsyncgate), so none is tried.
    """


class UnsafeFilesystem(StorageError):
    """A network filesystem: two hosts could hold one lock at the same time, and rows would be lost."""


class DictError(PistributerError):
    """Something about a persistent dictionary. A key that is not there is a plain KeyError, as with every mapping."""


class BadKey(DictError, ValueError):
    """This can not be a key. Attribute: `key`, the part that is refused."""


class BadKeyType(BadKey, TypeError):
    """A key is made of strings. Attribute: `key`, the part that is not one."""


class BadValue(DictError, TypeError):
    """The value is not of the class that this dictionary holds, or its format can not hold it. Nothing was written."""


class MutationPolicyError(DictError, KeyError, TypeError):
    """An append-only or write-once dictionary was asked to change or delete what is there. Attribute: `key`."""


class ConcurrencyConflictError(DictError, RuntimeError):
    """Others changed the item at each try. Nothing of ours was written. Attributes: `key`, `attempts`."""


class InconsistentValue(DictError, ValueError):
    """A write-once item was written again with another value. The first one stands. Attribute: `key`."""


class DamagedValue(DictError, ValueError):
    """The stored bytes can not be turned into a value. They are left as they are. Attribute: `path`."""


class UnsafeValue(DictError, PermissionError):
    """Turning the stored bytes into a value could run code of somebody else's choice. Attribute: `path`."""


class DictMismatch(DictError, ValueError):
    """The folder was written with other settings. Attributes: `path`, `found`, `asked`."""


class BackendError(DictError, RuntimeError):
    """The object store failed for good, after retries, or refused. Attributes: `path`, and `status` if there was an answer."""


class PackageMissing(PistributerError, ImportError):
    """This needs a package that is not installed; the hint says which extra brings it."""


class RecordError(_FileError):
    """Something about a record file. An OSError, because that is what users of the original format's package catch."""


class RecordsClosed(RecordError, ValueError):
    """The writer or reader was closed, or it was opened before a fork by the parent. The file is unharmed."""


class RecordTypeError(RecordError, TypeError):
    """A record is bytes, or an object with the buffer protocol. Nothing was written."""


class RecordTooLarge(RecordError, ValueError):
    """The record is over `max_record_bytes`. Nothing was written. Attributes: `size`, `limit` (bytes)."""


class UnknownCompression(RecordError, ValueError):
    """The compression is none that this release knows. Attribute: `compression`."""


class RecordsMissing(RecordError, FileNotFoundError):
    """There is no such file, or no shard of that name in the folder."""


class FileInUse(RecordError):
    """Another process, or another object of this one, has the file open for writing."""


class ShardsFull(RecordError):
    """Every shard is at `max_bytes_per_writer` and `enable_auto_sharding` is off. The record was not taken."""


class NotARecordFile(RecordError):
    """The file does not begin as a record file does, and nothing in it looks like a part of one."""


class DamagedRecords(RecordError):
    """Bytes from offset `start` to `end` are not what was written.

    Attributes: `start`, `end`; `reason`; `records`, how many were lost there, None if nobody can tell.
    """


class UnsupportedChunk(RecordError):
    """The chunk from `start` to `end` is sound but of a kind, or in a compression, that this release can not read.

    Attributes as for DamagedRecords.
    """


class WorkError(PistributerError):
    """Something about tasks, jobs or workers."""


class TaskNotFound(WorkError, LookupError):
    """A message names a task that the app does not define. Attribute: `task`."""


class WorkerDied(WorkError):
    """The process that ran the job died, each time that it was tried. Hooks see it; it is the `kind` of a JobFailed."""


class BadCall(WorkError, TypeError):
    """The arguments of `.send()` do not fit the task or can not travel as JSON."""


class JobFailed(WorkError):
    """The task raised on its last attempt. Attributes: `job_id`, `kind` (class name), `text`, `traceback`, `attempts`."""


class TimeLimitExceeded(WorkError, TimeoutError):
    """Raised inside a task that runs longer than its soft time limit. Attribute: `limit`, in seconds."""

    limit: float


class ResultTimeout(WorkError, TimeoutError):
    """The job has no result yet; it may still get one. Attributes: `job_id`, `timeout`."""


class ResultLost(WorkError):
    """No result will come: the job was purged, or its result has expired or was never kept. Attribute: `job_id`."""


class JobSkipped(WorkError):
    """The call was not sent, because an equal job is pending (`unique="skip"`). Attribute: `job_id`, the other one's."""


class BootError(WorkError):
    """The app could not be imported or is not one. The supervisor stops instead of restarting in a loop."""


class NoSupervisor(WorkError):
    """No supervisor runs the app, or none with that process id. Attributes: `url`, `pid` (None: any)."""


class ControlError(WorkError):
    """A supervisor refused a command, or did not answer. Attribute: `pid`, where it is known."""


_BY_ERRNO: dict[int, type[StorageError]] = {
    errno.ENOSPC: DiskFull, errno.EDQUOT: DiskFull, errno.EFBIG: DiskFull,
    errno.EACCES: NotWritable, errno.EPERM: NotWritable, errno.EROFS: NotWritable,
    errno.ENOENT: FolderMissing, errno.ENOTDIR: FolderMissing,
    errno.EMFILE: TooManyOpenFiles, errno.ENFILE: TooManyOpenFiles,
}  # fmt: skip

_HINTS: dict[type[StorageError], str] = {
    DiskFull: "free space or raise the limit, then put again; what was stored before is safe",
    NotWritable: "check the owner and the mode of the folder, or mount it read-write",
    FolderMissing: "create the folder first",
    TooManyOpenFiles: "raise `ulimit -n`, or open fewer queues at once and close those that are done",
}


def from_os_error(error: OSError, doing: str, path: object) -> StorageError:
    """The typed form of an `OSError` met while `doing` something to `path`. The caller raises it `from` the original."""
    kind = _BY_ERRNO.get(error.errno or 0, StorageError)
    return kind(
        f"could not {doing} {str(path)!r}: {error.strerror or error}",
        hint=_HINTS.get(kind),
        errno=error.errno or 0,
        path=str(path),
    )


class typed_os_errors:  # noqa: N801 - reads as a statement: `with typed_os_errors("open", path):`
    """Context manager: an `OSError` that leaves the block does so as its typed form, raised from the original."""

    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: object) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, PistributerError):
            raise from_os_error(error, self._doing, error.filename or self._path) from error
