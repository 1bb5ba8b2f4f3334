"""Claim journals: what a consumer holds, in a file that outlives it.

A consumer owns one journal and holds its kernel lock until it dies. Rows are copied here before the shard's cursor passes
them. When the lock is free, the rows belong to whoever needs some (queues/left_behind.py).

Lines, each a JSON object, in the order in which things happened:

    {"claim":T,"rows":N,"from":"0001","row":R,…}  then N lines, the rows as they stood: tokens T to T+N-1
         "skip":[…]    ordinals between that were damaged and are not here
         "attempts":A  deliveries that these rows had before (compacted journals only)
         "start":true  an attempt of each is counted with the claim
         "move":M      the rows came out of a dead owner's journal, by this move
    {"start":[[T,U],…]}   an attempt is counted of tokens T to U-1
    {"done":[[T,U],…]}    settled: acknowledged, or stored elsewhere before this line was written
    {"moving":[[T,U],…],"to":J,"move":M}   written by journal J's owner into a dead owner's journal: it is about to record
                          these rows in its own. Followed by "done", or by
    {"stay":[[T,U],…]}    it did not

A claim whose rows are not all there was cut short by a kill: its cursor has not moved, so it never happened.
The file is emptied when nothing is held and rewritten (storage/replacing.py) when it is mostly settled rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from .. import errors
from ..storage.appending import AppendFile
from ..storage.locks import Flock, try_lock
from ..storage.replacing import replace_file
from .folder import Folder

#: An idle journal longer than this is emptied, in bytes.
_EMPTY_ABOVE = 256 * 1024
#: A journal longer than this is rewritten if most of it is settled, in bytes.
_COMPACT_ABOVE = 4 * 1024 * 1024
#: A line about a move is shorter than this, in bytes: it names ranges of at most `MOVED_AT_ONCE` tokens.
_TAIL = 16 * 1024
MOVED_AT_ONCE = 256


@dataclass(slots=True)
class Held:
    """One row that a journal holds: the line as it stood where it was claimed, and where that was."""

    line: bytes
    source: str
    row: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Where one claim came from, which tokens it took, and at which offset of the journal its record begins."""

    source: str
    row: int
    first_token: int
    end_token: int
    offset: int


@dataclass(frozen=True, slots=True)
class Move:
    """Rows on their way from this journal to journal `to`."""

    name: str
    to: int
    tokens: list[int]


@dataclass(slots=True)
class Content:
    """What a journal file says."""

    held: dict[int, Held] = field(default_factory=dict)
    next_token: int = 0
    last_claim: Claim | None = None
    #: A move that was begun and neither finished nor taken back: its mover died in it.
    pending: Move | None = None
    #: Names of the moves that brought rows here.
    moves: set[str] = field(default_factory=set)
    #: Ids of delayed rows that are or were held.
    delayed_ids: set[str] = field(default_factory=set)
    #: Bytes up to the end of the last whole record.
    size: int = 0


class Journal:
    """An open journal whose lock this process holds. Not thread-safe: the queue's lock stands in front."""

    __slots__ = ("_file", "_folder", "_lock", "_next", "held", "moves", "number")

    def __init__(self, folder: Folder, number: int, lock: Flock) -> None:
        self._folder = folder
        self._lock = lock
        self.number = number
        #: Token to the item that was handed out for it, or to the row that a dead owner left. The queue fills and drains it.
        self.held: dict[int, Any] = {}
        #: Names of the moves that brought rows here.
        self.moves: set[str] = set()
        self._file = AppendFile(folder.journal(number))
        self._next = 0

    def open(self) -> Content:
        """Read what is there, cut an unfinished record off, and be ready to append."""
        content = read_journal(self._folder.journal(self.number))
        self._file.open()
        if self._file.size > content.size:
            self._file.truncate(content.size)
        self._next = content.next_token
        self.held.update(content.held)
        self.moves |= content.moves
        return content

    def undo(self, claim: Claim) -> None:
        """Take back the last claim of a dead owner: its cursor was not moved."""
        self._file.truncate(claim.offset)
        for token in range(claim.first_token, claim.end_token):
            self.held.pop(token, None)

    def record_claim(
        self, rows: list[bytes], *, source: str, row: int, skip: list[int], start: bool, sync: bool, move: str | None
    ) -> int:
        """Write down a claim and return the token of its first row. All of it is there, or (raising) none of it."""
        token = self._next
        header: dict[str, Any] = {"claim": token, "rows": len(rows), "from": source, "row": row}
        if skip:
            header["skip"] = skip
        if move:
            header["move"] = move
        if start:
            header["start"] = True
        before = self._file.size
        try:
            self._append(b"\n".join([orjson.dumps(header), *rows, b""]))
            if sync:
                self._file.sync()
        except BaseException:
            # A part of the rows would swallow the records that follow.
            if self._file.fd >= 0:
                self._file.truncate(before)
            raise
        self._next = token + len(rows)
        if move:
            self.moves.add(move)
        return token

    def record(self, what: str, tokens: list[int]) -> None:
        """Write down that `tokens` were started or are done."""
        self._append(b'{"%s":%s}\n' % (what.encode(), orjson.dumps(ranges(tokens))))

    def record_move(self, move: Move) -> None:
        """Write down that rows of this dead owner's journal are about to be recorded in another."""
        self._append(orjson.dumps({"moving": ranges(move.tokens), "to": move.to, "move": move.name}) + b"\n")

    def _append(self, record: bytes) -> None:
        """Append one record, with the queue's reserve if the disk is full: consuming is what empties it."""
        before = self._file.size
        try:
            self._file.append(record)
        except errors.DiskFull:
            self._file.truncate(before)
            if not self._folder.use_reserve():
                raise
            self._file.append(record)

    def sync(self) -> None:
        self._file.sync()

    @property
    def sync_target(self) -> tuple[int, str]:
        return self._file.fd, self._file.path

    def tidy(self, *, idle: bool, durable: bool) -> None:
        """Empty the file if nothing is held, rewrite it if little is; `idle` empties a short one too."""
        size = self._file.size
        if not self.held:
            if size > _EMPTY_ABOVE or (idle and size):
                self._file.truncate()
                self.moves.clear()
        elif size > _COMPACT_ABOVE and size > 4 * sum(len(item.line) for item in self.held.values()):
            self._compact(durable)

    def _compact(self, durable: bool) -> None:
        """One record per row that is held. Killed before the replace: the old journal; after: the new one."""
        records = []
        for token, item in sorted(self.held.items()):
            header = {"claim": token, "rows": 1, "from": item.source, "row": item.row, "attempts": item.attempts}
            records += [orjson.dumps(header), item.line]
        self._file.close()
        replace_file(self._file.path, b"\n".join([*records, b""]), durable=durable)
        self._file.open()

    def release(self) -> None:
        """Let go: whatever is held may be taken by another from now on."""
        self._file.close()
        self._lock.close()


def try_journal(folder: Folder, number: int, *, wait: bool = False) -> tuple[Journal, Content] | None:
    """Journal `number` and its content if nobody owns it, else None; or (`wait`) as soon as nobody does."""
    path = folder.journal_lock(number)
    lock = _wait_for(path) if wait else try_lock(path)
    if lock is None:
        return None
    journal = Journal(folder, number, lock)
    try:
        return journal, journal.open()
    except BaseException:
        journal.release()
        raise


def _wait_for(path: str) -> Flock:
    lock = Flock(path)
    lock.acquire()
    return lock


def read_journal(path: str) -> Content:
    """Parse a journal. Stops, as `size` tells, before a record that is not whole."""
    content = Content()
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return content
    lines = iter(data.split(b"\n")[:-1])
    for line in lines:
        try:
            used = _apply(content, orjson.loads(line), lines)
        except (ValueError, KeyError, TypeError):
            break  # damage by a power cut; what comes after it can not be trusted
        if used is None:
            break
        content.size += len(line) + 1 + used
    return content


def _apply(content: Content, record: dict[str, Any], lines: Iterator[bytes]) -> int | None:
    """Take over one record; the bytes of the row lines that it used, None if some are missing."""
    if "claim" in record:
        return _apply_claim(content, record, lines)
    for token in _tokens(record.get("done", ())):
        content.held.pop(token, None)
    for token in _tokens(record.get("start", ())):
        if token in content.held:
            content.held[token].attempts += 1
    moving = record.get("moving")
    content.pending = Move(str(record["move"]), int(record["to"]), list(_tokens(moving))) if moving else None
    return 0


def _tokens(found: Iterable[tuple[int, int]]) -> Iterator[int]:
    return chain.from_iterable(range(first, end) for first, end in found)


def _apply_claim(content: Content, record: dict[str, Any], lines: Iterator[bytes]) -> int | None:
    token, count, source = int(record["claim"]), int(record["rows"]), str(record["from"])
    rows = [line for _, line in zip(range(count), lines, strict=False)]
    if len(rows) < count:
        return None
    content.last_claim = Claim(source, int(record["row"]), token, token + count, content.size)
    content.pending = None
    if "move" in record:
        content.moves.add(str(record["move"]))
    attempts = int(record.get("attempts", 0)) + bool(record.get("start"))
    for ordinal, line in zip(ordinals(int(record["row"]), count, record.get("skip", ())), rows, strict=True):
        content.held[token] = Held(line, source, ordinal, attempts)
        token += 1
        if source == "delayed":
            content.delayed_ids.add(orjson.loads(line)["id"])
    content.next_token = token
    return sum(map(len, rows)) + count


def ordinals(first: int, count: int, skip: Iterable[int]) -> Iterator[int]:
    """`count` ordinals from `first` on, leaving out those in `skip`."""
    left_out = set(skip)
    while count:
        if first not in left_out:
            yield first
            count -= 1
        first += 1


def ranges(tokens: list[int]) -> list[tuple[int, int]]:
    """Sorted half-open ranges that cover `tokens`: [1, 2, 3, 7] is [(1, 4), (7, 8)]."""
    if len(tokens) == tokens[-1] - tokens[0] + 1 and tokens == list(range(tokens[0], tokens[-1] + 1)):
        return [(tokens[0], tokens[-1] + 1)]
    found: list[tuple[int, int]] = []
    for token in sorted(tokens):
        if found and found[-1][1] == token:
            found[-1] = (found[-1][0], token + 1)
        else:
            found.append((token, token + 1))
    return found


def pending_move(path: str) -> Move | None:
    """The move that the last whole line of a journal tells of, read without a lock; None if it tells of something else."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.stat(path).st_size - _TAIL))
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return None
    last = whole.rpartition(b"\n")[2]
    if not last.startswith(b'{"moving":'):
        return None
    content = Content()
    _apply(content, orjson.loads(last), iter(()))
    return content.pending
