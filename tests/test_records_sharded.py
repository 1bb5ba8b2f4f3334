"""Shards written and read in threads: order, limits, and errors that surface with the shard's name."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.records import (
    CorruptionStrategy,
    MultiThreadedReader,
    MultiThreadedWriter,
    RecordReader,
    RecordWriter,
    expand_dirs,
)

from .processes import run, wait_for
from .records_tools import GOLDEN, numbered, read, write

new_writer = MultiThreadedWriter.new_with_shards
new_reader = MultiThreadedReader.new_with_shards


def shards(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def read_all(folder: Path, **options: Any) -> list[bytes]:
    with new_reader(folder, **options) as reader:
        return [record.to_bytes() for record in reader]


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize(("num_shards", "threads"), [(1, 1), (2, None), (5, 2), (3, 8)])
def test_every_record_comes_back_once_in_the_order_of_its_shard(
    tmp_path: Path, num_shards: int, threads: int | None, compression: str | None
) -> None:
    records = numbered(20_000, 300)
    with new_writer(tmp_path, num_shards=num_shards, worker_threads=threads, compression=compression) as writer:
        for record in records[:5000]:
            writer.write_record(record)
        assert writer.write_records(records[5000:]) == 15_000
    assert shards(tmp_path) == [f"shard_{number:06d}" for number in range(num_shards)]
    assert sorted(read_all(tmp_path, num_shards=num_shards, worker_threads=threads or 1)) == records
    for name in shards(tmp_path):
        one = read(tmp_path / name)
        assert one == sorted(one)
        assert abs(len(one) - 20_000 / num_shards) <= 1


def test_the_originals_shards_are_read(tmp_path: Path) -> None:
    with new_reader(dir_path=str(GOLDEN / "shards")) as reader:
        assert sorted(record.to_bytes() for record in reader) == [b"s%02d" % number for number in range(50)]
        assert reader.next_record() is None
    assert MultiThreadedReader.count_records_with_shards(GOLDEN / "shards") == 50


def test_appending_goes_on_in_the_shards_that_are_there(tmp_path: Path) -> None:
    for number in range(3):
        with new_writer(tmp_path) as writer:
            writer.write_record(b"%d" % number)
    assert shards(tmp_path) == ["shard_000000", "shard_000001"]
    assert sorted(read_all(tmp_path)) == [b"0", b"1", b"2"]


def test_appending_to_the_originals_names_and_beyond_a_gap(tmp_path: Path) -> None:
    write(tmp_path / "shard_0", [b"a"])
    write(tmp_path / "shard_10", [b"b"])
    with new_writer(tmp_path, num_shards=3) as writer:
        writer.write_records([b"c"] * 3)
    assert shards(tmp_path) == ["shard_0", "shard_000011", "shard_10"]
    assert {name: len(read(tmp_path / name)) for name in shards(tmp_path)} == {
        "shard_0": 2, "shard_000011": 1, "shard_10": 2,
    }  # fmt: skip


def test_not_appending_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    with new_writer(tmp_path, num_shards=4) as writer:
        writer.write_records([b"old"] * 8)
    write(tmp_path / "shard_x_0", [b"of another set"])
    with new_writer(tmp_path, append=False) as writer:
        writer.write_record(b"new")
    assert shards(tmp_path) == ["shard_000000", "shard_000001", "shard_x_0"]
    assert read_all(tmp_path) == [b"new"]
    assert read_all(tmp_path, prefix="shard_x") == [b"of another set"]


@pytest.mark.parametrize("prefix", ["../other", "/tmp/other", "a/b"])
def test_a_prefix_does_not_lead_out_of_the_folder(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "folder").mkdir()
    for call in (new_writer, new_reader):
        with pytest.raises(ValueError, match="part of a file's name"):
            call(tmp_path / "folder", prefix=prefix)
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


def test_two_writers_share_a_folder(tmp_path: Path) -> None:
    with new_writer(tmp_path) as one, new_writer(tmp_path) as two:
        one.write_records([b"one"] * 4)
        two.write_records([b"two"] * 4)
        with pytest.raises(errors.FileInUse):
            new_writer(tmp_path, append=False)
    assert len(shards(tmp_path)) == 4
    assert sorted(read_all(tmp_path)) == [b"one"] * 4 + [b"two"] * 4


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path / f"shard_{number}", [b"%d" % number])
    (tmp_path / "shard_1.torn-64").write_bytes(b"what a healed shard leaves beside it")
    assert read_all(tmp_path, num_shards=1) == [b"1", b"2", b"10"]


def test_a_full_shard_makes_way_for_a_new_one(tmp_path: Path) -> None:
    with new_writer(tmp_path, max_bytes_per_writer=1000) as writer:
        for record in numbered(100, 100):
            writer.write_record(record)
        writer.write_records(numbered(100, 100))
        assert writer.available_writers() <= 2
    counts = [len(read(tmp_path / name)) for name in shards(tmp_path)]
    assert sum(counts) == 200
    assert max(counts) <= 10
    assert len(counts) >= 20


def test_without_auto_sharding_a_full_writer_says_so_and_keeps_what_it_took(tmp_path: Path) -> None:
    taken = 0
    with new_writer(tmp_path, max_bytes_per_writer=1000, enable_auto_sharding=False) as writer:
        with pytest.raises(errors.ShardsFull, match="max_bytes_per_writer"):
            for record in numbered(100, 100):
                writer.write_record(record)
                taken += 1
        with pytest.raises(errors.ShardsFull) as caught:
            writer.write_records([b"more"])
        assert caught.value.stored == 0  # type: ignore[attr-defined]
    assert len(read_all(tmp_path)) == taken > 0
    assert shards(tmp_path) == ["shard_000000", "shard_000001"]


def test_flushed_records_are_there_for_a_reader(tmp_path: Path) -> None:
    with new_writer(tmp_path) as writer:
        for number in range(1, 6):
            writer.write_records(numbered(1000, 50))
            writer.flush()
            assert len(read_all(tmp_path)) == number * 1000
        assert writer.pending_tasks() == 0
        assert writer.available_writers() == 2
    assert writer.available_writers() == 0


def test_threads_may_share_a_writer(tmp_path: Path) -> None:
    with new_writer(tmp_path, num_shards=3, task_queue_capacity=2) as writer:

        def work(name: int) -> None:
            for number in range(0, 3000, 2):
                writer.write_record(b"%d %06d " % (name, number) + bytes(900))
                writer.write_records([b"%d %06d " % (name, number + 1) + bytes(900)])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [record[:8] for record in read_all(tmp_path)]
    assert sorted(found) == sorted(b"%d %06d" % (name, number) for name in range(4) for number in range(3000))


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    writer.write_record(b"a")
    writer.close()
    writer.close()
    assert writer.closed
    for call in (lambda: writer.write_record(b"b"), lambda: writer.write_records([b"b"]), writer.flush):
        with pytest.raises(errors.RecordsClosed):
            call()
    assert read_all(tmp_path) == [b"a"]


def test_a_writer_that_is_forgotten_writes_all_and_warns(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    writer.write_record(b"a")
    with pytest.warns(ResourceWarning, match="not closed"):
        del writer  # its threads do not hold it
    assert read_all(tmp_path) == [b"a"]


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_no_buffer_is_refused(tmp_path: Path, data: Any) -> None:
    with new_writer(tmp_path) as writer:
        with pytest.raises(errors.RecordTypeError):
            writer.write_record(data)
        with pytest.raises(errors.RecordTypeError):
            writer.write_records([b"a", data])
    assert read_all(tmp_path) == []


def test_a_record_over_the_limit_is_refused(tmp_path: Path) -> None:
    with new_writer(tmp_path, max_record_bytes=3) as writer:
        with pytest.raises(errors.RecordTooLarge):
            writer.write_record(b"long")
        with pytest.raises(errors.RecordTooLarge):
            writer.write_records([b"abc", b"long"])
    assert read_all(tmp_path) == []


def test_a_full_disk_surfaces_with_the_shards_name_and_loses_nothing(tmp_path: Path) -> None:
    records = numbered(100, 100_000)

    def work(pipe: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        writer = new_writer(tmp_path)
        taken = 0
        with pytest.raises(errors.DiskFull, match="shard_00000") as caught:
            for record in records:
                writer.write_record(record)
                taken += 1
            writer.flush()
        assert caught.value.shard in shards(tmp_path)  # type: ignore[attr-defined]
        with pytest.raises(errors.DiskFull):
            writer.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while taken < len(records):
            try:
                writer.write_record(records[taken])
                taken += 1
            except errors.DiskFull:
                pass  # what a thread met before there was room
        wait_for(lambda: flushed(writer), "a flush that succeeds")
        writer.close()

    run(work)
    assert sorted(read_all(tmp_path)) == records


def flushed(writer: MultiThreadedWriter) -> bool:
    try:
        writer.flush()
    except errors.DiskFull:
        return False
    return True


def test_close_on_a_full_disk_says_how_many_were_lost(tmp_path: Path) -> None:
    def work(pipe: Any) -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = new_writer(tmp_path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        with pytest.raises(errors.DiskFull) as caught:
            writer.write_records(numbered(100, 100_000))
            writer.close()
        if not writer.closed:
            with pytest.raises(errors.DiskFull) as caught:
                writer.close()
        writer.close()
        return int(caught.value.lost)  # type: ignore[attr-defined]

    lost = run(work)
    assert lost > 0
    assert len(read_all(tmp_path)) + lost == 100


def test_a_forked_child_has_no_part_in_it(tmp_path: Path) -> None:
    with new_writer(tmp_path) as writer:
        writer.write_record(b"the parent's")

        def child(pipe: Any) -> bool:
            with pytest.raises(errors.RecordsClosed):
                writer.write_record(b"the child's")
            return writer.closed

        assert run(child)
    with new_reader(tmp_path) as reader:

        def reading_child(pipe: Any) -> bool:
            with pytest.raises(errors.RecordsClosed):
                reader.next_record()
            return reader.closed

        assert run(reading_child)
        assert list(reader) == [b"the parent's"]


# -- reading


def test_no_shard_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shards found"):
        new_reader(tmp_path)
    with pytest.raises(errors.RecordsMissing, match="no folder"):
        new_reader(tmp_path / "none")
    with pytest.raises(errors.RecordsMissing, match="empty"):
        MultiThreadedReader.new_with_shard_paths([])
    with pytest.raises(errors.RecordsMissing, match="gone"):
        MultiThreadedReader.new_with_shard_paths([GOLDEN / "small.disky", tmp_path / "gone"])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_shard_surfaces_once_and_the_others_go_on(tmp_path: Path, threads: int) -> None:
    write(tmp_path / "shard_0", [])
    write(tmp_path / "shard_1", [b"one"] * 10)
    write(tmp_path / "shard_2", [b"two"] * 10, flush_every=5)
    (tmp_path / "shard_3").write_bytes(b"no record file at all")
    data = bytearray((tmp_path / "shard_2").read_bytes())
    data[-1] ^= 1
    (tmp_path / "shard_2").write_bytes(data)
    found: list[bytes] = []
    met = []
    with new_reader(tmp_path, num_shards=3, worker_threads=threads) as reader:
        while True:
            try:
                record = reader.next_record()
            except errors.RecordError as error:
                met.append((error.shard, type(error)))  # type: ignore[attr-defined]
                continue
            if record is None:
                break
            found.append(record.to_bytes())
    assert sorted(found) == [b"one"] * 10 + [b"two"] * 5
    assert sorted(met, key=str) == [("shard_2", errors.DamagedRecords), ("shard_3", errors.NotARecordFile)]


def test_recovery_skips_and_reports(tmp_path: Path) -> None:
    write(tmp_path / "shard_0", [b"a"] * 10, flush_every=5)
    data = bytearray((tmp_path / "shard_0").read_bytes())
    data[110] ^= 1
    (tmp_path / "shard_0").write_bytes(data[:-1])
    with new_reader(tmp_path, corruption_strategy=CorruptionStrategy.RECOVER) as reader:
        assert list(reader) == []
        assert [damage.records for damage in reader.damage] == [5]
        assert [torn.path for torn in reader.torn] == [str(tmp_path / "shard_0")]


def test_reading_ahead_is_bounded_and_counted(tmp_path: Path) -> None:
    with new_writer(tmp_path) as writer:
        writer.write_records(numbered(400, 100_000))
    with new_reader(tmp_path, queue_size_mb=3) as reader:
        wait_for(lambda: reader.queued_bytes() >= 3 * 1024 * 1024, "the threads to read ahead")
        assert 3 * 1024**2 <= reader.queued_bytes() < 5 * 1024**2
        assert reader.queued_records() == reader.queued_bytes() // 100_000
        assert len(list(reader)) == 400
        assert (reader.queued_records(), reader.queued_bytes()) == (0, 0)


@pytest.mark.parametrize("limit", [None, 1, 7, 5000])
def test_batches_are_all_records(tmp_path: Path, limit: int | None) -> None:
    with new_writer(tmp_path) as writer:
        writer.write_records(numbered(1000, 20))
    with new_reader(tmp_path) as reader:
        batches = list(iter(lambda: reader.read_batch(limit), []))
        with pytest.raises(ValueError, match="at least one"):
            reader.read_batch(0)
    assert sorted(record.to_bytes() for batch in batches for record in batch) == numbered(1000, 20)
    if limit is not None:
        assert all(len(batch) == limit for batch in batches[:-1])


def test_threads_may_share_a_reader(tmp_path: Path) -> None:
    records = numbered(50_000, 100)
    with new_writer(tmp_path, num_shards=3) as writer:
        writer.write_records(records)
    found: list[list[bytes]] = [[] for _ in range(4)]
    with new_reader(tmp_path, num_shards=3, worker_threads=2) as reader:

        def work(mine: list[bytes], limit: int) -> None:
            while batch := reader.read_batch(limit):
                mine += [record.to_bytes() for record in batch]
                if (record := reader.next_record()) is not None:
                    mine.append(record.to_bytes())

        threads = [threading.Thread(target=work, args=(mine, 7 * number + 1)) for number, mine in enumerate(found)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(record for mine in found for record in mine) == records


def test_a_closed_reader_says_so_and_its_threads_are_gone(tmp_path: Path) -> None:
    with new_writer(tmp_path) as writer:
        writer.write_records(numbered(400, 100_000))
    before = threading.active_count()
    reader = new_reader(tmp_path, worker_threads=2)
    first = reader.next_record()
    reader.close()
    reader.close()
    assert threading.active_count() == before
    for call in (reader.next_record, reader.read_batch, lambda: list(reader)):
        with pytest.raises(errors.RecordsClosed):
            call()
    assert first is not None
    assert len(first) == 100_000


def test_dirs_are_expanded_to_their_shards(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "shard_0", [folder.encode()])
    found = expand_dirs([tmp_path / "a", tmp_path / "b"])
    assert found == [tmp_path / "a" / "shard_0", tmp_path / "b" / "shard_0"]
    with MultiThreadedReader.new_with_shard_paths(found) as reader:
        assert sorted(record.to_bytes() for record in reader) == [b"a", b"b"]


def test_a_shard_is_an_ordinary_record_file(tmp_path: Path) -> None:
    with new_writer(tmp_path, num_shards=1, prefix="only") as writer:
        writer.write_records([b"a", b"b"])
    with RecordWriter(tmp_path / "only_000000", append=True) as one:
        one.write_record(b"c")
    assert RecordReader.count_records(tmp_path / "only_000000") == 3
