"""Where one object appends to a file queue: a shard of its own, opened and healed on first use."""

from __future__ import annotations

from collections.abc import Callable

from .. import errors
from ..storage.doorbell import Doorbell
from ..storage.durability import GroupSync, Sync
from ..storage.locks import Flock
from ..storage.turns import Turn
from .claiming import SHARDS_CHANGED
from .folder import Folder
from .setaside import Quarantine
from .shard import ShardWriter

#: Size at which a segment file is followed by the next, in bytes.
SEGMENT_BYTES = 16 * 1024 * 1024


class Appender(Turn):
    """Appends whole rows to one shard. Threads take turns: whoever calls `write`, `roll` or `drop_failed` has the turn.

    `append` does it all; the hot path of `put` writes its steps out.
    """

    __slots__ = (
        "_before_roll", "_bell", "_folder", "_group", "_quarantine", "_sync", "_take", "_writer", "segment_bytes", "write",
    )  # fmt: skip

    def __init__(
        self,
        folder: Folder,
        quarantine: Quarantine,
        bell: Doorbell,
        take: Callable[[], tuple[Flock, int]],
        *,
        sync: Sync,
        group: GroupSync | None,
        segment_bytes: int | None,
        before_roll: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._quarantine = quarantine
        self._bell = bell
        #: Gives the shard's held lock and its number, or raises.
        self._take = take
        self._sync = sync
        self._group = group
        self._before_roll = before_roll
        self.segment_bytes = segment_bytes or SEGMENT_BYTES
        self._writer: ShardWriter | None = None
        #: Appends whole rows to the shard and returns its segment's size.
        self.write: Callable[[bytes], int] = self._open_and_write

    def append(self, rows: bytes, count: int) -> None:
        """Append `count` whole rows that stand end to end, as durably as the dial says, and wake as many consumers."""
        with self:
            try:
                if self.write(rows) >= self.segment_bytes:
                    self.roll()
                if self._sync != "none" and self._writer is not None:
                    self._writer.sync()
            except BaseException:
                self.drop_failed()
                raise
        if self._bell.page[0]:
            self._bell.ring(count)

    def open(self) -> ShardWriter:
        """Own a shard, with its last segment healed and open."""
        if self._writer is None:
            with errors.typed_os_errors("work on the queue", self._folder.path):
                lock, number = self._take()
                writer = ShardWriter(self._folder, lock, number, sync=self._sync, group=self._group)
                try:
                    self._writer = writer.open(self._quarantine_tail)
                except BaseException:
                    writer.close()
                    raise
                self._shards_changed()
            self.write = self._writer.append
        return self._writer

    def _open_and_write(self, data: bytes) -> int:
        """What `write` is until a shard is open."""
        return self.open().append(data)

    def roll(self) -> None:
        """Start a new segment. If there is no room for one, the old one grows on: the row that led here is stored."""
        assert self._writer is not None
        try:
            if self._before_roll is not None:
                self._before_roll()
            self._writer.roll()
            self._shards_changed()
        except (errors.DiskFull, errors.TooManyOpenFiles):
            pass
        self.write = self._writer.append

    def drop_failed(self) -> None:
        """After an interrupted append the shard is healed before the next one, by whoever opens it."""
        if self._writer is not None and not self._writer.is_sound:
            self.drop()

    def drop(self) -> None:
        """Let go of the shard; the next append takes one again."""
        if self._writer is not None:
            self._writer.close()
        self.forget()

    def forget(self) -> None:
        """Own nothing; in a forked child, where the descriptors are closed already."""
        self._writer = None
        self.write = self._open_and_write

    def _quarantine_tail(self, torn: bytes, found: str) -> None:
        self._quarantine.add(torn, found=found, reason="torn tail of a dead writer")

    def _shards_changed(self) -> None:
        with self._folder.lock:
            self._bell.count_up(SHARDS_CHANGED)
