"""The contract of dictionaries, over each class and each way to stack them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.dicts import (
    AppendOnlyDictCached,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    OverlappingMultiDict,
    PersiDict,
    WriteOnceDict,
)

from .dict_conformance import AppendOnlyContract, DictContract


class TestLocalDict(DictContract):
    one_object = "each is its own memory"
    no_pickle = "it lives in one process"

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return LocalDict(**params)


class TestFileDirDict(DictContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return FileDirDict(folder, sync="none", **params)


class TestFileDirDictDurable(DictContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return FileDirDict(folder, **params)


class TestFileDirDictJson(DictContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return FileDirDict(folder, serialization_format="json", digest_len=8, sync="none", **params)


class TestSubdict(DictContract):
    """A view is a dictionary like any other."""

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return FileDirDict(folder, sync="none", **params).get_subdict(("deep", "er"))


class TestLocalSubdict(DictContract):
    one_object = "each is its own memory"
    no_pickle = "it lives in one process"

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return LocalDict(**params).get_subdict("deep")


class TestMutableDictCached(DictContract):
    no_pickle = "its caches live in one process"

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return MutableDictCached(FileDirDict(folder, sync="none", **params), LocalDict(), LocalDict())


class TestCacheOverFiles(DictContract):
    """A cache that outlives the process, and that others fill too."""

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        main, data = (FileDirDict[Any](folder / name, sync="none", **params) for name in ("main", "data"))
        return MutableDictCached(main, data, FileDirDict(folder / "etags", sync="none"))


class TestFileDirDictAppendOnly(AppendOnlyContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return FileDirDict(folder, append_only=True, sync="none", **params)


class TestLocalDictAppendOnly(AppendOnlyContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return LocalDict(append_only=True, **params)


class TestAppendOnlyDictCached(AppendOnlyContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return AppendOnlyDictCached(FileDirDict(folder, append_only=True, sync="none"), LocalDict())


class TestWriteOnceDict(AppendOnlyContract):
    ignores_second = True

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return WriteOnceDict(FileDirDict(folder, append_only=True, sync="none"))


class TestWriteOnceOverCache(AppendOnlyContract):
    ignores_second = True

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        files = FileDirDict[Any](folder, append_only=True, sync="none")
        return WriteOnceDict(AppendOnlyDictCached(files, LocalDict()))


# -- what one class alone does


def test_an_empty_dict_takes_everything_and_keeps_nothing() -> None:
    d: EmptyDict[Any] = EmptyDict()
    d["a"] = 1
    assert "a" not in d
    assert d == {}
    assert d.setdefault("a", 5) == 5
    assert d.set_item_get_etag("a", 1) is None
    assert d.discard("a") is False
    assert d.transform_item("a", transformer=lambda now: 1).new_value == 1
    assert (d.random_key(), d.newest_keys(), d.subdicts(), len(d.get_subdict("a"))) == (None, [], {}, 0)
    with pytest.raises(KeyError):
        d["a"]
    with pytest.raises(errors.BadKey):
        d[""] = 1
    with pytest.raises(TypeError):
        EmptyDict(base_class_for_values=int)["a"] = "x"


def test_local_dicts_can_share_a_backend_and_are_told_apart_by_format() -> None:
    one: LocalDict[Any] = LocalDict()
    other = LocalDict[Any](one.backend)
    text = LocalDict[Any](one.backend, serialization_format="txt")
    one["a"] = [1]
    assert other["a"] == [1]
    assert "a" not in text
    with pytest.raises(TypeError):
        text["a"] = 5
    assert LocalDict[Any](bucket_name="ignored") == {}


@pytest.mark.parametrize("share", [None, 0, 1])
def test_write_once_compares_repeated_writes(tmp_path: Path, share: float | None) -> None:
    d = WriteOnceDict[Any](FileDirDict(tmp_path / "d", append_only=True, sync="none"), p_consistency_checks=share)
    d["a"] = {"x": (1, 2)}
    d["a"] = {"x": (1, 2)}
    if share:
        with pytest.raises(errors.InconsistentValue):
            d["a"] = {"x": (1, 3)}
        counts = (d.consistency_checks_attempted, d.consistency_checks_passed, d.consistency_checks_failed)
        assert counts == (2, 1, 1)
    else:
        d["a"] = {"x": (1, 3)}
        assert d.consistency_checks_attempted == 0
    assert d["a"] == {"x": (1, 2)}
    with pytest.raises(ValueError, match="0 to 1"):
        d.p_consistency_checks = 2


def test_write_once_needs_an_append_only_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="append-only"):
        WriteOnceDict(FileDirDict(tmp_path / "d"))
    with pytest.raises(TypeError):
        WriteOnceDict({})  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    WriteOnceDict()["a"] = 1
    assert (tmp_path / "__file_dir_dict__" / "a.pkl").is_file()


def test_caches_refuse_what_they_can_not_work_with(tmp_path: Path) -> None:
    growing = FileDirDict[Any](tmp_path / "d", append_only=True)
    with pytest.raises(ValueError, match="append-only"):
        MutableDictCached(growing, LocalDict(), LocalDict())
    with pytest.raises(ValueError, match="append-only"):
        AppendOnlyDictCached(LocalDict(), LocalDict())
    with pytest.raises(TypeError):
        MutableDictCached({}, LocalDict(), LocalDict())  # type: ignore[arg-type]


def test_a_cache_sees_what_others_wrote_to_the_main_dictionary(tmp_path: Path) -> None:
    main = FileDirDict[Any](tmp_path / "d", sync="none")
    cached = MutableDictCached(FileDirDict[Any](tmp_path / "d", sync="none"), LocalDict(), LocalDict())
    main["a"] = 1
    assert cached["a"] == 1
    main["a"] = 2
    assert cached["a"] == 2
    del main["a"]
    assert "a" not in cached
    with pytest.raises(KeyError):
        cached["a"]


def test_a_cache_whose_halves_do_not_belong_together_is_not_believed(tmp_path: Path) -> None:
    """Two writers filled the two caches in different orders: the value of one, the ETag of the other."""
    data, etags = LocalDict[Any](), LocalDict[Any]()
    cached = MutableDictCached(FileDirDict[Any](tmp_path / "d", sync="none"), data, etags)
    cached["a"] = "right"
    data["a"] = "of another writer"
    assert cached["a"] == "right"
    etags["a"] = cached.main_dict.etag("a")  # as persidict leaves it: the ETag alone
    assert cached["a"] == "right"


def test_a_cache_that_can_not_hold_a_value_does_not_spoil_the_write(tmp_path: Path) -> None:
    narrow = LocalDict[Any](serialization_format="json")
    cached = MutableDictCached(FileDirDict[Any](tmp_path / "d", sync="none"), narrow, LocalDict())
    cached["a"] = bytearray(b"x")
    assert cached["a"] == bytearray(b"x")
    assert len(narrow) == 0
    growing = AppendOnlyDictCached(FileDirDict[Any](tmp_path / "g", append_only=True, sync="none"), narrow)
    growing["a"] = bytearray(b"x")
    assert growing["a"] == bytearray(b"x")


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    copies = FileDirDict[Any](tmp_path / "copies", sync="none")
    growing = AppendOnlyDictCached(FileDirDict[Any](tmp_path / "g", append_only=True, sync="none"), copies)
    growing["a"] = 1
    (tmp_path / "copies" / "a.pkl").write_bytes(b"")
    assert growing["a"] == 1
    assert copies["a"] == 1


def test_an_append_only_cache_asks_the_main_dictionary_once(tmp_path: Path) -> None:
    main = FileDirDict[Any](tmp_path / "d", append_only=True, sync="none")
    main["a"] = [1]
    cached = AppendOnlyDictCached(main, LocalDict())
    assert cached["a"] == [1]
    (tmp_path / "d" / "a.pkl").unlink()
    assert cached["a"] == [1]
    assert "a" in cached


def test_overlapping_dictionaries(tmp_path: Path) -> None:
    multi = OverlappingMultiDict[Any](FileDirDict, {"base_dir": tmp_path, "sync": "none"}, json={}, pkl={}, txt={})
    multi.json["config"] = {"setting": "value"}
    multi.pkl["config"] = {1, 2}
    multi.txt["config"] = "plain\r\ntext"
    assert {path.name for path in tmp_path.glob("config.*")} == {"config.json", "config.pkl", "config.txt"}
    assert (multi.json["config"], multi.pkl["config"]) == ({"setting": "value"}, {1, 2})
    assert (tmp_path / "config.txt").read_bytes() == b"plain\r\ntext"
    assert len(multi.json) == 1
    assert multi.subdicts_names == ["json", "pkl", "txt"]
    for refused in (lambda: multi["a"], lambda: len(multi), lambda: list(multi), lambda: "a" in multi):
        with pytest.raises(TypeError, match="holds dictionaries"):
            refused()
    with pytest.raises(AttributeError, match="json, pkl, txt"):
        multi.xml  # noqa: B018 - the attribute is what is asked for
    with pytest.raises(TypeError):
        OverlappingMultiDict(dict, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        OverlappingMultiDict(FileDirDict, {}, json=5)  # type: ignore[arg-type]
