"""One shard: rows in segment files, one process that appends, and a cursor that many consumers move.

Writing. The owner holds the shard's lock for as long as it is open, so an append is one `write` without a lock per row. It
starts a new segment when the last one is long enough; the new file's name is the ordinal of its first row, so the end of a
segment tells where the next one is. Nothing is ever renamed.

Claiming. Under the cursor's lock, in this order:

    1  the cursor says "journal J is about to claim from here"      killed after: J never recorded it, or
    2  the rows are appended to J                                    … it did: `resolve` takes the record back
    3  the cursor moves past them                                    killed after: J holds the rows, for others to take

With `sync` other than "none" the journal is synced between 2 and 3, so that a power cut can not keep the cursor's move and
lose the copy. A segment is deleted when the cursor has moved on to the next one; killed before that, the next claim in
the new segment finds it and deletes it.

A cursor that is missing or damaged means "from the oldest segment": rows are delivered again rather than skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .. import errors
from ..storage import forking
from ..storage.appending import AppendFile, count_rows, last_row_end, read_range
from ..storage.durability import GroupSync, Sync
from ..storage.inplace import Slots
from ..storage.locks import Flock, try_lock
from ..storage.replacing import sync_directory
from .folder import Folder

NOBODY = -1
#: Least and most bytes read from a segment at once.
_MIN_READ, _MAX_READ = 2 * 1024, 1024 * 1024


class Position(NamedTuple):
    """A place in a shard: which segment, which byte, which row. `claimant` is a journal that was about to claim from it."""

    segment: int
    offset: int
    row: int
    claimant: int = NOBODY


def row_id(source: str, row: int) -> str:
    """The id of a bare row: its shard and its ordinal there, both of which it keeps for good."""
    return f"{source}-{row}"


class ShardWriter:
    """The one object that appends to shard `number`. Not thread-safe: the queue's lock stands in front."""

    def __init__(self, folder: Folder, lock: Flock, number: int, *, sync: Sync, group: GroupSync | None) -> None:
        self._folder = folder
        self._lock = lock
        self.number = number
        self._sync = sync
        self._group = group
        self._base = 0
        self._file = AppendFile("")

    def open(self, keep: Callable[[bytes, str], None]) -> ShardWriter:
        """Heal the last segment and be ready to append. `keep(bytes, found)` is given a dead writer's torn tail."""
        bases = self._folder.segments(self.number)
        self._open_segment(bases[-1] if bases else 0, keep)
        reached = read_cursor(self._folder, self.number)
        if reached and (reached.segment, reached.offset) > (self._base, self._file.size):
            # A power cut kept the cursor and lost rows that were claimed. Appending here would put new rows behind it.
            self._open_segment(max(reached.row, self._next_row()), keep)
        return self

    def _open_segment(self, base: int, keep: Callable[[bytes, str], None] | None) -> None:
        path = self._folder.segment(self.number, base)
        found = f"{os.path.basename(path)}, tail"
        opened = AppendFile(path).open(keep=keep and (lambda torn: keep(torn, found)))
        self._file.close()
        self._file, self._base = opened, base
        if self._sync != "none":
            sync_directory(self._folder.shards)

    @property
    def file(self) -> AppendFile:
        """The segment that is open now. Whole rows are appended to it; nothing is synced by that."""
        return self._file

    def sync(self) -> None:
        """As the dial says: confirm what was appended, or have it confirmed soon."""
        if self._group is not None:
            self._group.note(self._file.fd, self._file.path)
        else:
            self._file.sync()

    @property
    def is_sound(self) -> bool:
        """False after an append that was interrupted: the shard must be opened, and so healed, again."""
        return self._file.fd >= 0

    def roll(self) -> None:
        """Go on in a new segment. Killed before the new file exists: nothing happened; after: the old one is sealed."""
        if self._sync != "none":
            self._file.sync()
        # Counted, not tallied: an interrupted put may leave a tally wrong, and the name must be the next row's ordinal.
        self._open_segment(self._next_row(), None)

    def _next_row(self) -> int:
        return self._base + count_rows(self._file.fd, 0, self._file.size)

    def close(self) -> None:
        self._file.close()
        self._lock.close()


def take_shard(folder: Folder, *, new: bool = False) -> tuple[Flock, int]:
    """Own the first shard that has no living owner, or a new one (with `new`, always): its lock and its number."""
    numbers = folder.shard_numbers()
    for number in [*([] if new else numbers), *range(numbers[-1] + 1 if numbers else 1, 10_000)]:
        lock = try_lock(folder.shard_lock(number))
        if lock is None:
            continue
        # Looked at with the lock held: a shard is given to a source by whoever holds it.
        if not os.path.exists(folder.source(number)):
            return lock, number
        lock.close()
    raise errors.QueueError(
        "9,999 processes are putting into this queue", hint="put from fewer processes, or close some"
    )


def read_cursor(folder: Folder, number: int) -> Position | None:
    """The cursor as it stands, read without its lock."""
    path = folder.cursor(number)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        state = Slots(path).read(fd)
    finally:
        os.close(fd)
    return _position(state)


def _position(state: dict[str, int] | None) -> Position | None:
    if state is None:
        return None
    return Position(state["segment"], state["offset"], state["row"], state["claimant"])


class Cursor:
    """How far a shard has been claimed: a file changed in place, which is its own kernel lock."""

    def __init__(self, path: str) -> None:
        self.lock = Flock(path)
        self._slots = Slots(path)

    def read(self) -> Position | None:
        """The caller holds `lock`."""
        return _position(self._slots.read(self.lock.fileno()))

    def write(self, position: Position) -> None:
        """The caller holds `lock` and has called `read` since it took it."""
        self._slots.write(self.lock.fileno(), position._asdict())


class ShardReader:
    """One consumer's view of shard `number`: a kept descriptor on the segment being read, and the cursor."""

    def __init__(self, folder: Folder, number: int, *, retention: float | None) -> None:
        self._folder = folder
        self.number = number
        self.source = f"{number:04d}"
        self._retention = retention
        self.cursor = Cursor(folder.cursor(number))
        self._fd = -1
        self._segment = -1
        #: Size of the open segment at which nothing more was to be had from it. Not "the cursor is at the end": behind the
        #: last row may stand a dead writer's torn one, which must not keep consumers awake.
        self._drained_at = -1
        #: Set when a segment may have been added: then reaching the end of this one is not the end of the shard.
        self.may_have_rolled = True
        #: Segments before this one have been deleted.
        self._tidied_to = -1
        forking.register(self)

    def may_have_rows(self) -> bool:
        """Cheap and without a lock. True may turn out to be wrong."""
        return self.may_have_rolled or (self._fd >= 0 and os.lseek(self._fd, 0, os.SEEK_END) != self._drained_at)

    # -- all of these are called with the cursor's lock held

    def start_position(self) -> Position | None:
        """Where to claim next, with that segment open; None while the shard has no segment."""
        position = self.cursor.read()
        if position is None:
            bases = self._folder.segments(self.number)
            position = Position(bases[0], 0, bases[0]) if bases else None
        if position is not None and not self._open(position.segment):
            position = self._after(position)
        if position is None:
            self.may_have_rolled = False
        return position

    def _after(self, position: Position) -> Position | None:
        """The start of the next segment, opened; None if there is none."""
        base = position.row if os.path.exists(self._folder.segment(self.number, position.row)) else None
        if base is None or base <= position.segment:
            # Not where the ordinals say: damage, or a power cut. Whatever comes next, in order, is it.
            base = next((base for base in self._folder.segments(self.number) if base > position.segment), None)
        return Position(base, 0, base) if base is not None and self._open(base) else None

    def _open(self, segment: int) -> bool:
        if segment == self._segment and self._fd >= 0:
            return True
        self._close_segment()
        path = self._folder.segment(self.number, segment)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise errors.from_os_error(error, "open", path) from error
        self._segment = segment
        self._drained_at = -1
        return True

    def read(self, position: Position, n: int, size_hint: int) -> tuple[Position, list[bytes], Position]:
        """Up to `n` rows from `position` on: where they start, the rows, and where they end.

        Goes on to the next segment at the end of one. No rows: this was the end of the shard.
        """
        while True:
            size = os.lseek(self._fd, 0, os.SEEK_END)
            rows, used = self._read_rows(position.offset, n, size_hint)
            following = None
            if not rows and self.may_have_rolled and self._has_after(position):
                # Sealed, so looked at again: rows may have come in between the two looks, but none can any more.
                rows, used = self._read_rows(position.offset, n, size_hint)
                following = None if rows else self._after(position)
            if rows:
                return position, rows, Position(position.segment, position.offset + used, position.row + len(rows))
            if following is None:
                self._drained_at = size
                self.may_have_rolled = False
                return position, [], position
            position = following

    def _has_after(self, position: Position) -> bool:
        return any(base > position.segment for base in self._folder.segments(self.number))

    def _read_rows(self, offset: int, n: int, size_hint: int) -> tuple[list[bytes], int]:
        """Up to `n` whole rows from byte `offset` on, and how many bytes they take."""
        want = min(max(n * size_hint, _MIN_READ), _MAX_READ)
        while True:
            data = os.pread(self._fd, want, offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) < want:
                break
            want *= 4  # one row is longer than this
        rows = data[: end - 1].split(b"\n", n) if end else []
        if len(rows) > n:
            end -= len(rows.pop()) + 1
        return rows, end

    def tidy(self, position: Position) -> None:
        """The cursor stands at `position` now: delete the segments before, unless they are kept for replay."""
        self._drained_at = position.offset
        if position.segment == self._tidied_to:
            return
        self._tidied_to = position.segment
        for base in self._folder.segments(self.number):
            path = self._folder.segment(self.number, base)
            if base >= position.segment:
                return
            if self._retention is None or os.stat(path).st_mtime < time.time() - self._retention:
                os.unlink(path)

    def backlog(self) -> tuple[int, int]:
        """Rows and bytes that are not claimed yet, counted in the files without a lock."""
        position = read_cursor(self._folder, self.number)
        rows = size = 0
        for base in self._folder.segments(self.number):
            if position is None or base >= position.segment:
                start = position.offset if position and base == position.segment else 0
                found = _count_segment(self._folder.segment(self.number, base), start)
                rows, size = rows + found[0], size + found[1]
        return rows, size

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = self._segment = -1

    def close(self) -> None:
        self._close_segment()
        self.cursor.lock.close()

    def _after_fork(self) -> None:
        self._close_segment()
        self.may_have_rolled = True

    def __del__(self) -> None:
        self._close_segment()


def _count_segment(path: str, start: int) -> tuple[int, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0  # consumed meanwhile
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        return count_rows(fd, start, size), max(0, size - start)
    finally:
        os.close(fd)


def read_segment(path: str, start: int = 0) -> Iterator[bytes]:
    """The whole rows of a segment file from byte `start` on; none if it is gone."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
    except FileNotFoundError:
        return


def read_segment_backwards(path: str) -> Iterator[bytes]:
    """The whole rows of a segment file, the last one first."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = last_row_end(fd, os.lseek(fd, 0, os.SEEK_END))
        while end > 0:
            start = last_row_end(fd, end - 1)
            yield read_range(fd, start, end - 1)
            end = start
    finally:
        os.close(fd)
