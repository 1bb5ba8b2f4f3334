"""What a reader says about bytes that it could not use, and what it is to do on meeting them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .. import errors


class CorruptionStrategy(enum.Enum):
    """What a reader does on damage that costs records."""

    #: Raise DamagedRecords, at the same place again and again.
    ERROR = "error"
    #: Note it in `damage`, skip to the next sound chunk, go on.
    RECOVER = "recover"


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes `start` to `end` of a file are not what was written."""

    path: str
    start: int
    end: int
    reason: str
    #: How many records were lost; 0 if none, None if the bytes that said so are damaged too.
    records: int | None
    #: Sound, but of a kind that this release can not read.
    unsupported: bool = False

    def __str__(self) -> str:
        count = "an unknown number of" if self.records is None else f"{self.records:,}"
        lost = f"{count} record{'' if self.records == 1 else 's'} lost"
        return f"{self.path}: bytes {self.start:,} to {self.end:,}: {self.reason}; {lost}"

    def as_error(self) -> errors.RecordError:
        """The exception that says the same."""
        kind = errors.UnsupportedChunk if self.unsupported else errors.DamagedRecords
        return kind(
            f"{self.path!r}, bytes {self.start:,} to {self.end:,}: {self.reason}",
            hint="CorruptionStrategy.RECOVER reads what is sound; `pistributer records repair` keeps only that",
            path=self.path,
            start=self.start,
            end=self.end,
            reason=self.reason,
            records=self.records,
        )
