"""What the contract of a persistent dictionary promises, one test per promise, run unchanged over every class.

A class's test module subclasses `DictContract` and says how one is opened. `AppendOnlyContract` is for those that only grow.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pistributer import errors
from pistributer.dicts import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_HAS_NOT_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    LocalDict,
    NonEmptySafeStrTuple,
    PersiDict,
)

Open = Callable[..., PersiDict[Any]]

BAD_KEYS: dict[str, Any] = {
    "empty": "",
    "empty-tuple": (),
    "dot": ".",
    "dots": "..",
    "dots-inside": ("a", "..", "b"),
    "slash": "a/b",
    "backslash": "a\\b",
    "nul": "a\0b",
    "newline": "a\n",
    "space": "a b",
    "look-alike-slash": "a\u2215b",
    "look-alike-dots": "\u2024\u2024",
    "fullwidth": "\uff41",
    "ours": "#stage",
    "tilde-ok-star-not": "a*",
    "long": "x" * 254,
    "number": 5,
    "none": None,
    "bytes": b"a",
    "nested-number": ("a", 5),
    "mapping": {"a": 1},
}


class _Hooks:
    #: Why the dictionary can not be opened twice on the same items, if so.
    one_object: ClassVar[str | None] = None
    #: Why it can not be pickled, if so.
    no_pickle: ClassVar[str | None] = None
    #: Why it can not be bound to one class, if so.
    other_classes: ClassVar[bool] = True

    def make(self, folder: Path, **params: Any) -> PersiDict[Any]:
        """A dictionary over what `folder` stands for: the same items whenever it is the same folder."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return lambda name="d", **params: self.make(tmp_path / name, **params)

    def again(self, opened: Open, **params: Any) -> PersiDict[Any]:
        if self.one_object:
            pytest.skip(self.one_object)
        return opened(**params)


class DictContract(_Hooks):
    """For dictionaries that can be changed."""

    @pytest.fixture
    def d(self, opened: Open) -> PersiDict[Any]:
        return opened()

    # -- the dictionary

    def test_what_is_stored_comes_back(self, d: PersiDict[Any]) -> None:
        for number, value in enumerate(
            [None, True, 0, -1.5, "", "é\n\r\0", [1, [2, {}]], {"a": {"b": [None]}}, "x" * 200_000]
        ):
            d[f"k{number}"] = value
            assert d[f"k{number}"] == value
            assert type(d[f"k{number}"]) is type(value)

    def test_another_object_sees_it(self, d: PersiDict[Any], opened: Open) -> None:
        d["a", "b"] = [1]
        assert self.again(opened)["a", "b"] == [1]

    def test_a_missing_key_is_a_key_error_that_names_it(self, d: PersiDict[Any]) -> None:
        for act in (d.__getitem__, d.__delitem__, d.pop, d.timestamp, d.etag):
            with pytest.raises(KeyError) as caught:
                act(("no", "such"))
            assert caught.value.args == (("no", "such"),)
        with pytest.raises(KeyError):
            d.get_item_if_etag_changed("no", None)
        assert d.get("no") is None
        assert d.get("no", 5) == 5
        assert d.pop("no", None) is None
        assert "no" not in d
        with pytest.raises(KeyError):
            d.popitem()

    def test_the_forms_of_a_key_are_one_key(self, d: PersiDict[Any]) -> None:
        d["a", "b"] = 1
        for form in (["a", "b"], ("a", ["b"]), NonEmptySafeStrTuple("a", "b"), NonEmptySafeStrTuple(("a",), "b")):
            assert d[form] == 1
            assert form in d
        assert list(d) == [("a", "b")]
        assert all(type(key) is NonEmptySafeStrTuple for key in d)

    @pytest.mark.parametrize("key", list(BAD_KEYS.values()), ids=list(BAD_KEYS))
    def test_what_can_not_be_a_key_is_refused_by_every_method(self, d: PersiDict[Any], key: Any) -> None:
        acts: list[Callable[[], Any]] = [
            lambda: d[key],
            lambda: d.__setitem__(key, 1),
            lambda: d.__delitem__(key),
            lambda: key in d,
            lambda: d.get(key),
            lambda: d.pop(key, None),
            lambda: d.setdefault(key, 1),
            lambda: d.discard(key),
            lambda: d.etag(key),
            lambda: d.transform_item(key, transformer=lambda _: 1),
        ]
        for act in acts:
            with pytest.raises(errors.BadKey) as caught:
                act()
            assert isinstance(caught.value, ValueError)
            if key in (5, None, b"a"):
                assert isinstance(caught.value, TypeError)
        assert len(d) == 0

    def test_a_segment_of_the_greatest_length_works_or_is_refused_before_anything_is_written(
        self, d: PersiDict[Any]
    ) -> None:
        for length in (200, 249, 250, 251, 253):
            key = ("x" * length, "y")
            try:
                d[key] = length
            except errors.BadKey:
                assert key not in d
                assert d.get(key) is None
            else:
                assert d[key] == length
        assert all(d[key] == len(key[0]) for key in d)

    def test_iteration_len_and_truth(self, d: PersiDict[Any]) -> None:
        assert not d
        assert len(d) == 0
        wanted = {("a",): 1, ("b", "c"): 2, ("b", "d", "e"): 3}
        d.update(wanted)
        assert d
        assert len(d) == 3
        assert {tuple(key) for key in d} == set(wanted)
        assert {tuple(key): value for key, value in d.items()} == wanted
        assert sorted(d.values()) == [1, 2, 3]
        assert set(d.keys()) == {NonEmptySafeStrTuple(key) for key in wanted}
        assert len(d.items()) == len(d.values()) == 3
        assert str(d) == str({key: d[key] for key in map(tuple, d)})

    def test_keys_of_one_segment_are_found_in_sets_and_dicts_as_their_strings(self, d: PersiDict[Any]) -> None:
        d.update({"a": 1, "b": 2})
        assert set(d) == {"a", "b"}
        assert dict(d.items()) == {"a": 1, "b": 2}

    def test_deletion(self, d: PersiDict[Any]) -> None:
        d.update({"a": 1, "b": 2, ("c", "d"): 3})
        del d["a"]
        assert d.discard("b") is True
        assert d.discard("b") is False
        assert d.delete_if_exists(("c", "d")) is True
        assert len(d) == 0
        assert list(d) == []

    def test_pop_popitem_and_clear(self, d: PersiDict[Any]) -> None:
        d.update({f"k{i}": i for i in range(5)})
        assert d.pop("k3") == 3
        key, value = d.popitem()
        assert key not in d
        assert value in range(5)
        assert len(d) == 3
        d.clear()
        assert len(d) == 0
        with pytest.raises(TypeError):
            d.pop("a", 1, 2)

    def test_setdefault_stores_once(self, d: PersiDict[Any]) -> None:
        assert d.setdefault("a", [1]) == [1]
        assert d.setdefault("a", [2]) == [1]
        assert d["a"] == [1]
        with pytest.raises(TypeError):
            d.setdefault("b", KEEP_CURRENT)

    def test_a_value_belongs_to_who_got_it(self, d: PersiDict[Any]) -> None:
        given = {"x": [1]}
        d["a"] = given
        given["x"].append(2)
        d["a"]["x"].append(3)
        next(iter(d.values()))["x"].append(4)
        assert d["a"] == {"x": [1]}

    def test_it_equals_a_mapping_with_the_same_items(self, d: PersiDict[Any]) -> None:
        d.update({"a": 1, ("b", "c"): 2})
        assert d == {"a": 1, ("b", "c"): 2}
        other = LocalDict[Any]()
        other.update(d)
        assert d == other
        assert d != {"a": 1}
        assert d != {"a": 1, ("b", "c"): 3}
        assert d != {"a": 1, 5: 2}
        assert d != None  # noqa: E711 - the question is what == None says
        assert d != 5
        d |= {"z": 3}
        assert d["z"] == 3

    def test_a_value_of_the_wrong_class_is_refused(self, opened: Open) -> None:
        if not self.other_classes:
            pytest.skip("its class is fixed")
        d = opened(base_class_for_values=int)
        d["a"] = 1
        with pytest.raises(TypeError):
            d["a"] = "text"
        with pytest.raises(TypeError):
            d.set_item_if("a", value="text", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
        assert d["a"] == 1
        with pytest.raises(TypeError):
            d["b"] = d

    def test_what_the_format_can_not_hold_is_refused_and_the_old_value_stands(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        with pytest.raises(errors.BadValue):
            d["a"] = threading.Lock()
        with pytest.raises(errors.BadValue):
            d["b"] = [lambda: None, threading.Lock()]
        assert d == {"a": 1}

    # -- jokers

    def test_jokers(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        d["a"] = KEEP_CURRENT
        d["b"] = KEEP_CURRENT
        assert d == {"a": 1}
        d["a"] = DELETE_CURRENT
        d["b"] = DELETE_CURRENT
        assert d == {}
        assert d.set_item_get_etag("a", KEEP_CURRENT) is None

    # -- hierarchy

    def test_a_subdict_is_a_live_view(self, d: PersiDict[Any]) -> None:
        d.update({("u", "alice", "p"): 1, ("u", "bob", "p"): 2, ("c", "db"): 3, "u": 4})
        users = d.get_subdict("u")
        assert users == {("alice", "p"): 1, ("bob", "p"): 2}
        assert d.get_subdict(("u", "alice"))["p"] == 1
        users["carol"] = 5
        assert d["u", "carol"] == 5
        del users["bob", "p"]
        assert ("u", "bob", "p") not in d
        assert d.get_subdict(()) == d
        assert users.get_subdict("alice") == {"p": 1}

    def test_a_subdict_of_nothing_is_empty_and_makes_nothing(self, d: PersiDict[Any]) -> None:
        view = d.get_subdict(("no", "such"))
        assert len(view) == 0
        assert list(view.items()) == []
        assert not view
        assert d.subdicts() == {}
        view["x"] = 1
        assert d == {("no", "such", "x"): 1}

    def test_subdicts_are_named_by_first_segments(self, d: PersiDict[Any]) -> None:
        d.update({("a", "x"): 1, ("b", "x", "y"): 2, "c": 3})
        found = d.subdicts()
        assert set(found) == {"a", "b", "c"}
        assert found["b"] == {("x", "y"): 2}
        assert found["c"] == {}

    def test_random_key(self, d: PersiDict[Any]) -> None:
        assert d.random_key() is None
        d.update({"a": 1, "b": 2})
        assert {d.random_key() for _ in range(60)} == {"a", "b"}

    # -- time

    def test_timestamps_order_the_keys(self, d: PersiDict[Any]) -> None:
        for name in "cab":
            d[name] = name
        assert d.oldest_keys() == ["c", "a", "b"]
        assert d.newest_keys() == ["b", "a", "c"]
        assert d.newest_keys(max_n=2) == ["b", "a"]
        assert d.oldest_keys(1) == ["c"]
        assert d.newest_values(2) == ["b", "a"]
        assert d.oldest_values() == ["c", "a", "b"]
        assert d.newest_keys(0) == d.oldest_keys(-1) == []
        d["c"] = "again"
        assert d.newest_keys(1) == ["c"]

    def test_timestamps_go_with_keys_and_values(self, d: PersiDict[Any]) -> None:
        d.update({"a": 1, "b": 2})
        times = {key: d.timestamp(key) for key in d}
        assert dict(d.keys_and_timestamps()) == times
        assert dict(d.values_and_timestamps()) == {1: times["a"], 2: times["b"]}  # type: ignore[index]
        assert sorted(d.items_and_timestamps()) == sorted((key, d[key], times[key]) for key in d)
        assert all(isinstance(moment, float) for moment in times.values())

    # -- ETags and conditions

    def test_every_change_has_an_etag_of_its_own(self, d: PersiDict[Any]) -> None:
        seen = [d.set_item_get_etag("a", i) for i in range(50)]
        assert len(set(seen)) == 50
        assert d.etag("a") == seen[-1]
        assert all(isinstance(etag, str) for etag in seen)

    def test_get_item_if_etag_changed(self, d: PersiDict[Any]) -> None:
        first = d.set_item_get_etag("a", 1)
        assert d.get_item_if_etag_changed("a", first) is ETAG_HAS_NOT_CHANGED
        second = d.set_item_get_etag("a", 2)
        assert d.get_item_if_etag_changed("a", first) == (2, second)
        assert d.get_item_if_etag_changed("a", None) == (2, second)

    def test_get_with_etag(self, d: PersiDict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        found = d.get_with_etag("a")
        assert (found.new_value, found.actual_etag, found.resulting_etag) == (1, etag, etag)
        assert found.condition_was_satisfied
        assert not found.value_was_mutated
        missing = d.get_with_etag("b")
        assert missing.new_value is missing.actual_etag is ITEM_NOT_AVAILABLE

    def test_set_item_if(self, d: PersiDict[Any]) -> None:
        made = d.set_item_if("a", value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
        assert made.condition_was_satisfied
        assert made.value_was_mutated
        assert made.resulting_etag == d.etag("a")
        refused = d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
        assert not refused.condition_was_satisfied
        assert refused.new_value == 1
        assert refused.actual_etag == made.resulting_etag
        changed = d.set_item_if("a", value=3, condition=ETAG_IS_THE_SAME, expected_etag=made.resulting_etag)
        assert (changed.condition_was_satisfied, d["a"]) == (True, 3)
        late = d.set_item_if(
            "a", value=4, condition=ETAG_IS_THE_SAME, expected_etag=made.resulting_etag, retrieve_value=NEVER_RETRIEVE
        )
        assert (late.condition_was_satisfied, late.new_value, d["a"]) == (False, VALUE_NOT_RETRIEVED, 3)
        present = d.set_item_if("a", value=5, condition=ETAG_HAS_CHANGED, expected_etag=ITEM_NOT_AVAILABLE)
        assert (present.condition_was_satisfied, d["a"]) == (True, 5)
        any_of_it = d.set_item_if("new", value=6, condition=ANY_ETAG, expected_etag="x")
        assert (any_of_it.condition_was_satisfied, any_of_it.actual_etag) == (True, ITEM_NOT_AVAILABLE)

    def test_set_item_if_with_jokers(self, d: PersiDict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        assert etag is not None
        kept = d.set_item_if("a", value=KEEP_CURRENT, condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert (kept.condition_was_satisfied, kept.new_value) == (True, VALUE_NOT_RETRIEVED)
        always = d.set_item_if(
            "a", value=KEEP_CURRENT, condition=ANY_ETAG, expected_etag=etag, retrieve_value=ALWAYS_RETRIEVE
        )
        assert always.new_value == 1
        gone = d.set_item_if("a", value=DELETE_CURRENT, condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert gone.condition_was_satisfied
        assert gone.resulting_etag is ITEM_NOT_AVAILABLE
        assert "a" not in d

    def test_get_item_if_fetches_what_is_asked(self, d: PersiDict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        assert etag is not None
        same = d.get_item_if("a", condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert (same.condition_was_satisfied, same.new_value) == (True, VALUE_NOT_RETRIEVED)
        other = d.get_item_if("a", condition=ETAG_IS_THE_SAME, expected_etag="other")
        assert (other.condition_was_satisfied, other.new_value) == (False, 1)
        forced = d.get_item_if("a", condition=ANY_ETAG, expected_etag=etag, retrieve_value=ALWAYS_RETRIEVE)
        assert forced.new_value == 1
        none = d.get_item_if("b", condition=ETAG_HAS_CHANGED, expected_etag=etag)
        assert (none.condition_was_satisfied, none.new_value) == (True, ITEM_NOT_AVAILABLE)

    def test_setdefault_if(self, d: PersiDict[Any]) -> None:
        no = d.setdefault_if("a", default_value=1, condition=ETAG_HAS_CHANGED, expected_etag=ITEM_NOT_AVAILABLE)
        assert not no.condition_was_satisfied
        assert "a" not in d
        yes = d.setdefault_if("a", default_value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
        assert (yes.new_value, d["a"]) == (1, 1)
        there = d.setdefault_if("a", default_value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
        assert (there.condition_was_satisfied, there.new_value, d["a"]) == (True, 1, 1)

    def test_discard_if(self, d: PersiDict[Any]) -> None:
        etag = d.set_item_get_etag("a", 1)
        assert etag is not None
        d["a"] = 2
        late = d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=etag)
        assert (late.condition_was_satisfied, late.new_value) == (False, VALUE_NOT_RETRIEVED)
        assert d["a"] == 2
        assert d.discard_if("a", condition=ETAG_HAS_CHANGED, expected_etag=etag).condition_was_satisfied
        assert "a" not in d
        absent = d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
        assert absent.condition_was_satisfied

    def test_transform_item(self, d: PersiDict[Any]) -> None:
        count = lambda now: 1 if now is ITEM_NOT_AVAILABLE else now + 1  # noqa: E731 - as users write it
        assert d.transform_item("n", transformer=count).new_value == 1
        result = d.transform_item("n", transformer=count)
        assert (result.new_value, result.resulting_etag) == (2, d.etag("n"))
        assert d.transform_item("n", transformer=lambda _: KEEP_CURRENT).new_value == 2
        assert d.transform_item("n", transformer=lambda _: DELETE_CURRENT).new_value is ITEM_NOT_AVAILABLE
        assert "n" not in d
        assert d.transform_item("n", transformer=lambda _: DELETE_CURRENT).resulting_etag is ITEM_NOT_AVAILABLE

    def test_a_transformer_that_is_overtaken_is_called_again(self, d: PersiDict[Any]) -> None:
        d["n"] = 1
        seen = []

        def slow(now: int) -> int:
            seen.append(now)
            if len(seen) < 3:
                d["n"] = now + 10
            return now + 1

        assert d.transform_item("n", transformer=slow).new_value == 22
        assert seen == [1, 11, 21]

    def test_a_transformer_that_is_always_overtaken_ends_in_a_conflict(self, d: PersiDict[Any]) -> None:
        d["n"] = 0

        def overtaken(now: int) -> int:
            d["n"] = now + 1
            return -1

        with pytest.raises(errors.ConcurrencyConflictError) as caught:
            d.transform_item("n", transformer=overtaken, n_retries=2)
        assert caught.value.attempts == 3  # type: ignore[attr-defined]
        assert d["n"] == 3
        for bad in (-1, 1.5, "x"):
            with pytest.raises((ValueError, TypeError)):
                d.transform_item("n", transformer=overtaken, n_retries=bad)  # type: ignore[arg-type]

    def test_threads_lose_no_increment(self, d: PersiDict[Any]) -> None:
        d["n"] = 0

        def work() -> None:
            for _ in range(10):
                d.transform_item("n", transformer=lambda now: now + 1, n_retries=None)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert d["n"] == 40

    def test_of_threads_that_pop_one_item_one_gets_it(self, d: PersiDict[Any]) -> None:
        d.update({f"k{i}": i for i in range(30)})
        got: list[Any] = []

        def work() -> None:
            while True:
                try:
                    got.append(d.popitem()[1])
                except KeyError:
                    return

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(30))

    # -- parameters

    def test_params_make_the_same_dictionary_again(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        params = d.get_params()
        assert list(params) == sorted(params)
        assert type(d)(**params).get_params() == params
        assert copy.copy(d) == d
        assert copy.copy(d)["a"] == 1
        assert repr(d).startswith(type(d).__name__ + "(")

    def test_it_pickles_as_its_parameters(self, d: PersiDict[Any]) -> None:
        if self.no_pickle:
            with pytest.raises(TypeError):
                pickle.dumps(d)
            return
        d["a"] = 1
        assert pickle.loads(pickle.dumps(d))["a"] == 1


class AppendOnlyContract(_Hooks):
    """For dictionaries that only grow."""

    @pytest.fixture
    def d(self, opened: Open) -> PersiDict[Any]:
        return opened()

    #: Whether a second value is ignored instead of refused.
    ignores_second: ClassVar[bool] = False

    def test_the_first_value_stands(self, d: PersiDict[Any]) -> None:
        d["a"] = [1]
        if self.ignores_second:
            d["a"] = [2]
        else:
            with pytest.raises(errors.MutationPolicyError) as caught:
                d["a"] = [2]
            assert isinstance(caught.value, KeyError)
            assert isinstance(caught.value, TypeError)
        assert d["a"] == [1]
        assert d.append_only

    def test_nothing_is_deleted(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        acts: list[Callable[[], Any]] = [
            lambda: d.__delitem__("a"),
            lambda: d.discard("a"),
            lambda: d.discard("none"),
            lambda: d.pop("a"),
            d.popitem,
            d.clear,
            lambda: d.__setitem__("a", DELETE_CURRENT),
            lambda: d.discard_if("a", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE),
            lambda: d.set_item_if("a", value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE),
            lambda: d.transform_item("a", transformer=lambda _: 2),
        ]
        for act in acts:
            with pytest.raises(errors.MutationPolicyError):
                act()
        assert d == {"a": 1}

    def test_what_changes_nothing_works(self, d: PersiDict[Any]) -> None:
        d["a"] = 1
        d["a"] = KEEP_CURRENT
        assert d.setdefault("a", 2) == 1
        assert d.setdefault("b", 3) == 3
        assert d.transform_item("a", transformer=lambda _: KEEP_CURRENT).new_value == 1
        assert d.get_subdict("x") == {}
        assert d.newest_keys(1) == ["b"]
        assert d.get_with_etag("a").actual_etag == d.etag("a")

    def test_of_threads_that_add_one_key_one_wins(self, d: PersiDict[Any]) -> None:
        outcomes: list[Any] = []

        def work(number: int) -> None:
            for i in range(10):
                try:
                    d[f"k{i}"] = number
                    outcomes.append((i, number))
                except errors.MutationPolicyError:
                    pass

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(d) == 10
        if not self.ignores_second:
            assert sorted(outcomes) == sorted((i, d[f"k{i}"]) for i in range(10))
