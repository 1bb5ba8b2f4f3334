"""The comparison with other task queues runs, at a size that says nothing about speed, and says what it found."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("peers")


def test_every_measurement_runs_on_ours() -> None:
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--quick", "--json", "--peers", "ours"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=environment)
    found = {name: part["found"] for name, part in json.loads(done.stdout)["measurements"].items()}
    for name in ("nothing", "short"):
        assert list(found[name]) == ["without results", "with results"]
        for figures in found[name].values():
            assert figures["ours"]["extra"] == 0
            assert min(figures["ours"][key] for key in ("send", "send_many", "done", "whole")) > 0
    assert found["latency"]["without results"]["ours"]["p50"] > 0
    assert found["idle"]["without results"]["ours"]["share"] >= 0
    assert 0 < found["rescue"]["without results"]["ours"]["seconds"] < 20


def document(ours: float) -> dict[str, Any]:
    def part(**found: dict[str, float]) -> dict[str, Any]:
        return {"machine": {"CPUs": 2}, "found": {"without results": found}}

    rates = {"send": 1000.0, "done": 2000.0}
    return {
        "versions": "rq 2",
        "peers": ["ours", "rq"],
        "measurements": {
            "nothing": part(ours={**rates, "send_many": 9000.0, "whole": ours}, rq={**rates, "whole": 5_000.0}),
            "rescue": part(ours={"seconds": 0.02}, rq={}),
        },
    }


def test_the_page_says_ratios_and_who_never_came_back(peers: ModuleType) -> None:
    page = peers.page(document(ours=60_000.0))
    assert "12.0x" in page
    assert "not within 20 s" in page
    assert "10 times the fastest peer: 12.0 times: met" in page
    assert "rerun within 250 ms: 20 ms: met" in page


def test_a_missed_target_is_said(peers: ModuleType) -> None:
    assert "10 times the fastest peer: 8.0 times: **missed**" in peers.page(document(ours=40_000.0))


def test_without_a_redis_server_it_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--only", "idle"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 1
    assert "apt-get install redis-server" in done.stderr
