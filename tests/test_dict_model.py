"""A random history of operations on every kind of dictionary and on a plain dict: they never differ."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from pistributer import errors
from pistributer.dicts import (
    ALWAYS_RETRIEVE,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    PersiDict,
)

# Few segments, so that histories meet again; cases, digests and format endings among them.
SEGMENTS = st.sampled_from(["a", "A", "b", "a.pkl", "a_btax", "-", "~=.x", "_"])
KEYS = st.lists(SEGMENTS, min_size=1, max_size=3).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
RICH = JSON | st.tuples(st.integers(), JSON) | st.frozensets(st.integers(), max_size=3) | st.binary(max_size=8)

MAKERS: dict[str, Callable[[Path], PersiDict[Any]]] = {
    "local": lambda folder: LocalDict(),
    "files": lambda folder: FileDirDict(folder, sync="none"),
    "files-json": lambda folder: FileDirDict(folder, serialization_format="json", digest_len=4, sync="none"),
    "cached": lambda folder: MutableDictCached(FileDirDict(folder, sync="none"), LocalDict(), LocalDict()),
}


class Machine(RuleBasedStateMachine):
    """Subclassed below for each kind."""

    maker: Callable[[Path], PersiDict[Any]]
    etags = Bundle("etags")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.real = type(self).maker(self.folder / "d")
        self.model: dict[tuple[str, ...], Any] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(target=etags, key=KEYS, value=RICH)
    def set(self, key: tuple[str, ...], value: Any) -> tuple[tuple[str, ...], Any]:
        try:
            etag = self.real.set_item_get_etag(key, value)
        except errors.BadKey:
            assert "a.pkl" in key[:-1]  # would stand where another item belongs: refused by FileDirDict
            return key, "refused"
        except errors.BadValue:
            assert "py/" in repr(value)
            return key, "refused"
        self.model[key] = value
        return key, etag

    @rule(key=KEYS)
    def look(self, key: tuple[str, ...]) -> None:
        assert (key in self.real) == (key in self.model)
        assert self.real.get(key, "absent") == self.model.get(key, "absent")

    @rule(key=KEYS)
    def discard(self, key: tuple[str, ...]) -> None:
        assert self.real.discard(key) == (self.model.pop(key, self) is not self)

    @rule(key=KEYS)
    def pop(self, key: tuple[str, ...]) -> None:
        assert self.real.pop(key, "absent") == self.model.pop(key, "absent")

    @rule(seen=consumes(etags), value=JSON)
    def set_if_same(self, seen: tuple[tuple[str, ...], Any], value: Any) -> None:
        key, etag = seen
        same = key in self.model and self.real.etag(key) == etag
        try:
            result = self.real.set_item_if(key, value=value, condition=ETAG_IS_THE_SAME, expected_etag=etag)
        except errors.BadKey:
            return
        assert result.condition_was_satisfied == same
        if same:
            self.model[key] = value

    @rule(seen=etags)
    def discard_if_changed(self, seen: tuple[tuple[str, ...], Any]) -> None:
        key, etag = seen
        changed = key not in self.model or self.real.etag(key) != etag
        result = self.real.discard_if(key, condition=ETAG_HAS_CHANGED, expected_etag=etag)
        assert result.condition_was_satisfied == changed
        if changed:
            self.model.pop(key, None)

    @rule(key=KEYS, value=JSON)
    def transform(self, key: tuple[str, ...], value: Any) -> None:
        try:
            self.real.transform_item(
                key, transformer=lambda now: value if now is ITEM_NOT_AVAILABLE else DELETE_CURRENT
            )
        except errors.BadKey:
            return
        if self.model.pop(key, self) is self:
            self.model[key] = value

    @rule(prefix=st.lists(SEGMENTS, max_size=2).map(tuple))
    def subdict(self, prefix: tuple[str, ...]) -> None:
        size = len(prefix)
        inside = {key[size:]: value for key, value in self.model.items() if key[:size] == prefix and len(key) > size}
        assert self.real.get_subdict(prefix) == inside

    @rule()
    def clear(self) -> None:
        self.real.clear()
        self.model.clear()

    @invariant()
    def the_same_items(self) -> None:
        assert {tuple(key) for key in self.real} == set(self.model)
        assert len(self.real) == len(self.model)
        assert set(self.real.subdicts()) == {key[0] for key in self.model}
        assert sorted(self.real.newest_keys()) == sorted(self.model)

    @invariant()
    def every_item_has_a_mark(self) -> None:
        for key in self.model:
            found = self.real.get_item_if(
                key, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE, retrieve_value=ALWAYS_RETRIEVE
            )
            assert found.new_value == self.model[key]
            assert found.actual_etag == self.real.etag(key)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_no_history_tells_it_from_a_dict(kind: str) -> None:
    machine = type("Machine", (Machine,), {"maker": staticmethod(MAKERS[kind])})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25))  # type: ignore[no-untyped-call]
