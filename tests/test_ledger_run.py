"""`pistributer chaos`: a running app whose processes are killed at random loses nothing, and its judge misses nothing.

Three seconds for each driver here; the long run is a command: `pistributer chaos --seconds 60 --driver sqlite`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.workers.chaos.oracle import Process, judge_processes, read_process
from pistributer.workers.chaos.run import Storm, run_chaos
from tests.worker_tools import APP_DRIVERS

SECONDS = float(os.environ.get("PISTRIBUTER_STORM", "3"))


@pytest.mark.parametrize("driver", APP_DRIVERS)
@pytest.mark.timeout(SECONDS * 2 + 120)
def test_a_storm_of_kills_loses_nothing_and_leaves_nothing(tmp_path: Path, driver: str) -> None:
    report = run_chaos(Storm(driver, seconds=SECONDS), folder=tmp_path / "storm")
    assert report.ok, "\n".join(report.lines())
    assert sum(report.kills.values()) > 0
    assert report.verdict.put > 0


def test_the_command_prints_the_verdict_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = CliRunner().invoke(
        pistributer, ["chaos", "--seconds", "0.5", "--producers", "1", "--workers", "1", "--json"]
    )
    assert done.exit_code == exits.OK, done.output
    found = json.loads(done.stdout)
    assert (found["ok"], found["verdict"]["lost"], found["remains"]["processes"], found["folder"]) == (True, 0, 0, None)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = CliRunner().invoke(pistributer, ["chaos", "--folder", str(tmp_path)])
    assert done.exit_code == exits.USAGE
    assert "not empty" in done.output
    with pytest.raises(ValueError, match="memory"):
        Storm("memory")


# -- the judge, on ledgers made up


def calm() -> list[Process]:
    """Three rows; the second was interrupted by the death of the first worker, the last attempt of which was unseen."""
    first, second, third = ((0, n) for n in range(3))
    return [
        Process("producer_producer-0-10-1", put=[first, second], left=False),
        Process("worker_default-11-2", begun=[(first, 1), (second, 1)], ended={(first, 1)}),
        Process("worker_default-12-3", begun=[(second, 2), (third, 2)], ended={(second, 2), (third, 2)}, left=True),
    ]


def test_kills_explain_what_they_explain() -> None:
    verdict = judge_processes(calm())
    assert verdict.ok
    assert (verdict.put, verdict.lost, verdict.doubled, verdict.repeated) == (3, 0, 0, 0)
    assert (verdict.attempts, verdict.unseen, verdict.killed_workers) == (4, 1, 1)


def lose_a_row(them: list[Process]) -> None:
    them[2].ended.remove(((0, 1), 2))


def lose_a_row_that_nobody_saw(them: list[Process]) -> None:
    them[0].put.append((0, 4))


def put_a_row_twice(them: list[Process]) -> None:
    them[0].put.append((0, 1))


def hand_out_a_row_twice(them: list[Process]) -> None:
    them[2].begun.append(((0, 0), 1))
    them[2].ended.add(((0, 0), 1))


def do_a_row_again_that_was_not_held(them: list[Process]) -> None:
    """The killed worker began the second row later, so it had settled the first one if that does not come again."""
    them[1].begun = [((0, 1), 1), ((0, 0), 1)]


def do_a_row_again_whose_worker_lived(them: list[Process]) -> None:
    them[1].left = True


def count_attempts_that_no_kill_explains(them: list[Process]) -> None:
    them[2].begun[1], them[2].ended = ((0, 2), 5), {((0, 1), 2), ((0, 2), 5)}


@pytest.mark.parametrize(
    "fault",
    [
        lose_a_row, lose_a_row_that_nobody_saw, put_a_row_twice, hand_out_a_row_twice, do_a_row_again_that_was_not_held,
        do_a_row_again_whose_worker_lived, count_attempts_that_no_kill_explains,
    ],
)  # fmt: skip
def test_the_judge_sees_every_fault(fault: Callable[[list[Process]], None]) -> None:
    them = calm()
    fault(them)
    assert not judge_processes(them).ok


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "worker_default-7-8"
    path.write_text("begin 1 2 3\nend 1 2 3\nbegin 1 3 1\n")
    process = read_process(path)
    assert (process.name, process.begun, process.ended) == (path.name, [((1, 2), 3), ((1, 3), 1)], {((1, 2), 3)})
    assert (process.is_worker, process.left) == (True, False)
