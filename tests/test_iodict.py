"""IODict: a dict in a folder, in the order of birth."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pistributer import IODict, errors
from pistributer.dicts import iodict_files

from .crashing import Act, every_kill
from .processes import METHODS, Child, Method, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


@pytest.fixture(params=["attributes", "no-attributes"])
def d(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> IODict[Any, Any]:
    if request.param == "no-attributes":
        without_attributes(monkeypatch)
    return open_it(folder)


def without_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)


def open_it(folder: Path, **params: Any) -> IODict[Any, Any]:
    return IODict(folder, **{"sync": "none", **params})


def test_the_example_of_the_original(folder: Path) -> None:
    data: IODict[str, str] = IODict(path=str(folder))
    data["key"] = "value"
    assert repr(data) == "{'key': 'value'}"
    data = IODict(path=str(folder), lock=threading.Lock)
    assert data["key"] == "value"
    names = """__delitem__ __enter__ __exit__ __getitem__ __iter__ __len__ __repr__ __setitem__ _db_path _encoder _lock clear copy
        fromkeys get items keys pop popitem setdefault update values"""
    assert set(names.split()) <= set(dir(data))


KEYS = [
    "text", "", "é\n/..", "x" * 5000, b"bytes", 5, -1.5, None, ("a", 1, (2,)), frozenset({"a", "b"}), 2**80, Path("x"),
    float("inf"), "\ud800", ("a", frozenset({1, "x"})),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)  # not its repr: a set has no order
def test_any_key_that_pickles(d: IODict[Any, Any], folder: Path, key: Any) -> None:
    d[key] = {"v": 1}
    assert d[key] == {"v": 1}
    assert key in d
    assert list(d) == [key]
    assert type(next(iter(d))) is type(key)
    assert list(open_it(folder).items()) == [(key, {"v": 1})]
    del d[key]
    assert len(d) == 0


def test_equal_keys_are_one_key_and_a_text_is_not_its_bytes(d: IODict[Any, Any]) -> None:
    d[1] = "one"
    d[1.0] = "one again"
    d[True] = "and again"
    d["1"] = "text"
    d[b"1"] = "bytes"
    d[(1, "a")] = "pair"
    assert d[(1.0, "a")] == "pair"
    assert len(d) == 4
    assert d[1] == "and again"


@pytest.mark.parametrize("method", METHODS)
def test_another_process_finds_the_same_keys(folder: Path, method: Method) -> None:
    """Hashes of texts differ between processes, and so does the order of a frozenset."""
    d = open_it(folder)
    key = frozenset(["a", "b", "c", ("d", frozenset(["e", "f"]))])
    d[key] = 1
    assert run(_look_up, str(folder), method=method) == 1


def _look_up(pipe: Any, folder: str) -> Any:
    return open_it(Path(folder))[frozenset([("d", frozenset(["f", "e"])), "c", "b", "a"])]


def test_what_can_not_be_a_key_or_a_value_changes_nothing(d: IODict[Any, Any]) -> None:
    d["a"] = "old"
    for key in ([], {}, threading.Lock(), ("a", [])):
        with pytest.raises(TypeError):
            d[key] = 1
        with pytest.raises(errors.BadKey):
            d[key]
    with pytest.raises(errors.BadValue):
        d["a"] = threading.Lock()
    with pytest.raises(errors.BadValue):
        d["b"] = lambda: None
    assert d == {"a": "old"}


def test_order_is_that_of_birth(d: IODict[Any, Any], folder: Path) -> None:
    for key in "cabd":
        d[key] = key
    d["a"] = "again"
    del d["b"]
    d["b"] = "reborn"
    assert list(d) == ["c", "a", "d", "b"]
    assert list(reversed(d)) == ["b", "d", "a", "c"]
    assert list(d.values()) == ["c", "again", "d", "reborn"]
    assert list(open_it(folder)) == ["c", "a", "d", "b"]


def test_births_in_one_tick_and_with_a_clock_set_back_keep_their_order(
    d: IODict[Any, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: Iterator[float] = iter([1e9] * 10 + [1e9 - 3600.0] * 10)
    monkeypatch.setattr(iodict_files.time, "time", lambda: next(moments))
    for i in range(10):
        d[i] = i
    again = open_it(folder)
    for i in range(10, 20):
        again[i] = i
    assert list(d) == list(range(20))


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 8, struct.pack(">d", 1e30)])
def test_a_damaged_order_file_is_made_good(d: IODict[Any, Any], folder: Path, damage: bytes) -> None:
    d["a"] = 1
    Path(f"{folder}#order").write_bytes(damage)
    d["b"] = 2
    d["c"] = 3
    assert list(d) == ["a", "b", "c"]


def test_dict_and_ordered_dict(d: IODict[Any, Any]) -> None:
    d.update({"a": 1, "b": 2}, c=3)
    assert d.setdefault("a", 9) == 1
    assert d.setdefault("n", None) is None
    assert "n" in d
    for default in (None, 0, "", False, []):
        assert d.pop("missing", default) is default
    with pytest.raises(KeyError):
        d.pop("missing")
    assert d.pop("n") is None
    assert d.copy() == {"a": 1, "b": 2, "c": 3}
    assert type(d.copy()) is dict
    assert list(d.copy()) == ["a", "b", "c"]
    assert d == {"c": 3, "a": 1, "b": 2}
    assert d != {"a": 1}
    assert d != None  # noqa: E711 - the question is what == None says
    assert d.fromkeys(["x", "y"], 7) is d
    assert d["y"] == 7
    d.move_to_end("a")
    d.move_to_end("y", last=False)
    assert list(d) == ["y", "b", "c", "x", "a"]
    assert d.popitem() == ("y", 7)
    assert d.popitem(last=True) == ("a", 1)
    assert d.get("zz") is None
    d |= {"z": 1}
    d.clear()
    assert (len(d), list(d), bool(d)) == (0, [], False)
    with pytest.raises(KeyError, match="empty"):
        d.popitem()


def test_nothing_is_deleted_but_by_clear_and_delete(folder: Path) -> None:
    with open_it(folder) as d:
        d["a"] = 1
    with pytest.raises(ZeroDivisionError), d:
        raise ZeroDivisionError
    assert open_it(folder)["a"] == 1
    d.delete()
    assert list(folder.parent.iterdir()) == []
    assert open_it(folder) == {}


def test_a_file_at_the_path_is_left_alone(folder: Path) -> None:
    folder.write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        IODict(folder)
    assert folder.read_text() == "mine"
    with pytest.raises(ValueError, match="sync"):
        IODict(folder.parent / "x", sync="no")


@pytest.mark.parametrize("lock", [threading.Lock, threading.Lock(), threading.RLock, multiprocessing.Lock, None])
def test_the_lock_of_the_application_holds_changes_back(folder: Path, lock: Any) -> None:
    d = open_it(folder, lock=lock)
    d["a"] = 1
    if lock is None or lock is threading.RLock:
        return
    done = threading.Event()
    with d._lock:
        thread = threading.Thread(target=lambda: (d.__setitem__("a", 2), done.set()))
        thread.start()
        assert d["a"] == 1, "reading waits for nobody"
        assert not done.is_set()
    thread.join()
    assert d["a"] == 2


# -- what the original and others left


def original(folder: Path, key: str, value: Any, birth: float, *, attributes: bool = True) -> None:
    """An item as iodict 0.0.8 writes it."""
    folder.mkdir(exist_ok=True)
    path = folder / (iodict_files.name_of(key) if attributes else key)
    path.write_bytes(pickle.dumps(value))
    if attributes:
        os.setxattr(path, "user.birthtime", struct.pack(">d", birth))
        os.setxattr(path, "user.key", key.encode())


def test_items_of_the_original_open_in_their_order(folder: Path) -> None:
    for number, key in enumerate("cab"):
        original(folder, key, [number], 1e9 + number)
    d = open_it(folder)
    assert list(d.items()) == [("c", [0]), ("a", [1]), ("b", [2])]
    d["a"] = "new"
    d["d"] = "last"
    assert list(d) == ["c", "a", "b", "d"]


def test_items_of_the_original_without_attributes_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_attributes(monkeypatch)
    original(folder, "plain key", {"x": 1}, 0, attributes=False)
    (folder / "notes.txt").write_text("not an item")
    d = open_it(folder)
    assert list(d.items()) == [("plain key", {"x": 1})]
    assert d["plain key"] == {"x": 1}
    d["other"] = 2
    d["plain key"] = "changed"
    assert list(d.items()) == [("plain key", "changed"), ("other", 2)]
    assert not (folder / "plain key").exists()
    assert "notes.txt" not in d
    assert d.pop("notes.txt", "none") == "none"
    original(folder, "gone", 1, 0, attributes=False)
    del d["gone"]
    assert "gone" not in d
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("view", ["items", "values"])
def test_views_leave_out_what_is_deleted_meanwhile(folder: Path, view: str) -> None:
    original(folder, "x", 0, 1e9)
    original(folder, "y", 0, 1e9 + 1)
    d = open_it(folder)
    d.update(dict.fromkeys("abc", 0))
    each = iter(getattr(d, view)())
    found = [next(each)]
    del d["y"], d["b"]
    found += each
    assert found == ([("x", 0), ("a", 0), ("c", 0)] if view == "items" else [0, 0, 0])


def test_what_we_write_the_original_reads(folder: Path) -> None:
    open_it(folder).update({"a": [1], "b": {"x": (1, 2)}})
    found = {}
    for path in folder.iterdir():
        with path.open("rb") as file:
            found[os.getxattr(path, "user.key").decode()] = pickle.load(file)
        assert struct.unpack(">d", os.getxattr(path, "user.birthtime"))[0] == pytest.approx(time.time(), abs=60)
    assert found == {"a": [1], "b": {"x": (1, 2)}}


def test_a_copy_without_attributes_keeps_keys_and_order(folder: Path, tmp_path: Path) -> None:
    d = open_it(folder)
    d.update(dict.fromkeys(("z", "a", 5, "m" * 3000), 1))
    (tmp_path / "copy").mkdir()
    for path in folder.iterdir():
        shutil.copyfile(path, tmp_path / "copy" / path.name)
    assert list(open_it(tmp_path / "copy").items()) == list(d.items())


def test_damaged_items_are_errors_that_name_them(folder: Path) -> None:
    d = open_it(folder)
    d["a"] = 1
    path = folder / iodict_files.name_of("a")
    path.write_bytes(b"garbage")
    with pytest.raises(errors.DamagedValue, match=path.name):
        d["a"]
    assert path.read_bytes() == b"garbage"
    (folder / iodict_files.name_of("b")).write_bytes(b"no trailer")
    with pytest.raises(errors.DamagedValue, match="trailer"):
        list(d)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_an_item_of_another_user_is_not_read(folder: Path) -> None:
    d = open_it(folder)
    d["a"] = 1
    os.chown(folder / iodict_files.name_of("a"), 12345, 12345)
    with pytest.raises(errors.UnsafeValue):
        d["a"]


# -- many at once


def test_of_threads_and_processes_that_pop_each_item_goes_to_one(folder: Path) -> None:
    d = open_it(folder)
    d.update({i: i for i in range(120)})
    with Child(_drain, str(folder)) as one, Child(_drain, str(folder)) as other:
        got = [*_drain(None, str(folder)), *one.result(), *other.result()]
    assert sorted(got) == list(range(120))


def _drain(pipe: Any, folder: str) -> list[int]:
    d, got = open_it(Path(folder)), []
    while True:
        try:
            got.append(d.popitem()[1])
        except KeyError:
            return got


def test_processes_that_set_keep_each_ones_order(folder: Path) -> None:
    with Child(_add, str(folder), "a") as one, Child(_add, str(folder), "b") as other:
        one.result(), other.result()
    keys = list(open_it(folder))
    assert len(keys) == 200
    for name in "ab":
        assert [number for who, number in keys if who == name] == list(range(100))


def _add(pipe: Any, folder: str, name: str) -> None:
    d = open_it(Path(folder))
    for number in range(100):
        d[name, number] = "x" * number


ACTS: dict[str, tuple[Callable[[IODict[Any, Any]], object], list[Any]]] = {
    "new": (lambda d: d.__setitem__("n", "new"), [["a", "b"], ["a", "b", "n"]]),
    "overwrite": (lambda d: d.__setitem__("a", "new"), [["a", "b"]]),
    "delete": (lambda d: d.__delitem__("a"), [["a", "b"], ["b"]]),
    "popitem": (lambda d: d.popitem(), [["a", "b"], ["b"]]),
    "move": (lambda d: d.move_to_end("a"), [["a", "b"], ["b", "a"]]),
}


@pytest.mark.parametrize("sync", ["none", "each"])
@pytest.mark.parametrize("name", list(ACTS))
def test_a_writer_killed_at_every_step(name: str, sync: str, tmp_path: Path) -> None:
    act, orders = ACTS[name]

    def prepare(at: int) -> Act:
        for path in tmp_path.glob("d*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        open_it(tmp_path / "d").update({"a": "old" * 1000, "b": "old" * 1000})
        return lambda tell: (act(open_it(tmp_path / "d", sync=sync)), tell("returned", None))[1]

    for _, told in every_kill(prepare, torn=True):
        d = open_it(tmp_path / "d")
        assert list(d) in (orders[-1:] if told.of("returned") else orders)
        assert set(d.values()) <= {"old" * 1000, "new"}
        assert list(Path(f"{tmp_path}/d#stage").iterdir()) == []
        d["after"] = 1
        assert list(d)[-1] == "after"


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "del", "pop", "popitem", "popitem-last", "setdefault", "move", "clear"]),
            st.sampled_from(["a", "b", "c", 1, 2.5, ("a", 1), None]),
            st.integers(),
        ),
        max_size=30,
    )
)
def test_no_history_tells_it_from_an_ordered_dict(tmp_path_factory: pytest.TempPathFactory, history: list[Any]) -> None:
    from collections import OrderedDict

    real, model = open_it(tmp_path_factory.mktemp("h") / "d"), OrderedDict[Any, Any]()
    acts: dict[str, Callable[[Any, Any, int], Any]] = {
        "set": lambda d, key, value: d.__setitem__(key, value),
        "del": lambda d, key, value: d.__delitem__(key),
        "pop": lambda d, key, value: d.pop(key, "none"),
        "popitem": lambda d, key, value: d.popitem(last=False),
        "popitem-last": lambda d, key, value: d.popitem(last=True),
        "setdefault": lambda d, key, value: d.setdefault(key, value),
        "move": lambda d, key, value: d.move_to_end(key, last=bool(value % 2)),
        "clear": lambda d, key, value: d.clear(),
    }
    for name, key, value in history:
        outcomes = []
        for subject in (real, model):
            try:
                outcomes.append(acts[name](subject, key, value))
            except KeyError:
                outcomes.append("KeyError")
        assert outcomes[0] == outcomes[1]
        assert list(real.items()) == list(model.items())
        assert len(real) == len(model)
