"""The consumer's side of a file queue: taking rows from shards, from the delayed rows and from dead owners' journals."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .. import errors
from ..storage.doorbell import Doorbell
from ..storage.durability import GroupSync, Sync
from .contract import LOOK_AROUND
from .delayed import DelayedRows
from .folder import Folder
from .items import Batch, FileItem, RowReader
from .journal import Journal
from .left_behind import LeftBehind
from .setaside import Quarantine
from .shard import NOBODY, Position, ShardReader

#: The doorbell's counters: shards or segments were added, or rows given back; delayed rows were added.
SHARDS_CHANGED, DELAYED_CHANGED = 0, 1
#: Seconds between two looks for segments whose writer was killed before it could say that it made them.
_NET = 1.0
#: Longest wait for the cursor of a shard that another consumer is claiming from, in seconds.
_BUSY_WAIT = 0.05
#: Rows that `purge` passes over at a time.
_PURGE_BATCH = 10_000
#: First guess of a row's length, in bytes; corrected by what is read.
_ROW_GUESS = 128


class Claimer:
    """What one queue object holds. Not thread-safe: the queue's claim lock stands in front of every method."""

    def __init__(
        self,
        folder: Folder,
        delayed: DelayedRows,
        quarantine: Quarantine,
        bell: Doorbell,
        *,
        sync: Sync,
        group: GroupSync | None,
        retention: float | None,
    ) -> None:
        self._folder = folder
        self._rows = RowReader(folder, quarantine)
        self._delayed = delayed
        self._bell = bell
        self._sync = sync
        self._group = group
        self._retention = retention
        self._left_behind = LeftBehind(folder, delayed, self._rows, durable=sync != "none")
        self._own: Journal | None = None
        self._readers: dict[int, ShardReader] = {}
        self._order: list[ShardReader] = []
        self._turn = 0
        self._seen_shards = self._seen_delayed = -1
        self._next_look = self._next_net = 0.0
        self._row_guess = _ROW_GUESS

    # -- claiming

    def claim(self, n: int, *, start: bool) -> list[FileItem]:
        """Up to `n` rows: what dead owners left first, then what is due, then the shards in turn."""
        own = self.journal()
        self._look_around()
        items = self._left_behind.claim(own, n, start=start) if self._left_behind.candidates else []
        if len(items) < n and (
            self._delayed.next_due <= time.time() or self._bell.counter(DELAYED_CHANGED) != self._seen_delayed
        ):
            items += self._claim_delayed(own, n - len(items), start)
        if len(items) < n:
            items += self._claim_ready(own, n - len(items), start)
        if not items and own.held:
            own.tidy(idle=False, durable=self._sync != "none")
        return items

    def journal(self) -> Journal:
        """This object's own journal, taken on first use."""
        if self._own is None:
            self._own = self._left_behind.take_journal()
        return self._own

    @property
    def next_due(self) -> float:
        """No delayed row that this object knows of falls due before then, seconds since the epoch."""
        return self._delayed.next_due

    def may_have_rows(self) -> bool:
        """Whether `claim` is worth a try. True may turn out to be wrong."""
        self._look_around()
        return bool(
            self._left_behind.candidates
            or self._delayed.next_due <= time.time()
            or self._bell.counter(DELAYED_CHANGED) != self._seen_delayed
            or any(reader.may_have_rows() for reader in self._order)
        )

    def _look_around(self) -> None:
        """Notice new shards and segments at once, because a bell counts them; dead owners after LOOK_AROUND seconds."""
        counter = self._bell.counter(SHARDS_CHANGED)
        now = time.monotonic()
        if counter != self._seen_shards or now >= self._next_net:
            self._seen_shards = counter
            self._next_net = now + _NET
            self._next_look = 0.0
            self._find_shards()
        if now >= self._next_look:
            self._next_look = now + LOOK_AROUND
            self._left_behind.look(self._own.number if self._own else None)

    def _find_shards(self) -> None:
        for number in self._folder.shard_numbers():
            if number not in self._readers:
                self._readers[number] = ShardReader(self._folder, number, retention=self._retention)
        self._order = [self._readers[number] for number in sorted(self._readers)]
        for reader in self._order:
            reader.may_have_rolled = True

    # -- rows of shards

    def _claim_ready(self, own: Journal, n: int, start: bool) -> list[FileItem]:
        items: list[FileItem] = []
        busy: list[ShardReader] = []
        died_claiming: set[int] = set()
        count = len(self._order)
        for step in range(count):
            reader = self._order[(self._turn + step) % count]
            if reader.may_have_rows():
                if not self._claim_shard(own, reader, n, start, items, died_claiming, timeout=0.0):
                    busy.append(reader)
                if len(items) >= n:
                    self._turn = (self._turn + step + 1) % count
                    return items
        for reader in busy:
            if not items:
                self._claim_shard(own, reader, n, start, items, died_claiming, timeout=_BUSY_WAIT)
        for number in died_claiming:
            self._left_behind.resolve_number(number, own)
        return items

    def _claim_shard(
        self,
        own: Journal,
        reader: ShardReader,
        n: int,
        start: bool,
        items: list[FileItem],
        died_claiming: set[int],
        *,
        timeout: float,
    ) -> bool:
        """Add rows of one shard to `items`. False if another consumer was claiming from it all the time."""
        lock = reader.cursor.lock
        if not lock.acquire(timeout):
            return False
        try:
            position = reader.start_position()
            if position is None:
                return True
            if position.claimant not in (NOBODY, own.number):
                # It died between steps 1 and 3 of queues/shard.py. Resolving takes other locks, so not under this one.
                died_claiming.add(position.claimant)
                return True
            try:
                items += self._claim_from(own, reader, position, n - len(items), start)
            except errors.DiskFull:
                # A copy of so many rows does not fit. One may, with the reserve; settling it frees what it takes.
                own.tidy(idle=True, durable=False)
                self._folder.use_reserve()
                items += self._claim_from(own, reader, reader.cursor.read() or position, 1, start)
        finally:
            lock.release()
        return True

    def _claim_from(self, own: Journal, reader: ShardReader, position: Position, n: int, start: bool) -> list[FileItem]:
        """Steps 1 to 3 of queues/shard.py, with the cursor's lock held."""
        begin, rows, end = reader.read(position, n, self._row_guess)
        if not rows:
            if begin.segment != position.segment:
                # The next segment is empty yet. Unless the cursor stands in it, its first row would not be noticed.
                reader.cursor.write(begin)
                reader.tidy(begin)
            return []
        self._row_guess = (end.offset - begin.offset) // len(rows) + 1
        batch = self._rows.batch(rows, reader.source, begin.row)
        token = 0
        if batch.rows:
            reader.cursor.write(Position(begin.segment, begin.offset, begin.row, own.number))
            try:
                token = self._record(own, batch, start)
            except BaseException:
                reader.cursor.write(begin)
                raise
        reader.cursor.write(end)
        reader.tidy(end)
        return batch.hand_out(own, token, int(start))

    def _record(self, own: Journal, batch: Batch, start: bool) -> int:
        durable = self._sync != "none"
        own.tidy(idle=False, durable=durable)
        return own.record_claim(
            batch.rows, source=batch.source, row=batch.first, skip=batch.skip, start=start, sync=durable, move=None
        )

    # -- rows that are due

    def _claim_delayed(self, own: Journal, n: int, start: bool) -> list[FileItem]:
        delayed = self._delayed
        self._seen_delayed = self._bell.counter(DELAYED_CHANGED)
        if not delayed.exist():
            return []
        with delayed.lock:
            delayed.refresh()
            taken = delayed.take(n, own.number)
            items: list[FileItem] = []
            recorded = False
            try:
                if taken:
                    batch = self._rows.batch([line for _, _, line in taken], "delayed", 0)
                    items = batch.hand_out(own, self._record(own, batch, start), int(start))
                recorded = True
            finally:
                delayed.settle(taken, recorded=recorded)
            delayed.refresh()
            delayed.delete_finished()
        return items

    # -- settling

    def start(self, item: FileItem) -> bool:
        """Count an attempt; False if the item is not held."""
        if self.split([item])[1]:
            return False
        own = self.journal()
        own.record("start", [item.token])
        self._acknowledge_safely(own)
        item.attempt += 1
        return True

    def split(self, items: Iterable[FileItem]) -> tuple[list[FileItem], list[FileItem]]:
        """Those that are held, and those that are not."""
        given = list(items)
        # By identity: another object's items, or a forked parent's, may have the same tokens.
        ours = self._own.held if self._own is not None else {}
        held = [item for item in given if ours.get(item.token) is item]
        if len(held) == len(given) == len(set(held)):
            return held, []
        mine = dict.fromkeys(held)
        lost: list[FileItem] = []
        for item in given:
            if mine.pop(item, lost) is lost:  # not held, or named twice
                lost.append(item)
        return list(dict.fromkeys(held)), lost

    def settle(self, items: list[FileItem]) -> None:
        """Forget items that `split` said are held."""
        own = self.journal()
        tokens = [item.token for item in items]
        own.record("done", tokens)
        self._acknowledge_safely(own)
        held = own.held
        for token in tokens:
            del held[token]

    def _acknowledge_safely(self, journal: Journal) -> None:
        if self._sync == "each":
            journal.sync()
        elif self._group is not None:
            self._group.note(*journal.sync_target)

    def tidy(self) -> None:
        """Before a sleep: an empty journal tells others at a glance that there is nothing to take."""
        if self._own is not None and not self._own.held:
            self._own.tidy(idle=True, durable=False)

    def release(self) -> bool:
        """Let go of everything. True if rows were held, which others may take from now on."""
        gave_back = self._own is not None and bool(self._own.held)
        if self._own is not None:
            self._own.release()
        for reader in self._readers.values():
            reader.close()
        self.forget()
        return gave_back

    def forget(self) -> None:
        """Start over, owning nothing; in a forked child, where the descriptors are closed already."""
        if self._own is not None:
            self._own.held.clear()  # so that items from before are known to be lost
        self._own = None
        self._left_behind.candidates = []
        self._order, self._readers = [], {}
        self._seen_shards = self._seen_delayed = -1
        self._next_look = self._next_net = 0.0

    def purge(self) -> int:
        """Pass over everything that is ready, and settle what dead owners left."""
        own = self.journal()
        self._next_look = self._next_net = 0.0
        self._look_around()
        purged = 0
        while left := self._left_behind.claim(own, _PURGE_BATCH, start=False):
            self.settle(left)
            purged += len(left)
        for reader in self._order:
            purged += self._purge_shard(reader)
        return purged

    def _purge_shard(self, reader: ShardReader) -> int:
        with reader.cursor.lock:
            position = reader.start_position()
            passed = 0
            while position is not None:
                _, rows, end = reader.read(position, _PURGE_BATCH, self._row_guess)
                if not rows:
                    break
                if position.claimant not in (NOBODY, -1 if self._own is None else self._own.number):
                    break  # its journal may hold these rows; whoever resolves it decides
                reader.cursor.write(end)
                reader.tidy(end)
                position, passed = end, passed + len(rows)
        return passed
