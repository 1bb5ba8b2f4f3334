"""What every reader of records offers, whatever it reads from: one record, batches, iteration."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator

from .. import errors
from .hot import Bytes


class RecordStream(abc.ABC):
    """Records in order. Readers say how to `_load` the next chunk of them."""

    def __init__(self) -> None:
        #: What is left of the chunk in hand.
        self._records: Iterator[Bytes] = iter(())
        #: What was met behind records that had to be returned first.
        self._failure: Exception | None = None

    @abc.abstractmethod
    def _load(self) -> bool:
        """Have the records of the next chunk that holds any in `_records`. False at the end."""

    def _next_chunk(self) -> bool:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._load()

    def next_record(self) -> Bytes | None:
        """The next record, None at the end."""
        for record in self._records:
            return record
        while self._next_chunk():  # more than once only if another thread was faster
            for record in self._records:
                return record
        return None

    def __iter__(self) -> Iterator[Bytes]:
        yield from self._records
        while self._next_chunk():
            yield from self._records

    def read_batch(self, limit: int | None = None) -> list[Bytes]:
        """The next records, at most `limit`; by default those of one chunk, which is fastest. Empty at the end.

        What is met behind the first of them is raised by the next call.
        """
        if limit is not None and limit <= 0:
            raise ValueError(f"a batch has at least one record, not {limit}")
        batch = list(itertools.islice(self._records, limit))
        while not batch and self._next_chunk():
            batch = list(itertools.islice(self._records, limit))
        while limit is not None and 0 < len(batch) < limit and self._has_more():
            batch += itertools.islice(self._records, limit - len(batch))
        return batch

    def _has_more(self) -> bool:
        try:
            return self._next_chunk()
        except errors.PistributerError as error:
            self._failure = error
            return False
