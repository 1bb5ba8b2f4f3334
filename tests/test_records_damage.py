"""Damaged and cut files: never a wrong record, little lost, everything reported."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pistributer import errors
from pistributer.records import CorruptionStrategy, MultiThreadedReader, RecordReader, RecordWriter, hot, layout
from pistributer.records.damage import Damage
from pistributer.records.walking import Walker

from .records_tools import read, write

RECOVER = CorruptionStrategy.RECOVER
#: `RECORDS_SWEEP=1 pytest -o faulthandler_timeout=0 -o timeout=0 tests/test_records_damage.py` flips every byte of 200 KB and
#: cuts at each: minutes. (The dump of a slow test's stack, taken while it runs on, has crashed it.)
FULL_SWEEP = os.environ.get("RECORDS_SWEEP") == "1"


class Sound:
    """A file of 200 KB with chunks of all sizes, and what stands where in it."""

    def __init__(self, path: Path) -> None:
        dice = random.Random(7)
        self.path = path
        self.chunks = [self._chunk(dice, number) for number in range(24)]
        with RecordWriter(path) as writer:
            for records in self.chunks:
                writer.write_records(records)
                writer.flush()
        self.data = path.read_bytes()
        self.places = list(places(path))[1:]  # without the signature
        assert len(self.places) == len(self.chunks)
        assert 190_000 < len(self.data) < 260_000

    @staticmethod
    def _chunk(dice: random.Random, number: int) -> list[bytes]:
        size = dice.choice([5, 100, 1_000, 7_000]) if number else 35_000
        return [b"%d/%d " % (number, index) + dice.randbytes(size) for index in range(dice.randint(1, 4))]

    def records(self) -> list[bytes]:
        return [record for chunk in self.chunks for record in chunk]


def places(path: Path) -> Iterator[tuple[int, int]]:
    """Begin and end of each chunk."""
    with open(path, "rb") as file:
        walker = Walker(file.fileno(), str(path), CorruptionStrategy.ERROR)
        walker.check_signature()
        while (place := walker.place()) is not None:
            walker.pass_by(place)
            yield place.begin, place.end


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return Sound(tmp_path_factory.mktemp("sound") / "file")


def lost_to(sound: Sound, path: Path) -> tuple[list[int], list[Damage], Damage | None]:
    """Numbers of the chunks that a recovering reader of `path` does not find; AssertionError for a wrong record."""
    with RecordReader(path, RECOVER) as reader:
        found = [record.to_bytes() for record in reader]
    left = iter(found)
    lost = []
    following = next(left, None)
    for number, chunk in enumerate(sound.chunks):
        if following != chunk[0]:
            lost.append(number)
            continue
        for record in chunk:
            assert following == record
            following = next(left, None)
    assert following is None, "a record that was never written, or one out of order"
    return lost, reader.damage, reader.torn


def flips(sound: Sound) -> Iterator[int]:
    """Every byte that is part of a header, and some of every kind of data; all of them in the full sweep."""
    if FULL_SWEEP:
        yield from range(len(sound.data))
        return
    yield from range(64)
    for begin, end in sound.places:
        yield from range(begin, min(end, begin + layout.CHUNK_HEADER + layout.BLOCK_HEADER + 4), 3)
        yield end - 1
    for block in range(layout.BLOCK, len(sound.data), layout.BLOCK):
        yield from range(block - 2, block + layout.BLOCK_HEADER + 2)
    yield from range(0, len(sound.data), 997)


def test_a_flipped_bit_costs_at_most_a_chunk_or_a_block_and_is_reported(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    path.write_bytes(sound.data)
    with open(path, "r+b", buffering=0) as file:
        for at in flips(sound):
            os.pwrite(file.fileno(), bytes([sound.data[at] ^ 1 << at % 8]), at)
            lost, damage, torn = lost_to(sound, path)
            os.pwrite(file.fileno(), sound.data[at : at + 1], at)
            assert damage or torn, f"byte {at} is flipped and nobody says so"
            assert within_a_chunk_or_a_block(sound, lost, at), (at, lost)
            assert any(one.start <= at < one.end for one in [*damage, *([torn] if torn else [])]), at
            assert all(one.records == 0 for one in damage) or lost


def within_a_chunk_or_a_block(sound: Sound, lost: list[int], at: int) -> bool:
    """One chunk, or chunks that begin between the flipped byte's chunk and the next block."""
    if len(lost) <= 1:
        return True
    begins = [sound.places[number][0] for number in lost]
    return len({begin // layout.BLOCK for begin in begins}) == 1 and lost == list(range(lost[0], lost[-1] + 1))


def test_a_strict_reader_returns_what_stands_before_the_damage_and_then_says_where(
    sound: Sound, tmp_path: Path
) -> None:
    path = tmp_path / "flipped"
    begin, end = sound.places[10]
    data = bytearray(sound.data)
    data[end - 1] ^= 4
    path.write_bytes(data)
    before = sum(map(len, sound.chunks[:10]))
    with RecordReader(path) as reader:
        for record in sound.records()[:before]:
            assert reader.next_record() == record
        for _ in range(2):
            with pytest.raises(errors.DamagedRecords, match=f"bytes {begin:,} to {end:,}") as caught:
                reader.next_record()
        assert (caught.value.start, caught.value.end, caught.value.records) == (begin, end, len(sound.chunks[10]))
        assert caught.value.hint is not None
        reader.seek(end)
        assert reader.next_record() == sound.chunks[11][0]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_batch_returns_what_stands_before_the_damage(tmp_path: Path, sharded: bool) -> None:
    write(tmp_path / "shard_0", [b"%d" % number for number in range(9)], flush_every=3)
    data = bytearray((tmp_path / "shard_0").read_bytes())
    data[-1] ^= 1
    (tmp_path / "shard_0").write_bytes(data)
    with MultiThreadedReader.new_with_shards(tmp_path) if sharded else RecordReader(tmp_path / "shard_0") as reader:
        assert reader.read_batch(8) == [b"%d" % number for number in range(6)]
        with pytest.raises(errors.DamagedRecords):
            reader.read_batch(8)


def cuts(sound: Sound) -> Iterator[int]:
    if FULL_SWEEP:
        yield from range(len(sound.data))
        return
    yield from range(130)
    for begin, end in sound.places:
        yield from (begin + 1, begin + 24, begin + 39, begin + 40, end - 1, end)
    for block in range(layout.BLOCK, len(sound.data), layout.BLOCK):
        yield from range(block - 2, block + layout.BLOCK_HEADER + 2)


@pytest.mark.parametrize("strategy", CorruptionStrategy)
def test_a_cut_file_returns_every_chunk_that_is_all_there(
    sound: Sound, tmp_path: Path, strategy: CorruptionStrategy
) -> None:
    path = tmp_path / "cut"
    path.write_bytes(sound.data)
    for at in sorted(cuts(sound), reverse=True):
        os.truncate(path, at)
        whole = [number for number, (_, end) in enumerate(sound.places) if end <= at]
        with RecordReader(path, strategy) as reader:
            assert list(reader) == [record for number in whole for record in sound.chunks[number]]
            assert reader.next_record() is None
            ended_well = at == 0 or at in (64, *(end for _, end in sound.places))
            assert (reader.torn is None) == ended_well, at
            assert not reader.damage


def test_a_cut_file_is_healed_and_appended_to(sound: Sound, tmp_path: Path) -> None:
    for number, at in enumerate(sorted(set(cuts(sound)))):
        path = tmp_path / str(number)
        path.write_bytes(sound.data[:at])
        with RecordWriter(path, append=True) as writer:
            writer.write_record(b"more")
        whole = [number for number, (_, end) in enumerate(sound.places) if end <= at]
        wanted = [record for number in whole for record in sound.chunks[number]]
        assert read(path) == [*wanted, b"more"], at
        end = max([64 * (at >= 64), *(sound.places[number][1] for number in whole)])
        kept = path.with_name(f"{path.name}.torn-{end}")
        assert (writer.healed is None) == (end == at)
        assert kept.exists() == (0 < end < at)
        if kept.exists():
            assert kept.read_bytes() == sound.data[end:at]
            kept.unlink()
        path.unlink()


def test_a_tail_of_nul_after_a_power_cut_costs_what_stood_there(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "nul"
    begin = sound.places[20][0]
    path.write_bytes(sound.data[:begin].ljust(len(sound.data), b"\0"))
    wanted = [record for chunk in sound.chunks[:20] for record in chunk]
    assert read(path, corruption_strategy=RECOVER) == wanted
    with RecordWriter(path, append=True) as writer:
        writer.write_record(b"more")
    assert read(path) == [*wanted, b"more"]


def test_damage_in_the_middle_does_not_stop_an_append(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    data = bytearray(sound.data)
    data[sound.places[5][0] + 3] ^= 1
    data[layout.BLOCK + 5] ^= 1
    path.write_bytes(data)
    with RecordWriter(path, append=True) as writer:
        writer.write_record(b"more")
    assert writer.healed is None
    assert read(path, corruption_strategy=RECOVER)[-1] == b"more"


@settings(max_examples=60)
@given(data=st.data())
def test_any_overwritten_bytes_never_make_a_wrong_record(sound: Sound, data: st.DataObject) -> None:
    path = sound.path.with_name("scribbled")
    changed = bytearray(sound.data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=200))
        changed[at : at + len(junk)] = junk[: len(changed) - at]
    path.write_bytes(changed[: data.draw(st.integers(64, len(changed)))])
    try:
        lost_to(sound, path)
    except errors.NotARecordFile:
        assert changed[:64] != sound.data[:64]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b'{"a": 1}\n' * 20_000, b"\0" * 70_000, b"x" * 64])
@pytest.mark.parametrize("strategy", CorruptionStrategy)
def test_another_programs_file_is_refused(tmp_path: Path, content: bytes, strategy: CorruptionStrategy) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(errors.NotARecordFile, match="other"):
        RecordReader(tmp_path / "other", strategy)
    with pytest.raises(errors.NotARecordFile):
        RecordWriter(tmp_path / "other", append=True)
    assert (tmp_path / "other").read_bytes() == content


def forge(path: Path, kind: int, data: bytes, records: int, decoded: int) -> None:
    """A sound file, but for what its second chunk of three says."""
    write(path, [b"before"])
    with open(path, "ab") as file:
        for header, body in (
            (layout.pack_header(kind, data, records, decoded), data),
            (layout.pack_header(layout.RECORDS, b"\0\x01\x05after", 1, 5), b"\0\x01\x05after"),
        ):
            file.writelines(layout.lay_out_chunk(file.tell(), header, body))


FORGED = {
    "transposed": (ord("t"), b"\0anything", 3, 9, errors.UnsupportedChunk),
    "brotli": (ord("r"), b"banything", 3, 9, errors.UnsupportedChunk),
    "unknown-compression": (ord("r"), b"?anything", 3, 9, errors.UnsupportedChunk),
    "no-data": (ord("r"), b"", 3, 9, errors.DamagedRecords),
    "sizes-too-long": (ord("r"), b"\0\x09\x01", 1, 1, errors.DamagedRecords),
    "values-too-short": (ord("r"), b"\0\x01\x05abc", 1, 5, errors.DamagedRecords),
    "too-many-records": (ord("r"), b"\0\x01\x03abc", 2**50, 3, errors.DamagedRecords),
    "huge": (ord("r"), b"\0\x01\x03abc", 1, 2**62, errors.UnsupportedChunk),
    "riegelis-sizes-too-long": (ord("r"), b"z\x09\xff\xff\xff\x7f(\xb5/\xfd\x00\x03abc", 1, 3, errors.DamagedRecords),
    "not-zstd": (ord("r"), b"z\x01\x03abc", 1, 3, errors.DamagedRecords),
}


@pytest.mark.parametrize(("kind", "data", "records", "decoded", "error"), FORGED.values(), ids=FORGED)
def test_a_chunk_that_lies_about_itself_is_refused_or_passed(
    tmp_path: Path, kind: int, data: bytes, records: int, decoded: int, error: type[errors.RecordError]
) -> None:
    forge(tmp_path / "forged", kind, data, records, decoded)
    with RecordReader(tmp_path / "forged") as reader:
        assert reader.next_record() == b"before"
        for _ in range(2):
            with pytest.raises(error) as caught:
                reader.next_record()
        assert caught.value.records == records
    with RecordReader(tmp_path / "forged", RECOVER) as reader:
        assert list(reader) == [b"before", b"after"]
        assert [damage.records for damage in reader.damage] == [records]


def test_a_huge_chunk_of_a_sparse_file_asks_for_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    write(path, [b"before"])
    body = struct.pack("<4Q", 2**40, 0, layout.RECORDS | 5 << 8, 2**40)
    with open(path, "ab") as file:
        file.write(hot.hash64(body).to_bytes(8, "little") + body)
    os.truncate(path, 2**41)
    with RecordReader(path) as reader:
        assert reader.next_record() == b"before"
        with pytest.raises(errors.UnsupportedChunk, match="1,099,511,627,776 bytes"):
            reader.next_record()


def test_a_zstd_chunk_can_not_be_a_bomb(tmp_path: Path) -> None:
    from pistributer.records.compression import compress

    bomb = b"z\x01\x03" + compress(bytes(1 << 26), 1)
    forge(tmp_path / "bomb", ord("r"), bomb, 1, 3)
    with RecordReader(tmp_path / "bomb") as reader, pytest.raises(errors.DamagedRecords, match="as long as"):
        list(reader)


@pytest.mark.parametrize("kind", [ord("p"), ord("m")], ids=["padding", "metadata"])
def test_chunks_without_records_are_passed_over(tmp_path: Path, kind: int) -> None:
    forge(tmp_path / "padded", kind, b"\0" * 100, 0, 0)
    assert read(tmp_path / "padded") == [b"before", b"after"]
