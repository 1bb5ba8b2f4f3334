"""Channels change hands with release 0.2.0: what it left goes on where it stopped, and it can open what we leave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pistributer import Pistributer, PistributerTxt

from .classic_tools import DRIVERS, FileDriver, Release020, in_children

JSONL_ROWS = [f'{{"i":{number}}}' for number in range(6)]


def leave_half_consumed(path: Path, rows: list[str], consumed: int, newer: list[str], index: str | None = None) -> None:
    """The files that 0.2.0 leaves when it stops in the middle of a batch."""
    Path(f"{path}.in_use").write_text("".join(f"{row}\n" for row in rows))
    Path(f"{path}.index").write_text(json.dumps({"index": consumed}) if index is None else index)
    if newer:
        path.write_text("".join(f"{row}\n" for row in newer))


# -- from 0.2.0 to us


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_half_consumed_channel_goes_on_where_it_stopped(driver: FileDriver, tmp_path: Path) -> None:
    path = tmp_path / f"half{driver.suffix}"
    leave_half_consumed(path, JSONL_ROWS[:5], 2, JSONL_ROWS[5:])
    queue = driver(path)
    assert (queue.getIndex(), queue.size(), queue.remaining()) == ({"index": 2}, 6, 4)
    driver.put(path, "ours")
    assert list(queue) == [*JSONL_ROWS[2:], "ours"]


def test_a_channel_that_was_only_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "staged.jsonl").write_bytes('{"i":0,"s":"é\\n"}\n{"i":1,"s":"é\\n"}\n'.encode())
    assert [json.loads(row) for row in Pistributer(tmp_path / "staged.jsonl")] == [{"i": i, "s": "é\n"} for i in (0, 1)]


def test_a_batch_that_0_2_0_had_used_up_is_not_delivered_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    leave_half_consumed(path, ["a", "b"], 2, ["c"])
    assert list(Pistributer(path)) == ["c"]


@pytest.mark.parametrize("where", ["", ".in_use"], ids=["data", "in_use"])
@pytest.mark.parametrize("first", ["put", "read"])
def test_the_unterminated_row_that_new_left_is_a_row(tmp_path: Path, where: str, first: str) -> None:
    path = tmp_path / "c.jsonl"
    Path(f"{path}{where}").write_text("made by new")
    queue = Pistributer(path) if first == "read" else None
    Pistributer.put(path, "put")
    assert list(queue or Pistributer(path)) == ["made by new", "put"]


def test_empty_lines_are_not_rows_and_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("\n\na\n\n\nb\n\n")
    queue = PistributerTxt(path)
    assert (queue.size(), queue.remaining()) == (2, 2)
    assert queue.next() == "a"
    assert queue.getIndex() == {"index": 1}
    assert Release020(path).rest() == ["b"]


def test_rows_with_carriage_returns_are_counted_as_0_2_0_did(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    # 0.2.0 has handed out "a", "b" (one row for us) and "c", and stops before the second half of "d\re".
    leave_half_consumed(path, ["a\rb", "c\r", "d\re", "f"], 4, [])
    assert list(PistributerTxt(path)) == ["d\re", "f"]


@pytest.mark.parametrize(
    "index",
    [
        "",
        "{",
        "\0" * 12,
        "null",
        "[]",
        "{}",
        '{"index": -1}',
        '{"index": "2"}',
        '{"index": true}',
        '{"index": 99}',
        '{"index": 1.5}',
    ],
    ids=ascii,
)
def test_an_index_that_makes_no_sense_has_all_rows_delivered(tmp_path: Path, index: str) -> None:
    path = tmp_path / "c.jsonl"
    leave_half_consumed(path, JSONL_ROWS[:3], 0, JSONL_ROWS[3:], index)
    assert list(Pistributer(path)) == JSONL_ROWS


def test_a_missing_index_has_all_rows_delivered(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    leave_half_consumed(path, JSONL_ROWS[:3], 0, JSONL_ROWS[3:])
    os.unlink(f"{path}.index")
    assert list(Pistributer(path)) == JSONL_ROWS


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_empty_data_file_beside_the_batch_does_not_change_the_order(driver: FileDriver, tmp_path: Path) -> None:
    path = tmp_path / f"c{driver.suffix}"
    driver.put(path, "1")
    queue = driver(path)
    path.touch()  # as `new(path, "")` of 0.2.0
    in_children(lambda: driver.put(path, "2"))
    driver.put(path, "3")
    assert list(queue) == ["1", "2", "3"]


# -- from us to 0.2.0 and back


def unread(path: Path) -> None:
    Pistributer.put_many(path, JSONL_ROWS)


def opened(path: Path) -> None:
    unread(path)
    Pistributer(path)


def half(path: Path) -> None:
    unread(path)
    queue = Pistributer(path)
    queue.next()
    queue.next()


def half_and_newer(path: Path) -> None:
    half(path)
    path.write_text("newer\n")


def used_up(path: Path) -> None:
    unread(path)
    queue = Pistributer(path)
    for _ in JSONL_ROWS:
        queue.next()


def empty(path: Path) -> None:
    used_up(path)
    assert Pistributer(path).isEmpty()


def empty_and_newer(path: Path) -> None:
    empty(path)
    path.write_text("newer\n")


def closed(path: Path) -> None:
    used_up(path)
    with Pistributer(path) as queue:
        assert queue.isEmpty()


STATES: list[tuple[Callable[[Path], None], list[str]]] = [
    (unread, JSONL_ROWS), (opened, JSONL_ROWS), (half, JSONL_ROWS[2:]), (half_and_newer, [*JSONL_ROWS[2:], "newer"]),
    (used_up, []), (empty, []), (empty_and_newer, ["newer"]), (closed, []),
]  # fmt: skip


@pytest.mark.parametrize(("leave", "rest"), STATES, ids=lambda value: getattr(value, "__name__", ""))
def test_0_2_0_opens_what_we_leave(tmp_path: Path, leave: Callable[[Path], None], rest: list[str]) -> None:
    path = tmp_path / "c.jsonl"
    leave(path)
    assert Release020(path).rest() == rest


@pytest.mark.parametrize(("leave", "rest"), STATES, ids=lambda value: getattr(value, "__name__", ""))
def test_we_go_on_after_0_2_0_went_on_after_us(tmp_path: Path, leave: Callable[[Path], None], rest: list[str]) -> None:
    path = tmp_path / "c.jsonl"
    in_children(lambda: leave(path))
    old = Release020(path)
    taken = [] if old.is_empty() else [old.next()]
    with open(path, "a") as data:
        data.write("put by 0.2.0\n")
    Pistributer.put(path, "ours")
    assert taken + list(Pistributer(path)) == [*rest, "put by 0.2.0", "ours"]


def test_0_2_0_keeps_our_offset_when_it_moves_the_index_and_we_do_not_believe_it(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    half(path)
    old = Release020(path)
    assert old.next() == JSONL_ROWS[2]
    assert json.loads(Path(f"{path}.index").read_text())["offset"] == 16  # of index 2, but the index is 3
    assert list(Pistributer(path)) == JSONL_ROWS[3:]
