"""S3Dict over HTTP: the contract, what a network does to requests, and 10,000 keys and more."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from pistributer import errors
from pistributer.dicts import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    BasicS3Dict,
    LocalDict,
    MutableDictCached,
    PersiDict,
    S3Dict,
    WriteOnceDict,
)

from .dict_conformance import AppendOnlyContract, DictContract
from .processes import Child
from .s3_server import Server, serving
from .test_dict_mapping import MappingTests
from .test_dict_model import Machine


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


_buckets = itertools.count()


class _S3:
    """One bucket for each test; what `folder` stands for is a prefix in it."""

    @pytest.fixture(autouse=True)
    def _use(self, server: Server) -> None:
        self.server = server
        self.bucket = f"bucket-{next(_buckets)}"
        server.faults.clear()

    def params(self, folder: Path) -> dict[str, Any]:
        return {"bucket_name": self.bucket, "root_prefix": folder.name, "options": self.server.options}


class TestBasicS3Dict(_S3, DictContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return BasicS3Dict(**self.params(folder), **params)

    @pytest.mark.skip(reason="S3 knows whole seconds")
    def test_timestamps_order_the_keys(self, d: PersiDict[Any]) -> None: ...


class TestS3Dict(_S3, DictContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return S3Dict(**self.params(folder), base_dir=folder, **params)

    @pytest.mark.skip(reason="S3 knows whole seconds")
    def test_timestamps_order_the_keys(self, d: PersiDict[Any]) -> None: ...


class TestS3DictAppendOnly(_S3, AppendOnlyContract):
    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return S3Dict(**self.params(folder), base_dir=folder, append_only=True, **params)

    def test_what_changes_nothing_works(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        assert d.setdefault("a", 2) == 1
        assert d.setdefault("b", 3) == 3


class TestWriteOnceOverS3(_S3, AppendOnlyContract):
    ignores_second = True

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        return WriteOnceDict(BasicS3Dict(**self.params(folder), append_only=True, **params))

    def test_what_changes_nothing_works(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        assert d.setdefault("a", 2) == 1


class TestMapping(MappingTests):
    """CPython's own tests of mappings."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _use(self, server: Server) -> None:
        self.server = server

    def type2test(self) -> PersiDict[Any]:
        return BasicS3Dict(f"mapping-{next(_buckets)}", options=self.server.options)


def test_no_history_tells_it_from_a_dict(server: Server) -> None:
    options = server.options
    maker = staticmethod(lambda folder: BasicS3Dict(f"history-{next(_buckets)}", options=options))
    machine = type("Machine", (Machine,), {"maker": maker})
    run_state_machine_as_test(machine, settings=settings(max_examples=8, stateful_step_count=12))  # type: ignore[no-untyped-call]


class TestFaults(_S3):
    @pytest.fixture
    def d(self, tmp_path: Path) -> BasicS3Dict[Any]:
        return BasicS3Dict(**self.params(tmp_path))

    @pytest.mark.parametrize("fault", ["500", "503", "lost"])
    def test_a_request_that_fails_is_made_again(self, d: BasicS3Dict[Any], fault: str) -> None:
        for method, act in {
            "PUT": lambda: d.__setitem__("a", 1),
            "GET": lambda: d["a"],
            "HEAD": lambda: d.etag("a"),
            "DELETE": lambda: d.pop("a"),
        }.items():
            self.server.faults[method] = [fault, fault]
            act()
            assert not self.server.faults[method]
        assert "a" not in d

    @pytest.mark.parametrize("fault", ["500", "503", "lost"])
    def test_a_conditional_write_whose_answer_is_lost_is_done_once(self, d: BasicS3Dict[Any], fault: str) -> None:
        for round_ in range(1, 5):
            self.server.faults["PUT"] = [fault] * (round_ % 3)
            result = d.transform_item("n", transformer=lambda now: 1 if now is ITEM_NOT_AVAILABLE else now + 1)
            assert (result.new_value, d["n"]) == (round_, round_)
            assert result.resulting_etag == d.etag("n")

    def test_a_write_that_another_may_have_replaced_has_an_unknown_outcome(self, d: BasicS3Dict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        assert etag is not None
        other = BasicS3Dict[Any](**d.get_params())
        self.server.faults["PUT"] = ["rival"]
        self.server.rival = lambda: other.__setitem__("a", "of a rival")
        with pytest.raises(errors.BackendError, match="was lost") as caught:
            d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert caught.value.outcome == "unknown"  # type: ignore[attr-defined]
        assert d["a"] == "of a rival"

    def test_a_conditional_write_that_was_refused_while_throttled_is_refused(self, d: BasicS3Dict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        assert etag is not None
        d["a"] = 2
        self.server.faults["PUT"] = ["503"]
        result = d.set_item_if("a", value=3, condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert (result.condition_was_satisfied, d["a"]) == (False, 2)

    def test_a_server_that_fails_for_good_is_an_error_with_its_words(self, d: BasicS3Dict[Any]) -> None:
        d["a"] = 1
        for method, act in {"PUT": lambda: d.__setitem__("a", 2), "GET": lambda: d["a"]}.items():
            self.server.faults[method] = ["500"] * 50
            with pytest.raises(errors.BackendError, match="InternalError"):
                act()
            self.server.faults.clear()
        with pytest.raises(errors.BackendError):
            BasicS3Dict(**{**d.get_params(), "options": {**self.server.options, "endpoint": "http://127.0.0.1:9"}})

    def test_damaged_objects_are_errors_that_name_them(self, d: BasicS3Dict[Any]) -> None:
        d._bucket.put(d._path(next(iter([_key("bad")]))), b"garbage")
        with pytest.raises(errors.DamagedValue, match=r"bad\.pkl"):
            d["bad"]


def _key(name: str) -> Any:
    from pistributer.dicts.keys import to_key

    return to_key(name)


class TestS3(_S3):
    def test_objects_lie_where_persidict_puts_them(self, tmp_path: Path) -> None:
        d = S3Dict[Any](self.bucket, options=self.server.options, base_dir=tmp_path, serialization_format="json")
        d["users", "alice"] = {"age": 30}
        found = d.main_dict._bucket.get("users/alice.json")  # type: ignore[attr-defined]
        assert found is not None
        assert found[0] == b'{\n  "age": 30\n}\n'
        assert d.base_url == f"s3://{self.bucket}/"
        assert (d.bucket_name, d.region) == (self.bucket, None)
        assert "s3cr3t" not in repr(d) + repr(d.main_dict)

    def test_strange_objects_are_no_items(self, tmp_path: Path) -> None:
        d = BasicS3Dict[Any](**self.params(tmp_path))
        for path in ("not a key.pkl", "README", "x/.pkl"):
            d._bucket.put(d.root_prefix + path, b"x")
        d["a"] = 1
        assert list(d) == ["a"]
        assert set(d.subdicts()) == {"a"}

    def test_a_cached_read_fetches_the_value_once(self, tmp_path: Path) -> None:
        d = S3Dict[Any](**self.params(tmp_path), base_dir=tmp_path / "copies")
        d["a"] = "x" * 1000
        self.server.requests.clear()
        assert d["a"] == d["a"] == "x" * 1000
        assert {request.split()[0] for request in self.server.requests} == {"HEAD"}
        BasicS3Dict[Any](**self.params(tmp_path))["a"] = "changed elsewhere"
        assert d["a"] == "changed elsewhere"
        for path in (tmp_path / "copies").glob("*.pkl"):
            path.write_bytes(b"")  # what a power cut leaves
        assert d["a"] == "changed elsewhere"

    def test_it_composes_with_caches_in_memory(self, tmp_path: Path) -> None:
        d = MutableDictCached(BasicS3Dict[Any](**self.params(tmp_path)), LocalDict(), LocalDict())
        d["a", "b"] = [1]
        assert d.get_subdict("a")["b"] == [1]

    def test_more_keys_than_one_page_holds(self, tmp_path: Path) -> None:
        d = BasicS3Dict[Any](**self.params(tmp_path), serialization_format="json")
        from moto.s3.models import s3_backends

        bucket = s3_backends["123456789012"]["aws"]
        for number in range(10_050):  # around the network, which is not what is tested
            bucket.put_object(self.bucket, f"{d.root_prefix}g{number % 3}/k{number}.json", b"1")
        dated = dict(d.keys_and_timestamps())
        assert len(dated) == 10_050
        assert {key[0] for key in dated} == set(d.subdicts()) == {"g0", "g1", "g2"}

    def test_another_process_works_on_the_same_bucket(self, tmp_path: Path) -> None:
        d = BasicS3Dict[Any](**self.params(tmp_path))
        d["n"] = 0
        with (
            Child(_increment, pickle.dumps(d), method="spawn") as one,
            Child(_increment, pickle.dumps(d), method="spawn") as other,
        ):
            one.result(), other.result()
        assert d["n"] == 20

    def test_a_server_that_ignores_conditions_on_deletes_is_found_out(self, tmp_path: Path) -> None:
        with serving(conditional_deletes=False) as lax:
            d = BasicS3Dict[Any]("bucket-lax", options=lax.options)
            d["a"] = 1
            with pytest.raises(errors.BackendError, match="whatever the condition"):
                d.pop("a")
            assert list(d) == ["a"]
            assert d.discard("a") is True
            d["a"] = 2
            loose = BasicS3Dict[Any]("bucket-lax", options=lax.options, conditional_deletes=False)
            assert loose.pop("a") == 2
            assert len(d) == 0


def _increment(pipe: Any, pickled: bytes) -> None:
    d = pickle.loads(pickled)
    for _ in range(10):
        d.transform_item("n", transformer=lambda now: now + 1, n_retries=None)


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(errors.PackageMissing, match="pistributer\\[s3\\]"):
        BasicS3Dict("b")
