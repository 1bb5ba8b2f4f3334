"""Damage on disk: torn tails, NUL runs, glued rows, foreign bytes, cursors and journals that make no sense."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pistributer import errors
from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

ROWS = 6


def make(folder: Path, driver: str = "jsonl", rows: int = ROWS, **options: Any) -> tuple[str, Path]:
    """A closed queue with `rows` rows in one segment: its URL, and the segment."""
    url = f"{driver}:{folder}"
    with open_queue(url, **options) as queue:
        queue.put_many([value(driver, i) for i in range(rows)])
    return url, segment_of(folder)


def segment_of(folder: Path) -> Path:
    return max(folder.glob("shards/0001-*"))


def value(driver: str, i: int) -> Any:
    return {"i": i, "text": "é" * i} if driver == "jsonl" else f"row {i} {'é' * i}"


def drain(queue: Queue) -> list[Any]:
    values = []
    while items := queue.claim(100):
        values += [item.value for item in items]
        queue.ack(items)
    return values


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
def test_a_file_cut_at_any_byte_of_its_last_three_rows_keeps_the_whole_rows(tmp_path: Path, driver: str) -> None:
    url, segment = make(tmp_path / "q", driver)
    data = segment.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 0x0A]
    for cut in range(ends[-4], len(data)):
        shutil.rmtree(tmp_path / "q")
        make(tmp_path / "q", driver)
        os.truncate(segment, cut)
        whole = sum(end <= cut for end in ends)
        with open_queue(url) as queue:
            queue.put(value(driver, 99))
            assert drain(queue) == [*(value(driver, i) for i in range(whole)), value(driver, 99)]
            assert queue.stats().quarantined == (cut not in ends)


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
@pytest.mark.parametrize("length", [1, 17, 4096, 8192])
def test_a_nul_run_at_the_end_is_cut_and_kept_once(tmp_path: Path, driver: str, length: int) -> None:
    url, segment = make(tmp_path / "q", driver)
    with open(segment, "ab") as file:
        file.write(b"\0" * length)
    for _ in range(2):
        with open_queue(url) as queue:
            queue.put(value(driver, 50))
    with open_queue(url) as queue:
        assert drain(queue) == [*(value(driver, i) for i in range(ROWS)), value(driver, 50), value(driver, 50)]
        assert queue.stats().quarantined == 1


#: What replaces row 2, and whether a jsonl or a txt queue must set it aside.
_DAMAGED_ROWS: dict[str, tuple[bytes, bool, bool]] = {
    "nul-in-the-middle": (b'{"i":2,\0\0\0}', True, True),
    "only-nul": (b"\0" * 30, True, True),
    "empty": (b"", True, True),
    "torn-object": (b'{"i":2', True, False),
    "glued": (b'{"i":2}{"i":3}', True, False),
    "invalid-utf-8": (b'{"i":"\xff\xfe"}', True, True),
    "text": (b"hello", True, False),
    "nan": (b"NaN", True, False),
    "deep": (b"[" * 100_000, True, False),
    "wrapped-but-torn": (b' {"pistributer":1,"state":"ready', True, True),
    "wrapped-without-fields": (b' {"pistributer":1,"state":"ready       "}', True, True),
}


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
@pytest.mark.parametrize("name", _DAMAGED_ROWS)
def test_a_damaged_row_is_set_aside_and_its_neighbours_are_delivered(tmp_path: Path, driver: str, name: str) -> None:
    damaged, *refused = _DAMAGED_ROWS[name]
    url, segment = make(tmp_path / "q", driver)
    rows = segment.read_bytes().split(b"\n")
    rows[2] = damaged
    segment.write_bytes(b"\n".join(rows))
    bad = refused[driver == "txt"]
    with open_queue(url) as queue:
        got = drain(queue)
        assert got[:2] == [value(driver, 0), value(driver, 1)]
        assert got[-3:] == [value(driver, i) for i in (3, 4, 5)]
        assert len(got) == ROWS - bad
        assert queue.stats().quarantined == bad
        queue.put(value(driver, 7))
        assert drain(queue) == [value(driver, 7)]
    if bad and damaged:
        kept = orjson.loads((tmp_path / "q" / "quarantine.jsonl").read_bytes())
        assert kept["found"] == "0001-2"
        assert kept.get("text", "").encode() == damaged or "base64" in kept


def test_crlf_and_a_byte_order_mark_do_not_harm_json(tmp_path: Path) -> None:
    url, segment = make(tmp_path / "q")
    segment.write_bytes(b"\xef\xbb\xbf" + segment.read_bytes().replace(b"\n", b"\r\n"))
    with open_queue(url) as queue:
        assert drain(queue) == [value("jsonl", i) for i in range(ROWS)]


def test_text_comes_back_byte_for_byte(tmp_path: Path) -> None:
    texts = ["a\r", "\r", " b ", "\ufeffc", "d\u2028e\x85f", "\x1c", '{"x":1}', "\t"]
    with open_queue(f"txt:{tmp_path / 'q'}") as queue:
        queue.put_many(texts)
        assert drain(queue) == texts


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
def test_a_row_of_sixteen_megabytes_goes_through_between_small_ones(tmp_path: Path, driver: str) -> None:
    long = "x" * (16 * 1024 * 1024)
    with open_queue(f"{driver}:{tmp_path / 'q'}") as queue:
        for text in ("a", long, "b", long, "c"):
            queue.put(text)
        with open_queue(queue.url) as other:
            held = [queue.claim()[0], queue.claim()[0], other.claim()[0], other.claim()[0]]
            assert [item.value for item in held] == ["a", long, "b", long]
            other.nack(held[2:])
        assert drain(queue) == ["c", "b", long]


_BROKEN_CURSORS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "nul": lambda data: b"\0" * len(data),
    "garbage": lambda data: os.urandom(len(data)),
    "wrong-checksum": lambda data: data.replace(b'"crc":', b'"crc":1'),
    "newest-slot-torn": lambda data: data[:140] + b"\0" * 116,
}


@pytest.mark.parametrize("name", _BROKEN_CURSORS)
def test_a_broken_cursor_delivers_again_rather_than_skips(tmp_path: Path, name: str) -> None:
    url, _ = make(tmp_path / "q")
    with open_queue(url) as queue:
        queue.ack(queue.claim(3))
    cursor = tmp_path / "q" / "shards" / "0001.cursor"
    cursor.write_bytes(_BROKEN_CURSORS[name](cursor.read_bytes()))
    with open_queue(url) as queue:
        got = drain(queue)
    assert got[-3:] == [value("jsonl", i) for i in (3, 4, 5)]
    assert got == [value("jsonl", i) for i in range(ROWS - len(got), ROWS)]


def test_a_cursor_beyond_a_file_that_a_power_cut_shortened_loses_no_new_row(tmp_path: Path) -> None:
    url, segment = make(tmp_path / "q")
    with open_queue(url) as queue:
        queue.ack(queue.claim(ROWS))
    os.truncate(segment, segment.stat().st_size // 2)
    with open_queue(url) as queue:
        queue.put_many([value("jsonl", i) for i in range(100, 103)])
        assert drain(queue) == [value("jsonl", i) for i in range(100, 103)]


def test_a_missing_segment_is_passed_over(tmp_path: Path) -> None:
    url, _ = make(tmp_path / "q", segment_bytes=40)
    segments = sorted((tmp_path / "q" / "shards").glob("0001-*"))
    with open_queue(url, segment_bytes=40) as queue:
        queue.put_many([value("jsonl", i) for i in range(10, 20)])
    lost = sorted((tmp_path / "q" / "shards").glob("0001-*"))[0]
    assert len(segments) >= 1
    lost.unlink()
    with open_queue(url) as queue:
        assert drain(queue)[-10:] == [value("jsonl", i) for i in range(10, 20)]


@given(tail=st.binary(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_behind_the_last_row_leave_all_rows_before_them_whole(tmp_path: Path, tail: bytes) -> None:
    folder = tmp_path / "q"
    shutil.rmtree(folder, ignore_errors=True)
    url, segment = make(folder)
    with open(segment, "ab") as file:
        file.write(tail)
    with open_queue(url) as queue:
        queue.put(value("jsonl", 99))
        got = drain(queue)
    assert got[:ROWS] == [value("jsonl", i) for i in range(ROWS)]
    assert got[-1] == value("jsonl", 99)


@given(data=st.binary(max_size=300), keep=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_with_any_bytes_at_its_end_gives_back_what_stands_before(
    tmp_path: Path, data: bytes, keep: float
) -> None:
    folder = tmp_path / "q"
    shutil.rmtree(folder, ignore_errors=True)
    url, _ = make(folder)
    queue = open_queue(url)
    queue.claim(2)
    queue.claim(2)
    queue.close()
    journal = folder / "claims" / "0001.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"{" + data)
    with open_queue(url) as queue:
        assert drain(queue) == [value("jsonl", i) for i in range(ROWS)]


def test_a_row_wrapped_by_a_newer_release_is_refused_by_name(tmp_path: Path) -> None:
    url, segment = make(tmp_path / "q", rows=1)
    with open(segment, "ab") as file:
        file.write(b' {"pistributer":2,"state":"ready       ","id":"x","attempt":0,"row":1}\n')
    with open_queue(url) as queue, pytest.raises(errors.NewerFormat, match="upgrade"):
        queue.claim(5)


# -- sources


def import_three(folder: Path) -> tuple[str, Path]:
    """A closed queue with a source that put three rows: its URL, and the source's segment."""
    url = f"jsonl:{folder}"
    with open_queue(url) as queue, queue.source("imports") as source:
        source.put_many([(i, i + 1) for i in range(3)])
    return url, segment_of(folder)


def test_the_row_before_a_damaged_last_one_says_how_far_a_source_has_come(tmp_path: Path) -> None:
    url, segment = import_three(tmp_path / "q")
    data = segment.read_bytes()
    segment.write_bytes(data[:-5] + b"\0\0\0\0\n")
    with open_queue(url) as queue, queue.source("imports") as source:
        assert source.checkpoint == 2
        source.put(2, checkpoint=3)
        assert drain(queue) == [0, 1, 2]
        assert queue.stats().quarantined == 1


def test_a_torn_last_row_was_never_put(tmp_path: Path) -> None:
    url, segment = import_three(tmp_path / "q")
    segment.write_bytes(segment.read_bytes()[:-5])
    with open_queue(url) as queue, queue.source("imports") as source:
        assert source.checkpoint == 2


def test_a_damaged_source_file_is_refused_by_name_and_the_queue_works_on(tmp_path: Path) -> None:
    url, _ = import_three(tmp_path / "q")
    (file,) = (tmp_path / "q" / "shards").glob("*.source")
    file.write_bytes(b'{"name":')
    with open_queue(url) as queue:
        with pytest.raises(errors.NotAQueue, match=r"0001\.source.*delete it"):
            queue.source("imports")
        queue.put(9)
        assert sorted(drain(queue)) == [0, 1, 2, 9]


def test_without_its_file_a_source_starts_over_in_another_shard(tmp_path: Path) -> None:
    url, _ = import_three(tmp_path / "q")
    (file,) = (tmp_path / "q" / "shards").glob("*.source")
    file.unlink()
    with open_queue(url) as queue, queue.source("imports") as source:
        assert source.checkpoint is None
        source.put(7, checkpoint=8)
        assert sorted(drain(queue)) == [0, 1, 2, 7]
