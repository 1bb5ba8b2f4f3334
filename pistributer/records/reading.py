"""Reading a record file from beginning to end, from a place, or in batches."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from operator import length_hint
from types import TracebackType
from typing import NamedTuple

from .. import errors
from .chunks import Foreign, split_chunk
from .damage import CorruptionStrategy, Damage
from .hot import Bytes
from .layout import RECORDS
from .stream import RecordStream
from .walking import MAX_CHUNK_BYTES, Place, Walker

Path = str | os.PathLike[str]


class RecordPosition(NamedTuple):
    """Where a record is: the offset at which its chunk begins, and its number in that chunk. Valid for as long as the file."""

    chunk: int
    record: int = 0


class RecordReader(RecordStream):
    """Reads the records of one file in order.

    `corruption_strategy` says what happens on damage that costs records: ERROR (the default) raises DamagedRecords,
    RECOVER skips it. DamagedRecords and UnsupportedChunk come at the same place again until a `seek` goes elsewhere. `damage`
    lists what was passed. A file that ends in the middle of a chunk, because its writer
    was killed or is still writing, ends before that chunk, and `torn` says so; reading on later finds what was added.

    Use it in one thread at a time. Records are views of their chunk (see `Bytes`), about 1 MiB, which stays in memory for as
    long as one of them does.

    Raises RecordsMissing, NotARecordFile or a StorageError.
    """

    def __init__(
        self,
        path: Path,
        corruption_strategy: CorruptionStrategy | None = None,
        *,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
    ) -> None:
        super().__init__()
        self.path = os.fsdecode(path)
        self._fd = open_to_read(self.path)
        self._walker = Walker(self._fd, self.path, corruption_strategy or CorruptionStrategy.ERROR, max_chunk_bytes)
        #: Where the chunk of `_records` begins, and how many records it has.
        self._chunk = RecordPosition(0, 0)
        try:
            self._walker.check_signature()
        except BaseException:
            self.close()
            raise

    # -- in order

    def _load(self) -> bool:
        while (place := self._next_place()) is not None:
            data = self._walker.data(place)
            records = None if data is None else decode(self._walker, place, data)
            if records:
                self._chunk = RecordPosition(place.begin, len(records))
                self._records = iter(records)
                return True
        return False

    def _next_place(self) -> Place | None:
        """The next chunk that holds records."""
        if self._fd < 0:
            raise errors.RecordsClosed(
                f"the reader of {self.path!r} is closed", hint="open another one", path=self.path
            )
        while (place := self._walker.place()) is not None:
            if place.header.records:
                return place
            self._walker.data(place)  # signature, padding, metadata: for their hashes only
        return None

    # -- elsewhere

    def tell(self) -> RecordPosition:
        """Where the next record is; `seek` goes there again, in any reader of this file."""
        left = length_hint(self._records)
        if left:
            return RecordPosition(self._chunk.chunk, self._chunk.record - left)
        return RecordPosition(self._walker.at, 0)

    def seek(self, position: RecordPosition | tuple[int, int] | int) -> None:
        """Go to what `tell` returned, or to the beginning of a chunk. `seek(0)` is the beginning of the file.

        A place at which no chunk begins is noticed by the next read, as damage.
        """
        chunk, record = (position, 0) if isinstance(position, int) else position
        if chunk < 0 or record < 0:
            raise ValueError(f"no record can be at {position!r}")
        self._records, self._failure = iter(()), None
        self._walker.move(chunk)
        if record:
            self.skip(record)

    def skip(self, count: int) -> int:
        """Pass over `count` records and return how many there were. Whole chunks are passed over unread and unchecked."""
        left = count - sum(1 for _ in itertools.islice(self._records, count))
        while left and (place := self._next_place()) is not None:
            if place.header.records <= left:
                self._walker.pass_by(place)
                left -= place.header.records
            elif self._load():
                left -= sum(1 for _ in itertools.islice(self._records, left))
        return count - left

    @staticmethod
    def count_records(path: Path, corruption_strategy: CorruptionStrategy | None = None) -> int:
        """How many records the file holds.

        Adds up what the chunk headers say, without reading the records: milliseconds a gigabyte. With RECOVER it reads
        everything, and counts what is sound.
        """
        with RecordReader(path, corruption_strategy) as reader:
            if corruption_strategy is CorruptionStrategy.RECOVER:
                return sum(map(len, iter(reader.read_batch, [])))
            return sum(place.header.records for place in reader.places())

    def places(self) -> Iterator[Place]:
        """The chunks from here on that hold records, unread: for `RecordIndex` and for looking at a file's make."""
        while (place := self._next_place()) is not None:
            self._walker.pass_by(place)
            yield place

    # -- what was met

    @property
    def damage(self) -> list[Damage]:
        """What was damaged so far, in the order in which it was met."""
        return list(self._walker.damage)

    @property
    def torn(self) -> Damage | None:
        """The incomplete chunk at which the file ended when it was last read to its end; None if it ended well."""
        return self._walker.torn

    # -- closing

    def close(self) -> None:
        """Close the file; records that were read stay valid. Closing twice is fine."""
        self._records = iter(())
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def __repr__(self) -> str:
        return f"<RecordReader {self.path!r}{' closed' if self.closed else ''}>"


def decode(walker: Walker, place: Place, data: bytearray) -> list[Bytes] | None:
    """The records of a chunk whose hashes were right; None if they can not be told apart, after that was reported."""
    header = place.header
    if header.kind != RECORDS:
        walker.lose(place, f"a chunk of kind {chr(header.kind)!r}, which is Riegeli's alone", unsupported=True)
    else:
        try:
            return split_chunk(header, data)
        except Foreign as error:
            walker.lose(place, f"a chunk of another program: {error}", unsupported=True)
        except ValueError as error:
            walker.lose(place, f"a chunk does not hold what it says: {error}")
    return None


def open_to_read(path: str) -> int:
    """A descriptor of the file; RecordsMissing if there is none, NotARecordFile for a folder, or a StorageError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise errors.RecordsMissing(
            f"there is no file {path!r}", hint="check the path", errno=error.errno or 0, path=path
        ) from error
    except OSError as error:
        raise errors.from_os_error(error, "open", path) from error
    if os.path.isdir(path):
        os.close(fd)
        raise errors.NotARecordFile(
            f"{path!r} is a folder", hint="MultiThreadedReader reads a folder of shards", path=path
        )
    return fd
