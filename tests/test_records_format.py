"""The bytes: hash, blocks, chunks and sizes, in C and in Python, and the files of the original."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pistributer.records import CorruptionStrategy, RecordReader, RecordWriter, chunks, hot, layout, plain, verify
from pistributer.records.walking import Walker

from .records_tools import GOLDEN, MANIFEST, digest, golden_records, read, write

ROOT = Path(__file__).parent.parent

#: HighwayHash-64 of bytes(range(n)) for n = 0, 1, … 64 under the key 0x0706…00, …: the authors' own test vectors.
VECTOR_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908, 0x1716151413121110, 0x1F1E1D1C1B1A1918)
VECTORS = [int(text, 16) for text in """
    907A56DE22C26E53 7EAB43AAC7CDDD78 B8D0569AB0B53D62 5C6BEFAB8A463D80 F205A46893007EDA 2B8A1668E4A94541 BD4CCC325BEFCA6F
    4D02AE1738F59482 E1205108E55F3171 32D2644EC77A1584 F6E10ACDB103A90B C3BBF4615B415C15 243CC2040063FA9C A89A58CE65E641FF
    24B031A348455A23 40793F86A449F33B CFAB3489F97EB832 19FE67D2C8C5C0E2 04DD90A69C565CC2 75D9518E2371C504 38AD9B1141D3DD16
    0264432CCD8A70E0 A9DB5A6288683390 D7B05492003F028C 205F615AEA59E51E EEE0C89621052884 1BFC1A93A7284F4F 512175B5B70DA91D
    F71F8976A0A2C639 AE093FEF1F84E3E7 22CA92B01161860F 9FC7007CCF035A68 A0C964D9ECD580FC 2C90F73CA03181FC 185CF84E5691EB9E
    4FC1F5EF2752AA9B F5B7391A5E0A33EB B9B84B83B4E96C9C 5E42FE712A5CD9B4 A150F2F90C3F97DC 7FA522D75E2D637D 181AD0CC0DFFD32B
    3889ED981E854028 FB4297E8C586EE2D 6D064A45BB28059C 90563609B3EC860C 7AA4FCE94097C666 1326BAC06B911E08 B926168D2B154F34
    9919848945B1948D A2A98FC534825EBE E9809095213EF0B6 582E5483707BC0E9 086E9414A88A6AF5 EE86B98D20F6743D F89B7FF609B1C0A7
    4C7D9CC19E22C3E8 9A97005024562A6F 5DD41CF423E6EBEF DF13609C0468E227 6E0DA4F64188155A B755BA4B50D7D4A1 887A3484647479BD
    AB8EEBE9BF2139A0 75542C5D4CD2A6FF
""".split()]  # fmt: skip

needs_c = pytest.mark.skipif(hot.kind == "python" and not os.environ.get("CI"), reason="the C part was not built")


@pytest.fixture(params=[pytest.param("c", marks=needs_c), "python"])
def loops(request: pytest.FixtureRequest) -> ModuleType:
    """Either version of the hot loops."""
    return hot if request.param == "c" else plain


# -- the hot loops


def test_the_hash_has_the_values_that_its_authors_publish(loops: ModuleType) -> None:
    assert [loops.hash64(bytes(range(size)), VECTOR_KEY) for size in range(65)] == VECTORS
    assert loops.hash64(bytes(range(128, 161)), (1, 2, 3, 4)) == 0x53C516CCE478CAD7
    assert loops.hash64(b"") == 0x72C3B1E9C0139FE1  # under the key of the format


@needs_c
@given(st.binary(max_size=300))
def test_both_hashes_agree(data: bytes) -> None:
    assert hot.hash64(data) == plain.hash64(data)


@needs_c
@given(st.integers(0, 2**40), st.integers(1, 400_000))
def test_both_block_headers_agree(begin: int, size: int) -> None:
    found = hot.block_headers(begin, begin + size)
    assert found == plain.block_headers(begin, begin + size)
    assert len(found) == layout.headers_between(begin, begin + size)


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_records_split_as_they_were_packed(records: list[bytes]) -> None:
    for loops in (hot, plain):
        sizes = loops.pack_sizes(records)
        assert sizes == plain.pack_sizes(records)
        assert loops.split(sizes, b"".join(records), len(records)) == records


@given(sizes=st.binary(max_size=12), values=st.binary(max_size=200), count=st.integers(-1, 2**60))
def test_both_splits_agree_on_any_bytes(sizes: bytes, values: bytes, count: int) -> None:
    assert outcome(hot, sizes, values, count) == outcome(plain, sizes, values, count)


def outcome(loops: ModuleType, sizes: bytes, values: bytes, count: int) -> Any:
    try:
        return loops.split(sizes, values, count)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("size", [b"\xff\x00", b"\xff\x80\x00", b"\x7f"], ids=["original", "longer", "shortest"])
def test_127_is_read_in_any_form(loops: ModuleType, size: bytes) -> None:
    assert loops.split(size, b"x" * 127, 1) == [b"x" * 127]


@pytest.mark.parametrize("size", [b"\x80" * 11 + b"\0", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f", b"\x80", b""])
def test_sizes_that_are_none_are_refused(loops: ModuleType, size: bytes) -> None:
    with pytest.raises(ValueError, match="size"):
        loops.split(size, b"x", 1)


def test_without_the_c_part_python_serves_and_says_so_once(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules["pistributer.records._speed"] = None
from pistributer.records import Bytes, RecordReader, RecordWriter, hot, plain
with RecordWriter({str(tmp_path / "slow")!r}) as writer:
    writer.write_records([b"a", b"", b"c" * 70_000])
with RecordReader({str(tmp_path / "slow")!r}) as reader:
    print(hot.kind, [record.to_bytes() == other for record, other in zip(reader, [b"a", b"", b"c" * 70_000])])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "python [True, True, True]\n"
    assert done.stderr.count("C part") == 1
    assert read(tmp_path / "slow") == [b"a", b"", b"c" * 70_000]


# -- layout


def test_every_file_starts_with_the_same_64_bytes() -> None:
    assert layout.SIGNATURE.hex() == (
        "83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9"
        "0000000000000000e19f13c0e9b1c37273000000000000000000000000000000"
    )


def test_a_chunk_of_records_byte_by_byte() -> None:
    packed = chunks.pack_chunk([b"abc", b""], 0, 3)
    assert (packed.header + packed.data).hex() == (
        "c1217e4c82d6cb37070000000000000092546fbbd4f0bdb0720200000000000003000000000000000002" + "0300616263"
    )


def begins() -> st.SearchStrategy[int]:
    """Offsets at which a chunk may begin: not inside a block header, nor directly behind one."""
    return st.integers(64, 2**40).filter(lambda at: at % layout.BLOCK == 0 or at % layout.BLOCK > layout.BLOCK_HEADER)


@given(begins(), st.integers(0, 300_000))
def test_a_chunk_ends_where_its_last_byte_is_laid(begin: int, size: int) -> None:
    end = layout.chunk_end(begin, size)
    headers = bytes(layout.headers_between(begin, end))
    pieces = layout.lay_out(begin, [bytes(layout.CHUNK_HEADER), bytes(size)], headers)
    assert sum(map(len, pieces)) == end - begin
    at = begin
    for piece in pieces:
        assert (at % layout.BLOCK == 0) <= (len(piece) == layout.BLOCK_HEADER)
        at += len(piece)


@given(begins(), st.integers(0, 300_000))
def test_every_block_header_leads_to_both_ends_of_its_chunk(begin: int, size: int) -> None:
    end = layout.chunk_end(begin, size)
    headers = layout.block_headers(begin, end)
    first = -(-begin // layout.BLOCK) * layout.BLOCK
    for number in range(len(headers) // layout.BLOCK_HEADER):
        header = headers[number * layout.BLOCK_HEADER :][: layout.BLOCK_HEADER]
        assert layout.parse_block_header(header, first + number * layout.BLOCK) == (begin, end)


@given(begins())
def test_padding_ends_at_a_block(begin: int) -> None:
    size = layout.padding_to_block(begin)
    assert (size is None) == (begin % layout.BLOCK == 0)
    if size is not None:
        assert layout.chunk_end(begin, size) % layout.BLOCK == 0


# -- the original's files


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: str(entry["file"]))
def test_the_originals_files_read_back(entry: dict[str, Any]) -> None:
    wanted = golden_records(entry)
    assert digest(wanted) == entry["sha256_of_lengths_and_records"]
    assert read(GOLDEN / entry["file"]) == wanted
    assert RecordReader.count_records(GOLDEN / entry["file"]) == entry["records"]


@pytest.mark.parametrize("name", ["small.disky", "small_zstd.disky"])
def test_the_originals_small_files_read_back(name: str) -> None:
    assert read(GOLDEN / name) == [b"record %d" % number for number in range(100)] + [b"", bytes(range(256)) * 300]


def test_the_originals_empty_file_is_ours(tmp_path: Path) -> None:
    assert read(GOLDEN / "empty.disky") == []
    write(tmp_path / "empty", [])
    assert (tmp_path / "empty").read_bytes() == (GOLDEN / "empty.disky").read_bytes()


def originals_pack_sizes(records: list[bytes]) -> bytes:
    """As the original writes them, which takes one byte more for 127 than it needs."""
    packed = bytearray()
    for record in records:
        size = len(record)
        while size >= 0x7F:
            packed.append(size & 0x7F | 0x80)
            size >>= 7
        packed.append(size)
    return bytes(packed)


@pytest.mark.parametrize("in_batches", [False, True], ids=["one-by-one", "in-batches"])
@pytest.mark.parametrize("entry", [e for e in MANIFEST if not e["compression"]], ids=lambda entry: str(entry["file"]))
def test_uncompressed_files_come_out_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], in_batches: bool
) -> None:
    monkeypatch.setattr(chunks, "pack_sizes", originals_pack_sizes)
    monkeypatch.setattr(chunks, "pack_varint", lambda value: originals_pack_sizes([bytes(value)]))
    records, step = golden_records(entry), entry["flush_every"] or entry["count"]
    if not in_batches:
        write(tmp_path / "again", records, flush_every=entry["flush_every"])
    else:
        with RecordWriter(tmp_path / "again") as writer:
            for start in range(0, len(records), step):
                assert writer.write_records(iter(records[start : start + step])) == len(records[start : start + step])
                writer.flush()
    assert (tmp_path / "again").read_bytes() == (GOLDEN / entry["file"]).read_bytes()


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_batches_and_single_records_make_the_same_file(tmp_path: Path, compression: str | None) -> None:
    dice = random.Random(4)
    records = [dice.randbytes(dice.choice([0, 10, 1000, 50_000, 1_200_000])) for _ in range(60)]
    write(tmp_path / "one", records, compression=compression)
    with RecordWriter(tmp_path / "batch", compression) as writer:
        writer.write_records(records[:7])
        writer.write_records(records[7:])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "batch").read_bytes()
    assert read(tmp_path / "batch") == records


def test_the_flush_pattern_that_the_original_can_not_read(tmp_path: Path) -> None:
    """A small flushed chunk, then one in the same block that crosses two boundaries."""
    records = [b"a", b"b", b"c", *[bytes([number]) * 10_000 for number in range(30)]]
    with RecordWriter(tmp_path / "sound") as writer:
        writer.write_records(records[:3])
        writer.flush()
        writer.write_records(records[3:])
    assert read(tmp_path / "sound") == records


# -- Riegeli's own files


def riegelis_records() -> list[bytes]:
    records = [(b"record %08d " % number * (1 + number * 7 % 41))[: number * 37 % 700] for number in range(300)]
    return [*records, b"x" * 127, b"long " * 30_000]


@pytest.mark.parametrize("name", ["uncompressed", "zstd"])
def test_riegelis_files_read_back_and_nothing_in_them_looks_damaged(name: str) -> None:
    path = GOLDEN.parent / "riegeli" / f"{name}.array_record"
    assert read(path)[:302] == riegelis_records()
    assert verify(path).ok


def test_riegelis_chunks_are_laid_out_as_ours(tmp_path: Path) -> None:
    """Header, data and block headers of each chunk, written again where they were, are the same bytes."""
    content = (GOLDEN.parent / "riegeli" / "uncompressed.array_record").read_bytes()
    path = tmp_path / "file"
    path.write_bytes(content)
    again = b""
    with open(path, "rb") as file:
        walker = Walker(file.fileno(), str(path), CorruptionStrategy.ERROR)
        walker.check_signature()
        while (place := walker.place()) is not None:
            data = walker.data(place)
            assert data is not None
            header = layout.pack_header(place.header.kind, data, place.header.records, place.header.decoded_size)
            again += b"".join(layout.lay_out_chunk(len(again), header, data))
    assert again == content
    assert len(content) // layout.BLOCK > 4


def test_riegelis_records_are_packed_as_ours(tmp_path: Path) -> None:
    """The first chunk of its file, from the records, byte for byte."""
    content = (GOLDEN.parent / "riegeli" / "uncompressed.array_record").read_bytes()
    packed = chunks.pack_chunk(riegelis_records()[:7], 0, 3)
    assert content[64:].startswith(packed.header + packed.data)
