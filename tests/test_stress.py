"""The stress run itself: every driver and API, processes and threads, in peace and under fire."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import pytest

from pistributer.workers.stress import children
from pistributer.workers.stress import rows as stress_rows
from pistributer.workers.stress.crews import ThreadCrew
from pistributer.workers.stress.plot import rates
from pistributer.workers.stress.report import Latency, Moment, Report
from pistributer.workers.stress.run import Progress, Scenario, run_stress

SIZE = {"writers": 3, "readers": 3, "files": 3, "shared": 2, "rows": 60}
DRIVERS = ("jsonl", "txt", "sqlite")

KEYS = {
    "driver", "api", "expected", "consumed", "lost", "duplicated", "malformed", "out_of_order", "kills",
    "write_seconds", "total_seconds", "rows_per_second", "sync",
}  # fmt: skip


@pytest.fixture(autouse=True)
def temporary_folders_go_with_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose integrity failed, some here on purpose, leaves its folder behind."""
    # multiprocessing keeps the first folder it made, and puts sockets there, whose paths have to be short.
    get_temp_dir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.mark.parametrize("workers", ["processes", "threads"])
@pytest.mark.parametrize("api", ["queue", "classic"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_lost_torn_doubled_or_out_of_order(driver: Any, api: Any, workers: str) -> None:
    scenario = Scenario(driver=driver, api=api, threads=workers == "threads", **SIZE)  # type: ignore[arg-type]
    report = run_stress(scenario, stall=20)
    assert report.ok, report.lines()
    assert report.verdict.expected == report.verdict.consumed == scenario.total
    document = report.to_json()
    assert document.keys() >= KEYS
    assert (document["lost"], document["duplicated"], document["malformed"], document["out_of_order"]) == (0, 0, 0, 0)
    assert report.put.nanos
    assert report.delivery.nanos
    assert report.lines()[0].endswith("540 put, 540 read, 0 lost, 0 torn, 0 doubled, 0 out of order")


@pytest.mark.parametrize("api", ["queue", "classic"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_kills_cost_nothing_but_what_is_excused_by_name(driver: Any, api: Any) -> None:
    pace = {"kill_every": 0.1, "rows": 300} if driver == "sqlite" else {"kill_every": 0.03, "rows": 600}
    scenario = Scenario(driver=driver, api=api, writers=3, readers=3, files=3, shared=2, seed=5, **pace)  # type: ignore[arg-type]
    report = run_stress(scenario, stall=20)
    assert report.ok, report.lines()
    assert report.kills > 0
    if api == "queue":
        assert report.verdict.lost == 0
    else:
        assert report.verdict.duplicated == 0


@pytest.mark.parametrize("sync", ["group", "each"])
def test_every_step_of_the_durability_dial_runs(sync: Any) -> None:
    report = run_stress(Scenario(writers=2, readers=2, files=2, shared=1, rows=10, sync=sync), stall=20)
    assert report.ok, report.lines()


def test_the_temporary_folder_goes_and_a_named_one_stays(tmp_path: Path) -> None:
    scenario = Scenario(writers=1, readers=1, files=1, shared=0, rows=5, threads=True)
    run_stress(scenario)
    assert not list((tmp_path / "temporary").iterdir())
    run_stress(scenario, folder=tmp_path / "kept")
    assert (tmp_path / "kept" / "ledger" / "reader-0000.ledger").exists()
    with pytest.raises(FileExistsError, match="not empty"):
        run_stress(scenario, folder=tmp_path / "kept")


def test_progress_only_grows_and_reaches_the_total() -> None:
    seen: list[Progress] = []
    scenario = Scenario(writers=2, readers=2, files=3, shared=1, rows=3000)
    assert run_stress(scenario, on_progress=seen.append).ok
    assert [moment.read for moment in seen] == sorted(moment.read for moment in seen)
    assert seen[-1].put == scenario.total


# -- sabotage of a real run: the queue under test misbehaves, and the ledger says so


class Saboteur:
    """Stands between the readers and what they take, and does something to the tenth row."""

    def __init__(self, deed: Callable[[list[Any]], list[Any]]) -> None:
        self._deed = deed
        self._lock = threading.Lock()
        self._waiting: list[Any] = []
        self._done = False

    def tamper(self, rows: list[Any]) -> list[Any]:
        with self._lock:
            if self._done or len(rows) < 2:
                return rows
            self._done = True
            return self._deed(rows)


def tear(rows: list[Any]) -> list[Any]:
    rows[0].value = {"writer": rows[0].value["writer"]}
    return rows


DEEDS = {
    "a row deleted": (lambda rows: rows[1:], "lost"),
    "a row doubled": (lambda rows: [rows[0], *rows], "duplicated"),
    "a row torn": (tear, "malformed"),
    "two rows swapped": (lambda rows: [rows[1], rows[0], *rows[2:]], "out_of_order"),
}


@pytest.mark.parametrize(("deed", "found"), DEEDS.values(), ids=DEEDS)
def test_a_queue_that_cheats_is_caught(
    deed: Callable[[list[Any]], list[Any]], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saboteur = Saboteur(deed)
    opened = stress_rows.open_channel_queue

    def open_sabotaged(*args: Any) -> Any:
        queue = opened(*args)
        claim, ack = queue.claim, queue.ack
        held: list[Any] = []

        def cheating_claim(n: int) -> list[Any]:
            held[:] = claim(n)
            return saboteur.tamper(list(held))

        queue.claim = cheating_claim  # type: ignore[method-assign, assignment]
        queue.ack = lambda rows: ack(held)  # type: ignore[method-assign, assignment]
        return queue

    monkeypatch.setattr(stress_rows, "open_channel_queue", open_sabotaged)
    # One channel of one writer, read only once it is full: each batch then has neighbours to exchange.
    report = run_stress(Scenario(writers=1, readers=1, files=1, shared=0, rows=400, threads=True), stall=20)
    assert not report.ok
    assert getattr(report.verdict, found) == 1, report.lines()
    assert report.kept is not None
    assert "FAILED" in report.lines()[0]


def test_a_run_that_stands_still_is_ended_and_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never_read(seat: children.Seat, scenario: Scenario, run: Path) -> None:
        seat.wait_stop()

    monkeypatch.setattr(children, "read", never_read)
    scenario = Scenario(writers=1, readers=1, files=1, shared=0, rows=5, threads=True)
    report = run_stress(scenario, folder=tmp_path / "run", stall=0.2)
    assert (report.verdict.lost, report.ok) == (5, False)
    assert any("so the run was ended" in trouble for trouble in report.troubles)


def test_a_child_that_raises_fails_the_run_and_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def explode(seat: children.Seat, scenario: Scenario, run: Path) -> None:
        raise RuntimeError("the writer is out of ink")

    monkeypatch.setattr(children, "write", explode)
    scenario = Scenario(writers=1, readers=1, files=1, shared=0, rows=5, threads=True)
    report = run_stress(scenario, folder=tmp_path / "run", stall=5)
    assert (report.verdict.not_put, report.ok) == (5, False)
    assert "out of ink" in "\n".join(report.lines())


def test_a_crew_of_threads_can_be_stopped_before_it_was_started(tmp_path: Path) -> None:
    ThreadCrew(Scenario(threads=True), tmp_path).close()


# -- figures


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (50, 50), (95, 95), (99, 99), (100, 100)], ids=lambda value: str(value)
)
def test_percentiles_are_nearest_rank(percent: float, expected: int) -> None:
    assert Latency.of(range(100, 0, -1)).percentile(percent) == pytest.approx(expected / 1e9)


def test_the_percentile_of_nothing_is_zero() -> None:
    assert Latency.of([]).percentile(99) == 0.0


def test_rates_are_averages_over_windows() -> None:
    timeline = [Moment(at / 10, at * 100, at * 50) for at in range(11)]
    times, puts, reads = rates(timeline)
    assert times == pytest.approx([0.3, 0.6, 0.9])
    assert puts == pytest.approx([1000] * 3)
    assert reads == pytest.approx([500] * 3)


def test_a_report_needs_no_rows_to_be_printed(tmp_path: Path) -> None:
    report: Report = run_stress(Scenario(writers=1, readers=1, files=1, shared=0, rows=1, threads=True))
    assert any("p50" in line for line in report.lines())
