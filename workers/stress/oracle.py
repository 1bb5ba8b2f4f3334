"""The judge of a stress run: compares what the writers were promised with what the readers got, row by row.

It reads the ledgers only and computes what every row must be from the scenario. What it excuses, and nothing else:

* A put that was running when its writer was killed: the row may have been stored or not. It counts as expected if it
  came.
* Queue API: a row that comes again although every earlier delivery of it was held, unsettled, by a reader that was
  killed. Such a row may come late, so it is left out of the check of the order if the queue marks it as delivered
  before.
* Classic API, where `next` is at most once: the one row that was being returned when its reader was killed. On a
  channel with one reader it must be exactly the next row after the last recorded one; on a shared channel any one row
  of it.

Each excuse needs a kill that was recorded by whoever killed. A child that died by itself excuses nothing and fails the
run.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path
from typing import Final

from . import ledger
from .plan import Scenario

_ROW: Final = ledger.ROW >> 60
_MALFORMED: Final = ledger.MALFORMED >> 60
_RESTART: Final = ledger.RESTART >> 60
_LOW: Final = 0xFFFFFFFF
_VALUE: Final = 0xFFFFF

#: Kills by (role, index), as the killer recorded them.
Kills = Mapping[tuple[str, int], int]


@dataclass(slots=True)
class Verdict:
    """What the ledgers prove. Counts are rows unless the name says otherwise."""

    #: Rows whose put returned, and those in flight at a kill that turned out to be stored.
    expected: int = 0
    #: Different rows that were read.
    consumed: int = 0
    lost: int = 0
    #: Of `lost`: being returned by a classic `next` when the reader was killed.
    lost_in_flight: int = 0
    #: Deliveries beyond the first.
    duplicated: int = 0
    #: Of `duplicated`: held by a killed reader.
    duplicated_after_kill: int = 0
    #: Not a row of this run, in a channel where it does not belong, or with another value than was put.
    malformed: int = 0
    out_of_order: int = 0
    #: (writer, file assignment) pairs whose count, sum or sum of squares is wrong.
    wrong_sums: int = 0
    #: Rows set aside by the queue.
    quarantined: int = 0
    #: Rows that the writers did not get to put, because the run was cut short.
    not_put: int = 0
    #: Puts in flight at kills, and how many of them had been stored.
    puts_in_flight: int = 0
    puts_in_flight_stored: int = 0
    #: Deaths of children that nobody killed.
    crashes: int = 0
    #: A few of the rows in question, for whoever goes looking: kind -> descriptions.
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not (
            self.lost - self.lost_in_flight
            or self.duplicated - self.duplicated_after_kill
            or self.malformed
            or self.out_of_order
            or self.wrong_sums
            or self.quarantined > self.puts_in_flight
            or self.not_put
            or self.crashes
        )


def judge(scenario: Scenario, folder: Path, kills: Kills | None = None) -> Verdict:
    """The verdict on the ledgers in `folder`. `kills` counts the recorded kills of each (role, index)."""
    return _Oracle(scenario, folder, kills or {}).verdict()


class _Oracle:
    def __init__(self, scenario: Scenario, folder: Path, kills: Kills) -> None:
        self.scenario, self.folder, self.kills = scenario, folder, kills
        self.result = Verdict()
        #: Row number -> how often it was delivered, and the value that came with it.
        self.seen = bytearray(scenario.total)
        self.values = array("I", b"\xff" * (4 * scenario.total))  # no row carries so large a value
        self.again: list[int] = []
        #: Rows in unsettled batches of killed readers, once per such delivery.
        self.held: Counter[int] = Counter()
        self.in_flight: set[int] = set()
        #: (writer, assignment) as one number -> first rows of the writer's later lives.
        self.lives: dict[int, list[int]] = {}
        #: Channel -> last row recorded from it before each recorded kill of a reader that had a `next` running on it.
        self.cut_short: defaultdict[int, list[int]] = defaultdict(list)

    def verdict(self) -> Verdict:
        acknowledged = [self._read_writer(writer) for writer in range(self.scenario.writers)]
        for reader in range(self.scenario.readers):
            self._read_reader(reader)
        self._count(acknowledged)
        self._split_duplicates()
        return self.result

    # -- writers

    def _read_writer(self, writer: int) -> list[int]:
        """How many rows of each assignment the writer has behind it, those in flight at a kill included."""
        files = self.scenario.files
        found = ledger.load(ledger.path_of(self.folder, "writer", writer), extra=2 * files)
        self._check_lives("writer", writer, found)
        for word in found.log:
            kind, row = word >> 60, word & _LOW
            if kind == ledger.IN_FLIGHT >> 60:
                self.in_flight.add(row)
            elif kind == ledger.RESUMED >> 60 and row % self.scenario.rows:
                self.lives.setdefault(row // self.scenario.rows, []).append(row)
        state = found.state(2 * files)
        self._add_last_flight(writer, state)
        return list(state[files:])

    def _add_last_flight(self, writer: int, state: array[int]) -> None:
        """A writer that was killed and did not come back, because the run was cut short."""
        files, rows = self.scenario.files, self.scenario.rows
        for assignment in range(files):
            begun, acknowledged = state[assignment], state[files + assignment]
            if begun > acknowledged:
                self.in_flight.add(self.scenario.row_number(writer, assignment, begun - 1))
                state[files + assignment] = begun
            self.result.not_put += rows - begun

    def _check_lives(self, role: str, index: int, found: ledger.LedgerFile) -> None:
        deaths = max(0, found.header[ledger.LIVES] - 1)
        self.result.crashes += max(0, deaths - self.kills.get((role, index), 0))
        self.result.quarantined += found.header[ledger.QUARANTINED]

    # -- readers

    def _read_reader(self, reader: int) -> None:
        found = ledger.load(ledger.path_of(self.folder, "reader", reader))
        self._check_lives("reader", reader, found)
        excuses = self.kills.get(("reader", reader), 0)
        last: dict[object, int] = {}
        born = 0
        for position, word in enumerate(found.log):
            kind = word >> 60
            if kind == _ROW:
                self._deliver(word, last)
            elif kind == _MALFORMED:
                self.result.malformed += 1
                self._example("malformed", f"channel {word & _LOW}, read by reader {reader}")
            elif kind == _RESTART and excuses:
                excuses -= 1
                self._excuse(found.log[born:position], word, last)
                born = position + 1

    def _deliver(self, word: int, last: dict[object, int]) -> None:
        row = word & _LOW
        if self.seen[row]:
            self.again.append(row)
        else:
            self.seen[row] = 1
            self.values[row] = word >> 32 & _VALUE
        if word & ledger.AGAIN and self.kills:
            return
        key: object = row // self.scenario.rows
        if key in self.lives and self.scenario.api == "queue":
            # A writer that comes back is another producer, with a shard of its own.
            key = (key, bisect_right(self.lives[key], row))
        before = last.get(key, -1)
        if row < before:
            self.result.out_of_order += 1
            self._example("out of order", f"{self._name(row)} after {self._name(before)}")
        else:
            last[key] = row

    def _excuse(self, life: array[int], restart: int, last: dict[object, int]) -> None:
        """Note what the reader had in its hands when it was killed at the end of `life`."""
        held, reading = restart >> 32 & 0xFFFFFFF, restart & _LOW
        for word in life[len(life) - min(held, len(life)) :]:
            if word >> 60 == _ROW:
                self.held[word & _LOW] += 1
        if reading and self.scenario.api == "classic":
            channel = reading - 1
            pair = -1 if self.scenario.is_shared(channel) else self._pair_of(channel)
            self.cut_short[channel].append(last.get(pair, pair * self.scenario.rows - 1))

    def _pair_of(self, channel: int) -> int:
        return channel // self.scenario.own * self.scenario.files + self.scenario.assignment_of(channel)

    # -- the sum of it

    def _count(self, acknowledged: list[list[int]]) -> None:
        result = self.result
        result.puts_in_flight = len(self.in_flight)
        result.puts_in_flight_stored = sum(1 for row in self.in_flight if self.seen[row])
        missing = list(self._missing(acknowledged))
        result.lost = len(missing)
        excused = self._excused_losses(set(missing))
        result.lost_in_flight = len(excused)
        for row in missing:
            if row not in excused:
                self._example("lost", self._name(row))
        result.consumed = self.scenario.total - self.seen.count(0)
        result.expected = result.consumed + result.lost
        self._check_sums(acknowledged, excused)

    def _missing(self, acknowledged: list[list[int]]) -> Iterator[int]:
        """Acknowledged rows that nobody was handed."""
        for pair, count in self._pairs(acknowledged):
            start = pair * self.scenario.rows
            at = self.seen.find(0, start, start + count)
            while at >= 0:
                if at not in self.in_flight:
                    yield at
                at = self.seen.find(0, at + 1, start + count)

    def _pairs(self, acknowledged: list[list[int]]) -> Iterator[tuple[int, int]]:
        files = self.scenario.files
        for writer, counts in enumerate(acknowledged):
            for assignment, count in enumerate(counts):
                yield writer * files + assignment, count

    def _excused_losses(self, missing: set[int]) -> set[int]:
        excused: set[int] = set()
        for channel, lasts in self.cut_short.items():
            if self.scenario.is_shared(channel):
                here = sorted(row for row in missing if self.scenario.channel_of_row(row) == channel)
                excused.update(here[: len(lasts)])
            else:
                for last in lasts:
                    excused.update(self._next_row(last, missing, excused))
        return excused

    def _next_row(self, last: int, missing: set[int], excused: set[int]) -> set[int]:
        """The row after `last` on a channel of one writer, if it is missing. Rows never stored are skipped."""
        row = last + 1
        while row in excused or (row in self.in_flight and not self.seen[row]):
            row += 1
        return {row} & missing

    def _check_sums(self, acknowledged: list[list[int]], excused: set[int]) -> None:
        """Count, sum and sum of squares for each writer and channel, as the seed's benchmark compared them."""
        for pair, count in self._pairs(acknowledged):
            start = pair * self.scenario.rows
            rows = range(start, start + self.scenario.rows)
            wanted = array("I", map(self.scenario.value_of, rows))
            got = self.values[start : rows.stop]
            if got == wanted and count == len(rows):
                continue  # each row is there with its value, so the sums agree too
            due = [row for row in rows[:count] if self.seen[row] or not (row in self.in_flight or row in excused)]
            seen = [row for row in rows if self.seen[row]]
            want_moments = _moments([wanted[row - start] for row in due])
            self.result.wrong_sums += want_moments != _moments([got[row - start] for row in seen])
            self._count_altered([row for row in seen if got[row - start] != wanted[row - start]])

    def _count_altered(self, rows: list[int]) -> None:
        """Rows that came with another value than was put. Two that were exchanged leave every sum as it was."""
        for row in rows:
            self.result.malformed += 1
            self._example("malformed", f"{self._name(row)} carries {self.values[row]}")

    def _split_duplicates(self) -> None:
        self.result.duplicated = len(self.again)
        for row, extra in Counter(self.again).items():
            excused = min(extra, self.held[row])
            self.result.duplicated_after_kill += excused
            if excused < extra:
                self._example("doubled", self._name(row))

    # -- words

    def _name(self, row: int) -> str:
        pair, seq = divmod(row, self.scenario.rows)
        writer, assignment = divmod(pair, self.scenario.files)
        return f"writer {writer} channel {self.scenario.channel_of(writer, assignment)} row {seq}"

    def _example(self, kind: str, text: str) -> None:
        known = self.result.examples.setdefault(kind, [])
        if len(known) < 5:
            known.append(text)


def _moments(values: list[int]) -> tuple[int, int, int]:
    return len(values), sum(values), sum(map(mul, values, values))
