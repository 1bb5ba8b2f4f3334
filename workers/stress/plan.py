"""The interleaved scenario as arithmetic: who writes what, who reads where, and which value every row must carry.

`writers` writers have `files` file assignments each, of which the last `shared` are the same for all writers, and put
`rows` rows into each. With 300 writers, 30 files, 10 of them shared, and 300 rows that is 2,700,000 rows over 6,010
channels. Nothing here touches a queue, so the oracle can use it without believing anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pistributer.storage.durability import Sync

Driver = Literal["jsonl", "txt", "sqlite"]
Api = Literal["classic", "queue"]

#: How many readers compete for each shared channel (all, if there are fewer).
READERS_PER_SHARED: Final = 4
#: About this many put times and delivery times are taken in a run.
_SAMPLES: Final = 200_000
#: Values are below this.
VALUES: Final = 1 << 20
#: Knuth's multiplicative hash spreads row numbers over values, so that a swapped or repeated row changes the sums.
_SPREAD: Final = 2654435761


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one stress run does. Plain data: it travels to the children."""

    driver: Driver = "jsonl"
    api: Api = "queue"
    writers: int = 20
    readers: int = 8
    files: int = 30
    shared: int = 10
    rows: int = 1500
    sync: Sync = "none"
    seed: int = 0
    threads: bool = False
    #: Seconds between two SIGKILLs; 0 for none.
    kill_every: float = 0.0

    def __post_init__(self) -> None:
        for name in ("writers", "readers", "files", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.shared <= self.files:
            raise ValueError(f"shared must be between 0 and files ({self.files}), not {self.shared}")
        if self.total >= 1 << 32:
            raise ValueError(f"{self.total:,} rows are too many for one run; the limit is 4,294,967,295")
        if self.kill_every < 0:
            raise ValueError(f"kill_every must not be negative, not {self.kill_every}")
        if self.api == "classic" and self.driver != "sqlite" and self.sync != "none":
            raise ValueError("the classic file channels never sync; use the queue API or the sqlite driver with sync")
        if self.threads and self.kill_every:
            raise ValueError("threads can not be killed one by one; use processes with kill_every")

    # -- sizes

    @property
    def own(self) -> int:
        """File assignments of a writer that are its own."""
        return self.files - self.shared

    @property
    def channels(self) -> int:
        return self.writers * self.own + self.shared

    @property
    def total(self) -> int:
        return self.writers * self.files * self.rows

    @property
    def sample_every(self) -> int:
        """Every how many rows a time is taken; a power of two."""
        return 1 << max(0, (self.total // _SAMPLES).bit_length() - 1)

    # -- channels

    def channel_of(self, writer: int, assignment: int) -> int:
        if assignment < self.own:
            return writer * self.own + assignment
        return self.writers * self.own + assignment - self.own

    def assignment_of(self, channel: int) -> int:
        first_shared = self.writers * self.own
        return channel % self.own if channel < first_shared else self.own + channel - first_shared

    def is_shared(self, channel: int) -> bool:
        return channel >= self.writers * self.own

    def may_write(self, writer: int, channel: int) -> bool:
        return 0 <= writer < self.writers and (self.is_shared(channel) or channel // self.own == writer)

    def channels_of_writer(self, writer: int) -> list[int]:
        return [self.channel_of(writer, assignment) for assignment in range(self.files)]

    def readers_of(self, channel: int) -> list[int]:
        """One reader for a writer's own channel, several for a shared one."""
        if not self.is_shared(channel):
            return [channel % self.readers]
        first = (channel - self.writers * self.own) * READERS_PER_SHARED
        return sorted({(first + n) % self.readers for n in range(READERS_PER_SHARED)})

    def channels_of_reader(self, reader: int) -> list[int]:
        first_shared = self.writers * self.own
        shared = (channel for channel in range(first_shared, self.channels) if reader in self.readers_of(channel))
        return [*range(reader, first_shared, self.readers), *shared]

    # -- rows

    def row_number(self, writer: int, assignment: int, seq: int) -> int:
        """Names a row among all of the run: 0 to total - 1, in the order of writer, assignment, sequence."""
        return (writer * self.files + assignment) * self.rows + seq

    def channel_of_row(self, row: int) -> int:
        pair = row // self.rows
        return self.channel_of(pair // self.files, pair % self.files)

    def value_of(self, row: int) -> int:
        """The 20-bit value that row number `row` carries."""
        return ((row * _SPREAD + self.seed) & 0xFFFFFFFF) >> 12
