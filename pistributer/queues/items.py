"""Items of a file queue, and the way from the rows of a claim to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .contract import Item
from .envelope import PREFIX, Envelope, unwrap
from .folder import Folder
from .journal import Journal, ordinals
from .setaside import Quarantine
from .shard import row_id

_AFTER_WRAPPED = PREFIX + b"\xff"


class FileItem(Item):
    """An item with the place that it was claimed from. Its id is built only when somebody asks."""

    __slots__ = ("envelope", "line", "row", "source")

    def __init__(
        self,
        value: Any,
        raw: bytes,
        attempt: int,
        token: int,
        source: str,
        row: int,
        line: bytes,
        envelope: Envelope | None = None,
    ) -> None:
        self.value = value
        self.raw = raw
        self.attempt = attempt
        self.token = token
        self.source = source
        self.row = row
        #: The row as the journal keeps it: `raw`, or wrapped.
        self.line = line
        self.envelope = envelope

    @property
    def id(self) -> str:  # type: ignore[override]
        return self.envelope.id if self.envelope else row_id(self.source, self.row)

    @property
    def attempts(self) -> int:
        """Deliveries that the journal has counted, without those in the line."""
        return self.attempt - (self.envelope.attempt if self.envelope else 0)


@dataclass(slots=True)
class Batch:
    """Rows that were read together from one source, decoded; damaged ones are out."""

    source: str
    #: Ordinal of the first row, and of the damaged ones.
    first: int
    rows: list[bytes]
    values: list[Any]
    #: One per row if any of them is wrapped.
    envelopes: list[Envelope | None] | None
    skip: list[int]

    def hand_out(self, journal: Journal, token: int, attempts: int) -> list[FileItem]:
        """Items for these rows, which `journal` has recorded from `token` on and holds from now on."""
        tokens = range(token, token + len(self.rows))
        if self.envelopes is None:
            places = range(self.first, self.first + len(self.rows))
            items = [
                FileItem(value, row, attempts, number, self.source, place, row)
                for number, place, row, value in zip(tokens, places, self.rows, self.values, strict=True)
            ]
        else:
            items = [
                make_item(value, row, attempts, number, self.source, place, envelope)
                for number, place, row, value, envelope in zip(
                    tokens, self._places(), self.rows, self.values, self.envelopes, strict=True
                )
            ]
        journal.held.update(zip(tokens, items, strict=True))
        return items

    def _places(self) -> Iterable[int]:
        return ordinals(self.first, len(self.rows), self.skip)


class RowReader:
    """Decodes rows and sets damaged ones aside."""

    def __init__(self, folder: Folder, quarantine: Quarantine) -> None:
        self._codec = folder.codec
        self._quarantine = quarantine

    def batch(self, rows: list[bytes], source: str, first: int) -> Batch:
        """Decode `rows`, which stand in `source` from ordinal `first` on. Damaged ones are in quarantine on return."""
        try:
            # One comparison for all: a row that sorts behind every wrapped one is not wrapped.
            if min(rows) > _AFTER_WRAPPED:
                return Batch(source, first, rows, self._codec.decode_many(rows), None, [])
        except ValueError:
            pass  # one of them is damaged; now row by row
        return self._batch_with_care(rows, source, first)

    def _batch_with_care(self, rows: list[bytes], source: str, first: int) -> Batch:
        envelopes: list[Envelope | None] = []
        batch = Batch(source, first, [], [], envelopes, [])
        for ordinal, row in enumerate(rows, first):
            try:
                value, envelope = self.parse(row)
            except ValueError as error:
                self._quarantine.add(row, found=row_id(source, ordinal), reason=str(error))
                batch.skip.append(ordinal)
            else:
                batch.rows.append(row)
                batch.values.append(value)
                envelopes.append(envelope)
        return batch

    def parse(self, line: bytes) -> tuple[Any, Envelope | None]:
        """Value and, of a wrapped row, envelope. Raises ValueError for a damaged row."""
        if not line.startswith(PREFIX):
            return self._codec.decode(line), None
        envelope = unwrap(line, self._codec)
        return envelope.value, envelope


def make_item(
    value: Any,
    line: bytes,
    attempts: int,
    token: int,
    source: str,
    row: int,
    envelope: Envelope | None,
) -> FileItem:
    """An item for a bare or a wrapped line, after `attempts` deliveries that the line does not know of."""
    if envelope is None:
        return FileItem(value, line, attempts, token, source, row, line)
    return FileItem(value, envelope.raw, envelope.attempt + attempts, token, source, row, line, envelope)
