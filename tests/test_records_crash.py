"""Killed at every change to the disk, a writer leaves a file that opens, appends and reads, with all that was flushed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer.records import MultiThreadedReader, MultiThreadedWriter, RecordWriter
from pistributer.storage.durability import Sync

from .crashing import Told, every_kill, run_killed
from .processes import Child
from .records_tools import numbered, read, write

Tell = Callable[[str, Any], None]
#: Three records fill a chunk, and every other chunk crosses a block.
RECORDS = numbered(10, 20_000)
CHUNK = 50_000


def write_and_tell(path: Path, tell: Tell, *, append: bool, sync: Sync) -> None:
    """Write RECORDS with a flush now and then; tell what begins and what a flush has returned for."""
    with RecordWriter(path, append=append, sync=sync, chunk_size=CHUNK) as writer:
        for number, record in enumerate(RECORDS):
            tell("writing", number)
            writer.write_record(record)
            if number % 4 == 3:
                writer.flush()
                tell("flushed", number)
    tell("flushed", len(RECORDS) - 1)


def check(path: Path, told: Told, before: list[bytes]) -> None:
    """What was flushed is there, in order; nothing is there that was not written; and the file goes on."""
    if not path.exists():
        assert not told.of("writing")
        return
    found = read(path)
    flushed = max(told.of("flushed"), default=-1) + 1
    begun = max(told.of("writing"), default=-1) + 1
    assert found[: len(before)] == before
    written = found[len(before) :]
    assert written == RECORDS[: len(written)]
    assert flushed <= len(written) <= begun
    with RecordWriter(path, append=True) as writer:
        writer.write_record(b"after the crash")
    assert read(path) == [*found, b"after the crash"]


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("sync", ["none", "each"])
def test_a_new_file(tmp_path: Path, sync: Sync, torn: bool) -> None:
    def prepare(at: int) -> Callable[[Tell], None]:
        return lambda tell: write_and_tell(tmp_path / str(at), tell, append=False, sync=sync)

    for at, told in every_kill(prepare, torn=torn):
        check(tmp_path / str(at), told, [])
    assert at > 6


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_appending_to_a_file_with_a_torn_tail(tmp_path: Path, torn: bool) -> None:
    before = numbered(5, 30_000)

    def prepare(at: int) -> Callable[[Tell], None]:
        path = tmp_path / str(at)
        write(path, [*before, bytes(50_000)], chunk_size=30_000)
        os.truncate(path, path.stat().st_size - 100)
        return lambda tell: write_and_tell(path, tell, append=True, sync="none")

    for at, told in every_kill(prepare, torn=torn):
        check(tmp_path / str(at), told, before)
    assert at > 8


def test_who_heals_may_die_of_it_too(tmp_path: Path) -> None:
    """A writer dies in the middle of a chunk; for each point at which the next one can die, the third finds all."""
    before: dict[Path, list[bytes]] = {}
    for first in range(3, 8):
        for torn in (False, True):

            def prepare(at: int, first: int = first, torn: bool = torn) -> Callable[[Tell], None]:
                path = tmp_path / f"{first}-{torn}-{at}"
                run_killed(lambda tell: write_and_tell(path, tell, append=False, sync="none"), first, torn=torn)
                before[path] = read(path)
                return lambda tell: write_and_tell(path, tell, append=True, sync="none")

            for at, told in every_kill(prepare, torn=True):
                path = tmp_path / f"{first}-{torn}-{at}"
                check(path, told, before[path])


def test_a_killed_writer_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "killed"

    def endless(pipe: Any) -> None:
        with RecordWriter(path) as writer:
            for number in range(10**9):
                writer.write_record(b"%d" % number)
                if number % 100 == 99:
                    writer.flush()
                    pipe.send(number)

    with Child(endless) as child:
        for _ in range(20):
            flushed = child.hear()
        child.kill(signal.SIGKILL)
    found = read(path)
    assert found == [b"%d" % number for number in range(len(found))]
    assert len(found) > flushed


def test_killed_shards_lose_nothing_that_was_flushed(tmp_path: Path) -> None:
    def endless(pipe: Any) -> None:
        writer = MultiThreadedWriter.new_with_shards(tmp_path)
        for number in range(10**9):
            writer.write_records([b"%d " % number + bytes(1000)] * 100)
            if number % 10 == 9:
                writer.flush()
                pipe.send(number)

    with Child(endless) as child:
        for _ in range(20):
            flushed = child.hear()
        child.kill(signal.SIGKILL)
    with MultiThreadedReader.new_with_shards(tmp_path) as reader:
        found = Counter(int(record[:8].split(b" ")[0]) for record in reader)
    assert all(found[number] == 100 for number in range(flushed + 1))
    with MultiThreadedWriter.new_with_shards(tmp_path) as writer:
        writer.write_record(b"after the crash")
