"""Killed at every change to the disk, a state is what it was before the statement or after it; see crashing.py for how.

After each kill a fresh process opens the file: the state is the one before or after the statement that ran, what had
returned is there, every line of the file is valid YAML, and nothing of it was changed by looking.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pistributer import PersistedState
from pistributer.storage import shared_append

from .crashing import every_kill

Act = Callable[[PersistedState], object]
Tell = Callable[[str, Any], None]

START: dict[str, Any] = {"counter": 7, "items": ["a", {"n": 1}, "c"], "nested": {"deep": {"x": [1, 2]}}, "text": "no"}
DOCUMENT = """\
# a state that a person wrote
counter: 7 # how far
items:
  - a
  - n: 1 # inside
  - c
nested:
  deep: {x: [1, 2]}
text: 'no'
"""


def in_transaction(*acts: Act) -> Act:
    def act(state: PersistedState) -> None:
        with state.transaction():
            for each in acts:
                each(state)

    return act


STATEMENTS: dict[str, list[Act]] = {
    "set": [lambda s: s.__setattr__("counter", 8), lambda s: s.__setitem__("new", {"a": [None, b"x"]})],
    "set deep": [lambda s: s["items"][1].__setitem__("n", 2), lambda s: s.nested["deep"]["x"].__setitem__(-1, 3)],
    "delete": [lambda s: s.__delattr__("text"), lambda s: s["items"].__delitem__(0)],
    "append and insert": [lambda s: s["items"].append("d"), lambda s: s["items"].insert(0, {"first": True})],
    "extend": [lambda s: s["items"].extend(["d", "e", "f"])],
    "slice": [lambda s: s["items"].__setitem__(slice(0, 2), ["x"]), lambda s: s["items"].__delitem__(slice(1, None))],
    "update": [lambda s: s.update(counter=9, text="yes", more=[1])],
    "clear": [lambda s: s["items"].clear(), lambda s: s.clear()],
    "sort and reverse": [lambda s: s["items"].pop(1), lambda s: s["items"].sort(reverse=True), lambda s: s["items"].reverse()],
    "vacuum": [lambda s: s.__setattr__("counter", 8), lambda s: s.vacuum(), lambda s: s["items"].append(1)],
    "close": [lambda s: s["items"].append({"y": 2}), lambda s: s.close()],
    "transaction": [
        in_transaction(lambda s: s.__setattr__("counter", 10), lambda s: s["items"].append("t"), lambda s: s.pop("text"))
    ],
    "counter over many vacuums": [lambda s, n=n: s.__setattr__("counter", n) for n in range(12)],
}  # fmt: skip


def states_after(acts: list[Act], folder: Path) -> list[dict[str, Any]]:
    """The state before the first statement, and after each."""
    (folder / "model.yaml").write_text(DOCUMENT)
    state = PersistedState(folder / "model.yaml")
    states = [state.copy()]
    for act in acts:
        act(state)
        states.append(state.copy())
    state.close()
    return copy.deepcopy(states)


# "each" makes every call that "none" makes, and the syncs.
@pytest.mark.parametrize(("torn", "sync"), [(False, "each"), (True, "none")], ids=["whole", "torn"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_killed_anywhere_the_state_is_the_one_before_or_after(
    name: str, torn: bool, sync: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acts = STATEMENTS[name]
    states = states_after(acts, tmp_path)
    points = 0
    for path, told in sweep(acts, tmp_path, sync, torn):
        with caplog.at_level(logging.CRITICAL):
            done = len(told.of("done"))
            check(path, states[done : done + 2])
        points += 1
    print(f"{name}: {points} kill points")
    assert points > len(acts)


def sweep(acts: list[Act], folder: Path, sync: Any, torn: bool) -> Any:
    path = folder

    def prepare(at: int) -> Callable[[Tell], None]:
        nonlocal path
        path = folder / f"{at}" / "state.yaml"
        path.parent.mkdir()
        path.write_text(DOCUMENT)
        here = path
        return lambda tell: child(here, tell)

    def child(here: Path, tell: Tell) -> None:
        use_patched_calls()
        state = PersistedState(here, _sync=sync, _vacuum_bytes=100)
        for act in acts:
            act(state)
            tell("done", None)

    for _, told in every_kill(prepare, torn=torn):
        yield path, told


def use_patched_calls() -> None:
    shared_append.write = __import__("os").write  # type: ignore[attr-defined] # taken from os at import


def check(path: Path, expected: list[dict[str, Any]]) -> None:
    with PersistedState(path) as state:
        found = state.copy()
        assert found in expected
        documents = list(yaml.safe_load_all(path.read_text()))
        assert isinstance(documents[0], dict)
        assert all(isinstance(change, list | dict) for change in documents[1:])
    assert yaml.safe_load(path.read_text()) == found
    assert not list(path.parent.glob(".*.tmp"))


def test_recovery_is_killed_anywhere_too(tmp_path: Path) -> None:
    """A torn tail is set aside and cut; the process that does so dies at each step."""
    path = tmp_path

    def prepare(at: int) -> Callable[[Tell], None]:
        nonlocal path
        path = tmp_path / str(at) / "state.yaml"
        path.parent.mkdir()
        path.write_text(DOCUMENT + '--- ["set", [], "counter", 8]\n--- ["set", [], "counter", 9')
        here = path
        return lambda tell: reopen(here)

    def reopen(here: Path) -> None:
        use_patched_calls()
        PersistedState(here).close()

    for _, _told in every_kill(prepare, torn=True):
        check(path, [{**START, "counter": 8}])
        assert b'"counter", 9' in path.with_name("state.yaml.quarantine").read_bytes()


def test_a_new_file_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path

    def prepare(at: int) -> Callable[[Tell], None]:
        nonlocal path
        path = tmp_path / str(at) / "state.yaml"
        path.parent.mkdir()
        here = path
        return lambda tell: PersistedState(here, a=1, b=[2]).close()

    for _, told in every_kill(prepare, torn=True):
        check(path, [{"a": 1, "b": [2]}] if told.finished else [{}, {"a": 1, "b": [2]}])
