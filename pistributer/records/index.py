"""Random access: the n-th record of a file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from types import TracebackType
from typing import overload

from .damage import CorruptionStrategy
from .hot import Bytes
from .reading import Path, RecordPosition, RecordReader


class RecordIndex(Sequence[Bytes]):
    """The records of one file as a sequence: `len`, `[n]`, slices, iteration.

    Made by reading the chunk headers, not the records: milliseconds a gigabyte, 16 bytes of memory a chunk; nothing is kept
    on disk. A record costs the read of its chunk, about 1 MiB, unless the last one asked for was in the same. What is
    appended later is seen after `refresh`. In recovery a damaged header is passed over; a record whose data is damaged
    raises DamagedRecords in either strategy, because the numbers of those behind it must not change. For one thread at a time.

    Raises as `RecordReader`.
    """

    def __init__(self, path: Path, corruption_strategy: CorruptionStrategy | None = None) -> None:
        self._headers = RecordReader(path, corruption_strategy)
        self._reader = RecordReader(path)
        self.path = self._reader.path
        #: Where each chunk begins in the file, and the number of its first record.
        self._chunks: list[int] = []
        self._firsts: list[int] = []
        self._count = 0
        self._batch: list[Bytes] = []
        self._batch_of = -1
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> int:
        """See what was appended since; return how many records there are now."""
        for place in self._headers.places():
            self._chunks.append(place.begin)
            self._firsts.append(self._count)
            self._count += place.header.records
        return self._count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[Bytes]: ...
    def __getitem__(self, index: int | slice) -> Bytes | list[Bytes]:
        if isinstance(index, slice):
            return [self._record(number) for number in range(*index.indices(self._count))]
        number = index + self._count if index < 0 else index
        if not 0 <= number < self._count:
            raise IndexError(f"record {index} of {self._count}")
        return self._record(number)

    def _record(self, number: int) -> Bytes:
        chunk = bisect_right(self._firsts, number) - 1
        if chunk != self._batch_of:
            self._reader.seek(self._chunks[chunk])
            self._batch, self._batch_of = self._reader.read_batch(), chunk
        return self._batch[number - self._firsts[chunk]]

    def position(self, number: int) -> RecordPosition:
        """Where record `number` is, for `RecordReader.seek`."""
        if not 0 <= number < self._count:
            raise IndexError(f"record {number} of {self._count}")
        chunk = bisect_right(self._firsts, number) - 1
        return RecordPosition(self._chunks[chunk], number - self._firsts[chunk])

    def close(self) -> None:
        """Close the file; records that were read stay valid. Closing twice is fine."""
        self._headers.close()
        self._reader.close()
        self._batch, self._batch_of = [], -1

    def __enter__(self) -> RecordIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RecordIndex {self.path!r}: {self._count:,} records>"
