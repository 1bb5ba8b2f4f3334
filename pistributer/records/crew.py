"""The threads behind a MultiThreadedWriter, and the shards that they write."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

from .. import errors
from .sharding import find_shards, shard_path
from .writing import RecordWriter

#: Records to be written, or FLUSH.
Task = list[bytes] | None
#: The task to write out what waits.
FLUSH: Task = None


class OpenShard:
    """One shard that is written to. Guarded by the crew's lock, but for `writer`, which belongs to the thread that is busy."""

    def __init__(self, writer: RecordWriter, taken: int) -> None:
        self.writer = writer
        #: Bytes of records dealt to it, and what its file held before.
        self.taken = taken
        self.dealt: list[bytes] = []
        self.dealt_size = 0
        self.tasks: deque[Task] = deque()
        self.busy = False
        self.retired = False
        self.failure: Exception | None = None

    def ready(self) -> bool:
        return not self.busy and self.failure is None and bool(self.tasks)

    def idle(self) -> bool:
        return not self.busy and not self.tasks


class Crew:
    """The threads, and what they share with the writer. They refer to this and not to the writer, which can so be collected."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.shards: list[OpenShard] = []
        #: Bytes of records in all tasks.
        self.waiting = 0
        #: Whether a record may be dealt without a look at limits and failures. Whoever changes one of those resets it.
        self.calm = False
        self.stopping = False

    def pending(self) -> int:
        return sum(len(shard.tasks) + shard.busy for shard in self.shards)

    def work(self) -> None:
        """What each thread does: take the next task of a shard that nobody works on, do it, say so."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.stopping or self._next() is not None)
                shard = self._next()
                if shard is None:
                    return
                shard.busy = True
                task = shard.tasks.popleft()
            failure = _do(shard, task)
            with self.changed:
                self._done(shard, task, failure)

    def _next(self) -> OpenShard | None:
        return next((shard for shard in self.shards if shard.ready()), None)

    def _done(self, shard: OpenShard, task: Task, failure: Exception | None) -> None:
        shard.busy = False
        shard.failure = failure
        if failure is not None:
            self.calm = False
            stored: int = failure.stored  # type: ignore[attr-defined]
            shard.tasks.appendleft(task[stored:] if task else task)
            self.waiting -= total_size(task[:stored]) if task else 0
        else:
            self.waiting -= total_size(task) if task else 0
            # In turn: who was served goes to the end of the row.
            self.shards.remove(shard)
            if not (shard.retired and shard.idle()):
                self.shards.append(shard)
        self.changed.notify_all()


def _do(shard: OpenShard, task: Task) -> Exception | None:
    """Write; what went wrong is returned, for the thread that uses the writer to raise."""
    stored = 0
    try:
        if task:
            for count in shard.writer.take(task):
                stored += count
        else:
            shard.writer.flush()
            if shard.retired:
                shard.writer.close()
    except Exception as error:  # noqa: BLE001 - raised in the thread that uses the writer
        error.shard = os.path.basename(shard.writer.path)  # type: ignore[attr-defined]
        error.stored = stored  # type: ignore[attr-defined]
        return error
    return None


def total_size(records: list[bytes]) -> int:
    return sum(map(len, records))


class Shards:
    """Which file is the next one to be opened."""

    def __init__(
        self, folder: str, prefix: str, num_shards: int, max_bytes: int | None, options: dict[str, Any]
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._options = options
        found = find_shards(folder, prefix)
        with_room = [shard for shard in found if max_bytes is None or os.path.getsize(shard.path) < max_bytes]
        #: Those to go on in, and the first number that is free.
        self._there = with_room[-num_shards:]
        self._number = found[-1].number + 1 if found else 0

    def open_next(self) -> OpenShard:
        while self._there:
            opened = self._open(self._there.pop(0).path)
            if opened is not None:
                return opened
        while True:
            path = shard_path(self._folder, self._prefix, self._number)
            self._number += 1
            if not os.path.exists(path):
                opened = self._open(path)
                if opened is not None:
                    return opened

    def _open(self, path: str) -> OpenShard | None:
        """None if another writer has it, which may have made it at this moment."""
        try:
            writer = RecordWriter(path, append=True, **self._options)
        except errors.FileInUse:
            return None
        return OpenShard(writer, os.path.getsize(path))
