"""RecordWriter, RecordReader and Bytes: what they promise, and what they refuse."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pistributer
from pistributer import errors
from pistributer.records import (
    Bytes,
    CorruptionStrategy,
    RecordPosition,
    RecordReader,
    RecordWriter,
    compression,
    hot,
    plain,
)
from pistributer.storage import appending, durability

from .processes import run
from .records_tools import GOLDEN, numbered, read, write

KINDS = pytest.mark.parametrize("kind", [hot.Bytes, plain.Bytes], ids=["view", "copy"])

# -- Bytes


@KINDS
@given(content=st.binary(max_size=40), other=st.binary(max_size=40))
def test_bytes_behave_as_bytes(kind: type[Bytes], content: bytes, other: bytes) -> None:
    record = kind(content)
    assert record.to_bytes() == bytes(record) == content
    assert type(record.to_bytes()) is bytes
    assert record == content
    assert content == record
    assert hash(record) == hash(content)
    assert {record: 1}[content] == 1  # type: ignore[index]
    assert (record == other, record != other) == (content == other, content != other)
    assert (record < other, record <= other, record > other, record >= other) == (
        content < other, content <= other, content > other, content >= other,
    )  # fmt: skip
    assert record == kind(content)
    assert record == bytearray(content)
    assert list(record) == list(content)
    assert (other in record) == (other in content)
    assert record + other == content + other
    assert other + record == other + content
    assert bool(record) == bool(content)
    assert len(record) == len(content)
    assert record[1:-1] == content[1:-1]
    assert record[::-2] == content[::-2]
    assert b"".join([record, record]) == content * 2
    assert bytes(memoryview(record)) == content
    assert pickle.loads(pickle.dumps(record)) == content


@KINDS
@pytest.mark.parametrize(
    "name", "isalnum isalpha isascii isdigit islower isspace isupper lower upper strip split hex title decode".split()
)
def test_bytes_have_the_methods_of_bytes(kind: type[Bytes], name: str) -> None:
    for content in (b"", b"Ab 1", b"abc", b"ABC", b"12", b"  "):
        assert getattr(kind(content), name)() == getattr(content, name)()
    assert name in dir(kind(b""))


@KINDS
def test_bytes_take_arguments_refuse_nonsense_and_show_themselves(kind: type[Bytes]) -> None:
    record = kind(b"prefix-body-suffix")
    assert record.removeprefix(b"prefix-").removesuffix(b"-suffix") == b"body"
    assert record.startswith((b"x", b"prefix"))
    assert record[0] == ord("p")
    assert record[-1] == ord("x")
    assert repr(kind(b"a")) == "Bytes(b'a')"
    assert record != "prefix-body-suffix"
    assert record != 3
    with pytest.raises(IndexError):
        record[18]
    with pytest.raises(TypeError):
        record["a"]  # type: ignore[index]
    with pytest.raises(TypeError):
        kind("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        assert record < 3  # type: ignore[operator]
    with pytest.raises(AttributeError):
        record.no_such_method()  # type: ignore[attr-defined]
    with pytest.raises((AttributeError, TypeError)):
        record.anything = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        memoryview(record)[0] = 1


@pytest.mark.skipif(hot.kind == "python", reason="without the C part records are copies")
def test_records_are_views_that_outlive_their_reader(tmp_path: Path) -> None:
    records = numbered(50, 1000)
    write(tmp_path / "file", records)
    with RecordReader(tmp_path / "file") as reader:
        batch = reader.read_batch()
    kept = batch[7][16:32]
    del batch
    gc.collect()
    assert kept == records[7][16:32]
    assert isinstance(kept, Bytes)
    assert isinstance(memoryview(kept).obj, Bytes)


def test_records_of_one_file_are_written_to_another(tmp_path: Path) -> None:
    records = numbered(50, 1000)
    write(tmp_path / "one", records)
    with RecordReader(tmp_path / "one") as reader, RecordWriter(tmp_path / "two") as writer:
        writer.write_records(reader)
        writer.write_record(Bytes(b"one more"))
    assert read(tmp_path / "two") == [*records, b"one more"]


# -- writing


def test_the_quick_start_works(tmp_path: Path) -> None:
    path = str(tmp_path / "output.disky")
    writer = RecordWriter(path)
    try:
        writer.write_record(b"Record 1")
        writer.write_record(b"Record 2")
        writer.flush()
    finally:
        writer.close()
    reader = RecordReader(path)
    try:
        while (record := reader.next_record()) is not None:
            assert record.to_bytes().decode("utf-8").startswith("Record")
    finally:
        reader.close()
    assert reader.closed


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a.b.c")[::2], Bytes(b"abc")])
def test_any_buffer_is_a_record(tmp_path: Path, data: Any) -> None:
    with RecordWriter(tmp_path / "file") as writer:
        writer.write_record(data)
        writer.write_records([data, b"abc"])
        if isinstance(data, bytearray):
            data[:] = b"xyz"  # it was taken as it was
    assert read(tmp_path / "file") == [b"abc"] * 3


@pytest.mark.parametrize("data", ["text", 5, None, [1]], ids=repr)
def test_what_is_no_buffer_is_refused(tmp_path: Path, data: Any) -> None:
    with RecordWriter(tmp_path / "file") as writer:
        with pytest.raises(TypeError, match=type(data).__name__) as caught:
            writer.write_record(data)
        assert isinstance(caught.value, errors.RecordTypeError)
        with pytest.raises(errors.RecordTypeError):
            writer.write_records([b"a", data])
    assert read(tmp_path / "file") == []


def test_a_record_over_the_limit_is_refused_before_anything_of_it_is_written(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "file", max_record_bytes=10) as writer:
        writer.write_record(b"0123456789")
        with pytest.raises(errors.RecordTooLarge, match="11 bytes") as caught:
            writer.write_record(b"0123456789a")
        assert (caught.value.size, caught.value.limit) == (11, 10)  # type: ignore[attr-defined]
        with pytest.raises(errors.RecordTooLarge) as caught:
            writer.write_records([b"more", b"0123456789a"])
        assert caught.value.stored == 0  # type: ignore[attr-defined]
    assert read(tmp_path / "file") == [b"0123456789"]


@pytest.mark.parametrize("call", ["flush", "sync", "write_record", "write_records"])
def test_a_closed_writer_says_so(tmp_path: Path, call: str) -> None:
    writer = RecordWriter(tmp_path / "file")
    writer.close()
    writer.close()
    assert writer.closed
    arguments = {"write_record": [b"late"], "write_records": [[b"late"]]}.get(call, [])
    with pytest.raises(ValueError, match="closed"):
        getattr(writer, call)(*arguments)
    assert read(tmp_path / "file") == []


def test_a_writer_that_is_forgotten_writes_all_and_warns(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "file")
    writer.write_record(b"a")
    with pytest.warns(ResourceWarning, match="was not closed"):
        del writer
    assert read(tmp_path / "file") == [b"a"]


def test_a_file_is_emptied_unless_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, [b"a"])
    write(path, [b"b"])
    write(path, [b"c"], append=True)
    write(path, [], append=True)
    write(path, [b"d"], append=True, compression="zstd")
    assert read(path) == [b"b", b"c", b"d"]


def test_padding_begins_an_append_at_a_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    wanted = []
    for number in range(4):
        wanted += numbered(number + 1, 30_000)
        write(path, wanted[-number - 1 :], append=True, pad_to_block=True)
    assert read(path) == wanted
    with RecordReader(path) as reader:
        begins = set()
        while reader.next_record() is not None:
            begins.add(reader.tell().chunk if reader.tell().record else None)
    assert {begin % 65536 for begin in begins if begin} == {0}


def test_one_writer_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with RecordWriter(path) as writer:
        writer.write_record(b"mine")
        for append in (False, True):
            with pytest.raises(errors.FileInUse, match="open for writing"):
                RecordWriter(path, append=append)
            run(another_writer_is_refused, path)
    assert read(path) == [b"mine"]
    write(path, [b"again"], append=True)


def another_writer_is_refused(pipe: Any, path: Path) -> None:
    with pytest.raises(errors.FileInUse):
        RecordWriter(path)


def test_a_forked_child_has_no_part_in_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with RecordWriter(path, sync="group") as writer:
        writer.write_record(b"the parent's")

        def child(pipe: Any) -> bool:
            with pytest.raises(errors.RecordsClosed):
                writer.write_record(b"the child's")
            writer.close()
            return writer.closed

        assert run(child)
        writer.write_record(b"more")
    assert read(path) == [b"the parent's", b"more"]


def test_threads_may_share_a_writer(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "file", chunk_size=500) as writer:

        def work(name: int) -> None:
            for number in range(300):
                writer.write_record(b"%d %d" % (name, number))
            writer.write_records([b"%d %d" % (name, number) for number in range(300, 600)])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = read(tmp_path / "file")
    for name in range(4):
        mine = [record for record in found if record.startswith(b"%d " % name)]
        assert mine == [b"%d %d" % (name, number) for number in range(600)]


@pytest.mark.parametrize("compression", ["gzip", "ZSTD", ""])
def test_an_unknown_compression_is_refused(tmp_path: Path, compression: str) -> None:
    with pytest.raises(errors.UnknownCompression, match="no compression"):
        RecordWriter(tmp_path / "file", compression)
    assert not (tmp_path / "file").exists()


def test_without_the_package_zstd_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", [b"a"], compression="zstd")
    compression.zstd.cache_clear()
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    try:
        for call in (lambda: RecordWriter(tmp_path / "new", "zstd"), lambda: read(tmp_path / "file")):
            with pytest.raises(errors.PackageMissing, match="zstd") as caught:
                call()
            assert "pistributer[zstd]" in (caught.value.hint or "")
    finally:
        compression.zstd.cache_clear()
    assert not (tmp_path / "new").exists()


def test_levels_of_compression(tmp_path: Path) -> None:
    records = [b"%d the same words again and again %d" % (number, number * 7919) for number in range(20_000)]
    sizes = []
    for level in (1, 19):
        write(tmp_path / "file", records, compression="zstd", compression_level=level)
        assert read(tmp_path / "file") == records
        sizes.append((tmp_path / "file").stat().st_size)
    assert sizes[1] < sizes[0] < sum(map(len, records)) / 4
    with pytest.raises(ValueError, match="level"):
        RecordWriter(tmp_path / "file", "zstd", compression_level=99)


# -- durability and full disks


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    calls: list[Any] = []
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: (calls.append(args), real(*args))[1])
    return calls


def test_each_syncs_before_a_flush_returns_and_none_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = count_calls(monkeypatch, appending, "sync_file")
    with RecordWriter(tmp_path / "none") as writer:
        writer.write_record(b"a")
        writer.flush()
        assert not synced
        writer.sync()
        assert len(synced) == 1
    with RecordWriter(tmp_path / "each", sync="each") as writer:
        before = len(synced)
        writer.write_record(b"a")
        writer.flush()
        assert len(synced) == before + 1


def test_group_syncs_soon_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    real = durability.sync_file
    monkeypatch.setattr(durability, "sync_file", lambda *args: (real(*args), synced.set()))
    with RecordWriter(tmp_path / "group", sync="group") as writer:
        writer.write_record(b"a")
        writer.flush()
        assert synced.wait(10)


def test_after_a_failed_sync_the_writer_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, path: str) -> None:
        raise errors.SyncFailed("no", path=path)

    writer = RecordWriter(tmp_path / "file")
    writer.write_record(b"a")
    monkeypatch.setattr(appending, "sync_file", fail)
    with pytest.raises(errors.SyncFailed):
        writer.sync()
    with pytest.raises(errors.RecordsClosed):
        writer.write_record(b"b")
    assert writer.closed


def on_a_small_disk(work: Callable[[], None], limit: int) -> None:
    """Run `work` in a child whose files can not grow beyond `limit` bytes."""

    def child(pipe: Any) -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        work()

    run(child)


def more_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    records = numbered(30, 10_000)

    def work() -> None:
        writer = RecordWriter(path, chunk_size=40_000)
        taken = 0
        with pytest.raises(errors.DiskFull) as caught:
            for record in records:
                writer.write_record(record)
                taken += 1
        assert caught.value.errno == errno.EFBIG
        assert read(path) == records[: taken // 4 * 4]  # the file ends in a whole chunk
        assert taken % 4 == 3
        with pytest.raises(errors.DiskFull):
            writer.flush()
        more_room()
        writer.flush()
        assert read(path) == records[:taken]
        writer.write_records(records[taken:])
        writer.close()

    on_a_small_disk(work, 100_000)
    assert read(path) == records


def test_a_full_disk_under_a_batch_says_how_many_were_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    records = numbered(30, 10_000)

    def work() -> None:
        with RecordWriter(path, chunk_size=40_000) as writer:
            writer.write_records(records[:3])
            with pytest.raises(errors.DiskFull) as caught:
                writer.write_records(records[3:])
            taken = 3 + caught.value.stored
            more_room()
            writer.write_records(records[taken:])

    on_a_small_disk(work, 100_000)
    assert read(path) == records


def test_close_on_a_full_disk_says_what_was_lost(tmp_path: Path) -> None:
    def work() -> None:
        writer = RecordWriter(tmp_path / "file")
        writer.write_records([bytes(10_000)] * 3)
        with pytest.raises(errors.DiskFull) as caught:
            writer.close()
        assert caught.value.lost == 3  # type: ignore[attr-defined]
        assert writer.closed
        writer.close()

    on_a_small_disk(work, 5_000)
    assert read(tmp_path / "file") == []


def test_a_missing_folder_and_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(errors.FolderMissing):
        RecordWriter(tmp_path / "no" / "file")
    with pytest.raises(errors.StorageError):
        RecordWriter(tmp_path)


# -- reading


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file") as caught:
        RecordReader(tmp_path / "none")
    assert isinstance(caught.value, errors.RecordsMissing)
    with pytest.raises(errors.NotARecordFile, match="is a folder"):
        RecordReader(tmp_path)


def test_every_error_is_an_os_error_as_the_originals_were(tmp_path: Path) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RecordError)]
    assert len(kinds) > 8
    for kind in kinds:
        again = pickle.loads(pickle.dumps(kind("what", hint="do", path="where", errno=5)))
        assert isinstance(again, OSError)
        assert (again.hint, again.path, again.errno, str(again)) == ("do", "where", 5, "what (do)")


def test_the_end_is_none_again_and_again(tmp_path: Path) -> None:
    write(tmp_path / "file", [b"a", b""])
    with RecordReader(tmp_path / "file") as reader:
        assert reader.next_record() == b"a"
        assert reader.next_record() == b""
        assert [reader.next_record() for _ in range(3)] == [None] * 3
        assert list(reader) == []


def test_a_reader_goes_on_when_its_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with RecordWriter(path) as writer, RecordReader(path) as reader:
        assert reader.next_record() is None
        for number in range(5):
            writer.write_record(b"%d" % number * 40_000)
            assert reader.next_record() is None
            writer.flush()
            assert reader.next_record() == b"%d" % number * 40_000
            assert reader.torn is None


def test_a_closed_reader_says_so(tmp_path: Path) -> None:
    write(tmp_path / "file", numbered(5, 10))
    reader = RecordReader(tmp_path / "file")
    first = reader.next_record()
    reader.close()
    reader.close()
    for call in (reader.next_record, reader.read_batch, lambda: list(reader), lambda: reader.skip(1)):
        with pytest.raises(errors.RecordsClosed):
            call()
    assert first == numbered(1, 10)[0]


@pytest.mark.parametrize("limit", [None, 1, 7, 1000])
def test_batches_are_the_records_in_order(limit: int | None) -> None:
    wanted = read(GOLDEN / "flushed.disky")
    with RecordReader(GOLDEN / "flushed.disky") as reader:
        batches = list(iter(lambda: reader.read_batch(limit), []))
    assert [record for batch in batches for record in batch] == wanted
    if limit is not None:
        assert all(len(batch) == limit for batch in batches[:-1])
    else:
        assert {len(batch) for batch in batches[:-1]} == {7}
    with RecordReader(GOLDEN / "flushed.disky") as reader, pytest.raises(ValueError, match="at least one"):
        reader.read_batch(0)


def test_every_way_of_reading_shares_one_position() -> None:
    wanted = read(GOLDEN / "flushed.disky")
    with RecordReader(GOLDEN / "flushed.disky") as reader:
        found = [reader.next_record(), *reader.read_batch(3), next(iter(reader)), *reader.read_batch()]
        assert reader.skip(10) == 10
        assert found == wanted[: len(found)]
        assert reader.next_record() == wanted[len(found) + 10]


def test_every_position_leads_back_to_its_record() -> None:
    wanted = read(GOLDEN / "flushed.disky")
    positions: list[RecordPosition] = []
    with RecordReader(GOLDEN / "flushed.disky") as reader:
        for record in wanted:
            positions.append(reader.tell())
            assert reader.next_record() == record
        end = reader.tell()
        for number in (150, 0, 199, 7, 8, 6):
            reader.seek(positions[number])
            assert reader.next_record() == wanted[number]
        reader.seek(end)
        assert reader.next_record() is None
        reader.seek(0)
        assert reader.next_record() == wanted[0]
        reader.seek(1234)
        with pytest.raises(errors.DamagedRecords):
            reader.next_record()
        with pytest.raises(ValueError, match="no record"):
            reader.seek(-1)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 100, 199, 200, 300])
def test_skipping_passes_over_as_many_as_there_are(count: int) -> None:
    wanted = read(GOLDEN / "flushed.disky")
    with RecordReader(GOLDEN / "flushed.disky") as reader:
        reader.next_record()
        assert reader.skip(count) == min(count, 199)
        assert reader.next_record() == (wanted[1 + count] if count < 199 else None)


def test_counting_in_recovery_counts_what_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, numbered(10, 100), flush_every=5)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert RecordReader.count_records(path) == 10
    assert RecordReader.count_records(path, CorruptionStrategy.RECOVER) == 5


def test_a_limit_for_chunks_refuses_before_memory_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "file", [bytes(100_000)], compression="zstd")
    with RecordReader(tmp_path / "file", max_chunk_bytes=50_000) as reader, pytest.raises(errors.UnsupportedChunk):
        reader.next_record()


def test_objects_show_their_path_and_state(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "file")
    assert repr(writer) == f"<RecordWriter {str(tmp_path / 'file')!r}>"
    writer.close()
    assert repr(writer).endswith(" closed>")
    assert os.fspath(tmp_path / "file") == writer.path


def test_the_names_are_public() -> None:
    for name in ("RecordWriter", "RecordReader", "Bytes", "CorruptionStrategy"):
        assert getattr(pistributer, name) is getattr(pistributer.records, name)


@given(st.lists(st.binary(max_size=3000), max_size=40), st.integers(1, 5000), st.booleans(), st.data())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], chunk: int, zstd: bool, data: st.DataObject
) -> None:
    """Any records, in any mixture of calls, over any chunk size."""
    path = tmp_path_factory.getbasetemp() / "model"
    path.unlink(missing_ok=True)
    left = records
    while left or not path.exists():
        with RecordWriter(path, "zstd" if zstd else None, append=path.exists(), chunk_size=chunk) as writer:
            for count in data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=5)):
                if count % 3 == 0:
                    writer.flush()
                if count == 1 and left:
                    writer.write_record(left[0])
                else:
                    writer.write_records(left[:count])
                left = left[count:]
    assert read(path) == records
