"""What operators asked for survives: killed at every step, edited, damaged, asked for by many at once. So do the folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers.supervision import run_state, runs
from pistributer.workers.supervision.board import Board, Seats, assign, create
from pistributer.workers.supervision.paused import PausePage
from pistributer.workers.supervision.paused import create as create_page
from pistributer.workers.supervision.run_state import RunState, Wishes
from tests import processes
from tests.crashing import every_kill
from tests.worker_tools import environment


def test_without_a_file_nothing_is_wished_for_and_none_is_made(tmp_path: Path) -> None:
    state = RunState(str(tmp_path))
    assert (state.look(), state.wishes) == (False, Wishes())
    assert run_state.read_wishes(str(tmp_path)) == Wishes()
    assert list(tmp_path.iterdir()) == []


def test_a_look_sees_what_others_have_asked_for_and_nothing_twice(tmp_path: Path) -> None:
    state = RunState(str(tmp_path))
    assert run_state.set_paused(str(tmp_path), "emails", True)
    assert not run_state.set_paused(str(tmp_path), "emails", True)
    run_state.set_size(str(tmp_path), "worker default", 2, 8)
    assert state.look()
    assert not state.look()
    assert state.wishes == Wishes(frozenset({"emails"}), {"worker default": {2: 8}})
    assert (tmp_path / "state.yaml").read_text() == ("paused:\n- emails\nprocesses:\n  worker default:\n    2: 8\n")
    run_state.set_paused(str(tmp_path), "emails", False)
    run_state.set_size(str(tmp_path), "worker default", 2, None)
    assert state.look()
    assert state.wishes == Wishes()


def test_a_size_holds_where_run_asks_for_what_it_asked_for_then(tmp_path: Path) -> None:
    folder = str(tmp_path)
    run_state.set_size(folder, "worker default", 2, 8)
    run_state.set_size(folder, "worker default", 4, 9)  # by another supervisor, which was started with another number
    wishes = run_state.read_wishes(folder)
    assert [wishes.size("worker default", asked) for asked in (2, 3, 4)] == [8, None, 9]
    assert wishes.size("worker other", 2) is None


@pytest.mark.parametrize(
    "text", ["paused: 7\n", "processes: [1]\n", "processes: {w: {many: 2}}\n", "processes: {w: {2: [3]}}\n"]
)
def test_an_edit_gone_wrong_is_told_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.yaml").write_text(text)
    with pytest.raises(errors.NotAState, match=r"state\.yaml"):
        RunState(str(tmp_path)).look()


def _pause_many(pipe: Any, folder: str, name: str) -> None:
    for n in range(20):
        assert run_state.set_paused(folder, f"{name}{n}", True)


def test_what_many_ask_for_at_once_is_all_there(tmp_path: Path) -> None:
    children = [processes.Child(_pause_many, str(tmp_path), name) for name in "abc"]
    for child in children:
        with child:
            child.result()
    assert run_state.read_wishes(str(tmp_path)).paused == {f"{name}{n}" for name in "abc" for n in range(20)}


STEPS: list[tuple[Callable[[str], object], Wishes]] = [
    (lambda folder: run_state.set_paused(folder, "a", True), Wishes(frozenset("a"))),
    (lambda folder: run_state.set_size(folder, "w", 1, 4), Wishes(frozenset("a"), {"w": {1: 4}})),
    (lambda folder: run_state.set_paused(folder, "b", True), Wishes(frozenset("ab"), {"w": {1: 4}})),
    (lambda folder: run_state.set_size(folder, "w", 1, None), Wishes(frozenset("ab"))),
    (lambda folder: run_state.set_paused(folder, "a", False), Wishes(frozenset("b"))),
]


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_killed_anywhere_a_wish_is_there_or_not(tmp_path: Path, torn: bool) -> None:
    def prepare(at: int) -> Callable[[Any], None]:
        folder = tmp_path / str(at)
        folder.mkdir()

        def act(tell: Any) -> None:
            for number, (step, _) in enumerate(STEPS):
                step(str(folder))
                tell("done", number)

        return act

    for at, told in every_kill(prepare, torn=torn):
        done = len(told.of("done"))
        after = [Wishes(), *(wishes for _, wishes in STEPS)]
        found = run_state.read_wishes(str(tmp_path / str(at)))
        assert found in after[done : done + 2], (at, found)


# -- the folders of supervisors


def test_killed_anywhere_the_folder_of_a_supervisor_is_in_nobodys_way(tmp_path: Path) -> None:
    def prepare(at: int) -> Callable[[Any], None]:
        folder = tmp_path / str(at)
        folder.mkdir()

        def act(tell: Any) -> None:
            premises = runs.Premises(str(folder))
            premises.take("app.py", assign({"worker a": (2, 0, 1)}), ["a"])
            tell("taken", premises.folder)
            premises.describe({"worker a": Seats(0, 64, 3, 3)})
            tell("described", None)
            premises.leave()

        return act

    for at, _ in every_kill(prepare):
        folder = str(tmp_path / str(at))
        assert runs.running(folder) == []
        premises = runs.Premises(folder)
        premises.take("app.py", assign({"worker a": (2, 0, 1)}), ["a"])
        assert premises.alone
        assert [found for found, _ in runs.running(folder)] == [premises.folder]
        assert runs.folders(folder) == [premises.folder]
        premises.leave()
        assert runs.folders(folder) == []


def test_what_a_newer_release_says_of_itself_is_passed_over(tmp_path: Path) -> None:
    premises = runs.Premises(str(tmp_path))
    premises.take("app.py", assign({"worker a": (2, 0, 1)}), ["a"])
    before = runs.read_record(premises.folder)
    path = Path(premises.folder) / "run.json"
    text = path.read_text().replace('{"pid"', '{"mood":"fine","pid"').replace('{"first"', '{"shape":"round","first"')
    path.write_text(text)
    assert "mood" in text
    assert "shape" in text
    assert runs.read_record(premises.folder) == before
    premises.leave()


def test_a_period_is_as_long_as_there_is_somebody(tmp_path: Path) -> None:
    def take() -> tuple[runs.Premises, str]:
        premises = runs.Premises(str(tmp_path))
        premises.take("app.py", {}, [])
        record = runs.read_record(premises.folder)
        assert record is not None
        return premises, record.period

    first, period = take()
    second, same = take()
    assert (same, first.alone, second.alone) == (period, True, False)
    first.leave()
    third, same = take()
    assert same == period
    second.leave()
    third.leave()
    last, another = take()
    assert another != period
    last.leave()


# -- seats and pages


def test_a_role_has_room_to_grow_unless_it_never_will() -> None:
    seats = assign({"producer p": (1, 1, 1), "worker a": (2, 0, 3), "worker b": (20, 0, 1), "scheduler": (1, 1, 1)})
    assert seats == {
        "producer p": Seats(0, 1, 1, 1),
        "worker a": Seats(1, 64, 2, 2, width=3),
        "worker b": Seats(193, 80, 20, 20),
        "scheduler": Seats(273, 1, 1, 1),
    }
    assert seats["worker a"].resized(5).resized(3) == Seats(1, 64, 3, 5, width=3)
    assert list(seats["worker a"].of(1)) == [4, 5, 6]


def test_an_empty_board_adds_up_to_nothing(tmp_path: Path) -> None:
    create(str(tmp_path / "board"), 1000)
    board = Board(str(tmp_path / "board"))
    assert board.totals().settled == 0
    assert board.pids() == []
    board.close()


def test_a_pause_shows_in_a_page_that_others_have_open(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "paused")
    create_page(path, ["a", "queue-" + "b" * 94])
    writer, reader = PausePage(path, write=True), PausePage(path)
    flags = [reader.flag("a"), reader.flag("queue-" + "b" * 94)]
    assert [flag() for flag in flags] == [False, False]
    assert writer.show(["a", "unknown"]) == set()
    assert [flag() for flag in flags] == [True, False]
    assert writer.show([]) == {"a"}
    assert [flag() for flag in flags] == [False, False]


def test_a_run_for_which_nobody_wishes_anything_needs_no_yaml() -> None:
    code = "import sys, pistributer.workers.run, pistributer.workers.control; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60).returncode == 0
