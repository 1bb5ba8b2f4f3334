"""Looking at a file queue without a lock and without disturbing anybody: counts and scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..storage.locks import is_held
from .contract import Row, State, Stats
from .delayed import DelayedRows
from .envelope import PREFIX, Envelope, unwrap
from .folder import Folder
from .journal import Held, read_journal
from .setaside import DeadLetters, Quarantine
from .shard import ShardReader, read_cursor, read_segment, row_id


class Lookout:
    """Reads the files of one queue as they stand."""

    def __init__(self, folder: Folder, delayed: DelayedRows, dead: DeadLetters, quarantine: Quarantine) -> None:
        self._folder = folder
        self._codec = folder.codec
        self._delayed = delayed
        self._dead = dead
        self._quarantine = quarantine

    def stats(self) -> Stats:
        rows = size = 0
        for number in self._folder.shard_numbers():
            found = ShardReader(self._folder, number, retention=None).backlog()
            rows, size = rows + found[0], size + found[1]
        claimed = 0
        for number, held in self._journals():
            if is_held(self._folder.journal_lock(number)):
                claimed += len(held)
            else:
                rows += len(held)
                size += sum(len(row.line) + 1 for row in held)
        return Stats(
            ready=rows,
            claimed=claimed,
            delayed=self._delayed.count(),
            dead=self._dead.count(),
            quarantined=self._quarantine.count(),
            ready_bytes=size,
        )

    def scan(self, states: tuple[State, ...]) -> Iterator[Row]:
        for state in states:
            yield from {
                "ready": self._ready,
                "claimed": self._claimed,
                "delayed": lambda: (_row(envelope, "delayed") for envelope in self._delayed),
                "dead": lambda: (_row(envelope, "dead") for envelope in self._dead),
                "retained": self._retained,
            }[state]()

    def _journals(self) -> Iterator[tuple[int, list[Held]]]:
        for number in self._folder.journal_numbers():
            if self._folder.journal_has_rows(number):
                yield number, list(read_journal(self._folder.journal(number)).held.values())

    def _ready(self) -> Iterator[Row]:
        for number, held in self._journals():
            if not is_held(self._folder.journal_lock(number)):
                yield from self._held_rows(held, "ready")
        for number in self._folder.shard_numbers():
            position = read_cursor(self._folder, number)
            for base in self._folder.segments(number):
                if position is not None and base == position.segment:
                    yield from self._segment_rows(number, base, "ready", position.offset, position.row)
                elif position is None or base > position.segment:
                    yield from self._segment_rows(number, base, "ready")

    def _claimed(self) -> Iterator[Row]:
        for number, held in self._journals():
            if is_held(self._folder.journal_lock(number)):
                yield from self._held_rows(held, "claimed")

    def _retained(self) -> Iterator[Row]:
        """Rows that the cursors have passed and that nobody holds."""
        held = {row_id(row.source, row.row) for _, rows in self._journals() for row in rows}
        for number in self._folder.shard_numbers():
            position = read_cursor(self._folder, number)
            for base in self._folder.segments(number):
                if position is None or base > position.segment:
                    break
                for row in self._segment_rows(number, base, "retained"):
                    source, _, ordinal = row.id.rpartition("-")
                    ordinals_left = position.row if source == f"{number:04d}" else None
                    if row.id not in held and (ordinals_left is None or int(ordinal) < ordinals_left):
                        yield row

    def _held_rows(self, held: list[Held], state: State) -> Iterator[Row]:
        for row in held:
            if (found := self._parse(row.line, row_id(row.source, row.row), state)) is not None:
                yield replace(found, attempt=found.attempt + row.attempts)

    def _segment_rows(
        self, number: int, base: int, state: State, start: int = 0, first: int | None = None
    ) -> Iterator[Row]:
        path = self._folder.segment(number, base)
        for ordinal, line in enumerate(read_segment(path, start), base if first is None else first):
            if (found := self._parse(line, row_id(f"{number:04d}", ordinal), state)) is not None:
                yield found

    def _parse(self, line: bytes, id: str, state: State) -> Row | None:
        """None for a damaged row: it is not handed out, and the claim that meets it sets it aside."""
        try:
            if line.startswith(PREFIX):
                return _row(unwrap(line, self._codec), state)
            return Row(id, state, self._codec.decode(line), 0)
        except ValueError:
            return None


def _row(envelope: Envelope, state: State) -> Row:
    return Row(
        envelope.id, state, envelope.value, envelope.attempt, due=envelope.due, error=envelope.error, at=envelope.at
    )
