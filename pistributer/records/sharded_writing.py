"""Writing to several files at once, in threads.

Records are dealt to the shards in turn and handed over in lists of about a chunk; handing them over one by one would take ten
times as long as writing them. Hashing, compressing and writing let other threads run, which is where a second core gains.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import errors
from ..storage import forking
from ..storage.durability import Sync
from ..storage.whole_append import remove_unused
from .compression import DEFAULT_LEVEL
from .crew import FLUSH, Crew, OpenShard, Shards, total_size
from .reading import Path
from .sharding import find_shards
from .writing import MAX_RECORD_BYTES, batches, to_record

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Bytes of records that are handed to a thread together.
_HAND_OVER = 1024 * 1024
#: Bytes that may wait for the threads, whatever the capacity in tasks is: more gains nothing.
_MOST_WAITING = 64 * 1024 * 1024


class MultiThreadedWriter:
    """Writes records to several files of one folder, in threads. Make one with `new_with_shards`.

    Records go to the shards in turn. Those of one shard are in the order in which they were written; between shards there
    is none. Threads may share the object. In a forked child it is closed, and what waited is the parent's.

    What goes wrong in a thread (a full disk, …) is raised by the next call, with the shard's name in the message and in the
    attribute `shard`; nothing that was taken is lost by it: it is tried again, and `flush` and `close` raise until it is
    written.
    """

    def __init__(self, open_shard: Callable[[], OpenShard], *, num_shards: int, worker_threads: int, capacity: int,
                 max_bytes: int | None, auto_sharding: bool, max_record_bytes: int) -> None:  # fmt: skip
        self._open_shard = open_shard
        self._num_shards = num_shards
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._auto_sharding = auto_sharding
        self._max_record_bytes = max_record_bytes
        self._crew = Crew()
        #: The shards that are dealt to, and which of them is next.
        self._rotation: list[OpenShard] = []
        self._next = 0
        self._closed = False
        try:
            self._refill()
        except BaseException:
            self._abandon()
            raise
        self._threads = [
            threading.Thread(target=self._crew.work, name=f"pistributer-records-{number}", daemon=True)
            for number in range(worker_threads)
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
        worker_threads: int | None = None,
        max_bytes_per_writer: int | None = 10 * 1024**3,
        task_queue_capacity: int = 2000,
        enable_auto_sharding: bool = True,
        append: bool = True,
        *,
        compression: str | None = None,
        compression_level: int = DEFAULT_LEVEL,
        sync: Sync = "none",
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> MultiThreadedWriter:
        """Open `num_shards` files PREFIX_000000, … in `dir_path`, which is made if it is missing.

        append                go on in the last shards that are there, have room and are not in use, and make what is
                              missing; False deletes every shard of this prefix first
        worker_threads        the number of processors if None; more than shards are of no use and not started
        max_bytes_per_writer  a shard with so many bytes of records is closed, and with enable_auto_sharding a new one takes
                              its place; without, writing raises ShardsFull once none is left
        task_queue_capacity   how many tasks may wait for the threads before writing waits. A task is a list of records of
                              about 1 MiB; no more than 64 MiB wait in any case

        The rest as for `RecordWriter`. Raises what that does, and FileInUse with append=False if a shard is being written.
        """
        folder = os.fsdecode(dir_path)
        with errors.typed_os_errors("make the folder", folder):
            os.makedirs(folder, exist_ok=True)
        if not append:
            for shard in find_shards(folder, prefix):
                remove_unused(shard.path)
        options: dict[str, Any] = {
            "compression": compression, "compression_level": compression_level,
            "sync": sync, "max_record_bytes": max_record_bytes,
        }  # fmt: skip
        num_shards = max(1, num_shards)
        return cls(
            Shards(folder, prefix, num_shards, max_bytes_per_writer, options).open_next,
            num_shards=num_shards,
            worker_threads=max(1, min(num_shards, worker_threads or os.cpu_count() or 1)),
            capacity=max(1, task_queue_capacity),
            max_bytes=max_bytes_per_writer,
            auto_sharding=enable_auto_sharding,
            max_record_bytes=max_record_bytes,
        )

    # -- writing

    def write_record(self, data: Buffer) -> None:
        """Add one record. Waits while too much waits for the threads.

        Raises as `RecordWriter.write_record`, and ShardsFull. After an error the record was not taken.
        """
        record = data if type(data) is bytes else to_record(data)
        self._check_size(record)
        crew = self._crew
        with crew.changed:
            if not crew.calm:
                self._wait_for_room()
            self._deal(record)

    def write_records(self, records: Iterable[Buffer]) -> int:
        """Add the records, several times faster than one by one; return how many there were.

        The error's `stored` says how many were taken.
        """
        taken = 0
        try:
            for batch in batches(records):
                self._check_size(max(batch, key=len))
                with self._crew.changed:
                    self._wait_for_room()
                    if self._fits(batch):
                        self._deal_batch(batch)
                        taken += len(batch)
                        continue
                    for record in batch:
                        if not self._crew.calm:
                            self._wait_for_room()
                        self._deal(record)
                        taken += 1
        except errors.PistributerError as error:
            error.stored = taken  # type: ignore[attr-defined]
            raise
        return taken

    def _check_size(self, record: bytes) -> None:
        if len(record) > self._max_record_bytes:
            raise errors.RecordTooLarge(
                f"a record of {len(record):,} bytes is over the limit of {self._max_record_bytes:,}",
                hint="raise max_record_bytes, or split the record",
                size=len(record),
                limit=self._max_record_bytes,
            )

    def _wait_for_room(self) -> None:
        self._require_open()
        crew = self._crew
        while True:
            self._raise_failure()
            if self._auto_sharding:
                self._refill()
            if not self._rotation:
                raise errors.ShardsFull(
                    "every shard is at max_bytes_per_writer", hint="raise it, or set enable_auto_sharding=True"
                )
            if crew.waiting < _MOST_WAITING and crew.pending() < self._capacity:
                crew.calm = True
                return
            crew.changed.wait()
            self._require_open()

    def _fits(self, batch: list[bytes]) -> bool:
        """Whether no shard comes to its limit by its share of the batch."""
        return self._max_bytes is None or total_size(batch) + max(s.taken for s in self._rotation) < self._max_bytes

    def _deal(self, record: bytes) -> None:
        self._next = (self._next + 1) % len(self._rotation)
        shard = self._rotation[self._next]
        shard.dealt.append(record)
        self._count(shard, len(record))

    def _deal_batch(self, batch: list[bytes]) -> None:
        count = len(self._rotation)
        for number in range(count):
            part = batch[number::count]
            shard = self._rotation[(self._next + 1 + number) % count]
            shard.dealt += part
            self._count(shard, total_size(part))
        self._next = (self._next + len(batch)) % count

    def _count(self, shard: OpenShard, size: int) -> None:
        """The shard was dealt so many bytes: hand them over if they are enough, or retire the shard if it is full."""
        shard.dealt_size += size
        shard.taken += size
        if self._max_bytes is not None and shard.taken >= self._max_bytes:
            self._retire(shard)
        elif shard.dealt_size >= _HAND_OVER:
            self._hand_over(shard)

    def _hand_over(self, shard: OpenShard) -> None:
        if shard.dealt:
            shard.tasks.append(shard.dealt)
            self._crew.waiting += shard.dealt_size
            shard.dealt, shard.dealt_size = [], 0
            self._crew.calm = False
            self._crew.changed.notify_all()

    def _retire(self, shard: OpenShard) -> None:
        """The shard is full: it is written out and closed. What takes its place is opened by the next call (`_refill`)."""
        shard.retired = True
        self._crew.calm = False
        self._hand_over(shard)
        shard.tasks.append(FLUSH)
        self._crew.changed.notify_all()
        self._rotation.remove(shard)

    def _refill(self) -> None:
        """Open what is missing, before a record is taken: if that fails, the record was not."""
        while len(self._rotation) < self._num_shards:
            shard = self._open_shard()
            self._rotation.append(shard)
            self._crew.shards.append(shard)

    # -- on demand

    def flush(self) -> None:
        """Have everything that was taken written: readers find it, and it survives this process."""
        with self._crew.changed:
            self._require_open()
            self._flush()

    def _flush(self) -> None:
        for shard in self._crew.shards:
            self._hand_over(shard)
            if not shard.retired:  # else it is among its tasks already
                shard.tasks.append(FLUSH)
        self._crew.changed.notify_all()
        while not all(shard.idle() for shard in self._crew.shards):
            self._raise_failure()
            self._crew.changed.wait()

    def _raise_failure(self) -> None:
        """Raise what a thread met; its shard is then tried again."""
        for shard in self._crew.shards:
            failure, shard.failure = shard.failure, None
            if failure is not None:
                self._crew.changed.notify_all()
                raise failure

    def close(self) -> None:
        """Flush, close the files and end the threads. Closing twice is fine.

        If something can not be written, everything is closed all the same, and the error's `lost` says how many records
        that were.
        """
        with self._crew.changed:
            if self._closed:
                return
            failure: Exception | None = None
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001 - raised once everything is closed
                failure = error
            self._closed = self._crew.stopping = True
            self._crew.calm = False
            self._crew.changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._close_files(failure)

    def _close_files(self, failure: Exception | None) -> None:
        lost = 0
        for shard in self._crew.shards:
            lost += sum(len(task) for task in shard.tasks if task)
            try:
                shard.writer.close()
            except errors.PistributerError as error:
                failure = failure or error
                lost += error.lost  # type: ignore[attr-defined]
        if failure is not None:
            failure.lost = lost  # type: ignore[attr-defined]
            raise failure

    def pending_tasks(self) -> int:
        """How many tasks, lists of about 1 MiB of records, wait or are being written."""
        with self._crew.changed:
            return self._crew.pending()

    def available_writers(self) -> int:
        """How many shards are open and have nothing to do."""
        with self._crew.changed:
            return 0 if self._closed else sum(shard.idle() for shard in self._rotation)

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or this is the forked child of who opened it."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise errors.RecordsClosed("the writer is closed", hint="open another one; append=True goes on")

    def _abandon(self) -> None:
        self._closed = True
        for shard in self._crew.shards:
            shard.writer.close()

    def _after_fork(self) -> None:
        # The threads do not exist here, and the lock may be held for ever.
        self._crew = Crew()
        self._closed = True

    def __enter__(self) -> MultiThreadedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.__dict__.get("_closed", True):
            warnings.warn("a MultiThreadedWriter was not closed", ResourceWarning, stacklevel=2, source=self)
            # A collection of garbage may run in one of the threads, which can not wait for itself.
            if threading.current_thread() not in self._threads:
                self.close()
