"""The classic file channels keep the API of release 0.2.0: every name, default and behaviour that its document gives."""

from __future__ import annotations

import decimal
import enum
import io
import json
import os
import pickle
import pydoc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import pistributer_txt
from pistributer import Pistributer, PistributerTxt, errors

from .classic_tools import DRIVERS, FileDriver, in_children, working_in


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.__name__)
def driver(request: pytest.FixtureRequest) -> FileDriver:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def path(driver: FileDriver, tmp_path: Path) -> str:
    return str(tmp_path / f"channel{driver.suffix}")


def put_rows(driver: FileDriver, path: str, *rows: str) -> None:
    for row in rows:
        assert driver.put(path, row) is True


# -- the document's own example, and the names


def test_the_quick_start_of_the_document(tmp_path: Path) -> None:
    with working_in(tmp_path):
        Pistributer.put("channel.jsonl", {"value": "hello"})
        Pistributer.put("channel.jsonl", {"value": "world"})
        queue = Pistributer("channel.jsonl")
        assert queue.next() == '{"value":"hello"}'
        assert queue.next() == '{"value":"world"}'
        assert queue.isEmpty() is True


def test_the_module_of_the_document_has_the_txt_driver() -> None:
    assert pistributer_txt.PistributerTxt is PistributerTxt


def test_put_needs_no_instance_and_works_on_one(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, "a")
    queue = driver(path)
    queue.put(path, "b")
    assert list(queue) == ["a", "b"]


def test_the_parameter_names_of_the_document_and_of_the_source_both_work(driver: FileDriver, path: str) -> None:
    driver.new(target_path=path, string="1", sep="\n")
    driver.put(path=path, value="2")
    driver.put(target_path=path, string="3")
    driver.put(path, string="4")
    driver.put(target_path=path, value="5")  # type: ignore[call-overload]
    assert list(driver(path)) == ["1", "2", "3", "4", "5"]


def test_a_missing_value_is_a_type_error(driver: FileDriver, path: str) -> None:
    with pytest.raises(TypeError, match="value"):
        driver.put(path)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["put", "new", "next", "isEmpty", "size", "remaining", "getIndex", "updateIndex"])
def test_help_says_something_useful(driver: FileDriver, name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(getattr(driver, name)))
    assert len(text.splitlines()) >= 4
    assert "self" in text or "path" in text


# -- what a row looks like on disk


@pytest.mark.parametrize(
    ("value", "row"),
    [
        pytest.param({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}', id="compact JSON, not escaped"),
        pytest.param("plain text", "plain text", id="a text as it is"),
        pytest.param(' {"already": "JSON"} ', ' {"already": "JSON"} ', id="JSON text as it is"),
        pytest.param({"a": "x\ny\0"}, '{"a":"x\\ny\\u0000"}', id="newlines and NULs inside JSON"),
        pytest.param(None, "null", id="None"),
        pytest.param((1, 2), "[1,2]", id="a tuple"),
        pytest.param({1: 2, None: 3, 4.5: False}, '{"1":2,"null":3,"4.5":false}', id="keys that are no texts"),
        pytest.param(2**80, str(2**80), id="an integer beyond 64 bits"),
        pytest.param(OrderedDict(a=1), '{"a":1}', id="a subclass of dict"),
        pytest.param(enum.IntEnum("E", "one").one, "1", id="a subclass of int"),  # type: ignore[attr-defined]
        pytest.param("null", "null", id="the text null"),
        pytest.param("tab\tand\rreturn", "tab\tand\rreturn", id="other control characters"),
        pytest.param("\ufeffbom \u2028 \x85", "\ufeffbom \u2028 \x85", id="other line separators"),
    ],
)
def test_jsonl_rows(tmp_path: Path, value: Any, row: str) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put(path, value)
    Pistributer.put_many(path, [value])
    assert path.read_bytes().decode() == f"{row}\n{row}\n"
    assert list(Pistributer(path)) == [row, row]


@pytest.mark.parametrize("value", ["text", 5, None, {"a": 1}, b"bytes", 1.5, decimal.Decimal("1.50")], ids=repr)
def test_txt_rows_are_str_of_the_value(tmp_path: Path, value: Any) -> None:
    PistributerTxt.put(tmp_path / "c.txt", value)
    assert PistributerTxt(tmp_path / "c.txt").next() == str(value)


@pytest.mark.parametrize("row", ["", "x\ny", "\n", "x\n", "a\0b", "\ud800"], ids=ascii)
def test_a_text_that_would_not_come_back_is_refused(driver: FileDriver, path: str, row: str) -> None:
    for attempt in (lambda: driver.put(path, row), lambda: driver.put_many(path, ["good", row])):
        with pytest.raises(errors.RowError) as caught:
            attempt()  # type: ignore[no-untyped-call]
        assert isinstance(caught.value, ValueError)
        assert caught.value.hint
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "value", [float("nan"), {"a": float("inf")}, {"a": [None, float("nan")]}, {"a": "\udcff"}], ids=ascii
)
def test_a_value_that_json_would_change_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(errors.RowError):
        Pistributer.put(tmp_path / "c.jsonl", value)


@pytest.mark.parametrize(
    "value", [b"bytes", {1, 2}, object(), {(1,): 2}, {"a": decimal.Decimal(1)}], ids=lambda value: type(value).__name__
)
def test_a_type_that_json_does_not_know_is_a_type_error(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Pistributer.put(tmp_path / "c.jsonl", value)
    assert isinstance(caught.value, errors.RowError)


def test_a_value_that_contains_itself_or_is_too_deep_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(errors.RowError):
            Pistributer.put(tmp_path / "c.jsonl", value)


# -- paths


@pytest.mark.parametrize("name", ["c", "c.json", "c.jsonl.in_use", "", "c.txt.jsonl.db"])
def test_the_name_must_end_with_the_suffix(driver: FileDriver, tmp_path: Path, name: str) -> None:
    for attempt in (
        lambda: driver.put(tmp_path / name, "x"),
        lambda: driver.put_many(tmp_path / name, []),
        lambda: driver.new(tmp_path / name, "x"),
        lambda: driver(tmp_path / name),
    ):
        with pytest.raises(ValueError, match="must end with"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_must_exist(driver: FileDriver, tmp_path: Path) -> None:
    path = tmp_path / "missing" / f"c{driver.suffix}"
    for attempt in (lambda: driver.put(path, "x"), lambda: driver(path)):
        with pytest.raises(FileNotFoundError) as caught:
            attempt()
        assert isinstance(caught.value, errors.FolderMissing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [str, Path, lambda path: path.replace("/channel", "//./channel")], ids=["str", "Path", "odd"]
)
def test_every_way_to_name_a_path_means_the_same_channel(driver: FileDriver, path: str, kind: Any) -> None:
    for number in range(3):
        driver.put(path, f"{number}a")
        driver.put(kind(path), f"{number}b")
    assert list(driver(kind(path))) == ["0a", "0b", "1a", "1b", "2a", "2b"]


def test_a_relative_path_follows_the_working_directory(driver: FileDriver, tmp_path: Path) -> None:
    name = f"c{driver.suffix}"
    for folder in ("one", "two", "one"):
        (tmp_path / folder).mkdir(exist_ok=True)
        with working_in(tmp_path / folder):
            driver.put(name, folder)
    assert list(driver(tmp_path / "one" / name)) == ["one", "one"]
    assert list(driver(tmp_path / "two" / name)) == ["two"]


def test_path_and_abspath_are_as_in_0_2_0(driver: FileDriver, tmp_path: Path) -> None:
    name = f"c{driver.suffix}"
    with working_in(tmp_path):
        bare, below = driver(name), driver(f".{os.sep}{name}")
    expected = {
        "data": str(tmp_path / name),
        "index": f"{tmp_path / name}.index",
        "in_use": f"{tmp_path / name}.in_use",
    }
    assert bare.path == below.path == expected
    assert (bare.abspath, below.abspath) == ("", str(tmp_path))


# -- new


@pytest.mark.parametrize(
    ("text", "sep", "rows"),
    [
        ("one", "", ["one"]),
        ("one", "\n", ["one"]),
        ("one\ntwo", "", ["one", "two"]),
        ("one\ntwo\n", "", ["one", "two"]),
        ("one", ";", ["one;"]),
        ("", "", []),
    ],
)
def test_new_makes_whole_rows_of_its_text(
    driver: FileDriver, tmp_path: Path, text: str, sep: str, rows: list[str]
) -> None:
    path = tmp_path / "deep" / "er" / f"c{driver.suffix}"
    assert driver.new(path, text, sep=sep) is True
    driver.put(path, "next")
    assert list(driver(path)) == [*rows, "next"]


def test_new_writes_json_for_a_value(tmp_path: Path) -> None:
    Pistributer.new(tmp_path / "c.jsonl", {"a": 1}, sep="\n")
    assert (tmp_path / "c.jsonl").read_bytes() == b'{"a":1}\n'


def test_new_does_not_overwrite_unless_told(driver: FileDriver, path: str) -> None:
    driver.put(path, "old")
    with pytest.raises(FileExistsError):
        driver.new(path, "new")
    assert Path(path).read_text() == "old\n"
    driver.new(path, "new", overwrite=True)
    driver.put(path, "after")
    assert list(driver(path)) == ["new", "after"]


def test_new_refuses_a_folder(driver: FileDriver, path: str) -> None:
    os.mkdir(path)
    for overwrite in (False, True):
        with pytest.raises(IsADirectoryError):
            driver.new(path, "x", overwrite=overwrite)


def test_new_refuses_a_bad_text_and_leaves_nothing(driver: FileDriver, path: str) -> None:
    with pytest.raises(errors.RowError):
        driver.new(path, "a\0b")
    assert not os.path.exists(path)


# -- reading


def test_rows_come_out_in_order_and_an_empty_channel_raises_stop_iteration(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    queue = driver(path)
    assert [queue.next() for _ in range(3)] == ["a", "b", "c"]
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            queue.next()
        assert isinstance(caught.value, errors.ChannelEmpty)


def test_rows_put_meanwhile_come_after_those_in_use(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, "1", "2")
    queue = driver(path)
    assert queue.next() == "1"
    put_rows(driver, path, "3")
    assert [queue.next(), queue.next()] == ["2", "3"]
    put_rows(driver, path, "4")
    assert not queue.isEmpty()
    assert queue.next() == "4"
    assert queue.isEmpty()


def test_rows_of_processes_that_take_turns_come_in_the_order_in_which_they_were_put(
    driver: FileDriver, path: str
) -> None:
    queue = driver(path)
    seen = []
    for number in range(12):
        put = lambda number=number: driver.put(path, f"{number}")  # noqa: E731
        in_children(put) if number % 3 else put()  # type: ignore[no-untyped-call]
        if number % 4 == 3:
            seen += [queue.next() for _ in range(3)]
    assert seen + list(queue) == [f"{number}" for number in range(12)]


def test_reopening_goes_on_where_reading_stopped(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abcd")
    assert [driver(path).next() for _ in range(4)] == ["a", "b", "c", "d"]
    assert driver(path).isEmpty()


def test_it_is_an_iterator_and_a_context_manager(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    with driver(path) as queue:
        assert next(queue) == "a"
        assert [row for row in queue] == ["b", "c"]  # noqa: C416 - iterating is what is tested
        assert next(queue, "none") == "none"


def test_a_closed_reader_says_so(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    queue = driver(path)
    queue.next()
    queue.close()
    queue.close()
    for attempt in (queue.next, queue.isEmpty, queue.size, lambda: queue.updateIndex(0)):
        with pytest.raises(errors.QueueClosed):
            attempt()
    assert list(driver(path)) == ["b", "c"]


def test_a_drained_and_closed_channel_leaves_only_its_index(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    with driver(path) as queue:
        assert len(list(queue)) == 3
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(f"{path}.index")]


@pytest.mark.parametrize("length", [1, 4095, 4096, 262_143, 262_144, 300_000, 3_000_000])
def test_rows_of_any_length_come_back(driver: FileDriver, path: str, length: int) -> None:
    put_rows(driver, path, "x" * length, "short", "y" * length)
    assert list(driver(path)) == ["x" * length, "short", "y" * length]


def test_a_reader_object_pickles_as_its_path(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"ab")
    queue = driver(path)
    queue.next()
    assert pickle.loads(pickle.dumps(queue)).next() == "b"


# -- counting and the index


def test_size_counts_the_current_batch_with_its_consumed_rows(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    queue = driver(path)
    assert (queue.size(), queue.remaining(), queue.getIndex()) == (3, 3, {"index": 0})
    queue.next()
    put_rows(driver, path, "d")
    assert (queue.size(), queue.remaining(), queue.getIndex()) == (4, 3, {"index": 1})
    assert len(list(queue)) == 3
    assert queue.isEmpty()
    assert (queue.size(), queue.remaining(), queue.getIndex()) == (0, 0, {"index": 0})


def test_looking_at_a_missing_channel_creates_nothing(driver: FileDriver, path: str) -> None:
    queue = driver(path)
    assert (queue.size(), queue.remaining(), queue.getIndex(), queue.isEmpty()) == (0, 0, {"index": 0}, True)
    queue.updateIndex(3)
    with pytest.raises(StopIteration):
        queue.next()
    queue.close()
    assert os.listdir(os.path.dirname(path)) == []


def test_a_consumer_may_step_back(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    queue = driver(path)
    assert [queue.next() for _ in range(3)] == ["a", "b", "c"]
    queue.decreaseIndex()  # after the last row too
    assert queue.next() == "c"
    queue.decreaseIndex(2)
    assert queue.getIndex() == {"index": 1}
    assert driver(path).next() == "b"  # it is on disk
    queue.decreaseIndex(100)
    assert queue.getIndex() == {"index": 0}
    assert list(queue) == ["a", "b", "c"]


def test_a_consumer_may_skip(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abcde")
    queue = driver(path)
    queue.increaseIndex()
    assert queue.next() == "b"
    queue.updateIndex(3)
    assert queue.next() == "d"
    queue.updateIndex(-5)
    assert queue.next() == "a"
    queue.increaseIndex(100)
    assert queue.isEmpty()


def test_skipping_stays_within_the_batch(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"ab")
    queue = driver(path)
    Path(path).write_text("c\n")  # as release 0.2.0 would
    queue.increaseIndex(100)
    assert list(queue) == ["c"]


def test_q_lists_the_batch(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"ab")
    queue = driver(path)
    queue.next()
    assert queue.q == ["a", "b"]


# -- put_many


def test_put_many_stores_in_order_and_returns_true(driver: FileDriver, path: str) -> None:
    rows = [f"row {number}" for number in range(2500)]
    assert driver.put_many(path, iter(rows)) is True
    assert driver.put_many(path, []) is True
    assert list(driver(path)) == rows


def test_put_many_says_how_many_rows_stand_when_a_later_one_is_bad(driver: FileDriver, path: str) -> None:
    rows = [f"row {number}" for number in range(1500)]
    with pytest.raises(errors.RowError) as caught:
        driver.put_many(path, [*rows, ""])
    stored = caught.value.stored  # type: ignore[attr-defined]
    assert 0 < stored <= 1500
    assert list(driver(path)) == rows[:stored]


def test_the_index_file_is_one_line_that_0_2_0_reads(driver: FileDriver, path: str) -> None:
    put_rows(driver, path, *"abc")
    queue = driver(path)
    queue.next()
    queue.next()
    text = Path(f"{path}.index").read_text()
    assert json.load(io.StringIO(text))["index"] == 2
    assert json.loads(text)["offset"] == 4
    assert text.count("\n") == 1
