"""`pistributer stress` as people run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.workers.stress import oracle
from pistributer.workers.stress import run as stress
from pistributer.workers.stress.plan import Scenario
from tests.test_cli import shell

SMALL = ("--writers", "2", "--readers", "2", "--files", "3", "--shared", "1", "--rows", "20")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(pistributer, ["stress", *SMALL, *args])


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--threads",),
        ("--driver", "txt", "--api", "classic"),
        ("--driver", "sqlite", "--sync", "each"),
        ("--kill-every", "0.05", "--rows", "500"),
    ],
    ids=lambda options: " ".join(options) or "default",
)
def test_json_is_one_document_with_the_promised_keys(options: tuple[str, ...]) -> None:
    done = shell("stress", *SMALL, *options, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    promised = (
        "driver api expected consumed lost duplicated malformed out_of_order kills write_seconds total_seconds "
        "rows_per_second sync"
    )
    assert document.keys() >= set(promised.split())
    assert document["ok"] is True
    assert document["lost"] == 0


def test_the_report_begins_with_integrity() -> None:
    done = shell("stress", *SMALL)
    assert done.returncode == 0
    first, *rest = done.stdout.splitlines()
    assert first.split() == "INTEGRITY ok 120 put, 120 read, 0 lost, 0 torn, 0 doubled, 0 out of order".split()
    told = "\n".join(rest)
    for name in ("rows/s", "p99", "sync=none", "CPUs 2" if " CPUs 2," in told else "CPUs", "memory", "kernel"):
        assert name in told


def test_failed_integrity_exits_4_and_keeps_the_evidence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judge = oracle.judge

    def severe(*args: Any) -> oracle.Verdict:
        verdict = judge(*args)
        verdict.lost = 1
        return verdict

    monkeypatch.setattr(oracle, "judge", severe)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = invoke("--threads")
    assert result.exit_code == exits.INTEGRITY
    assert result.stdout.startswith("INTEGRITY FAILED")
    assert f"left in {tmp_path}" in result.stdout


def test_full_is_the_benchmark_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Scenario] = []

    def note(scenario: Scenario, **options: Any) -> None:
        asked.append(scenario)
        raise KeyboardInterrupt

    monkeypatch.setattr(stress, "run_stress", note)
    result = CliRunner().invoke(
        pistributer, ["stress", "--full", "--driver", "sqlite", "--api", "classic", "--sync", "group"]
    )
    assert result.exit_code == exits.INTERRUPTED
    scenario = asked[0]
    assert (scenario.total, scenario.channels, scenario.readers) == (2_700_000, 6_010, 64)
    assert (scenario.driver, scenario.api, scenario.sync) == ("sqlite", "classic", "group")
    CliRunner().invoke(pistributer, ["stress", "--full", "--rows", "30"])
    assert (asked[1].total, asked[1].channels) == (270_000, 6_010)


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    result = invoke("--folder", str(tmp_path))
    assert result.exit_code == exits.USAGE
    assert "not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_plot_draws_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plot'")
    done = shell("stress", *SMALL, "--plot", str(tmp_path / "run.png"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_says_what_to_install_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(stress, "run_stress", lambda *args, **options: pytest.fail("it ran"))
    result = invoke("--plot", "run.png")
    assert result.exit_code == exits.FAILURE
    assert "pip install 'pistributer[plot]'" in result.stderr


def test_plot_into_a_folder_that_is_not_there_is_refused_before_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plot'")
    monkeypatch.setattr(stress, "run_stress", lambda *args, **options: pytest.fail("it ran"))
    assert invoke("--plot", str(tmp_path / "no" / "run.png")).exit_code == exits.USAGE
