"""FileDirDict on its disk: what lies there, what others left there, and what it refuses."""

from __future__ import annotations

import base64
import datetime
import json
import os
import pickle
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pistributer import errors
from pistributer.dicts import FileDirDict, digests, files
from pistributer.dicts.rich_json import decode, encode

#: Written by persidict 0.309.0: joblib with lz4, and jsonpickle with its handlers.
PERSIDICT = {
    "plain.pkl": "BCJNGEBAwCMAAABSgASVGQABAPAKfZQojAFhlEsBSwKGlIwBc5SPlChLA5B1LgAAAAA=",
    "array.pkl": (
        "BCJNGEBAwOwAAABSgASV0QABAPEwjBNqb2JsaWIubnVtcHlfcGlja2xllIwRTnVtcHlBcnJheVdyYXBwZXKUk5QpgZR9lCiMCHN1YmNsYXNzlIwF"
        "NgD0IJSMB25kYXJyYXmUk5SMBXNoYXBllEsEhZSMBW9yZGVylIwBQ5SMBWR0eXBllGgGCgDxDZOUjAJpOJSJiIeUUpQoSwOMATyUTk5OSv////8F"
        "APEGSwB0lGKMCmFsbG93X21tYXCUiIwbcgARX24A8gpfYWxpZ25tZW50X2J5dGVzlEsQdWID////2wAzAAABCQATAggAkAMAAAAAAAAALgAAAAA="
    ),
}
PERSIDICT_JSON = """{
    "a": {"py/tuple": [1, 2]}, "s": {"py/set": [3]}, "b": {"py/b64": "eA=="},
    "d": {"py/object": "datetime.datetime", "__reduce__": [{"py/type": "datetime.datetime"}, ["B+QBAgAAAAAAAA=="]]},
    "n": 1180591620717411303424, "shared": [[1], {"py/id": 4}], "k": NaN
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


def open_files(folder: Path, **params: Any) -> FileDirDict[Any]:
    return FileDirDict(folder, **{"sync": "none", **params})


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- the layout


def test_the_path_is_the_key(folder: Path) -> None:
    d = open_files(folder)
    d["users", "alice"] = 1
    d["top"] = 2
    assert names(folder) == {"users/alice.pkl", "top.pkl"}
    assert pickle.loads((folder / "top.pkl").read_bytes()) == 2


def test_nothing_is_made_before_the_first_item(folder: Path) -> None:
    d = open_files(folder)
    assert (len(d), "a" in d, d.discard("a"), d.get_subdict("x") == {}) == (0, False, False, True)
    assert not folder.exists()


def test_folders_and_files_are_for_their_owner_only(folder: Path) -> None:
    before = os.umask(0)
    try:
        open_files(folder)["a", "b"] = 1
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert modes == {0o700, 0o600}


def test_digests_keep_keys_apart_where_letters_have_no_case(folder: Path) -> None:
    d = open_files(folder, digest_len=8)
    d.update({"Key": 1, "key": 2, ("A", "x"): 3, ("a", "x"): 4})
    assert len({name.lower() for name in names(folder)}) == 4
    assert digests.sign("key", 8) == "key_hrxenu4p" or "key_" in digests.sign("key", 8)
    assert d == {"Key": 1, "key": 2, ("A", "x"): 3, ("a", "x"): 4}


def test_a_key_that_looks_signed_is_not_the_one_without(folder: Path) -> None:
    d = open_files(folder, digest_len=4)
    d["a"] = 1
    d["a_btax"] = 2
    assert digests.sign("a", 4) == "a_btax"
    assert d == {"a": 1, "a_btax": 2}


@pytest.mark.parametrize(("written", "asked"), [(0, 4), (4, 0), (4, 8), (8, 4), (0, 1), (26, 0)])
def test_a_folder_of_another_digest_length_is_refused_and_the_error_says_which(
    folder: Path, written: int, asked: int
) -> None:
    open_files(folder, digest_len=written)["users", "alice"] = 1
    with pytest.raises(errors.DictMismatch, match=f"digest_len={written}") as caught:
        open_files(folder, digest_len=asked)
    assert (caught.value.found, caught.value.asked) == (written, asked)  # type: ignore[attr-defined]
    assert open_files(folder, digest_len=written)["users", "alice"] == 1


def test_strange_files_are_neither_items_nor_errors(folder: Path) -> None:
    d = open_files(folder)
    d["a"] = 1
    (folder / "not a key.pkl").write_bytes(b"x")
    (folder / "README").write_text("hello")
    for name in (".pkl", "..pkl", "...pkl"):  # without its ending nothing, or a folder's name
        (folder / name).write_bytes(b"x")
    (folder / "bad folder!").mkdir()
    (folder / "bad folder!" / "x.pkl").write_bytes(b"x")
    (folder / "link.pkl").symlink_to(folder / "a.pkl")
    (folder / "out").symlink_to("/")
    (folder / "loop.pkl").symlink_to("loop.pkl")
    assert list(d) == ["a"]
    assert len(d) == 1
    assert set(d.subdicts()) == {"a"}
    with pytest.raises(errors.StorageError):
        d["link"]


@given(st.lists(st.text(st.sampled_from("ab.. é=#\udc80"), max_size=3).map(lambda stem: stem + ".pkl"), unique=True))
def test_counting_names_agrees_with_reading_them(stored: list[str]) -> None:
    assert files._count(stored, ".pkl") == len(files._stems(stored, ".pkl"))
    assert files._count([*stored, "x.txt"], ".pkl") == len(files._stems(stored, ".pkl"))


def test_a_folder_does_not_take_the_place_of_an_item(folder: Path) -> None:
    d = open_files(folder)
    with pytest.raises(errors.BadKey, match="pkl"):
        d["a.pkl", "b"] = 1
    d["a"] = 2
    assert ("a.pkl", "b") not in d
    (folder / "dir.pkl").mkdir()
    assert "dir" not in d
    assert d.get("dir") is None
    assert d.discard("dir") is False
    with pytest.raises(errors.StorageError):
        d["dir"] = 1
    assert d == {"a": 2}
    assert names(folder / "#stage") == set()


def test_empty_folders_go_with_their_last_item(folder: Path) -> None:
    d = open_files(folder)
    d["a", "b", "c"] = 1
    d["a", "x"] = 2
    del d["a", "b", "c"]
    assert not (folder / "a" / "b").exists()
    assert d["a", "x"] == 2
    d.clear()
    assert not (folder / "a").exists()


def test_base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileDirDict("~/d").base_dir == str(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    assert FileDirDict().base_dir == str(tmp_path / "__file_dir_dict__")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        FileDirDict(tmp_path / "file")
    for bad in ({"digest_len": -1}, {"digest_len": 33}, {"sync": "often"}, {"serialization_format": "a/b"}):
        with pytest.raises(ValueError, match="must be"):
            FileDirDict(tmp_path / "d", **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be str"):
        FileDirDict(tmp_path / "d", serialization_format="txt", base_class_for_values=int)
    with pytest.raises(TypeError):
        FileDirDict(tmp_path / "d", base_class_for_values=5)  # type: ignore[arg-type]


# -- what others left


def test_files_that_persidict_wrote_open(folder: Path) -> None:
    folder.mkdir()
    for name, data in PERSIDICT.items():
        (folder / name).write_bytes(base64.b64decode(data))
    (folder / "rich.json").write_text(PERSIDICT_JSON)
    d = open_files(folder)
    assert d["plain"] == {"a": (1, 2), "s": {3}}
    assert d["array"].tolist() == [0, 1, 2, 3]
    rich = open_files(folder, serialization_format="json")["rich"]
    assert (rich["a"], rich["s"], rich["b"], rich["n"]) == ((1, 2), {3}, b"x", 2**70)
    assert rich["d"] == datetime.datetime(2020, 1, 2)
    assert rich["k"] != rich["k"]


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"garbage", b"\x04\x22\x4d\x18broken", pickle.dumps([1])[:-2], bytes(64)]
)
def test_a_damaged_pickle_is_an_error_that_names_it_and_stays(folder: Path, data: bytes) -> None:
    d = open_files(folder)
    d["a"] = 1
    (folder / "bad.pkl").write_bytes(data)
    with pytest.raises(errors.DamagedValue, match=r"bad\.pkl") as caught:
        d["bad"]
    assert caught.value.path == str(folder / "bad.pkl")  # type: ignore[attr-defined]
    assert (folder / "bad.pkl").read_bytes() == data
    assert len(d) == 2
    d["bad"] = 2
    assert d["bad"] == 2


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"py/tuple": 5}x', bytes(9), b"[" * 100_000])
def test_damaged_json_and_text(folder: Path, data: bytes) -> None:
    d = open_files(folder, serialization_format="json")
    d["a"] = 1
    (folder / "bad.json").write_bytes(data)
    with pytest.raises(errors.DamagedValue):
        d["bad"]
    text = open_files(folder, serialization_format="txt")
    (folder / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(errors.DamagedValue):
        text["bad"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_pickle_of_another_user_is_not_read(folder: Path) -> None:
    d = open_files(folder)
    d["a"] = 1
    os.chown(folder / "a.pkl", 12345, 12345)
    with pytest.raises(errors.UnsafeValue, match="12345") as caught:
        d["a"]
    assert isinstance(caught.value, PermissionError)
    shared = open_files(folder, serialization_format="json")
    shared["a"] = (1, 2)
    os.chown(folder / "a.json", 12345, 12345)
    assert shared["a"] == (1, 2)


class Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("true",))


ATTACKS = {
    "reduce": '{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["true"]}]}',
    "posix": '{"a": [{"py/reduce": [{"py/type": "posix.system"}, {"py/tuple": ["true"]}]}]}',
    "object": '{"py/object": "subprocess.Popen", "py/newargs": {"py/tuple": [["true"]]}}',
    "repr": '{"py/repr": "os/os.system"}',
    "module": '{"py/mod": "os"}',
    "in-a-key": '{"json://{\\"py/function\\": \\"os.system\\"}": 1}',
    "in-a-frame": '{"py/object": "pandas.DataFrame", "values": "{\\"a\\": {\\"py/function\\": \\"os.system\\"}}"}',
    "escaped": '{"\\u0070y/function": "os.system", "t": {"py/tuple": [1]}}',
    "escaped-in-a-frame": '{"py/object": "pandas.Series", "values": "{\\"\\\\u0070y/function\\": \\"os.system\\"}"}',
    "compressed": '{"py/object": "pandas.DataFrame", "txt": false, "meta": {}, "values": "eJwDAAAAAAE="}',
    "getattr": '{"py/reduce": [{"py/type": "builtins.getattr"}, {"py/tuple": [1, "real"]}]}',
    "numpy-load": '{"py/reduce": [{"py/function": "numpy.load"}, {"py/tuple": ["x"]}]}',
    "read-pickle": '{"py/reduce": [{"py/function": "pandas.read_pickle"}, {"py/tuple": ["x"]}]}',
}


@pytest.mark.parametrize("document", list(ATTACKS.values()), ids=list(ATTACKS))
def test_json_that_could_run_code_is_refused(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it ran"))
    with pytest.raises(errors.UnsafeValue):
        decode(document.encode(), frozenset())


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def a_function_of_the_same_module() -> None:
    pytest.fail("it ran")


@pytest.mark.parametrize("name", ["a_function_of_the_same_module", "Path", "os", "no_such_name"])
def test_json_loads_only_classes_that_the_trusted_module_defines(name: str) -> None:
    document = f'{{"py/reduce": [{{"py/type": "{__name__}.{name}"}}, {{"py/tuple": []}}]}}'
    with pytest.raises(errors.UnsafeValue):
        decode(document.encode(), frozenset({__name__}))


def test_a_dictionary_for_frames_does_not_trust_all_of_pandas() -> None:
    pytest.importorskip("pandas")
    document = '{"py/reduce": [{"py/function": "pandas.read_pickle"}, {"py/tuple": ["x"]}]}'
    with pytest.raises(errors.UnsafeValue):
        decode(document.encode(), frozenset({"pandas", "pandas.core.frame"}))


def test_a_fifo_in_the_place_of_a_value_does_not_hang(folder: Path) -> None:
    d = open_files(folder)
    d["a"] = 1
    os.mkfifo(folder / "fifo.pkl")
    with pytest.raises(errors.DamagedValue):
        d["fifo"]
    assert list(d) == ["a"]


def test_json_holds_objects_of_the_class_that_the_dictionary_is_for(folder: Path) -> None:
    with pytest.raises(errors.BadValue, match="base_class_for_values"):
        open_files(folder, serialization_format="json")["a"] = Point(1)
    d = open_files(folder, serialization_format="json", base_class_for_values=Point)
    d["a"] = Point(1)
    assert d["a"].x == 1
    with pytest.raises(errors.UnsafeValue):
        open_files(folder, serialization_format="json")["a"]
    with pytest.raises(errors.BadValue):
        open_files(folder, serialization_format="json", base_class_for_values=dict)["a"] = {"a": Bomb()}


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1, 2}, frozenset([1]), b"x", {1: "a", (1, 2): "b"}, float("inf"), 2**70, "\ud800", "py/tuple", {"x": [(1,)]},
     datetime.timedelta(1), datetime.datetime.now(datetime.UTC), [1, [2.5, None, True]], {}, [], {"json://": 1}],
    ids=lambda value: type(value).__name__,  # not its repr, which has an address or a time in it
)  # fmt: skip
def test_json_brings_values_back_as_they_were(value: Any) -> None:
    found = decode(encode(value, frozenset()), frozenset())
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        {"py/tuple": [1]},
        {"a": {"py/id": 1}},
        bytearray(b"x"),
        [memoryview(b"x")],
        lambda: None,
        [1, {"f": (lambda: None,)}],
        {"f": lambda: None},
        {"a": (1,), "py/id": 1},
        (x for x in ()),
        os,
        print,
        threading.Lock(),
    ],
    ids=lambda value: type(value).__name__,  # not its repr, which has an address or a time in it
)
def test_json_refuses_what_it_would_change(value: Any) -> None:
    with pytest.raises(errors.BadValue):
        encode(value, frozenset())


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates()
    | st.datetimes() | st.timedeltas() | st.decimals(allow_nan=False) | st.uuids() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
RICH = st.recursive(
    SCALARS | st.frozensets(st.integers() | st.text(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(st.integers() | st.text() | st.tuples(st.binary()), max_size=3)
    ),
    max_leaves=12,
)


def deep_types(value: Any) -> Any:
    if isinstance(value, dict):
        return [type(value), {(type(key), key): deep_types(inner) for key, inner in value.items()}]
    return [type(value), *map(deep_types, value)] if isinstance(value, list | tuple) else type(value)


@settings(max_examples=300)
@given(RICH)
def test_whatever_json_takes_it_brings_back(value: Any) -> None:
    try:
        data = encode(value, frozenset())
    except errors.BadValue:
        assert "py/" in repr(value)
        return
    found = decode(data, frozenset())
    assert found == value
    assert deep_types(found) == deep_types(value)


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\/pytuplesobjc 0123456789.eE-\n').map(str.encode))
def test_garbage_is_damaged_or_unsafe_or_a_value(data: bytes) -> None:
    try:
        decode(data, frozenset())
    except (errors.DamagedValue, errors.UnsafeValue):
        pass


def test_numbers_of_others_are_read_exactly() -> None:
    for indent in (None, 2, 4):
        for end in ("", "\n"):
            document = {"n": [2**70, -(2**65), 2**63]}
            found = decode((json.dumps(document, indent=indent) + end).encode(), frozenset())
            assert found == document or (indent, end) == (2, "\n")


def test_plain_json_is_plain(folder: Path) -> None:
    open_files(folder, serialization_format="json")["a"] = {"é": [1, None]}
    assert json.loads((folder / "a.json").read_text("utf-8")) == {"é": [1, None]}


def test_arrays_and_frames_in_json(folder: Path) -> None:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    d = open_files(folder, serialization_format="json")
    for value in (numpy.arange(6).reshape(2, 3), numpy.array([1.5, 2]), numpy.float32(1.5), numpy.array(["a", "bc"])):
        d["a"] = value
        assert (d["a"] == value).all()
        assert d["a"].dtype == value.dtype
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"], "t": pandas.to_datetime(["2020-01-01", "2021-01-02"])})
    d["f"] = frame
    pandas.testing.assert_frame_equal(d["f"], frame, check_dtype=False)
    d["s"] = {"inside": (pandas.Series([1.5, 2.0]),)}
    assert d["s"]["inside"][0].tolist() == [1.5, 2.0]


# -- the disk says no


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(folder: Path) -> None:
    d = open_files(folder)
    d["a"] = 1
    folder.chmod(0o500)
    with pytest.raises(errors.NotWritable):
        d["x", "y"] = 1
    folder.chmod(0o700)


def test_a_full_disk_costs_nothing_that_was_stored(folder: Path) -> None:
    import resource

    d = open_files(folder)
    d["a"] = "old"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(errors.DiskFull):
            d["a"] = "x" * 20_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert d["a"] == "old"
    assert names(folder) == {"a.pkl"}


def test_a_failed_sync_is_an_error_and_leaves_no_litter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = FileDirDict[str](folder)
    d["a"] = "old"

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(errors.SyncFailed):
        d["a"] = "new"
    monkeypatch.undo()
    assert d["a"] == "old"
    assert names(folder) == {"a.pkl"}


def test_a_folder_that_can_not_be_synced_is_an_error_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = FileDirDict[str](folder)
    d["a"] = "old"

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    for act in (lambda: d.__setitem__("a", "new"), lambda: d.__delitem__("a")):
        with pytest.raises(errors.SyncFailed):
            act()


def test_short_reads_and_writes_lose_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shortened(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda fd, what: call(fd, min(what, 7) if isinstance(what, int) else bytes(what)[:7])

    monkeypatch.setattr(os, "write", shortened(os.write))
    monkeypatch.setattr(os, "read", shortened(os.read))
    d = open_files(folder, serialization_format="txt")
    d["a"] = "0123456789" * 10
    assert d["a"] == "0123456789" * 10


def test_a_clock_that_is_set_back_makes_no_etag_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pistributer.storage import value_files

    d = open_files(folder)
    moments = iter([10**18, 10**18, 10**18 - 10**12, 5])
    monkeypatch.setattr(value_files.time, "time_ns", lambda: next(moments))
    seen = [d.set_item_get_etag("a", i % 2) for i in range(4)]
    assert len(set(seen)) == 4
    assert len({etag.split(":")[0] for etag in seen if etag}) == 4


# -- a listing reads names, not values


def test_len_keys_and_dates_open_no_value(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = open_files(folder)
    d.update({("a", f"k{i}"): i for i in range(20)})
    from pistributer.storage import value_files

    monkeypatch.setattr(value_files, "read_value", lambda path: pytest.fail(f"{path} was opened"))
    assert len(d) == 20
    assert len(list(d)) == 20
    assert len(d.newest_keys(3)) == 3
    assert len(dict(d.keys_and_timestamps())) == 20
    assert d.random_key() is not None
    assert ("a", "k1") in d
    assert d
