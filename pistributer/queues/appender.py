"""Where one object appends to a file queue: a shard of its own, opened and healed on first use."""

from __future__ import annotations

from collections.abc import Callable

from .. import errors
from ..storage.doorbell import Doorbell
from ..storage.durability import GroupSync, Sync
from ..storage.locks import Flock
from ..storage.quick_append import QuickAppend
from ..storage.turns import Turn
from .claiming import SHARDS_CHANGED
from .folder import Folder
from .setaside import Quarantine
from .shard import ShardWriter

#: Size at which a segment file is followed by the next, in bytes.
SEGMENT_BYTES = 16 * 1024 * 1024


class Appender(Turn):
    """Appends whole rows to one shard. Threads take turns.

    `append` does it all. `quick` appends one row if that takes nothing but a write and perhaps a ring, and says whether it
    did; see storage/quick_append.py.
    """

    __slots__ = (
        "_before_roll", "_bell", "_folder", "_group", "_quarantine", "_quick_limit", "_segment_bytes", "_sync", "_take",
        "_writer", "quick",
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
        quick_limit: int = -1,
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
        self._segment_bytes = segment_bytes or SEGMENT_BYTES
        #: Longest row that `quick` takes, with its newline; -1: none.
        self._quick_limit = quick_limit
        self._writer: ShardWriter | None = None
        self.quick: Callable[[bytes], bool] = _not_open

    def append(self, rows: bytes, count: int) -> None:
        """Append `count` whole rows that stand end to end, as durably as the dial says, and wake as many consumers."""
        with self:
            writer = self.open()
            if writer.file.append(rows) >= self._segment_bytes:
                self._roll(writer)
            if self._sync != "none":
                writer.sync()
        if self._bell.page[0]:
            self._bell.ring(count)

    def open(self) -> ShardWriter:
        """Own a shard, with its last segment healed and open."""
        if self._writer is not None and not self._writer.is_sound:
            self.drop()  # an append was interrupted: heal first
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
            self._renew_quick(self._writer)
        return self._writer

    def _roll(self, writer: ShardWriter) -> None:
        """Start a new segment. If there is no room for one, the old one grows on: the row that led here is stored."""
        try:
            if self._before_roll is not None:
                self._before_roll()
            writer.roll()
            self._shards_changed()
        except (errors.DiskFull, errors.TooManyOpenFiles):
            pass
        self._renew_quick(writer)

    def _renew_quick(self, writer: ShardWriter) -> None:
        self.quick = QuickAppend(self, writer.file, self._bell, self._segment_bytes, self._quick_limit)

    def drop(self) -> None:
        """Let go of the shard; the next append takes one again."""
        if self._writer is not None:
            self._writer.close()
        self.forget()

    def forget(self) -> None:
        """Own nothing; in a forked child, where the descriptors are closed already."""
        self._writer = None
        self.quick = _not_open

    def _quarantine_tail(self, torn: bytes, found: str) -> None:
        self._quarantine.add(torn, found=found, reason="torn tail of a dead writer")

    def _shards_changed(self) -> None:
        with self._folder.lock:
            self._bell.count_up(SHARDS_CHANGED)


def _not_open(row: bytes) -> bool:
    """What `quick` is while no shard is open."""
    return False
