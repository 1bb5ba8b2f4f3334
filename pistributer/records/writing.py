"""Writing a record file."""

from __future__ import annotations

import itertools
import os
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import errors
from ..storage import forking
from ..storage.durability import GroupSync, Sync, check_mode
from ..storage.replacing import sync_directory
from ..storage.turns import Turn
from ..storage.whole_append import WholeAppendFile
from .chunks import pack_chunk
from .compression import DEFAULT_LEVEL, check_compression
from .damage import Damage
from .healing import heal
from .hot import Bytes
from .layout import PADDING, SIGNATURE, lay_out_chunk, pack_header, padding_to_block

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: A chunk is written once its records are this long together, in bytes. The original's; smaller chunks lose less to damage.
CHUNK_SIZE = 1024 * 1024
#: The longest record, in bytes, unless the writer is told otherwise.
MAX_RECORD_BYTES = 1024**3
#: Records of an iterable that are looked at together.
_BATCH = 8192


class RecordWriter:
    """Writes records to one file, which it makes, or empties unless `append` is true.

    Records wait in memory until they fill a chunk of `chunk_size` bytes or `flush` is called; then they are in the file, and
    a killed process loses none of them. What a power cut may cost says `sync`: "none" leaves writing out to the kernel,
    "group" syncs a few milliseconds after a chunk was written, "each" before the call that wrote it returns.

    compression          None or "none", or "zstd" at compression_level (3)
    append               go on behind what is there; a dead writer's torn chunk is cut off (see `healed`)
    pad_to_block         with append: begin at a multiple of 64 KiB, so that damage before it costs nothing behind it.
                         The original's reader refuses such a file
    max_record_bytes     a longer record raises RecordTooLarge

    Threads may share a writer; their records come in some order. One writer a file: a second one raises FileInUse. In a
    forked child the object is closed and what waited in it is the parent's.

    Raises UnknownCompression, PackageMissing (zstd), FileInUse, NotARecordFile (append), FolderMissing and other StorageErrors.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        compression: str | None = None,
        *,
        compression_level: int = DEFAULT_LEVEL,
        append: bool = False,
        pad_to_block: bool = False,
        chunk_size: int = CHUNK_SIZE,
        sync: Sync = "none",
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self.path = os.fsdecode(path)
        #: What an earlier writer left half written and `append` cut off; None if there was nothing.
        self.healed: Damage | None = None
        self._code = check_compression(compression, compression_level, self.path)
        self._level = compression_level
        self._chunk_size = chunk_size
        self._max_record_bytes = max_record_bytes
        self._sync = check_mode(sync)
        self._group = GroupSync() if sync == "group" else None
        self._records: list[bytes] = []
        #: Bytes of `_records` together.
        self._size = 0
        #: Guards everything here.
        self._turn = Turn()
        self._file = WholeAppendFile(self.path)
        self._open(append, pad_to_block)
        forking.register(self)

    def _open(self, append: bool, pad: bool) -> None:
        self._file.open(truncate=not append)
        try:
            if append:
                self.healed = heal(self._file)
            if self._file.size == 0:
                self._file.append([SIGNATURE])
            elif pad and (size := padding_to_block(self._file.size)) is not None:
                self._append(pack_header(PADDING, bytes(size), 0, 0), bytes(size))
            self._make_durable()
            if self._sync == "each" and self._file.created:
                sync_directory(os.path.dirname(self.path))
        except BaseException:
            self._file.close()
            raise

    # -- writing

    def write_record(self, data: Buffer) -> None:
        """Add one record. It is in the file after the next `flush`, or when its chunk is full.

        Raises RecordTypeError, RecordTooLarge, RecordsClosed, and when a chunk is written DiskFull and other StorageErrors.
        After an error the record was not taken, the file ends in a whole chunk, and what was taken before still waits.
        """
        record = data if type(data) is bytes else to_record(data)
        size = len(record)
        if size > self._max_record_bytes:
            self._refuse_size(size)
        turn = self._turn
        try:
            del turn.free
        except AttributeError:
            turn.wait_for_turn()
        try:  # what `with turn` does, at a third of the price of the whole call
            self._records.append(record)
            self._size += size
            if self._size >= self._chunk_size or self._file.fd < 0:
                self._write_chunk_with(1, size)
        finally:
            turn.free = True
            if turn.waiters:
                turn.wake_waiter()

    def write_records(self, records: Iterable[Buffer]) -> int:
        """Add the records in order, faster than one by one; return how many there were.

        Raises as `write_record`. The error's `stored` says how many of them were taken, which is where to go on. If the
        iterable raises, what it yielded before is taken.
        """
        taken = 0
        try:
            for batch in batches(records):
                for count in self.take(batch):
                    taken += count
        except errors.PistributerError as error:
            error.stored = taken  # type: ignore[attr-defined]
            raise
        return taken

    def take(self, batch: list[bytes]) -> Iterator[int]:
        """Add records that nobody can change, chunk by chunk as if one by one; yield how many were added after each step."""
        sizes = list(map(len, batch))
        ends = list(itertools.accumulate(sizes))
        if max(sizes) > self._max_record_bytes:
            self._refuse_size(max(sizes))
        start = before = 0
        while start < len(batch):
            with self._turn:
                stop = bisect_left(ends, before + self._chunk_size - self._size, start) + 1
                part = batch[start:stop]
                size = ends[start + len(part) - 1] - before
                self._records += part
                self._size += size
                if self._size >= self._chunk_size or self._file.fd < 0:
                    self._write_chunk_with(len(part), size)
            yield len(part)
            start, before = stop, before + size

    def _write_chunk_with(self, count: int, size: int) -> None:
        """Write the chunk, whose last `count` records came just now; if that fails, they were not taken."""
        records = self._records
        try:
            self._write_chunk()
        except BaseException:
            if self._records is records:
                del records[-count:]
                self._size -= size
            raise

    def _write_chunk(self) -> None:
        self._require_open()
        if not self._records:
            return
        packed, before = pack_chunk(self._records, self._code, self._level), self._file.size
        try:
            self._append(*packed)
        finally:
            if self._file.size != before:  # it is in the file, even if a Ctrl-C strikes at this very point
                self._records, self._size = [], 0
        self._make_durable()

    def _append(self, header: bytes, data: bytes) -> None:
        self._file.append(lay_out_chunk(self._file.size, header, data))

    def _make_durable(self) -> None:
        if self._sync == "each":
            self._file.sync()
        elif self._group is not None:
            self._group.note(self._file.fd, self.path)

    # -- on demand

    def flush(self) -> None:
        """Write what waits as a chunk: a reader finds it, and it survives this process. No sync unless that was asked for.

        After DiskFull and other StorageErrors everything still waits, and flush may be called again.
        """
        with self._turn:
            self._write_chunk()

    def sync(self) -> None:
        """Flush, and have the disk confirm it: what was written survives a power cut. After SyncFailed the writer is closed."""
        with self._turn:
            self._write_chunk()
            self._file.sync()

    def close(self) -> None:
        """Flush and close. Closing twice is fine.

        If the flush fails, the file is closed all the same, and the error's `lost` says how many records were not written.
        """
        with self._turn:
            if self._file.fd < 0:
                self._records, self._size = [], 0
                return
            try:
                try:
                    self._write_chunk()
                finally:
                    if self._group is not None:
                        self._group.close()
            except errors.PistributerError as error:
                error.lost = len(self._records)  # type: ignore[attr-defined]
                raise
            finally:
                self._file.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or this is the forked child of who opened it."""
        return self._file.fd < 0

    def _require_open(self) -> None:
        if self._file.fd < 0:
            raise errors.RecordsClosed(
                f"the writer of {self.path!r} is closed", hint="open another one with append=True", path=self.path
            )

    def _refuse_size(self, size: int) -> None:
        limit = self._max_record_bytes
        raise errors.RecordTooLarge(
            f"a record of {size:,} bytes is over the limit of {limit:,}",
            hint="raise max_record_bytes, or split the record",
            path=self.path,
            size=size,
            limit=limit,
        )

    def _after_fork(self) -> None:
        self._turn.reset_turn()
        self._records, self._size = [], 0

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "_file" in self.__dict__ and not self.closed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<RecordWriter {self.path!r}{' closed' if self.closed else ''}>"


def to_record(data: Buffer) -> bytes:
    """`data` as it is kept until its chunk is written: itself if nobody can change it, else a copy."""
    if isinstance(data, bytes | Bytes):
        return data
    try:
        return memoryview(data).tobytes()
    except TypeError as error:
        raise errors.RecordTypeError(
            f"a record is bytes or a buffer, not {type(data).__name__}", hint="encode text: text.encode()"
        ) from error


def batches(records: Iterable[Buffer]) -> Iterator[list[bytes]]:
    """The records in lists of at most 8192, each of a type that nobody can change.

    If the iterable raises, what it had yielded before comes first.
    """
    rest, failure = iter(records), None
    while failure is None:
        batch: list[Any] = []
        try:
            batch += itertools.islice(rest, _BATCH)  # keeps what came before an exception, as list() would not
        except Exception as error:  # noqa: BLE001 - raised below
            failure = error
        if set(map(type, batch)) - {bytes}:
            batch = [to_record(record) for record in batch]
        if batch:
            yield batch
        elif failure is None:
            return
    raise failure
