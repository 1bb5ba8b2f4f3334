"""Result logs: written by one process each, read by anybody, whole after a crash, and bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pistributer import errors
from pistributer.workers import results, segment_log
from pistributer.workers.results import ResultLog, ResultReader
from pistributer.workers.segment_log import prune, segments
from tests.worker_tools import environment


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ResultLog]:
    log = ResultLog(str(tmp_path))
    yield log
    log.close()


@pytest.fixture
def reader(tmp_path: Path) -> ResultReader:
    return ResultReader(str(tmp_path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jsonl"))


def test_a_result_is_found_once_it_is_flushed(log: ResultLog, reader: ResultReader) -> None:
    log.add("a", {"n": [1, None, "ä"]})
    assert reader.find("a") is None
    log.flush()
    found = reader.find("a")
    assert found is not None
    assert (found.ok, found.value) == (True, {"n": [1, None, "ä"]})


def test_a_failure_carries_what_was_raised(log: ResultLog, reader: ResultReader) -> None:
    log.add_failure("a", "ValueError", "bad \udcff name", "Traceback …", 3)
    log.flush()
    found = reader.find("a")
    assert found is not None
    assert (found.ok, found.kind, found.text, found.traceback, found.attempts) == (
        False, "ValueError", "bad \\udcff name", "Traceback …", 3,
    )  # fmt: skip
    error = results.to_error("a", found)
    assert str(error) == "ValueError: bad \\udcff name"


def test_what_json_can_not_hold_is_refused_and_leaves_no_line(log: ResultLog, tmp_path: Path) -> None:
    with pytest.raises(errors.RowError):
        log.add("a", {1, 2})
    log.flush()
    assert names(tmp_path) == []


def test_a_later_line_stands_for_the_job(log: ResultLog, reader: ResultReader) -> None:
    log.add("a", 1)
    log.flush()
    assert getattr(reader.find("a"), "value", None) == 1
    log.add("a", 2)
    log.flush()
    reader.refresh()
    assert getattr(reader.find("a"), "value", None) == 2


def test_each_process_has_a_log_of_its_own_and_takes_over_a_dead_ones(tmp_path: Path, reader: ResultReader) -> None:
    first, second = ResultLog(str(tmp_path)), ResultLog(str(tmp_path))
    for number, log in enumerate((first, second)):
        log.add(f"job-{number}", number)
        log.flush()
    assert names(tmp_path) == ["0001-000001.jsonl", "0002-000001.jsonl"]
    first.close()
    third = ResultLog(str(tmp_path))
    third.add("job-2", 2)
    third.close()
    second.close()
    assert names(tmp_path) == ["0001-000001.jsonl", "0002-000001.jsonl"]
    assert [getattr(reader.find(f"job-{number}"), "value", None) for number in range(3)] == [0, 1, 2]


def test_a_torn_line_of_a_killed_worker_spoils_nothing(tmp_path: Path, reader: ResultReader) -> None:
    path = tmp_path / "0001-000001.jsonl"
    path.write_bytes(b'{"id":"a","ok":true,"value":1}\n{"id":"b","ok":tr')
    assert reader.find("a") is not None
    assert reader.find("b") is None
    log = ResultLog(str(tmp_path))
    log.add("c", 3)
    log.close()
    assert reader.find("b") is None
    assert getattr(reader.find("c"), "value", None) == 3


def test_a_slot_is_free_the_moment_its_owner_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pistributer.workers.results import ResultLog
log = ResultLog({str(tmp_path)!r})
log.add("a", 1)
log.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    log = ResultLog(str(tmp_path))
    log.add("b", 2)
    log.close()
    assert names(tmp_path) == ["0001-000001.jsonl"]


def test_long_logs_are_rolled_and_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_log, "SEGMENT_BYTES", 1000)
    log = ResultLog(str(tmp_path), max_bytes=3000)
    for number in range(200):
        log.add(f"job-{number}", "x" * 50)
        log.flush()
    log.close()
    sizes = [(tmp_path / name).stat().st_size for name in names(tmp_path)]
    assert sum(sizes) < 5000
    assert names(tmp_path)[0] > "0001-000005.jsonl"
    reader = ResultReader(str(tmp_path))
    assert reader.find("job-0") is None
    assert reader.find("job-199") is not None


def test_old_logs_go_but_never_the_one_in_use(tmp_path: Path) -> None:
    for slot, number in [(1, 1), (1, 2), (2, 7)]:
        path = tmp_path / f"{slot:04d}-{number:06d}.jsonl"
        path.write_bytes(b'{"id":"a","ok":true,"value":1}\n')
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    prune(str(tmp_path), max_age=10.0, max_bytes=1 << 30)
    assert names(tmp_path) == ["0001-000002.jsonl", "0002-000007.jsonl"]


def test_a_result_that_was_deleted_after_it_was_indexed_is_gone(
    log: ResultLog, reader: ResultReader, tmp_path: Path
) -> None:
    log.add("a", 1)
    log.flush()
    assert reader.find("a") is not None
    for segment in segments(str(tmp_path)):
        os.unlink(segment.path)
    assert reader.find("a") is None
    assert reader.find("a") is None


def test_reading_reads_each_line_once(log: ResultLog, reader: ResultReader, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        log.add(f"job-{number}", number)
    log.flush()
    reader.refresh()
    monkeypatch.setattr("builtins.open", None)
    reader.refresh()
