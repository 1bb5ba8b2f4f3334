"""Verifying, repairing, and the n-th record."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.records import RecordIndex, RecordReader, RecordWriter, layout, repair, verify

from .crashing import every_kill
from .records_tools import GOLDEN, MANIFEST, numbered, read, write
from .test_records_damage import forge

RECORDS = numbered(60, 3_000)


def damaged(path: Path) -> list[bytes]:
    """A file with one chunk of ten records damaged and another torn; what is sound in it."""
    write(path, RECORDS, flush_every=10)
    data = bytearray(path.read_bytes())
    data[80_000] ^= 1
    path.write_bytes(data[:-5])
    return RECORDS[:20] + RECORDS[30:50]


# -- verify


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: str(entry["file"]))
def test_the_originals_files_are_sound(entry: dict[str, Any]) -> None:
    report = verify(GOLDEN / entry["file"])
    assert report.ok
    assert (report.size, report.records, report.decoded_size) == (entry["bytes"], entry["records"], entry["payload"])
    assert report.records_lost == 0


def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path) -> None:
    sound = damaged(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    seen: list[tuple[int, int]] = []
    report = verify(tmp_path / "file", progress=lambda done, total: seen.append((done, total)))
    assert not report.ok
    assert (report.records, report.chunks) == (len(sound), 4)
    assert [damage.records for damage in report.damage] == [10]
    assert report.damage[0].start < 80_000 < report.damage[0].end
    assert report.torn is not None
    assert report.torn.end == len(before)
    assert report.records_lost == 20
    assert "10 records lost" in str(report.damage[0])
    assert seen == sorted(seen)
    assert (tmp_path / "file").read_bytes() == before


def test_what_is_no_record_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no records here\n" * 10)
    for call in (verify, repair):
        with pytest.raises(errors.NotARecordFile):
            call(tmp_path / "text")
        with pytest.raises(errors.RecordsMissing):
            call(tmp_path / "none")
    assert os.listdir(tmp_path) == ["text"]


# -- repair


def test_a_repaired_file_holds_what_is_sound_and_the_damaged_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for kept in ("file.damaged", "file.damaged-2"):
        sound = damaged(path)
        before = path.read_bytes()
        report = repair(path)
        assert read(path) == sound
        assert verify(path).ok
        assert (report.repaired, report.original) == (str(path), str(tmp_path / kept))
        assert (tmp_path / kept).read_bytes() == before
        assert [damage.records for damage in report.damage] == [10]
    assert sorted(os.listdir(tmp_path)) == ["file", "file.damaged", "file.damaged-2"]


def test_a_repair_into_another_file_leaves_the_first_alone(tmp_path: Path) -> None:
    sound = damaged(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    report = repair(tmp_path / "file", tmp_path / "output")
    assert report.repaired == str(tmp_path / "output")
    assert read(tmp_path / "output") == sound
    assert (tmp_path / "file").read_bytes() == before
    with pytest.raises(ValueError, match="itself"):
        repair(tmp_path / "file", tmp_path / "file")


def test_a_repaired_file_keeps_its_mode(tmp_path: Path) -> None:
    damaged(tmp_path / "file")
    (tmp_path / "file").chmod(0o640)
    repair(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_repair_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    damaged(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()

    def stop(done: int, total: int) -> None:
        if os.path.exists(tmp_path / f".file.{os.getpid()}.tmp"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(tmp_path / "file", progress=stop)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == before


def test_a_sound_file_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "file", RECORDS)
    before = os.stat(tmp_path / "file")
    assert repair(tmp_path / "file").repaired is None
    assert os.stat(tmp_path / "file").st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_in_use_is_not_repaired(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "file") as writer:
        writer.write_record(b"a")
        with pytest.raises(errors.FileInUse):
            repair(tmp_path / "file")
    assert read(tmp_path / "file") == [b"a"]


def test_another_programs_chunks_are_kept_by_a_repair(tmp_path: Path) -> None:
    path = tmp_path / "forged"
    forge(path, ord("r"), b"bsomething in brotli", 3, 100)
    assert repair(path).repaired is None
    os.truncate(path, path.stat().st_size - 1)
    report = repair(path)
    assert [damage.unsupported for damage in report.damage] == [True]
    with RecordReader(path) as reader:
        assert [place.header.records for place in reader.places()] == [1, 3]


def test_a_repair_moves_chunks_and_makes_their_block_headers_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, [b"lost", *RECORDS], chunk_size=1, flush_every=1)
    data = bytearray(path.read_bytes())
    data[64 + layout.CHUNK_HEADER] ^= 1
    path.write_bytes(data)
    repair(path)
    write(tmp_path / "again", RECORDS, chunk_size=1)
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_killed_anywhere_a_repair_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    contents: dict[int, bytes] = {}

    def prepare(at: int) -> Callable[[Any], None]:
        (tmp_path / str(at)).mkdir()
        damaged(tmp_path / str(at) / "file")
        contents[at] = (tmp_path / str(at) / "file").read_bytes()
        return lambda tell: tell("repaired", repair(tmp_path / str(at) / "file").repaired)

    for at, told in every_kill(prepare, torn=True):
        folder = tmp_path / str(at)
        found = (folder / "file").read_bytes()
        if found != contents[at]:
            assert verify(folder / "file").ok
            assert (folder / "file.damaged").read_bytes() == contents[at]
        else:
            assert not told.of("repaired")
        repair(folder / "file")
        assert read(folder / "file") == RECORDS[:20] + RECORDS[30:50]
    assert at > 8


# -- the n-th record


@pytest.mark.parametrize("name", ["flushed.disky", "flushed_zstd.disky", "large.disky", "empty.disky"])
def test_the_index_is_a_sequence(name: str) -> None:
    wanted = read(GOLDEN / name)
    with RecordIndex(GOLDEN / name) as index:
        assert len(index) == len(wanted)
        assert list(index) == wanted
        assert [index[number] for number in reversed(range(len(wanted)))] == wanted[::-1]
        assert index[3:50:7] == wanted[3:50:7]
        for number in (len(wanted), -len(wanted) - 1):
            with pytest.raises(IndexError):
                index[number]
        if wanted:
            assert index[-1] == wanted[-1]
            with RecordReader(GOLDEN / name) as reader:
                reader.seek(index.position(len(wanted) // 2))
                assert reader.next_record() == wanted[len(wanted) // 2]


def test_the_index_sees_what_was_appended_after_a_refresh(tmp_path: Path) -> None:
    write(tmp_path / "file", RECORDS[:10])
    with RecordIndex(tmp_path / "file") as index:
        assert index[9] == RECORDS[9]
        write(tmp_path / "file", RECORDS[10:20], append=True)
        assert len(index) == 10
        assert index.refresh() == 20
        assert index[19] == RECORDS[19]


def test_damage_does_not_change_the_numbers_of_other_records(tmp_path: Path) -> None:
    damaged(tmp_path / "file")
    with RecordIndex(tmp_path / "file") as index:
        assert len(index) == 50
        assert index[35] == RECORDS[35]
        with pytest.raises(errors.DamagedRecords):
            index[25]
