"""Rows that are not due yet: one file per minute in which they fall due, each row marked in place when it is taken.

A row is a wrapped line (queues/envelope.py) whose state is `wait`, then `claim NNNN` (journal NNNN is about to take it), then
`taken`. All of it happens under the kernel lock of the folder `delayed`:

    1  `wait` → `claim NNNN`                killed after: `resolve` finds no record of the row and sets it back
    2  the line is appended to journal NNNN killed after: `resolve` finds the record and marks the row `taken`
    3  `claim NNNN` → `taken`

A minute's file is deleted when that minute is over and nothing in it waits. Files are opened by name under the lock each
time, so nobody writes into a deleted one. Times are wall-clock: a clock that is set back delays, one set forward hurries.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator

from ..storage.appending import append_once
from ..storage.inplace import write_at
from ..storage.locks import Flock
from .envelope import STATE_AT, STATE_WIDTH, Envelope, pad_state, unwrap, wrap
from .folder import Folder
from .setaside import Quarantine

_MINUTE = 60
_WAIT, _TAKEN = pad_state("wait"), pad_state("taken")
_NEVER = float("inf")


class DelayedRows:
    """The delayed rows of one queue, as one process sees them."""

    def __init__(self, folder: Folder, quarantine: Quarantine, *, sync: bool, retention: float | None) -> None:
        self._folder = folder
        self._quarantine = quarantine
        self._sync = sync
        self._retention = retention
        #: The folder is its own lock; most queues never have it.
        self.lock = Flock(folder.delayed, folder=True)
        #: How far each file has been read, in bytes.
        self._read_to: dict[int, int] = {}
        #: (due, minute, offset) of rows that waited when they were read.
        self._waiting: list[tuple[float, int, int]] = []
        #: Nothing is due before then.
        self.next_due = 0.0

    def add(self, envelopes: list[Envelope]) -> None:
        """Store rows that have a `due` time. Durable on return if the queue is."""
        minutes: dict[int, list[bytes]] = {}
        for envelope in envelopes:
            assert envelope.due is not None
            envelope.state = "wait"
            minutes.setdefault(int(envelope.due // _MINUTE), []).append(wrap(envelope, self._folder.codec))
        os.makedirs(self._folder.delayed, exist_ok=True)
        with self.lock:
            for minute, lines in minutes.items():
                append_once(self._path(minute), b"".join(lines), sync=self._sync)

    def exist(self) -> bool:
        """Whether this queue has ever had a delayed row. If not, there is nothing to lock, and nothing is ever due."""
        if not os.path.isdir(self._folder.delayed):
            self.next_due = _NEVER
            return False
        return True

    def _path(self, minute: int) -> str:
        return os.path.join(self._folder.delayed, f"{minute:012d}.jsonl")

    def _minutes(self) -> list[int]:
        try:
            names = os.listdir(self._folder.delayed)
        except FileNotFoundError:
            return []
        return sorted(int(name[:12]) for name in names if name.endswith(".jsonl"))

    # -- taking rows that are due; the caller holds `lock`

    def refresh(self) -> None:
        """Read what was added to the files of this minute and of those before, and learn when to look again."""
        now = time.time()
        minutes = self._minutes()
        for minute in minutes:
            if minute * _MINUTE <= now:
                self._read_new(minute)
        for minute in self._read_to.keys() - set(minutes):
            del self._read_to[minute]
        later = next((minute for minute in minutes if minute * _MINUTE > now), None)
        self.next_due = min(
            self._waiting[0][0] if self._waiting else _NEVER, _NEVER if later is None else float(later * _MINUTE)
        )

    def _read_new(self, minute: int) -> None:
        offset = self._read_to.get(minute, 0)
        for at, line in self._lines(minute, offset):
            offset = at + len(line) + 1
            if (envelope := self._parse(line)) is None:
                self._quarantine.add(line, found=f"delayed {minute} byte {at}", reason="not a wrapped row")
            elif line.startswith(_WAIT, STATE_AT):
                heapq.heappush(self._waiting, (envelope.due or 0.0, minute, at))
        self._read_to[minute] = offset

    def _lines(self, minute: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
        try:
            with open(self._path(minute), "rb") as file:
                file.seek(start)
                for line in file:
                    if line.endswith(b"\n"):
                        yield start, line[:-1]
                    start += len(line)
        except FileNotFoundError:
            return

    def _parse(self, line: bytes) -> Envelope | None:
        try:
            return unwrap(line, self._folder.codec)
        except ValueError:
            return None

    def take(self, n: int, journal: int) -> list[tuple[int, int, bytes]]:
        """Mark up to `n` due rows as being claimed by `journal`: (minute, offset, line) of each."""
        taken: list[tuple[int, int, bytes]] = []
        now = time.time()
        while len(taken) < n and self._waiting and self._waiting[0][0] <= now:
            _, minute, offset = heapq.heappop(self._waiting)
            line = self._mark(minute, offset, _WAIT, pad_state(f"claim {journal:04d}"))
            if line is not None:
                taken.append((minute, offset, line))
        return taken

    def settle(self, taken: list[tuple[int, int, bytes]], *, recorded: bool) -> None:
        """Mark rows as taken (they are in the journal now), or as waiting again (they are not)."""
        for minute, offset, line in taken:
            self._mark(minute, offset, line[STATE_AT : STATE_AT + STATE_WIDTH], _TAKEN if recorded else _WAIT)
            if not recorded:
                self._read_to.pop(minute, None)
        if not recorded:
            self._waiting.clear()
            self._read_to.clear()

    def _mark(self, minute: int, offset: int, before: bytes, after: bytes) -> bytes | None:
        """Change the state of the row at `offset`; its line as it is now, or None if it was not in state `before`."""
        path = self._path(minute)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            with open(fd, "rb", closefd=False) as file:
                file.seek(offset)
                line = file.readline()
            if not line.startswith(before, STATE_AT):
                return None
            write_at(fd, after, offset + STATE_AT, path)
        finally:
            os.close(fd)
        return line[:STATE_AT] + after + line[STATE_AT + STATE_WIDTH : -1]

    def resolve(self, journal: int, recorded: set[str]) -> None:
        """Finish what a dead owner of `journal` began: rows it recorded are taken, the others wait again."""
        mark = pad_state(f"claim {journal:04d}")
        for minute in self._minutes():
            for offset, line in list(self._lines(minute)):
                if line.startswith(mark, STATE_AT):
                    envelope = self._parse(line)
                    self._mark(minute, offset, mark, _TAKEN if envelope and envelope.id in recorded else _WAIT)
        self._waiting.clear()
        self._read_to.clear()

    def delete_finished(self) -> None:
        """Delete the files of past minutes in which nothing waits any more."""
        over = time.time() - _MINUTE - (self._retention or 0.0)
        for minute in self._minutes():
            if (minute + 1) * _MINUTE > over:
                return
            if all(line.startswith(_TAKEN, STATE_AT) for _, line in self._lines(minute)):
                os.unlink(self._path(minute))

    # -- looking, without the lock

    def __iter__(self) -> Iterator[Envelope]:
        """Rows that wait, and (with `taken`) nothing else."""
        for minute in self._minutes():
            for _, line in self._lines(minute):
                if line.startswith(_WAIT, STATE_AT) and (envelope := self._parse(line)):
                    yield envelope

    def count(self) -> int:
        return sum(line.startswith(_WAIT, STATE_AT) for minute in self._minutes() for _, line in self._lines(minute))

    def purge(self) -> int:
        """Mark everything that waits as taken; return how many that were."""
        purged = 0
        if not self.exist():
            return 0
        with self.lock:
            for minute in self._minutes():
                for offset, line in list(self._lines(minute)):
                    purged += (
                        self._mark(minute, offset, _WAIT, _TAKEN) is not None if line.startswith(_WAIT, STATE_AT) else 0
                    )
            self._waiting.clear()
            self._read_to.clear()
        return purged
