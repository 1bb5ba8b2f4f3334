"""Sources of a file queue: producers by name, whose checkpoint is committed with their rows.

A source has a shard for good; `shards/0003.source` says whose shard 3 is. Each of its rows is wrapped (queues/envelope.py),
with the id `NAME-7` for its seventh row and with its checkpoint, so that one `write` stores both. The last row of the
shard says how far the source has come.

Segments are deleted when they are consumed, so before a new one is begun the last number and checkpoint are copied into
the `.source` file, as they are when a checkpoint is set without a row. The higher number counts; of equal ones, the file's.

Killed while a source is made: before `.source` is there, its shard is one like all others. Killed in an append: the torn
tail is cut by the next holder, and the row before it counts. Killed around a roll: file and last row say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from .. import errors
from ..storage import forking
from ..storage.locks import Flock, try_lock
from ..storage.replacing import remove_litter, replace_file
from .appender import Appender
from .envelope import Envelope, unwrap, wrap
from .folder import Folder
from .refusals import check_length
from .room import Room
from .shard import read_segment_backwards, take_shard
from .sources import BatchedSource, Pair, check_source_name, source_busy


class _MakeAppender(Protocol):
    def __call__(self, take: Callable[[], tuple[Flock, int]], before_roll: Callable[[], object], /) -> Appender: ...


class FileSource(BatchedSource):
    """A source of a jsonl or txt queue. Docstrings of the methods are inherited from the contract."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        room: Room | None,
        max_row_bytes: int,
        make_appender: _MakeAppender,
        *,
        durable: bool,
    ) -> None:
        super().__init__(check_source_name(name))
        self._folder = folder
        self._codec = folder.codec
        self._room = room
        self._max_row_bytes = max_row_bytes
        self._durable = durable
        self._number, lock = take_source(folder, name, durable=durable)
        # The lock is held from here on, and goes to the appender.
        self._appender = make_appender(lambda: (lock, self._number), self._save_last_row)
        try:
            self._appender.open()
            self._n, self.checkpoint = read_source(folder, self._number)[1:]
        except BaseException:
            self._appender.drop()
            raise
        forking.register(self)

    def _store(self, batch: list[Pair], block: bool, timeout: float | None) -> None:
        lines = [self._line(n, value, checkpoint) for n, (value, checkpoint) in enumerate(batch, self._n + 1)]
        try:
            if self._room is None:
                self._appender.append(b"".join(lines), len(lines))
            else:
                self._room.store(lines, self._appender.append, block=block, timeout=timeout)
        except (errors.DiskFull, errors.QueueFull) as error:
            self._n += error.stored
            raise
        except BaseException:
            # It may be in the file or not. Whoever opens the source next reads there which.
            self.close()
            raise
        self._n += len(lines)

    def _line(self, n: int, value: Any, checkpoint: Any) -> bytes:
        row = self._codec.encode(value)[:-1]
        check_length(row, self._max_row_bytes)
        return wrap(Envelope(f"{self.name}-{n}", 0, row, checkpoint=checkpoint), self._codec)

    def _save(self, checkpoint: Any) -> None:
        self._save_at(self._n, checkpoint)

    def _save_last_row(self) -> None:
        """Before a roll. What this object counts does not have the rows yet that led to it."""
        self._save_at(*read_source(self._folder, self._number)[1:])

    def _save_at(self, n: int, checkpoint: Any) -> None:
        with self._folder.lock:
            save_source(self._folder, self._number, self.name, n, checkpoint, durable=self._durable)

    def close(self) -> None:
        self._closed = True
        self._appender.drop()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._appender.forget()


def take_source(folder: Folder, name: str, *, durable: bool) -> tuple[int, Flock]:
    """Hold the shard of the source `name`, made if there is none: its number and its lock. SourceBusy if it is held."""
    with folder.lock:  # so that two do not make it at once
        remove_litter(folder.shards)
        number = _find(folder, name)
        if number is None:
            lock, number = take_shard(folder, new=True)
            try:
                save_source(folder, number, name, 0, None, durable=durable)
            except BaseException:
                lock.close()
                raise
            return number, lock
    lock_or_none = try_lock(folder.shard_lock(number))
    if lock_or_none is None:
        raise source_busy(name)
    return number, lock_or_none


def save_source(folder: Folder, number: int, name: str, n: int, checkpoint: Any, *, durable: bool) -> None:
    """Note that shard `number` belongs to the source `name`, which has put `n` rows and come as far as `checkpoint`.

    The caller holds the folder's lock.
    """
    state = orjson.dumps({"name": name, "n": n, "checkpoint": checkpoint}) + b"\n"
    replace_file(folder.source(number), state, durable=durable)


def read_source(folder: Folder, number: int) -> tuple[str, int, Any]:
    """Name, number of rows and checkpoint of the source that owns shard `number`."""
    # In this order: while its holder rolls, the file is written before the last segment can be consumed and deleted.
    last = _last_row(folder, number)
    path = folder.source(number)
    with open(path, "rb") as file:
        data = file.read()
    try:
        saved: Any = orjson.loads(data)
        found = str(saved["name"]), int(saved["n"]), saved["checkpoint"]
    except (ValueError, KeyError, TypeError) as error:
        raise errors.NotAQueue(
            f"{path!r} is damaged: {error}", hint="delete it; the source then starts over in a new shard", path=path
        ) from error
    return last if last is not None and last[0] == found[0] and last[1] > found[1] else found


def _last_row(folder: Folder, number: int) -> tuple[str, int, Any] | None:
    """What the last row in the shard's last segment says; None if that has none, or is gone."""
    segments = folder.segments(number)
    if not segments:
        return None
    try:
        for row in read_segment_backwards(folder.segment(number, segments[-1])):
            try:
                found = unwrap(row, folder.codec)
                name, _, n = found.id.rpartition("-")
                return name, int(n), found.checkpoint
            except (ValueError, KeyError, TypeError):
                continue  # damaged; whoever claims it sets it aside
    except FileNotFoundError:
        pass
    return None


def read_sources(folder: Folder) -> dict[str, Any]:
    """The checkpoint of every source by name."""
    found = [read_source(folder, number) for number in folder.source_numbers()]
    return {name: checkpoint for name, _, checkpoint in sorted(found, key=lambda source: source[0])}


def _find(folder: Folder, name: str) -> int | None:
    return next((number for number in folder.source_numbers() if read_source(folder, number)[0] == name), None)
