"""Every value of every type at any depth comes back as it was: from the journal, from the document, and edited in place."""

from __future__ import annotations

import datetime
import enum
import json
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given

from pistributer import PersistedState, StateValueError
from pistributer.state import documents, editing, entries, stream
from pistributer.state.editing import same

from . import state_values as these


@given(these.documents)
def test_a_document_says_what_was_dumped(value: dict[Any, Any]) -> None:
    text = documents.dump(value)
    assert same(documents.load(text), value)
    assert same(documents.load(text.encode().decode()), value)


@given(these.values)
def test_an_entry_says_what_was_encoded_to_us_and_to_any_yaml_reader(value: Any) -> None:
    line = entries.one_change(
        [entries.set_entry("[]", "k", value), entries.set_entry(entries.encode_path([0, "a"]), 1, value)]
    )
    assert line.count(b"\n") == 2
    (first, second), end = stream.read_changes(line, "x")
    assert (end, first.more, second.more) == (len(line), 1, 0)
    assert same(first.value, ["set", [], "k", value])
    assert same(second.value, ["set", [0, "a"], 1, value])
    assert [same(documents.load(each), ["set", [], "k", value]) for each in line.decode().split("\n")[:1]] == [True]


@given(these.documents)
def test_pyyaml_of_everybody_else_reads_it_the_same(value: dict[Any, Any]) -> None:
    if not any(isinstance(key, float) for key in value):
        read = documents._Plain(10**6).plain(yaml.load(documents.dump(value), Loader=yaml.SafeLoader))
        assert same(read, value)


@given(these.documents, these.documents)
@example({"a": {"b": 1}}, {"a": 5})
@example({"a": [1, 2]}, {"a": []})
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example({1: None}, {True: None})
def test_an_edited_document_says_what_is_new(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    assert same(documents.load(editing.edited(documents.dump(old), new)), new)
    both = {**old, **new}
    assert same(documents.load(editing.edited(documents.dump(old), both)), both)


@given(value=these.values, key=these.keys)
def test_a_state_holds_it_through_a_kill_and_through_a_vacuum(
    value: Any, key: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("state") / "s.yaml"
    expected = {"deep": {"list": [value]}, key: value}
    with PersistedState(path) as state:
        state["deep"] = {"list": [value]}
        state[key] = value
        assert same(state.copy(), expected)
        killed = path.read_bytes()
    with PersistedState(path) as state:
        assert same(state.copy(), expected)
    path.write_bytes(killed)
    with PersistedState(path) as state:
        assert same(state.copy(), expected)


ROOT = Path(__file__).resolve().parent.parent


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


loop: list[Any] = []
loop.append(loop)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Colour.RED, "int(value)"),
        (Text("a"), "str(value)"),
        (Decimal("1.5"), "str(value)"),
        (bytearray(b"a"), "bytes(value)"),
        (datetime.time(1), "isoformat"),
        (datetime.timedelta(1), "total_seconds"),
        (Path("a"), "str(value)"),
        (object(), "store str, int"),
        (1j, "store str, int"),
        ("\ud800", "encoding"),
        ({"a": [1, {"b": "x\udfff"}]}, "encoding"),
        ({("a",): 1}, "use a str"),
        ({math.nan: 1}, "use a str"),
        ({1.5, ("a",)}, "use a str"),
        (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(seconds=1))), "utc"),
        (loop, None),
        (deep(200), None),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_state_can_not_hold_is_refused_and_leaves_no_trace(value: Any, hint: str | None, tmp_path: Path) -> None:
    with PersistedState(tmp_path / "s.yaml", a=1, items=[1]) as state:
        before = (tmp_path / "s.yaml").read_bytes()
        changes = [
            lambda: state.__setitem__("a", value),
            lambda: state.update(b=1, a=value),
            lambda: state["items"].append(value),
            lambda: state["items"].extend([2, value]),
            lambda: state["items"].__setitem__(0, value),
            lambda: state["items"].__setitem__(slice(0, 1), [value]),
            lambda: state.setdefault("new", value),
        ]
        for change in changes:
            with pytest.raises(StateValueError) as refusal:
                change()
            assert isinstance(refusal.value, TypeError)
            assert isinstance(refusal.value, ValueError)
            assert hint is None or hint in str(refusal.value)
        assert (tmp_path / "s.yaml").read_bytes() == before
        assert state == {"a": 1, "items": [1]}
        state["a"] = 2  # and it goes on


@pytest.mark.parametrize("value", [10**5000, -(2**20000), 2**8191, 2**8192, -(2**8192)], ids=lambda n: n.bit_length())
def test_an_integer_of_any_size_comes_back(value: int, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    state = PersistedState(path, n=value)
    state.items_ = [value]
    killed = path.read_bytes()
    state.close()
    for data in (path.read_bytes(), killed):
        path.write_bytes(data)
        with PersistedState(path) as state:
            assert (state.n == value, state.items_[0] == value) == (True, True)


def test_the_deepest_value_that_is_taken_comes_back(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "s.yaml") as state:
        state["a"] = deep(95)
        inner = state["a"]
        while isinstance(inner["a"], dict):
            inner = inner["a"]
        inner["b"] = deep(4)
        with pytest.raises(StateValueError, match="levels"):
            inner["b"] = deep(50)
        expected = state.copy()
        state.vacuum()
    with PersistedState(tmp_path / "s.yaml") as state:
        assert state == expected


def test_tuples_and_sets_come_back_as_lists_and_frozensets(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "s.yaml") as state:
        state.pair = (1, (2, 3))
        state.kinds = {"a", 1}
    with PersistedState(tmp_path / "s.yaml") as state:
        assert state.pair == [1, [2, 3]]
        assert state.kinds == frozenset({"a", 1})


def test_every_type_that_yaml_names_can_be_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "null: ~\nbool: yes\nint: 0x1F\nfloat: 6.8523015e+5\nbinary: !!binary aGk=\nwhen: 2001-12-14t21:59:43.10-05:00\n"
        "day: 2002-12-14\nset: !!set {a, b}\nomap: !!omap [x: 1, y: 2]\npairs: !!pairs [x: 1, x: 2]\nstr: !!str 1\n"
        "seq: &here [1, 2]\nagain: *here\nmap: {a: 1}\nmerged: {<<: {a: 1}, b: 2}\n? [complex]\n: no\n".replace(
            "? [complex]\n: no\n", ""
        )
    )
    with PersistedState(tmp_path / "s.yaml") as state:
        zone = datetime.timezone(datetime.timedelta(hours=-5))
        expected = {
            None: None, "bool": True, "int": 31, "float": 685230.15, "binary": b"hi",
            "when": datetime.datetime(2001, 12, 14, 21, 59, 43, 100000, zone), "day": datetime.date(2002, 12, 14),
            "set": frozenset("ab"), "omap": [["x", 1], ["y", 2]], "pairs": [["x", 1], ["x", 2]], "str": "1",
            "seq": [1, 2], "again": [1, 2], "map": {"a": 1}, "merged": {"a": 1, "b": 2},
        }  # fmt: skip
        assert state == expected
        state["seq"].append(3)
        expected["seq"] = [1, 2, 3]
        assert state == expected
    with PersistedState(tmp_path / "s.yaml") as state:
        assert state == expected


def test_json_and_other_readers_of_dicts_take_what_is_inside(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "s.yaml", a={"b": [1, {"c": None}]}) as state:
        assert json.dumps(state.a) == '{"b": [1, {"c": null}]}'
        assert json.loads(json.dumps(dict(state))) == state.copy()


WITHOUT_C = """
import sys, yaml
del yaml.CSafeLoader, yaml.CSafeDumper
from pistributer import PersistedState
from pistributer.state import documents
from pistributer.state.editing import same
from tests.state_values import TRICKY
assert documents._SafeLoader is yaml.SafeLoader and documents._SafeDumper is yaml.SafeDumper
expected = {text: [text, {"k": text}, b"x", 1e-7] for text in TRICKY}
with PersistedState(sys.argv[1], **{"n": 10**5000}) as state:
    state.update(expected)
with PersistedState(sys.argv[1]) as state:
    assert state.pop("n") == 10**5000
    assert same(state.copy(), expected)
"""


def test_without_the_c_extension_of_pyyaml_the_same_comes_back(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_C, str(tmp_path / "s.yaml")], cwd=ROOT, check=True)
    with PersistedState(tmp_path / "s.yaml") as state:  # and with it
        assert set(state) == set(these.TRICKY)
