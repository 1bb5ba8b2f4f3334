"""The C calls that the classic `put` and `next` are made of do what the methods in Python do, to the byte."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from pistributer import Pistributer, errors
from pistributer.queues.classic_reading import ChannelReader
from pistributer.queues.classic_rows import encode_jsonl, jsonl_text
from pistributer.queues.classic_writing import Writing
from pistributer.storage import shared_cursor
from pistributer.storage.quick_channel import QuickSharedAppend, QuickTake, RowBuffer
from pistributer.storage.shared_append import ChannelPaths, SharedAppendFile
from pistributer.storage.shared_cursor import SharedCursor

from .processes import run

built = pytest.mark.skipif(QuickTake is None, reason="built without C")
ROW = b'{"n":1}\n'


class Side:
    """A channel with two writers and two readers, as two processes would have them: with C or without."""

    def __init__(self, folder: str, *, c: bool) -> None:
        self.path = os.path.join(folder, "channel.jsonl")
        self.c = c
        self.writers = [Writing(".jsonl", encode_jsonl, jsonl_text) for _ in range(2)]
        self.readers = [self._reader() for _ in range(2)]

    def _reader(self) -> ChannelReader:
        reader = ChannelReader(ChannelPaths(self.path))
        reader.start()
        return reader

    def put(self, writer: int, row: bytes) -> bool:
        files = self.writers[writer].files
        return (self.c and files.find(self.path).quick(row)) or files.append(self.path, row)

    def take(self, number: int) -> str | None:
        reader = self.readers[number]
        row = reader.quick() if self.c and reader.quick else None
        return row if row is not None else reader.take()

    def reopen(self, number: int) -> None:
        self.readers[number].close()
        self.readers[number] = self._reader()

    def damage(self, suffix: str, rows: bytes) -> None:
        if os.path.exists(self.path + suffix):
            with open(self.path + suffix, "ab") as file:
                file.write(rows)

    def remove(self, suffix: str) -> None:
        Path(self.path + suffix).unlink(missing_ok=True)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(self.path).parent.iterdir()}

    def close(self) -> None:
        for reader in self.readers:
            reader.close()


numbers = st.integers(0, 1)
rows = st.sampled_from([b'"a"\n', b'{"number":12345,"text":"a longer row"}\n', '"\u00e9\u4e2d"\n'.encode()])
damage = st.sampled_from([b"to", b"\n", b"\0\0\n", b"\xff\n", b'"outside"\n'])


@built
class TwoSides(RuleBasedStateMachine):
    """The same calls to a channel served by C and to one served by Python: the same rows, and the same bytes in all files."""

    def __init__(self) -> None:
        super().__init__()
        self.folders = [tempfile.TemporaryDirectory() for _ in range(2)]
        self.clocks = [itertools.count(1_000_000_000, 1_000_000_000) for _ in range(2)]
        self.real = shared_cursor.time
        self.sides = []
        for c, folder in enumerate(self.folders):
            self.sides.append(self._at(c, lambda c=c, folder=folder: Side(folder.name, c=bool(c))))

    def _at(self, number: int, act: Callable[[], Any]) -> Any:
        """`act()` with a clock that says the same to both: a new cursor takes its batch number from it."""
        shared_cursor.time = type("Clock", (), {"time_ns": staticmethod(lambda: next(self.clocks[number]))})  # type: ignore[assignment]
        try:
            return act()
        finally:
            shared_cursor.time = self.real

    def both(self, act: Callable[[Side], Any]) -> None:
        found = [self._at(number, lambda side=side: act(side)) for number, side in enumerate(self.sides)]
        assert found[0] == found[1]
        assert self.sides[0].files() == self.sides[1].files()

    @rule(writer=numbers, row=rows, count=st.integers(1, 4))
    def put(self, writer: int, row: bytes, count: int) -> None:
        self.both(lambda side: [side.put(writer, row) for _ in range(count)])

    @rule(reader=numbers, count=st.integers(1, 4))
    def take(self, reader: int, count: int) -> None:
        self.both(lambda side: [side.take(reader) for _ in range(count)])

    @rule(reader=numbers)
    def reopen(self, reader: int) -> None:
        self.both(lambda side: side.reopen(reader))

    @rule(reader=numbers, count=st.integers(-2, 2))
    def move(self, reader: int, count: int) -> None:
        self.both(lambda side: side.readers[reader].move(count, relative=True))

    @rule(reader=numbers)
    def count(self, reader: int) -> None:
        self.both(lambda side: (side.readers[reader].size(), side.readers[reader].remaining()))

    @rule(suffix=st.sampled_from(["", ".in_use"]), rows=damage)
    def damage(self, suffix: str, rows: bytes) -> None:
        self.both(lambda side: side.damage(suffix, rows))

    @precondition(lambda self: self.sides)
    @rule(suffix=st.sampled_from(["", ".in_use", ".index"]))
    def remove(self, suffix: str) -> None:
        # A pause, so that both sides look at the file's name again: that is promised after one only.
        self.both(lambda side: side.remove(suffix))
        for side in self.sides:
            for writing in side.writers:
                for file in writing.files.known.values():
                    file._last = file._looked = float("-inf")

    def teardown(self) -> None:
        for side in self.sides:
            side.close()
        for folder in self.folders:
            folder.cleanup()


TwoSides.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTwoSides = TwoSides.TestCase


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SharedAppendFile]:
    """An open channel with one row, which C takes the next rows of."""
    files = Writing(".jsonl", encode_jsonl, jsonl_text).files
    files.append(tmp_path / "channel.jsonl", ROW)
    file = files.find(tmp_path / "channel.jsonl")
    yield file
    file.evict()


@pytest.fixture
def reader(file: SharedAppendFile) -> Iterator[ChannelReader]:
    """A reader of that channel that has taken its first row, and has nine more in memory."""
    for _ in range(9):
        file.append(ROW)
    reader = ChannelReader(file.paths)
    reader.start()
    assert reader.take() == ROW.decode().rstrip()
    yield reader
    reader.close()


def take(reader: ChannelReader) -> str | None:
    assert reader.quick is not None
    return reader.quick()


@built
def test_plain_rows_are_put_and_taken_by_c(file: SharedAppendFile, reader: ChannelReader) -> None:
    assert [file.quick(ROW) for _ in range(3)] == [True] * 3
    assert [take(reader) for _ in range(9)] == [ROW.decode().rstrip()] * 9
    assert take(reader) is None  # the rest is not in memory
    assert reader.take() is not None
    assert [take(reader), take(reader)] == [ROW.decode().rstrip()] * 2
    assert reader.remaining() == 0
    assert reader.index() == 13


@built
def test_what_is_not_plain_is_left_alone(file: SharedAppendFile, reader: ChannelReader) -> None:
    paths = file.paths
    for turn, quick in ((file, lambda: file.quick(ROW)), (reader._cursor, lambda: take(reader))):
        turn.take_turn()
        before = Path(paths.in_use).read_bytes(), Path(paths.index).read_bytes()
        assert not quick()
        assert (Path(paths.in_use).read_bytes(), Path(paths.index).read_bytes()) == before
        turn.give_turn()
    with open(paths.in_use, "ab") as torn:
        torn.write(b"to")
    assert not file.quick(ROW)
    with open(paths.index, "r+b") as index:
        index.write(b"{")  # as if another reader were at work
        index.write(b" ")
    assert take(reader) is None
    assert file.try_turn()
    assert reader._cursor.try_turn()
    file.give_turn()
    reader._cursor.give_turn()
    file.evict()
    assert not file.quick(ROW)


@built
def test_rows_of_another_writer_are_followed(file: SharedAppendFile) -> None:
    with open(file.paths.data, "ab") as other:
        other.write(b'"other"\n')
    assert file.quick(ROW)
    assert Path(file.paths.data).read_bytes() == ROW + b'"other"\n' + ROW


@built
def test_a_full_disk_leaves_whole_rows_and_says_how_many(tmp_path: Path) -> None:
    def fill(pipe: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = tmp_path / "channel.jsonl"
        Pistributer.put(path, {"n": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        Pistributer.put(path, {"n": 2})
        with pytest.raises(errors.StorageError) as caught:
            Pistributer.put(path, {"n": 3})  # four bytes fit
        assert caught.value.stored == 0

    run(fill)
    assert (tmp_path / "channel.jsonl").read_bytes() == ROW + ROW.replace(b"1", b"2")
    assert list(Pistributer(tmp_path / "channel.jsonl")) == ['{"n":1}', '{"n":2}']


@built
def test_threads_share_both(file: SharedAppendFile) -> None:
    reader = ChannelReader(file.paths)
    reader.start()
    taken: list[str] = []

    def put() -> None:
        for _ in range(2000):
            assert file.quick(ROW) or file.append(ROW)

    def read() -> None:
        while len(taken) < 8001:
            row = take(reader)
            if row is None:
                row = reader.take()
            if row is not None:
                taken.append(row)

    threads = [threading.Thread(target=act) for act in [put] * 4 + [read] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert taken == [ROW.decode().rstrip()] * 8001
    reader.close()


@built
def test_what_is_no_row_is_refused(file: SharedAppendFile, reader: ChannelReader) -> None:
    for args in [(), ("text\n",), (None,), (ROW, ROW)]:
        with pytest.raises(TypeError):
            file.quick(*args)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        reader.quick(1)  # type: ignore[misc, call-arg]
    assert file.quick(ROW)
    assert take(reader)


@built
def test_only_objects_with_these_slots_are_taken(file: SharedAppendFile) -> None:
    assert QuickSharedAppend is not None
    assert QuickTake is not None
    cursor = SharedCursor(file.paths.index)
    for make in (
        lambda: QuickSharedAppend(object(), 1.0, 1.0),  # type: ignore[arg-type]
        lambda: QuickSharedAppend(cursor, 1.0, 1.0),  # type: ignore[arg-type]
        lambda: QuickTake(object(), RowBuffer()),  # type: ignore[arg-type]
        lambda: QuickTake(cursor, object()),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, AttributeError)):
            make()


@built
def test_nothing_is_kept_alive_and_no_reference_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "channel.jsonl"
    files = Writing(".jsonl", encode_jsonl, jsonl_text).files
    row = bytes(ROW)
    files.append(path, row)
    file, channel = files.find(path), Pistributer(path)
    before = sys.getrefcount(row), sys.getrefcount(True), sys.getrefcount(None)
    for _ in range(1000):
        assert file.quick(row)
        assert channel.next()
    assert sys.getrefcount(row) == before[0]
    assert abs(sys.getrefcount(True) - before[1]) < 100
    assert abs(sys.getrefcount(None) - before[2]) < 100
    reader = weakref.ref(channel._reader._cursor)
    del channel
    assert reader() is None  # at once: its descriptor is closed with it
    file.evict()
    writer = weakref.ref(file)
    del file
    gc.collect()
    assert writer() is None
