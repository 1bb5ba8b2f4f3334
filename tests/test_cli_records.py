"""`pistributer records …`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.records import RecordReader, RecordWriter

from .records_tools import GOLDEN, numbered, read, write

LINES = b'{"a":1}\n[1, 2]\n"text"\nnull\n'


def invoke(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(pistributer, ["records", *(str(arg) for arg in args)], input=stdin)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "some.records", [b"one", b"two", "drei é".encode(), b"\xff\x00", b""])
    return tmp_path / "some.records"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Three chunks of ten records, the second damaged, and a torn end."""
    path = tmp_path / "broken.records"
    write(path, numbered(40, 100), flush_every=10)
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data[:-3])
    return path


def test_cat_prints_each_record_as_it_is(file: Path) -> None:
    assert invoke("cat", file).stdout_bytes == b"one\ntwo\ndrei \xc3\xa9\n\xff\x00\n\n"
    assert invoke("cat", file, file).stdout_bytes.count(b"one\n") == 2


def test_cat_as_json_says_where_and_what(file: Path) -> None:
    found = [json.loads(line) for line in invoke("cat", file, "--json").stdout.splitlines()]
    assert found[0] == {"file": str(file), "record": 0, "size": 3, "text": "one"}
    assert found[3] == {"file": str(file), "record": 3, "size": 2, "base64": "/wA="}


@pytest.mark.parametrize("count", [1, 3, 10, 99, 200, 500])
def test_head_prints_the_first(count: int) -> None:
    wanted = read(GOLDEN / "flushed.disky")[:count]
    done = invoke("head", GOLDEN / "flushed.disky", "-n", count, "--json")
    assert [json.loads(line)["size"] for line in done.stdout.splitlines()] == [len(record) for record in wanted]
    assert len(invoke("head", GOLDEN / "flushed.disky").stdout_bytes) > 10


def test_count_adds_up(file: Path) -> None:
    done = invoke("count", file, GOLDEN / "small.disky")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["records", "5", "102", "107"]
    assert json.loads(invoke("count", file, "--json").stdout) == [
        {"file": str(file), "records": 5, "size": os.path.getsize(file)}
    ]


def test_verify_says_what_is_wrong_and_ends_with_4(file: Path, broken: Path) -> None:
    assert invoke("verify", file).exit_code == exits.OK
    assert "ok, 5 records" in invoke("verify", file).stdout
    done = invoke("verify", file, broken)
    assert done.exit_code == exits.INTEGRITY
    assert "broken.records: damaged, 20 records" in done.stdout
    assert "10 records lost" in done.stdout
    assert "the file ends in the middle of a chunk" in done.stdout
    assert "repair" in done.stderr
    [report] = json.loads(invoke("verify", broken, "--json").stdout)
    assert (report["ok"], report["records"], len(report["damage"])) == (False, 20, 1)


def test_repair_keeps_what_is_sound_and_the_damaged_file(broken: Path) -> None:
    before = broken.read_bytes()
    done = invoke("repair", broken)
    assert done.exit_code == exits.OK
    assert "kept 20 records" in done.stdout
    assert len(read(broken)) == 20
    assert Path(f"{broken}.damaged").read_bytes() == before
    assert "nothing to repair" in invoke("repair", broken).stdout


def test_repair_into_another_file(broken: Path, tmp_path: Path) -> None:
    before = broken.read_bytes()
    document = json.loads(invoke("repair", broken, tmp_path / "rescued", "--json").stdout)
    assert (document["records"], document["repaired"]) == (20, str(tmp_path / "rescued"))
    assert len(read(tmp_path / "rescued")) == 20
    assert broken.read_bytes() == before


def test_damage_stops_cat_unless_it_recovers(broken: Path) -> None:
    done = invoke("cat", broken)
    assert done.exit_code == exits.INTEGRITY
    assert len(done.stdout.splitlines()) == 10
    assert "error:" in done.stderr
    assert "RECOVER" in done.stderr
    done = invoke("cat", broken, "--recover")
    assert done.exit_code == exits.OK
    assert len(done.stdout.splitlines()) == 20
    assert done.stderr.count("warning:") == 2


# -- convert


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_lines_come_back_byte_for_byte(tmp_path: Path, compression: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(LINES)
    done = invoke("convert", tmp_path / "in.jsonl", tmp_path / "x.records", "--compression", compression)
    assert done.exit_code == exits.OK
    assert "converted 4 records" in done.stderr
    assert read(tmp_path / "x.records") == LINES.splitlines()
    document = json.loads(invoke("convert", tmp_path / "x.records", tmp_path / "out.jsonl", "--json").stdout)
    assert document["records"] == 4
    assert (tmp_path / "out.jsonl").read_bytes() == LINES


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_records_of_any_kind_come_back(tmp_path: Path, encoding: str) -> None:
    records = [b"", b"a\nb", "é".encode(), *([b"\xff\x00"] if encoding == "base64" else [])]
    write(tmp_path / "x.records", records)
    lines = invoke("convert", tmp_path / "x.records", "-", "--encoding", encoding)
    assert lines.exit_code == exits.OK
    assert len(lines.stdout.splitlines()) == len(records)
    done = invoke("convert", "-", tmp_path / "y.records", "--encoding", encoding, stdin=lines.stdout_bytes)
    assert done.exit_code == exits.OK
    assert read(tmp_path / "y.records") == records


@pytest.mark.parametrize(
    ("lines", "encoding", "said"),
    [
        (b"{}\nnot json\n", "json", "line 2 is not JSON"),
        (b"{}\n\n", "json", "line 2 is not JSON"),
        (b"3\n", "text", "line 1 is not a JSON string"),
        (b'"YQ=="\n"!"\n', "base64", "line 2 is not a JSON string of Base64"),
    ],
    ids=["broken", "empty", "number", "no-base64"],
)
def test_a_line_that_says_no_record_is_named(tmp_path: Path, lines: bytes, encoding: str, said: str) -> None:
    done = invoke("convert", "-", tmp_path / "x.records", "--encoding", encoding, stdin=lines)
    assert done.exit_code == exits.FAILURE
    assert said in done.stderr
    assert RecordReader.count_records(tmp_path / "x.records") == lines.count(b"\n") - 1


@pytest.mark.parametrize(("record", "encoding"), [(b"not json", "json"), (b"[\n]", "json"), (b"\xff", "text")])
def test_a_record_that_can_be_no_line_is_named(tmp_path: Path, record: bytes, encoding: str) -> None:
    write(tmp_path / "x.records", [b"1", record])
    done = invoke("convert", tmp_path / "x.records", tmp_path / "x.jsonl", "--encoding", encoding)
    assert done.exit_code == exits.FAILURE
    assert "record 1 is not" in done.stderr
    assert "base64" in done.stderr


def test_convert_does_not_write_over_a_file_unasked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(LINES)
    write(tmp_path / "x.records", [b"mine"])
    assert invoke("convert", tmp_path / "in.jsonl", tmp_path / "x.records").exit_code == exits.USAGE
    assert read(tmp_path / "x.records") == [b"mine"]
    assert invoke("convert", tmp_path / "in.jsonl", tmp_path / "x.records", "--force").exit_code == exits.OK
    assert len(read(tmp_path / "x.records")) == 4
    for two in (("a.jsonl", "b.jsonl"), ("a", "b")):
        assert invoke("convert", *two).exit_code == exits.USAGE


# -- errors


@pytest.mark.parametrize("command", ["cat", "head", "count", "verify", "repair"])
def test_missing_and_foreign_files_are_refused(tmp_path: Path, command: str) -> None:
    (tmp_path / "text").write_text("no records\n" * 20)
    done = invoke(command, tmp_path / "none")
    assert done.exit_code == exits.UNAVAILABLE
    assert "there is no file" in done.stderr
    done = invoke(command, tmp_path / "text")
    assert done.exit_code == exits.FAILURE
    assert "is not a record file" in done.stderr


def test_a_file_in_use_is_locked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(LINES)
    with RecordWriter(tmp_path / "x.records") as writer:
        done = invoke("convert", tmp_path / "in.jsonl", tmp_path / "x.records", "--force")
        assert done.exit_code == exits.LOCKED
        assert invoke("repair", tmp_path / "x.records").exit_code == exits.LOCKED
        writer.write_record(b"a")
    assert read(tmp_path / "x.records") == [b"a"]


def test_a_closed_pipe_ends_in_silence(tmp_path: Path, cli_env: dict[str, str]) -> None:
    write(tmp_path / "x.records", numbered(100_000, 100))
    command = "pistributer records cat x.records | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=cli_env, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.startswith(b"record 00000000")
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["cat", "head", "count", "verify", "repair", "convert"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert "Examples:" in shown
    assert f"pistributer records {command}" in shown
