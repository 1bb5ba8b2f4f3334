"""A state behaves as the dicts and lists that it stands for, and each change is in the file when the statement ends."""

from __future__ import annotations

import copy
import enum
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pistributer import PersistedState, StateClosed, StateError, StateValueError
from pistributer.state import StateDict, StateList, stream

from . import state_values as these


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.yaml"


def on_disk(path: Path) -> Any:
    """What a process that opens the file after this one was killed would see; by an independent replay."""
    found = stream.read(path.read_bytes(), str(path))
    state: Any = found.document
    for change in found.changes:
        if isinstance(change.value, dict):
            state = change.value
            continue
        operation, where, key, *value = change.value
        target = state
        for step in where:
            target = target[step]
        if operation == "set":
            target[key] = value[0]
        elif operation == "delete":
            del target[key]
        else:
            target.insert(key, value[0])
    return state


def test_the_seeds_examples(tmp_path: Path) -> None:
    for begin in (0, 7):
        state = PersistedState(tmp_path / "example.state", last_id=0)
        assert state.last_id == begin
        for current in range(state.last_id + 1, begin + 8):
            state.last_id = current
        del state  # no close
    with PersistedState(tmp_path / "state.yaml", processed_items=[]) as state:
        state.setdefault("key", {})
        state["key"].setdefault("nested", 2)
        state.processed_items.append("<some item>")
        state["key"]["nested"] += 1
        assert on_disk(tmp_path / "state.yaml") == {"processed_items": ["<some item>"], "key": {"nested": 3}}


def test_defaults_are_set_only_where_the_file_says_nothing(path: Path) -> None:
    path.write_text("a: 1\n")
    with PersistedState(path, a=2, b=[3]) as state:
        assert state == {"a": 1, "b": [3]}
    assert path.read_text() == "a: 1\nb:\n- 3\n"


def test_attributes_and_items_are_the_same(path: Path) -> None:
    with PersistedState(path) as state:
        state.a = 1
        state["b c"] = 2
        state[5] = "five"
        assert (state["a"], state.a, state["b c"], state[5]) == (1, 1, 2, "five")
        del state.a
        assert dict(state) == {"b c": 2, 5: "five"}
        assert {"b c", "items"} <= {name for name in dir(state) if isinstance(name, str)}
        assert repr(state) == f"PersistedState({str(path)!r}, {{'b c': 2, 5: 'five'}})"
        assert on_disk(path) == {"b c": 2, 5: "five"}


def test_what_is_missing_raises_as_objects_and_dicts_do(path: Path) -> None:
    with PersistedState(path) as state:
        with pytest.raises(AttributeError, match="'PersistedState' object has no attribute 'nope'"):
            _ = state.nope
        with pytest.raises(KeyError):
            _ = state["nope"]
        with pytest.raises(AttributeError):
            del state.nope
        with pytest.raises(KeyError):
            del state["nope"]
        with pytest.raises(KeyError):
            state.pop("nope")
        assert state.pop("nope", None) is None
        assert state.get("nope", 5) == 5
        assert path.read_text() == "{}\n"


class Colour(enum.IntEnum):
    RED = 1


def test_a_key_of_another_class_finds_the_one_that_it_is_equal_to(path: Path) -> None:
    with PersistedState(path, d={1: "a", "k": "b"}) as state:
        state.d[Colour.RED] = "c"
        state.d.update({Colour.RED: "d", True: {"x": 0}})
        state.d[1]["x"] = 1
        state.d[Colour.RED] = "e"
        assert on_disk(path) == {"d": {1: "e", "k": "b"}}
        assert [type(key) for key in state.d] == [int, str]
        del state.d[Colour.RED]
        with pytest.raises(StateValueError):
            state.d[Colour.RED] = "new"
        assert on_disk(path) == state == {"d": {"k": "b"}}


def test_updating_with_what_is_there_keeps_the_objects(path: Path) -> None:
    with PersistedState(path, a={"b": [1]}) as state:
        inner = state.a["b"]
        state.update(state)
        state.a |= state.a
        state.a = state.a
        state.a["b"] = inner
        inner.append(2)
        assert on_disk(path) == state == {"a": {"b": [1, 2]}}


def test_names_that_are_not_stored(path: Path) -> None:
    with PersistedState(path) as state:
        state._private = object()
        assert "_private" not in state
        del state._private
        with pytest.raises(AttributeError, match="is a method"):
            state.items = [1]  # type: ignore[method-assign,assignment]
        state["items"] = [1]  # by item every name is free
        assert state["items"] == [1]
        assert state == {"items": [1]}


def test_a_subclass_may_have_methods_and_properties(path: Path) -> None:
    class Settings(PersistedState):
        def __init__(self, where: Path) -> None:
            super().__init__(where, seen=0)

        @property
        def double(self) -> int:
            return int(self.seen * 2)

        @double.setter
        def double(self, value: int) -> None:
            self.seen = value // 2

    with Settings(path) as state:
        state.double = 10
        assert (state.seen, state.double) == (5, 10)
        assert on_disk(path) == {"seen": 5}


OPERATIONS = [
    "d['new'] = {'x': [1]}", "d['a'] = 2", "del d['a']", "d.pop('a')", "d.pop('zz', 3)", "d.popitem()", "d.setdefault('a', 9)",
    "d.setdefault('y', [])", "d.update({'a': 3, 'k': {}})", "d.update([('z', 1)], w=2)", "d.__ior__({'q': 1})", "d.clear()",
    "d['l'].append(4)", "d['l'].insert(0, [])", "d['l'].insert(-1, 5)", "d['l'].insert(99, 5)", "d['l'].insert(-99, 5)",
    "d['l'].extend([4, {'e': 1}])", "d['l'].extend(iter('ab'))", "d['l'].extend(d['l'])", "d['l'].__iadd__([7])",
    "d['l'].__imul__(2)", "d['l'].__imul__(0)", "d['l'].pop()", "d['l'].pop(0)", "d['l'].pop(-2)", "d['l'].remove(2)",
    "d['l'].clear()", "d['l'].reverse()", "d['l'].sort(key=str)", "d['l'].sort(key=str, reverse=True)", "d['l'][0] = 'x'",
    "d['l'][-1] = {'last': 1}", "d['l'][1:] = [8]", "d['l'][::2] = ['e', 'o']", "d['l'][:] = []", "d['l'][1:1] = [[1], [2]]",
    "del d['l'][0]", "del d['l'][-1]", "del d['l'][::2]", "del d['l'][:]", "d['n']['m']['o'] = 1", "d['n'].clear()",
    "d['l'][2]['in'] = 2", "d['n']['m'].update(p=[1])", "d['l'] = d['l'][1:]", "d['n'] = d['n']['m']", "d['l'] = d['l'] + [3]",
]  # fmt: skip

WRONG = [
    "d['l'][9] = 1", "del d['l'][9]", "d['l'].pop(9)", "d['l'].remove('zz')", "del d['zz']", "d['l'][::2] = [1]",
    "d['l']['a'] = 1", "d['l'].insert(None, 1)", "d['l'].extend(5)", "d['l'].sort()", "d[[]] = 1", "d['e'].pop()",
    "d['e2'].popitem()", "d['l'][0.5] = 1", "d.update(5)",
]  # fmt: skip


def plain() -> dict[str, Any]:
    return {"a": 1, "l": [1, 2, {"in": 1}], "n": {"m": {}, "b": None}, "e": [], "e2": {}}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_does_what_it_does_to_a_dict_and_is_on_disk(operation: str, path: Path) -> None:
    expected = {"d": plain()}
    with PersistedState(path, d=plain()) as state:
        results = [exec_and_eval(operation, expected["d"]), exec_and_eval(operation, state.d)]
        assert results[0] == results[1]
        assert state == expected
        assert list(state.d) == list(expected["d"])
        assert on_disk(path) == expected
    with PersistedState(path) as state:
        assert state == expected


def exec_and_eval(operation: str, d: Any) -> Any:
    try:
        code = compile(operation, "operation", "eval")
    except SyntaxError:
        exec(operation, {"d": d})
        return None
    return eval(code, {"d": d})


@pytest.mark.parametrize("operation", WRONG)
def test_what_a_dict_refuses_is_refused_alike_and_leaves_no_trace(operation: str, path: Path) -> None:
    with PersistedState(path, d=plain()) as state:
        before = path.read_bytes()
        with pytest.raises(Exception) as expected:  # noqa: PT011 - compared below
            exec(operation, {"d": plain()})
        with pytest.raises(expected.type):
            exec(operation, {"d": state.d})
        assert path.read_bytes() == before
        assert state.d == plain()


class Machine(RuleBasedStateMachine):
    """Random changes at random places, with restarts, kills and transactions, against an ordinary dict."""

    folder: Path
    count = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.count += 1
        self.path = self.folder / f"{Machine.count}.yaml"
        self.state = PersistedState(self.path, _vacuum_bytes=200)
        self.model: dict[Any, Any] = {}

    def places(self, want: type) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []

        def walk(real: Any, model: Any) -> None:
            if isinstance(model, want):
                found.append((real, model))
            if isinstance(model, dict):
                for key in model:
                    walk(real[key], model[key])
            elif isinstance(model, list):
                for index in range(len(model)):
                    walk(real[index], model[index])

        walk(self.state, self.model)
        return found

    @rule(data=st.data(), key=these.keys, value=these.values)
    def set_key(self, data: Any, key: Any, value: Any) -> None:
        real, model = data.draw(st.sampled_from(self.places(dict)))
        real[key] = value
        model[key] = copy.deepcopy(value)

    @rule(data=st.data())
    def delete_key(self, data: Any) -> None:
        full = [place for place in self.places(dict) if place[1]]
        if full:
            real, model = data.draw(st.sampled_from(full))
            key = data.draw(st.sampled_from(list(model)))
            assert real.pop(key) == real.get(key, model[key]) or True
            del model[key]

    @rule(data=st.data(), new=st.dictionaries(these.texts, these.values, max_size=3))
    def update(self, data: Any, new: Any) -> None:
        real, model = data.draw(st.sampled_from(self.places(dict)))
        real.update(new)
        model.update(copy.deepcopy(new))

    @precondition(lambda self: self.places(list))
    @rule(data=st.data(), value=these.values, index=st.integers(-3, 5))
    def insert(self, data: Any, value: Any, index: int) -> None:
        real, model = data.draw(st.sampled_from(self.places(list)))
        real.insert(index, value)
        model.insert(index, copy.deepcopy(value))

    @precondition(lambda self: self.places(list))
    @rule(data=st.data(), cut=st.slices(4), values=st.lists(these.scalars, max_size=2))
    def slices(self, data: Any, cut: slice, values: Any) -> None:
        real, model = data.draw(st.sampled_from(self.places(list)))
        if cut.step in (None, 1):
            real[cut] = values
            model[cut] = values
        else:
            del real[cut]
            del model[cut]

    @precondition(lambda self: self.places(list))
    @rule(data=st.data())
    def reverse(self, data: Any) -> None:
        real, model = data.draw(st.sampled_from(self.places(list)))
        real.reverse()
        model.reverse()

    @rule(key=these.texts, value=these.values)
    def broken_transaction(self, key: str, value: Any) -> None:
        with pytest.raises(ZeroDivisionError), self.state.transaction():
            self.state.clear()
            self.state[key] = value
            raise ZeroDivisionError

    @rule(data=st.data(), value=these.values)
    def broken_nested_transaction(self, data: Any, value: Any) -> None:
        """What was held before it is still the object in the state after it."""
        real, _ = data.draw(st.sampled_from(self.places(dict) + self.places(list)))
        held = list(real.values() if hasattr(real, "values") else real)
        with pytest.raises(ZeroDivisionError), self.state.transaction():
            if isinstance(real, list):
                real.insert(0, value)
                real.reverse()
                del real[:1]
            else:
                real.update(zz=value, a=[value])
                real["a"].append({})
            data.draw(st.sampled_from(self.places_of_state()))["zz"] = 1
            self.state.clear()
            raise ZeroDivisionError
        assert all(
            one is other for one, other in zip(held, real.values() if hasattr(real, "values") else real, strict=True)
        )

    def places_of_state(self) -> list[Any]:
        found: list[Any] = [self.state]
        for place in found:
            children = place.values() if hasattr(place, "values") else place
            found.extend(child for child in children if isinstance(child, dict | list))
        return [place for place in found if hasattr(place, "values")]

    @rule(key=these.texts, values=st.lists(these.scalars, max_size=3))
    def transaction(self, key: str, values: Any) -> None:
        with self.state.transaction():
            self.state[key] = []
            for value in values:
                self.state[key].append(value)
        self.model[key] = values

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.state = PersistedState(self.path, _vacuum_bytes=200)

    @rule()
    def killed(self) -> None:
        data = self.path.read_bytes()
        self.state.close()
        self.path.write_bytes(data)
        self.state = PersistedState(self.path, _vacuum_bytes=200)

    @invariant()
    def all_say_the_same(self) -> None:
        from pistributer.state.editing import same

        assert same(self.state.copy(), self.model)

    def teardown(self) -> None:
        self.state.close()


@pytest.fixture
def machine_folder(tmp_path: Path) -> None:
    Machine.folder = tmp_path


@pytest.mark.usefixtures("machine_folder")
class TestMachine(Machine.TestCase):
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_same_object_is_found_in_its_place_after_others_moved(path: Path) -> None:
    with PersistedState(path, rows=[{"n": 0}, {"n": 1}, {"n": 2}]) as state:
        last = state.rows[2]
        del state.rows[0]
        last["n"] = "two"
        state.rows.insert(0, "x")
        state.rows.reverse()
        last["m"] = 1
        state.rows[1:1] = [[], []]
        last["k"] = 2
        expected = [{"n": "two", "m": 1, "k": 2}, [], [], {"n": 1}, "x"]
        assert state.rows == expected
        assert on_disk(path) == {"rows": expected}


@pytest.mark.parametrize(
    "take_out",
    [
        lambda state: state.pop("a"),
        lambda state: state.__setitem__("a", {"new": 1}),
        lambda state: state.__delitem__("a"),
        lambda state: state.clear(),
        lambda state: state.update(a=5),
    ],
)
def test_what_was_taken_out_is_an_ordinary_object(take_out: Any, path: Path) -> None:
    with PersistedState(path, a={"b": {"c": [1]}}) as state:
        outer, inner, row = state.a, state.a["b"], state.a["b"]["c"]
        take_out(state)
        before = path.read_bytes()
        outer["x"], inner["y"] = object(), 1
        row += [object()]
        row.sort(key=str)
        inner.clear()
        assert path.read_bytes() == before


def test_what_is_assigned_is_copied(path: Path) -> None:
    mine: dict[str, Any] = {"a": [1]}
    with PersistedState(path, one=mine) as state:
        state.two = state.one
        mine["a"].append(2)
        state.one["a"].append(3)
        assert state == {"one": {"a": [1, 3]}, "two": {"a": [1]}}
        assert (type(state.one), type(state.one["a"])) == (StateDict, StateList)


@pytest.mark.parametrize(
    "take", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: x.copy()]
)
def test_copies_are_ordinary_all_the_way_down(take: Any, path: Path) -> None:
    with PersistedState(path, a={"b": [1, {}]}) as state:
        taken = take(state.a)
        assert (type(taken), type(taken["b"]), type(taken["b"][1])) == (dict, list, dict)
        taken["b"].append(2)
        assert state.a == {"b": [1, {}]}
        with pytest.raises(StateError, match=r"state\.copy"):
            pickle.dumps(state)


# -- transactions


def test_a_transaction_is_one_write_and_all_or_nothing(path: Path) -> None:
    with PersistedState(path, a=1, items=[1]) as state:
        items = state["items"]
        before = path.read_bytes()
        with state.transaction():
            state.a += 1
            items.append(state.a)
            with state.transaction():
                state.b = {}
            state.b["c"] = 1
            assert path.read_bytes() == before
        assert on_disk(path) == state == {"a": 2, "items": [1, 2], "b": {"c": 1}}
        before = path.read_bytes()
        with pytest.raises(KeyError), state.transaction():
            state.a, items[0] = 100, {"x": 1}
            state.clear()
            _ = state["nope"]
        assert path.read_bytes() == before
        assert state == {"a": 2, "items": [1, 2], "b": {"c": 1}}
        items.append(3)  # the object that was held before is still the one in the state
        assert on_disk(path)["items"] == state["items"] == [1, 2, 3]


@pytest.mark.parametrize("lock", ["fail", "share"])
def test_a_state_that_is_closed_inside_a_transaction_undoes_it(lock: Any, path: Path) -> None:
    state = PersistedState(path, _lock=lock, a=1)
    with pytest.raises(StateClosed), state.transaction():
        state.a = 2
        state.close()
    assert path.read_text() == "a: 1\n"
    with pytest.raises(StateClosed):
        state.a = 3
    PersistedState(path).close()


def test_no_vacuum_inside_a_transaction(path: Path) -> None:
    with PersistedState(path) as state:
        with pytest.raises(StateError, match="inside a transaction"), state.transaction():
            state.vacuum()
        state.a = 1
        assert state == {"a": 1}


@pytest.mark.parametrize("inside", [False, True])
def test_a_change_that_is_interrupted_between_disk_and_memory_counts(inside: bool, path: Path) -> None:
    """Ctrl-C after the write: the file says it, so memory does from the next change on. In a transaction: nothing."""
    with PersistedState(path, rows=[1]) as state:
        store = state._store

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            if inside:
                with state.transaction():
                    state.b = 1
                    store.commit(store.root, b'--- ["insert", ["rows"], 0, 0]\n', interrupted)
            else:
                store.commit(store.root, b'--- ["insert", ["rows"], 0, 0]\n', interrupted)
        state.rows.append(2)
        expected = {"rows": [1, 2] if inside else [0, 1, 2]}
        assert on_disk(path) == state == expected


def test_an_interrupted_change_that_is_caught_inside_a_transaction_breaks_it(path: Path) -> None:
    with PersistedState(path, rows=[1]) as state:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(StateError, match="interrupted"), state.transaction(), pytest.raises(KeyboardInterrupt):
            state._store.commit(state._store.root, b'--- ["insert", ["rows"], 0, 0]\n', interrupted)
        assert on_disk(path) == state == {"rows": [1]}


def test_a_write_that_is_interrupted_does_not_lock_the_state_against_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor is given up then, the lock is not."""
    with PersistedState(path, a=1) as state:
        write = os.write

        def interrupted(fd: int, data: bytes) -> int:
            monkeypatch.undo()
            write(fd, data[: len(data) // 2])
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            state.a = 2
        assert on_disk(path) == state == {"a": 1}
        state.a = 3
        assert on_disk(path) == state == {"a": 3}


def test_a_default_that_is_refused_leaves_the_file_free(path: Path) -> None:
    try:
        PersistedState(path, a=object())
    except StateValueError:
        with PersistedState(path, a=1) as state:  # while the traceback still holds the first one
            assert state.a == 1


# -- threads


def test_threads_share_a_state(path: Path) -> None:
    with PersistedState(path, _vacuum_bytes=2000, rows=[], counter=0) as state:

        def work(number: int) -> None:
            for turn in range(100):
                state.rows.append([number, turn])
                with state.transaction():
                    state.counter += 1
                state[f"last {number}"] = {"turn": turn}

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert state.counter == 400
        assert sorted(state.rows) == [[number, turn] for number in range(4) for turn in range(100)]
        for number in range(4):
            assert [turn for who, turn in state.rows if who == number] == list(range(100))
        assert on_disk(path) == state


def test_without_pyyaml_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['yaml'] = None; from pistributer import open_queue, PersistedState"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PackageMissing" in done.stderr
    assert "pip install 'pistributer[yaml]'" in done.stderr


# -- closing and size


def test_a_closed_state_can_be_read_and_not_changed(path: Path) -> None:
    state = PersistedState(path, a=[1])
    state.close()
    state.close()
    assert (state.a, len(state), "a" in state) == ([1], 1, True)
    for change in (lambda: state.__setattr__("a", 2), lambda: state.a.append(2), lambda: state.clear(), state.vacuum):
        with pytest.raises(StateClosed):
            change()
    assert path.read_text() == "a:\n- 1\n"


def test_a_state_that_nobody_holds_is_closed(path: Path) -> None:
    state = PersistedState(path, a=[1])
    state.a.append(2)
    row = state.a
    del state
    gc.collect()
    assert path.read_text() == "a:\n- 1\n- 2\n"
    with pytest.raises(StateClosed, match="keep the object alive"):
        row.append(3)
    PersistedState(path).close()  # the lock is free


def test_the_journal_is_folded_in_when_it_is_long(path: Path) -> None:
    with PersistedState(path, _vacuum_bytes=1000, counter=0) as state:
        longest = 0
        for _ in range(500):
            state.counter += 1
            longest = max(longest, path.stat().st_size)
        assert 1000 < longest < 1200
        state.vacuum()
        assert path.read_text() == "counter: 500\n"


def test_a_big_state_is_warned_of_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pistributer.state"), PersistedState(path, _warn_bytes=1000) as state:
        state.a = "x" * 500
        state.vacuum()
        assert not caplog.records
        state.b = "x" * 600
        state.vacuum()
        state.c = 1
        state.vacuum()
    (record,) = caplog.records
    assert "an editor opens at once" in record.getMessage()


@pytest.mark.parametrize("sync", ["none", "group", "each"])
def test_every_step_of_the_dial(sync: Any, path: Path) -> None:
    with PersistedState(path, _sync=sync, _vacuum_bytes=500, a=0) as state:
        for _ in range(100):
            state.a += 1
        assert on_disk(path) == {"a": 100}
    assert path.read_text() == "a: 100\n"


@pytest.mark.parametrize(("option", "value"), [("_sync", "often"), ("_lock", "never")])
def test_options_that_make_no_sense(option: str, value: str, path: Path) -> None:
    with pytest.raises(ValueError, match=f"{option[1:]} must be one of"):
        PersistedState(path, **{option: value})  # type: ignore[arg-type]
    assert not path.exists()


def test_an_option_that_does_not_exist_is_no_default(path: Path) -> None:
    with pytest.raises(TypeError, match="no option '_synk'"):
        PersistedState(path, _synk="each")
    assert not path.exists()
