"""Reading several files at once, in threads that read ahead."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from operator import length_hint
from types import TracebackType

from .. import errors
from ..storage import forking
from .damage import CorruptionStrategy, Damage
from .hot import Bytes
from .reading import Path, RecordReader
from .sharding import require_shards
from .stream import RecordStream

#: Bytes of records that a thread reads of a shard before it hands them over and looks at the next shard.
_HAND_OVER = 4 * 1024 * 1024
#: How many such portions are read ahead for each open shard. More would fill memory, and a reader that is slower than the
#: threads gains nothing by it, nor does one that is faster.
_AHEAD = 2


#: The records of one chunk, and how many bytes they are long together.
Portion = tuple[list[Bytes], int]


class _Ahead:
    """What the threads share with the reader: shards that wait, shards that are open, and what was read of them.

    The threads refer to this and not to the reader, which can so be collected. All of it is guarded by `changed`.
    """

    def __init__(self, paths: list[str], open_at_once: int, limit: int, strategy: CorruptionStrategy | None) -> None:
        self.changed = threading.Condition(threading.Lock())
        self._paths = deque(paths)
        self._open: deque[RecordReader] = deque()
        #: Shards that a thread works on at this moment.
        self._busy = 0
        self._open_at_once = open_at_once
        self._limit = limit
        self._strategy = strategy
        #: Chunks, and what went wrong, in the order in which they came.
        self.read: deque[Portion | Exception] = deque()
        self.records = 0
        self.size = 0
        self.damage: list[Damage] = []
        self.torn: list[Damage] = []
        self.stopping = False

    def work(self) -> None:
        """What each thread does: take a shard, read a portion, put both where they belong."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.stopping or self.finished() or self._may_read())
                if self.stopping or self.finished():
                    self.changed.notify_all()
                    return
                shard = self._paths.popleft() if self._may_open() else self._open.popleft()
                self._busy += 1
            self._read_from(shard)

    def _may_open(self) -> bool:
        return bool(self._paths) and len(self._open) + self._busy < self._open_at_once

    def _may_read(self) -> bool:
        room = self.size < min(self._limit, _AHEAD * _HAND_OVER * self._open_at_once)
        return room and (bool(self._open) or self._may_open())

    def finished(self) -> bool:
        """Whether nothing more will come."""
        return not (self._paths or self._open or self._busy)

    def _read_from(self, shard: RecordReader | str) -> None:
        """Read a portion. A shard that ends or fails is closed, and the others go on."""
        found: list[Portion | Exception] = []
        ended = True
        try:
            if isinstance(shard, str):
                shard = RecordReader(shard, self._strategy)
            ended = self._fill(found, shard)
        except Exception as error:  # noqa: BLE001 - raised in the thread that reads
            path = shard if isinstance(shard, str) else shard.path
            error.shard = os.path.basename(path)  # type: ignore[attr-defined]
            found.append(error)
        with self.changed:
            self._busy -= 1
            self._add(found)
            if isinstance(shard, RecordReader):
                self._put_back(shard, ended=ended)
            self.changed.notify_all()

    def _fill(self, found: list[Portion | Exception], reader: RecordReader) -> bool:
        """Add chunks of the shard, of a portion's size together; whether it has ended."""
        room = min(_HAND_OVER, self._limit)
        while room > 0:
            batch = reader.read_batch()
            if not batch:
                return True
            size = sum(map(len, batch))
            found.append((batch, size))
            room -= size
        return False

    def _add(self, found: list[Portion | Exception]) -> None:
        for portion in found:
            self.read.append(portion)
            if isinstance(portion, tuple):
                self.records, self.size = self.records + len(portion[0]), self.size + portion[1]

    def take(self) -> list[Bytes]:
        """The next chunk of those in `read`. Raises what a thread met. The caller has the lock."""
        found = self.read.popleft()
        if isinstance(found, Exception):
            raise found
        batch, size = found
        self.records, self.size = self.records - len(batch), self.size - size
        self.changed.notify_all()
        return batch

    def _put_back(self, reader: RecordReader, *, ended: bool) -> None:
        if not ended:
            self._open.append(reader)
            return
        self.damage += reader.damage
        if reader.torn is not None:
            self.torn.append(reader.torn)
        reader.close()

    def close(self) -> None:
        """Close what is open. The threads have ended."""
        for reader in self._open:
            reader.close()
        self._open.clear()
        self.read.clear()
        self.records = self.size = 0


class MultiThreadedReader(RecordStream):
    """Reads the records of several files, in threads that read ahead. Make one with `new_with_shards`.

    Records of one shard come in its order; between shards there is none: some megabytes of one, then some of the next.

    What goes wrong in a thread is raised where the records would have come, once, with the shard's name in the message and
    in the attribute `shard`. Reading on then goes on with the other shards. Threads may share the reader; each record goes to
    one of them. In a forked child the reader is closed.
    """

    def __init__(self, paths: Iterable[Path], num_shards: int, worker_threads: int, queue_size_mb: int,
                 corruption_strategy: CorruptionStrategy | None) -> None:  # fmt: skip
        super().__init__()
        shards = [os.fsdecode(path) for path in paths]
        if not shards:
            raise errors.RecordsMissing("no shards found: the list is empty", hint="give at least one path")
        for path in shards:
            if not os.path.exists(path):
                raise errors.RecordsMissing(f"there is no shard {path!r}", hint="check the path", path=path)
        self._ahead = _Ahead(shards, max(1, num_shards), max(1, queue_size_mb) * 1024 * 1024, corruption_strategy)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._ahead.work, name=f"pistributer-records-{number}", daemon=True)
            for number in range(max(1, min(worker_threads, num_shards)))
        ]
        for thread in self._threads:
            thread.start()
        forking.register(self)

    @classmethod
    def new_with_shards(
        cls,
        dir_path: Path,
        prefix: str = "shard",
        num_shards: int = 2,
        worker_threads: int = 1,
        queue_size_mb: int = 10 * 1024,
        *,
        corruption_strategy: CorruptionStrategy | None = None,
    ) -> MultiThreadedReader:
        """Read every file PREFIX_NUMBER in `dir_path`, `num_shards` of them at a time.

        `queue_size_mb` is how many MiB may be read ahead; more than about 8 of each open shard never are, because that
        gains nothing. Raises RecordsMissing if there is no such file.
        """
        return cls(require_shards(dir_path, prefix), num_shards, worker_threads, queue_size_mb, corruption_strategy)

    @classmethod
    def new_with_shard_paths(
        cls,
        shard_paths: Iterable[Path],
        num_shards: int = 2,
        worker_threads: int = 1,
        queue_size_mb: int = 10 * 1024,
        *,
        corruption_strategy: CorruptionStrategy | None = None,
    ) -> MultiThreadedReader:
        """Read these files. Raises RecordsMissing if one is missing or there is none."""
        return cls(shard_paths, num_shards, worker_threads, queue_size_mb, corruption_strategy)

    @staticmethod
    def count_records_with_shards(
        dir_path: Path, prefix: str = "shard", corruption_strategy: CorruptionStrategy | None = None
    ) -> int:
        """How many records the shards hold together; see `RecordReader.count_records`."""
        paths = require_shards(dir_path, prefix)
        return sum(RecordReader.count_records(path, corruption_strategy) for path in paths)

    # -- reading

    def _load(self) -> bool:
        ahead = self._ahead
        with ahead.changed:
            ahead.changed.wait_for(
                lambda: length_hint(self._records) or ahead.read or ahead.finished() or ahead.stopping
            )
            self._require_open()
            if length_hint(self._records):
                return True  # another thread was faster, and what it loaded is for all
            if not ahead.read:
                return False
            self._records = iter(ahead.take())
            return True

    def queued_records(self) -> int:
        """How many records have been read ahead."""
        with self._ahead.changed:
            return self._ahead.records + length_hint(self._records)

    def queued_bytes(self) -> int:
        """How many bytes the records that have been read ahead are long together, without those of the chunk in hand."""
        with self._ahead.changed:
            return self._ahead.size

    @property
    def damage(self) -> list[Damage]:
        """What was damaged in the shards that have been read to their end, or to the error that ended them."""
        with self._ahead.changed:
            return list(self._ahead.damage)

    @property
    def torn(self) -> list[Damage]:
        """The incomplete chunks at which shards ended, of those that have been read to their end."""
        with self._ahead.changed:
            return list(self._ahead.torn)

    # -- closing

    def close(self) -> None:
        """End the threads and close the files; records that were read stay valid. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        with self._ahead.changed:
            self._ahead.stopping = True
            self._ahead.changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._ahead.close()
        self._records = iter(())

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or this is the forked child of who opened it."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise errors.RecordsClosed("the reader is closed", hint="open another one")

    def _after_fork(self) -> None:
        self._ahead = _Ahead([], 1, 1, None)  # the threads do not exist here, and the lock may be held for ever
        self._records = iter(())
        self._closed = True

    def __enter__(self) -> MultiThreadedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A collection of garbage may run in one of the threads, which can not wait for itself; it ends with the process.
        if not self.__dict__.get("_closed", True) and threading.current_thread() not in self._threads:
            self.close()
