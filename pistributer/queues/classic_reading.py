"""Reading a classic channel: each row to exactly one of its readers, in order.

`queues/classic.py` describes the channel, `storage/shared_batch.py` the files and what a kill between any two steps leaves.
Here is what one reader object keeps in memory: a buffer of whole rows, valid as long as the shared cursor points into it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, TypeVar

from .. import errors
from ..storage.quick_channel import QuickTake, RowBuffer
from ..storage.shared_append import ChannelPaths, has_rows, set_aside
from ..storage.shared_batch import Batch, adopt, begin_batch, count_in, locate, prepare
from ..storage.shared_cursor import SharedCursor, read_line

#: A batch that still grows is sealed once it has this many bytes, so that its disk space comes back.
_LONG = 16 * 1024 * 1024

_Result = TypeVar("_Result")


class ChannelReader:
    """One reader of the channel at `paths`. Threads may share it; a forked child may go on with its copy."""

    def __init__(self, paths: ChannelPaths) -> None:
        self.paths = paths
        self._cursor = SharedCursor(paths.index)
        # All below belongs to the thread whose turn it is at the cursor.
        #: Rows of batch `_batch`.
        self._buffer = RowBuffer()
        self._batch = -1
        #: Size of the batch at the last refill.
        self._seen_size = 0
        self._closed = False
        #: `take` in the plain case, None in any other: try it first (storage/quick_channel.py). None if it was not built.
        self.quick = QuickTake(self._cursor, self._buffer) if QuickTake else None

    def start(self) -> None:
        """What opening does: take over what release 0.2.0 left, and begin a batch if there are rows and none is open."""
        folder = os.path.dirname(self.paths.data)
        if not os.path.isdir(folder):
            raise errors.from_os_error(FileNotFoundError(2, os.strerror(2)), "open a channel in", folder)
        if self._idle():
            return  # a channel that does not exist stays that way
        prepare(self.paths)
        self._locked(self._start_batch)

    # -- rows

    def take(self) -> str | None:
        """Consume the next row; None if there is none. The cursor has moved on disk before this returns."""
        buffer = self._buffer
        if buffer.position >= len(buffer.rows) and self._idle():
            return None
        cursor = self._cursor
        unmoved = cursor.begin()
        try:
            if not unmoved:
                self._reload()
            position = buffer.position
            end = buffer.rows.find(b"\n", position)
            if end < 0 or buffer.odd:
                if not self._settle():
                    cursor.unlock()
                    return None
                position = buffer.position
                end = buffer.rows.find(b"\n", position)
            row = buffer.rows[position:end].decode()
            cursor.commit(cursor.index + 1, buffer.start + end + 1)
            buffer.position = end + 1
            return row
        except BaseException as error:  # noqa: BLE001 - raises it
            self._fail(error)
        finally:
            cursor.free = True
            if cursor.waiters:
                cursor.wake_waiter()

    def is_empty(self) -> bool:
        """Whether nothing is unread at this moment."""
        buffer = self._buffer
        if not buffer.odd and buffer.position < len(buffer.rows) and self._cursor.peek():
            return False
        return self._idle() or not self._locked(self._settle)

    # -- counting and moving

    def size(self) -> int:
        """Rows in the data file and in the batch, consumed ones of the batch included."""
        return self._count(consumed=True)

    def remaining(self) -> int:
        """Rows that are not consumed."""
        return self._count(consumed=False)

    def index(self) -> int:
        """Consumed rows of the current batch, as the index file says."""
        return read_line(self.paths.index)[0]

    def rows_in_use(self) -> list[bytes]:
        """All rows of the current batch, consumed ones included."""
        batch = Batch.open(self.paths)
        rows: list[bytes] = []
        if batch is not None:
            with batch:
                offset = 0
                while part := batch.rows(offset):
                    rows += filter(None, part.split(b"\n"))
                    offset += len(part)
        return rows

    def move(self, count: int, *, relative: bool) -> None:
        """Set the number of consumed rows of the current batch, between none and all."""
        if not self._idle():
            self._locked(lambda: self._move(max(0, self._cursor.index + count if relative else count)))

    def close(self) -> None:
        """Let go of the files. An emptied NAME.in_use is removed."""
        if not self._closed:
            if os.path.exists(self.paths.in_use) and not has_rows(self.paths.in_use):
                self._locked(self._remove_if_empty)
            self._closed = True
            self._cursor.close()
            self._forget()

    # -- inside

    def _idle(self) -> bool:
        """Whether the files hold nothing to read, seen without a lock.

        The data file first: a row that was put before this call and is not consumed is in one of the two when looked at.
        """
        if self._closed:
            raise errors.QueueClosed(f"the reader of {self.paths.data!r} was closed", hint="open the channel again")
        return not has_rows(self.paths.data) and not has_rows(self.paths.in_use)

    def _locked(self, action: Callable[[], _Result]) -> _Result:
        """The result of `action()`, called with the readers' lock held and the cursor loaded."""
        unmoved = self._cursor.begin()
        try:
            if not unmoved:
                self._reload()
            result = action()
            self._cursor.unlock()
            return result
        except BaseException as error:  # noqa: BLE001 - raises it
            self._fail(error)
        finally:
            self._cursor.give_turn()

    def _fail(self, error: BaseException) -> NoReturn:
        """Free the lock, forget what may not be on disk, and raise `error`, typed."""
        self._cursor.abort()
        self._forget()
        if isinstance(error, OSError) and not isinstance(error, errors.PistributerError):
            raise errors.from_os_error(error, "read", self.paths.data) from error
        raise error

    def _reload(self) -> None:
        """The cursor is not where this reader left it: another one has moved it, or release 0.2.0, or this is new."""
        adopt(self.paths, self._cursor)
        behind = self._cursor.offset - self._buffer.start
        if self._cursor.batch == self._batch and 0 <= behind <= len(self._buffer.rows):
            self._buffer.position = behind
        else:
            self._forget()

    def _start_batch(self) -> None:
        if not os.path.exists(self.paths.in_use):
            begin_batch(self.paths, self._cursor)

    def _forget(self) -> None:
        self._buffer.clear()
        self._batch = -1
        self._seen_size = 0

    def _settle(self) -> bool:
        """Have the buffer begin with a row to deliver; False if there is none in the whole channel."""
        buffer = self._buffer
        while True:
            while (end := buffer.rows.find(b"\n", buffer.position)) >= 0:
                row = buffer.rows[buffer.position : end]
                if not buffer.odd or is_sound(row):
                    return True
                self._skip(row, end + 1)
            if not self._refill():
                return False

    def _skip(self, row: bytes, end: int) -> None:
        """Pass an empty row; pass and set aside a damaged one."""
        if row:
            set_aside(self.paths.quarantine, row)
            self._cursor.save(self._cursor.index + 1, self._buffer.start + end)
        self._buffer.position = end

    def _refill(self) -> bool:
        """The buffer is used up: read on, or finish the batch and begin the next. False if there is nothing."""
        self._keep_in_place()
        while True:
            batch = Batch.open(self.paths)
            if batch is None:
                if not begin_batch(self.paths, self._cursor):
                    return False
                self._forget()
                continue
            with batch:
                offset = self._locate(batch)
                self._seal_if_endless(batch)
                if rows := batch.rows(offset):
                    self._fill(rows, offset, batch.size)
                    return True
                if batch.finish(offset, self._cursor):
                    self._forget()
                    if not has_rows(self.paths.data):
                        return False

    def _keep_in_place(self) -> None:
        """If somebody deleted the index file, lock the one that is there now, before anything is renamed or emptied."""
        if not self._cursor.in_place():
            self._cursor.relock()
            adopt(self.paths, self._cursor)
            self._forget()

    def _locate(self, batch: Batch) -> int:
        """Where to read on in `batch`."""
        cursor = self._cursor
        if self._batch == cursor.batch:
            return self._buffer.start + self._buffer.position
        if not batch.size:
            return 0  # emptied, so all is consumed, whatever the cursor says
        offset, index = locate(batch, cursor)
        if index != cursor.index or offset != cursor.offset:
            cursor.save(index, offset)
        return offset

    def _seal_if_endless(self, batch: Batch) -> None:
        grows = self._batch == self._cursor.batch and batch.size > self._seen_size
        if grows and (batch.size > _LONG or has_rows(self.paths.data)):
            batch.seal()

    def _fill(self, rows: bytes, offset: int, size: int) -> None:
        self._buffer.fill(rows, offset, odd=rows.startswith(b"\n") or b"\n\n" in rows or not is_sound(rows))
        self._batch = self._cursor.batch
        self._seen_size = size

    def _move(self, index: int) -> None:
        self._keep_in_place()
        batch = Batch.open(self.paths)
        if batch is None and begin_batch(self.paths, self._cursor):
            batch = Batch.open(self.paths)
        if batch is None:
            return
        with batch:
            offset, index = batch.offset_of(index, universal=False)
            self._cursor.save(index, offset)
            self._forget()

    def _count(self, *, consumed: bool) -> int:
        return 0 if self._idle() else self._locked(lambda: self._count_rows(consumed))

    def _count_rows(self, consumed: bool) -> int:
        total = count_in(self.paths.data)
        batch = Batch.open(self.paths)
        if batch is not None:
            with batch:
                total += batch.count(0 if consumed or not batch.size else locate(batch, self._cursor)[0])
        return total

    def _remove_if_empty(self) -> None:
        batch = Batch.open(self.paths) if self._cursor.in_place() else None
        if batch is not None:
            with batch:
                batch.remove_if_empty()


def is_sound(rows: bytes) -> bool:
    """Whether this can be given out as text: UTF-8, not empty, without the NULs that a power cut leaves."""
    if not rows or b"\0" in rows:
        return False
    try:
        rows.decode()
    except UnicodeDecodeError:
        return False
    return True
