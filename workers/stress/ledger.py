"""The independent ledger of a stress run: what each writer was promised and what each reader really got.

The queue under test is not asked for its counters; every child keeps a file of its own, which nobody else writes. The
files are mapped memory, so a store is evidence at once: SIGKILL takes the process, never the page. An aligned word of
eight bytes is stored by one instruction, so no word is ever half written. (A power cut would take the ledger, and does
not matter: the run is over then anyway.)

A file is `HEADER` words, then `extra` words of state, then the log, which only grows. Words are native 64-bit integers;
a log word is never zero, so the end of the log is found even if its owner died before it counted the last word.

Log words carry their kind in the top four bits:

    ROW        reader   bits 0..31 the row's number, 32..51 its value, 52 set if the queue said "delivered before"
    MALFORMED  reader   bits 0..31 the channel that gave something which is no row of this run
    RESTART    both     this child is back after a death; reader: bits 0..31 the channel + 1 that a `next` was running
                        on, bits 32..59 how many of the log words before this one were of a batch not yet settled
    NANOS      both     a sampled time: of one put (writer), from put to delivery (reader)
    IN_FLIGHT  writer   the row whose put had begun and not returned when the writer died
    RESUMED    writer   the first row of one file assignment that this life of the writer puts
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

#: Words before the state words; their meanings follow.
HEADER: Final = 16
#: Log words written so far.
COUNT: Final = 0
#: Channel + 1 on which a classic `next` may be running; 0 outside.
READING: Final = 1
#: Length of the log when the unsettled batch began, + 1; 0 while nothing is held.
HELD: Final = 2
#: When the child did its last row, `time.monotonic_ns()`; 0 until it is done (writers) or idle (readers).
FINISHED: Final = 3
#: Largest resident memory in KiB, noted at the end.
PEAK: Final = 4
#: How often the child came to life.
LIVES: Final = 5
#: Rows that the channels of this child have in quarantine, noted at the end.
QUARANTINED: Final = 6
#: Rows put or read so far, for the progress bar only.
ROWS: Final = 7
#: Processor time in nanoseconds, noted at the end.
CPU: Final = 8

ROW: Final = 1 << 60
MALFORMED: Final = 2 << 60
RESTART: Final = 3 << 60
NANOS: Final = 4 << 60
IN_FLIGHT: Final = 5 << 60
RESUMED: Final = 6 << 60
#: In a ROW word: the queue said that the row had been delivered before.
AGAIN: Final = 1 << 52

_WORD: Final = 8
_FIRST_CAPACITY: Final = 8192  # words: 64 KiB


def path_of(folder: Path, role: str, index: int) -> Path:
    """Where child `index` of `role` keeps its ledger."""
    return folder / f"{role}-{index:04d}.ledger"


class Ledger:
    """One child's file, open for writing. One thread uses it."""

    def __init__(self, path: Path, *, extra: int = 0) -> None:
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._start = HEADER + extra
        self._capacity = 0
        self._map(max(_FIRST_CAPACITY, path.stat().st_size // _WORD))
        self._next = self._find_end()
        self.words[LIVES] += 1

    def _map(self, capacity: int) -> None:
        self._file.truncate(capacity * _WORD)
        self._pages = mmap.mmap(self._file.fileno(), capacity * _WORD)
        self.words = memoryview(self._pages).cast("Q")
        self._capacity = capacity

    def _find_end(self) -> int:
        end = self._start + self.words[COUNT]
        while end < self._capacity and self.words[end]:
            end += 1
        self.words[COUNT] = end - self._start
        return end

    @property
    def is_restart(self) -> bool:
        """Whether an earlier life of this child left the file."""
        return self.words[LIVES] > 1

    def __len__(self) -> int:
        return self._next - self._start

    def append(self, word: int) -> None:
        position = self._next
        if position == self._capacity:
            self._grow()
        self.words[position] = word
        self._next = position + 1
        self.words[COUNT] = position + 1 - self._start

    def _grow(self) -> None:
        self._unmap()
        self._map(self._capacity * 2)

    def _unmap(self) -> None:
        self.words.release()
        self._pages.close()

    def close(self) -> None:
        self._unmap()
        self._file.close()


class WriterLedger(Ledger):
    """Which rows of each file assignment were begun, and which were acknowledged.

    `begun[a]` and `acknowledged[a]` count rows of assignment `a`; the writer stores the first before a put and the
    second after it returned. At most one assignment differs: the row in flight.
    """

    def __init__(self, path: Path, *, files: int, rows: int, first_row: int) -> None:
        self._files, self._rows, self._first_row = files, rows, first_row
        super().__init__(path, extra=2 * files)
        if self.is_restart:
            self._note_in_flight()

    def begin(self, assignment: int, count: int) -> None:
        self.words[HEADER + assignment] = count

    def acknowledge(self, assignment: int, count: int) -> None:
        self.words[HEADER + self._files + assignment] = count

    def begun(self, assignment: int) -> int:
        return self.words[HEADER + assignment]

    def _note_in_flight(self) -> None:
        """Nobody knows whether the row in flight was stored, so it is neither expected nor put again."""
        self.append(RESTART)
        for assignment in range(self._files):
            begun, acknowledged = self.begun(assignment), self.words[HEADER + self._files + assignment]
            row = self._first_row + assignment * self._rows + begun
            if begun > acknowledged:
                # The note first: killed between the two, it is written twice, which means the same.
                self.append(IN_FLIGHT | (row - 1))
                self.acknowledge(assignment, begun)
            self.append(RESUMED | row)


class ReaderLedger(Ledger):
    """Every row that a reader was handed, in the order in which it got them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if self.is_restart:
            self._note_restart()

    def _note_restart(self) -> None:
        held = len(self) + 1 - self.words[HELD] if self.words[HELD] else 0
        # Appending may map the file anew, so `self.words` is read anew each time.
        self.append(RESTART | held << 32 | self.words[READING])
        self.settled()
        self.reading(None)
        log = self.words[self._start : self._next]
        self.words[ROWS] = sum(word >> 60 == ROW >> 60 for word in log)
        log.release()

    def reading(self, channel: int | None) -> None:
        """A classic `next` on `channel` is about to run; None: it is over and its row is recorded."""
        self.words[READING] = 0 if channel is None else channel + 1

    def holding(self) -> None:
        """The rows appended from here on are held, until `settled`."""
        self.words[HELD] = len(self) + 1

    def settled(self) -> None:
        self.words[HELD] = 0


class LedgerFile:
    """A ledger as it lies on disk, for the oracle."""

    def __init__(self, header: array[int], log: array[int]) -> None:
        self.header = header
        self.log = log

    def state(self, extra: int) -> array[int]:
        return self.header[HEADER : HEADER + extra]

    def nanos(self) -> Iterator[int]:
        return (word & ~NANOS for word in self.log if word >> 60 == NANOS >> 60)


def load(path: Path, *, extra: int = 0) -> LedgerFile:
    """Read a whole ledger. A file that was never made is an empty ledger."""
    words = array("Q")
    if path.exists():
        data = path.read_bytes()
        words.frombytes(data[: len(data) // _WORD * _WORD])
    words.extend([0] * (HEADER + extra - len(words)))
    start = HEADER + extra
    end = start + words[COUNT]
    while end < len(words) and words[end]:
        end += 1
    return LedgerFile(words[:start], words[start:end])


def read_header(file: IO[bytes]) -> array[int]:
    """The header words of a ledger that its owner may be writing at this moment. `file` is unbuffered."""
    file.seek(0)
    header = array("Q", file.read(HEADER * _WORD))
    header.extend([0] * (HEADER - len(header)))
    return header
