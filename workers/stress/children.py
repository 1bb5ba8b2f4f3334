"""The writers and readers of a stress run: what each process, or each thread, does."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, Protocol

from pistributer import errors
from pistributer.queues.contract import Queue

from . import ledger, rows
from .ledger import ReaderLedger, WriterLedger, path_of, read_header
from .plan import VALUES, Scenario

#: Rows that a reader takes from one channel before it looks at the next.
_BATCH: Final = 256
#: A round over all channels that finds fewer rows per channel than this lets them gather before the next: a look at an
#: empty channel costs as much as a row, so polling would take the time of those who write.
_WORTH_A_ROUND: Final = 64
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 4.0
#: … but whether the writers are done is looked at so often: from then on, nothing more gathers.
_LOOK_AT_WRITERS: Final = 0.2


Target = Callable[["Seat", Scenario, Path], None]


class Seat(Protocol):
    """What a child needs from whoever runs it; `supervision.child.Child` is one, a thread of a `ThreadCrew` has another."""

    index: int

    def ready(self) -> None: ...
    def stop_requested(self) -> bool: ...
    def wait_stop(self, timeout: float | None = None) -> bool: ...


def channels_folder(run: Path) -> Path:
    return run / "channels"


def ledger_folder(run: Path) -> Path:
    return run / "ledger"


def control_path(run: Path) -> Path:
    """A ledger header whose FINISHED word is set once all writers are done."""
    return ledger_folder(run) / "control"


# -- writing


def write(seat: Seat, scenario: Scenario, run: Path) -> None:
    """One writer: put what is left to put, then note the time."""
    first = scenario.row_number(seat.index, 0, 0)
    path = path_of(ledger_folder(run), "writer", seat.index)
    book = WriterLedger(path, files=scenario.files, rows=scenario.rows, first_row=first)
    with ExitStack() as stack:
        stack.callback(book.close)
        channels = scenario.channels_of_writer(seat.index)
        puts = [_put_of(scenario, channels_folder(run), channel, stack) for channel in channels]
        seat.ready()
        _Writer(seat, scenario, book, channels, puts).run()
        _note_end(book, time.monotonic_ns())


def _put_of(scenario: Scenario, folder: Path, channel: int, stack: ExitStack) -> Callable[[Any], object]:
    if scenario.api == "queue":
        return stack.enter_context(rows.open_channel_queue(scenario, folder, channel)).put
    path = str(rows.classic_path(scenario, folder, channel))
    kind = rows.classic_type(scenario)
    if scenario.driver == "sqlite":
        opened = kind(path)
        stack.callback(opened.close)
        put: Callable[[Any], object] = opened.put
        return put
    return lambda value: kind.put(path, value)


class _Writer:
    def __init__(
        self,
        seat: Seat,
        scenario: Scenario,
        book: WriterLedger,
        channels: list[int],
        puts: list[Callable[[Any], object]],
    ) -> None:
        self._seat, self._scenario, self._book = seat, scenario, book
        self._channels, self._puts = channels, puts
        self._encode, _ = rows.codec_of(scenario)
        self._mask = scenario.sample_every - 1
        self._value_of = scenario.value_of
        self._first_row = scenario.row_number(seat.index, 0, 0)

    def run(self) -> None:
        """Row by row over all file assignments, so that every channel is open and growing all the time."""
        begun = [self._book.begun(assignment) for assignment in range(self._scenario.files)]
        for seq in range(min(begun), self._scenario.rows):
            if self._seat.stop_requested():
                return
            self._put_row([assignment for assignment, done in enumerate(begun) if seq >= done], seq)
            self._book.words[ledger.ROWS] = (seq + 1) * len(begun)

    def _put_row(self, assignments: list[int], seq: int) -> None:
        """One row into each of these. The hot loop of the benchmark: what is the same for all rows is outside of it."""
        book, writer, encode, value_of, mask = self._book, self._seat.index, self._encode, self._value_of, self._mask
        begin, acknowledge = book.begin, book.acknowledge
        for assignment in assignments:
            value = value_of(self._first_row + assignment * self._scenario.rows + seq)
            now = 0 if (seq + assignment) & mask else time.monotonic_ns()
            row = encode(writer, self._channels[assignment], seq, value, now)
            begin(assignment, seq + 1)
            self._puts[assignment](row)
            acknowledge(assignment, seq + 1)
            if now:
                book.append(ledger.NANOS | (time.monotonic_ns() - now))


# -- reading


def read(seat: Seat, scenario: Scenario, run: Path) -> None:
    """One reader: take rows from its channels until the writers are done and nothing is left."""
    book = ReaderLedger(path_of(ledger_folder(run), "reader", seat.index))
    with ExitStack() as stack:
        stack.callback(book.close)
        kind = _QueueReader if scenario.api == "queue" else _ClassicReader
        reader = kind(seat, scenario, book, channels_folder(run), stack)
        seat.ready()
        _read_until_done(seat, reader, book, control_path(run))


def _read_until_done(seat: Seat, reader: _Reader, book: ReaderLedger, control: Path) -> None:
    pause, active = 0.0, time.monotonic_ns()
    with control.open("rb", buffering=0) as file:
        while not seat.stop_requested():
            # Asked before the round: what was put before the writers ended is then seen by the round.
            writers_done = bool(read_header(file)[ledger.FINISHED])
            found = reader.round()
            if found:
                active = time.monotonic_ns()
            elif writers_done and reader.is_drained():
                break
            pause = _next_pause(pause, found, len(reader.channels))
            _gather(seat, file, 0.0 if writers_done and found else pause, writers_done)
    book.words[ledger.QUARANTINED] = reader.quarantined()
    _note_end(book, active)


def _next_pause(pause: float, found: int, channels: int) -> float:
    if found >= channels * _WORTH_A_ROUND:
        return 0.0
    return min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)


def _gather(seat: Seat, control: IO[bytes], seconds: float, writers_done: bool) -> None:
    """Let rows gather for so many seconds, or until the writers are done, unless they were already."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not seat.wait_stop(min(left, _LOOK_AT_WRITERS)):
        if not writers_done and read_header(control)[ledger.FINISHED]:
            return


class _Reader:
    """Takes rows from `channels` and writes each into the ledger before it does anything else."""

    def __init__(self, seat: Seat, scenario: Scenario, book: ReaderLedger, folder: Path, stack: ExitStack) -> None:
        self._scenario, self._book, self._folder, self._stack = scenario, book, folder, stack
        self._index = seat.index
        self._writers, self._rows, self._own = scenario.writers, scenario.rows, scenario.own
        self._first_shared = scenario.writers * scenario.own
        self._rows_per_writer = scenario.files * scenario.rows
        _, self._decode = rows.codec_of(scenario)
        self.channels = scenario.channels_of_reader(seat.index)
        self._drains = [self._drain_of(channel) for channel in self.channels]

    def round(self) -> int:
        """Look at every channel once; how many rows were taken."""
        return sum(drain() for drain in self._drains)

    def is_drained(self) -> bool:
        """Whether nothing can come any more, given that a round found nothing after the writers had ended."""
        return True

    def quarantined(self) -> int:
        """Rows set aside in the channels whose first reader this is."""
        return 0

    def _drain_of(self, channel: int) -> Callable[[], int]:
        raise NotImplementedError

    def _record(self, row: Any, channel: int, offset: int, again: int) -> None:
        try:
            writer, found, seq, value, put_at = self._decode(row)
            # Spelled out here because it runs for every row of the benchmark.
            if found != channel or not (0 <= writer < self._writers and 0 <= seq < self._rows and 0 <= value < VALUES):
                raise ValueError(row)
            if channel < self._first_shared and channel // self._own != writer:
                raise ValueError(row)
        except (ValueError, TypeError, LookupError, AttributeError):
            self._book.append(ledger.MALFORMED | channel)
            return
        self._book.append(ledger.ROW | again | value << 32 | (writer * self._rows_per_writer + offset + seq))
        if put_at:
            self._book.append(ledger.NANOS | max(1, time.monotonic_ns() - put_at))

    def _offset(self, channel: int) -> int:
        return self._scenario.assignment_of(channel) * self._scenario.rows


class _ClassicReader(_Reader):
    def _drain_of(self, channel: int) -> Callable[[], int]:
        path = rows.classic_path(self._scenario, self._folder, channel)
        opened: rows.Channel = rows.classic_type(self._scenario)(str(path))
        if hasattr(opened, "close"):
            self._stack.callback(opened.close)
        offset = self._offset(channel)
        return lambda: self._drain(opened, channel, offset)

    def _drain(self, opened: rows.Channel, channel: int, offset: int) -> int:
        take, record = opened.next, self._record
        count = 0
        self._book.reading(channel)
        try:
            while count < _BATCH:
                record(take(), channel, offset, 0)
                count += 1
        except errors.ChannelEmpty:
            pass  # the usual end of a batch
        self._book.reading(None)
        self._book.words[ledger.ROWS] += count
        return count


class _QueueReader(_Reader):
    def __init__(self, seat: Seat, scenario: Scenario, book: ReaderLedger, folder: Path, stack: ExitStack) -> None:
        self._queues: dict[int, Queue] = {}
        super().__init__(seat, scenario, book, folder, stack)

    def _drain_of(self, channel: int) -> Callable[[], int]:
        queue = self._stack.enter_context(rows.open_channel_queue(self._scenario, self._folder, channel))
        self._queues[channel] = queue
        offset = self._offset(channel)
        return lambda: self._drain(queue, channel, offset)

    def _drain(self, queue: Queue, channel: int, offset: int) -> int:
        items = queue.claim(_BATCH)
        if items:
            self._book.holding()
            for item in items:
                self._record(item.value, channel, offset, ledger.AGAIN if item.attempt > 1 else 0)
            queue.ack(items)
            self._book.settled()
            self._book.words[ledger.ROWS] += len(items)
        return len(items)

    def is_drained(self) -> bool:
        """Others may hold rows of a shared channel and be killed, so those have to be settled too."""
        counts = (queue.stats() for queue in self._queues.values())
        return not any(stats.ready or stats.claimed or stats.delayed for stats in counts)

    def quarantined(self) -> int:
        first = (channel for channel in self.channels if self._scenario.readers_of(channel)[0] == self._index)
        return sum(self._queues[channel].stats().quarantined for channel in first)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _note_end(book: ReaderLedger | WriterLedger, when: int) -> None:
    book.words[ledger.CPU] = time.process_time_ns()
    book.words[ledger.PEAK] = peak_memory() // 1024
    book.words[ledger.FINISHED] = when
