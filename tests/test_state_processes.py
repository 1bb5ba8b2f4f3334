"""Two processes and one state: refused, made to wait, or shared; and what a forked child may do."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pistributer import PersistedState, StateChanged, StateLocked

from .processes import Child, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.yaml"


def hold(pipe: Any, path: Path) -> None:
    with PersistedState(path, a=1) as state:
        pipe.send("open")
        pipe.recv()
        state.a = 2


def test_a_second_process_is_refused_and_told_who_has_it(path: Path) -> None:
    with Child(hold, path) as child:
        child.hear()
        with pytest.raises(StateLocked) as refusal:
            PersistedState(path)
        assert refusal.value.owner == child.pid  # type: ignore[attr-defined]
        assert str(child.pid) in str(refusal.value)
        with pytest.raises(StateLocked):
            PersistedState(path, _lock="wait", _timeout=0.05)
        child.say("close")
    with PersistedState(path) as state:
        assert state.a == 2


def test_a_second_object_of_the_same_process_is_refused_too(path: Path) -> None:
    with PersistedState(path), pytest.raises(StateLocked):
        PersistedState(path)


def test_whoever_waits_gets_it_when_it_is_closed_or_its_owner_killed(path: Path) -> None:
    for end in (lambda child: child.say("close"), lambda child: child.kill(signal.SIGKILL)):
        with Child(hold, path) as child, Child(wait, path) as waiter:
            child.hear()
            waiter.say("go")
            end(child)
            assert waiter.result() in (1, 2)


def wait(pipe: Any, path: Path) -> int:
    pipe.recv()
    with PersistedState(path, _lock="wait") as state:
        return int(state.a)


# -- shared


def count(pipe: Any, path: Path, number: int, turns: int) -> None:
    with PersistedState(path, _lock="share", _vacuum_bytes=2000, counter=0, rows=[]) as state:
        rows = state["rows"]
        for turn in range(turns):
            with state.transaction():
                state.counter += 1
            rows.append([number, turn])
            state[f"last {number}"] = {"turn": turn}


def test_processes_that_share_a_state_lose_nothing(path: Path) -> None:
    children = [Child(count, path, number, 150) for number in range(3)]
    for child in children:
        with child:
            child.result()
    with PersistedState(path) as state:
        assert state.counter == 450
        assert sorted(state.rows) == [[number, turn] for number in range(3) for turn in range(150)]
        for number in range(3):
            assert [turn for who, turn in state.rows if who == number] == list(range(150))
            assert state[f"last {number}"] == {"turn": 149}


def test_a_shared_state_shows_what_others_changed_in_the_objects_that_are_held(path: Path) -> None:
    with PersistedState(path, _lock="share", a={"b": [1]}) as one, PersistedState(path, _lock="share") as other:
        held = other.a["b"]
        one.a["b"].append(2)
        assert other.a["b"] is held
        assert held == [1, 2]
        held.insert(0, 0)
        one.vacuum()
        one["new"] = {}
        assert other.a["b"] is held
        held.append(3)
        assert one == other == {"a": {"b": [0, 1, 2, 3]}, "new": {}}
        one.clear()
        assert other == {}
        held.append(4)  # taken out by the other process, so an ordinary list now
        assert one == {}


def test_what_was_taken_over_by_hand_is_seen_by_those_who_share(path: Path) -> None:
    with PersistedState(path, _lock="share", a=1) as state:
        path.write_text("edited: 1\n")
        assert state == {"edited": 1}
        state.a = 2
    assert path.read_text() == "edited: 1\na: 2\n"


def test_a_shared_file_that_is_deleted_is_not_made_anew_without_a_word(path: Path) -> None:
    with PersistedState(path, _lock="share", a=1) as state:
        path.unlink()
        with pytest.raises(StateChanged) as conflict:
            _ = state.a
        assert Path(conflict.value.saved).read_text() == "a: 1\n"  # type: ignore[attr-defined]
        with pytest.raises(StateChanged):
            state.a = 2
    assert not path.exists()


def test_who_opens_for_himself_keeps_those_who_share_waiting(path: Path) -> None:
    with PersistedState(path, _lock="share", _timeout=0.05, a=1) as shared:
        with PersistedState(path) as alone:
            alone.a = 2
            with pytest.raises(StateLocked):
                shared.a = 3
        assert shared.a == 2
        shared.a = 4
    with PersistedState(path) as state:
        assert state == {"a": 4}


def die_inside(pipe: Any, path: Path) -> None:
    state = PersistedState(path, _lock="share")
    state.a = 2
    with state.transaction():
        state.a = 3
        pipe.send("inside")
        pipe.recv()


def test_a_process_killed_inside_a_transaction_frees_the_lock_and_leaves_nothing(path: Path) -> None:
    with PersistedState(path, _lock="share", _timeout=0.05, a=1) as state:
        with Child(die_inside, path) as child:
            child.hear()
            with pytest.raises(StateLocked):
                _ = state.a
            child.kill()
        assert state.a == 2


def test_a_torn_line_of_a_killed_sharer_is_cut_by_the_next_one(path: Path) -> None:
    with PersistedState(path, _lock="share", a=1) as state:
        with path.open("ab") as file:
            file.write(b'--- ["set", [], "a"')
        assert state.a == 1
        state.b = 2
    with PersistedState(path) as state:
        assert state == {"a": 1, "b": 2}


# -- forked


def test_a_forked_child_reads_what_it_inherited_and_may_not_write(path: Path) -> None:
    def child(pipe: Any) -> tuple[Any, str]:
        with pytest.raises(StateLocked):
            state.a = 2
        with pytest.raises(StateLocked):
            state.rows.append(1)
        return state.a, type(state).__name__

    with PersistedState(path, a=1, rows=[]) as state:
        assert run(child) == (1, "PersistedState")
        state.a += 1
        assert state == {"a": 2, "rows": []}
    assert path.read_text() == "a: 2\nrows: []\n"


def test_a_forked_child_shares_a_shared_state(path: Path) -> None:
    def child(pipe: Any) -> None:
        state.rows.append("child")
        state.close()

    with PersistedState(path, _lock="share", rows=[]) as state:
        run(child)
        state.rows.append("parent")
        assert state.rows == ["child", "parent"]


def test_a_program_that_ends_without_closing_leaves_a_tidy_file(path: Path) -> None:
    import subprocess
    import sys

    code = f"from pistributer import PersistedState; s = PersistedState({str(path)!r}, a=[1]); s.a.append(2)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert path.read_text() == "a:\n- 1\n- 2\n"
