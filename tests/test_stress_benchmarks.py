"""The benchmarks run, at a size that says nothing about speed."""

from __future__ import annotations

import importlib.util
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


def run(script: str, *args: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_floors_compares_every_operation_with_its_system_calls(tmp_path: Path) -> None:
    found = run("floors.py", "--rows", "512", "--repeats", "1", "--json", "--folder", str(tmp_path))
    names = {result["name"] for result in found["results"]}
    assert {"put, jsonl", "put_many of 256, txt", "claim and ack of 1, jsonl", "classic put", "classic next"} <= names
    assert all(result["ours"] > 0 and result["floor"] > 0 for result in found["results"])
    assert found["sync"] == "none"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "plan",
    [
        {"kind": "interleaved", "writers": 4, "readers": 3, "files": 3, "shared": 1, "rows": 20, "limit": 30},
        {"kind": "staged", "files": 5, "rows": 20},
    ],
    ids=lambda plan: str(plan["kind"]),
)
def test_the_classic_scenario_loses_nothing_with_our_release(plan: dict[str, Any]) -> None:
    found = run("classic_scenario.py", json.dumps(plan))
    total = plan.get("writers", 1) * plan["files"] * plan["rows"]
    assert (found["put"], found["read"], found["lost"]) == (total, total, 0)


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_versus_shows_ratios_losses_and_cuts() -> None:
    run = {"put": 100, "read": 100, "lost": 0, "malformed": 0, "out_of_order": 0, "errors": 0, "cut": False}
    ours = run | {"write_seconds": 1.0, "total_seconds": 2.0, "rows_per_second": 50.0}
    slow = run | {
        "read": 40,
        "lost": 60,
        "write_seconds": 5.0,
        "total_seconds": 40.0,
        "rows_per_second": 1.0,
        "cut": True,
    }
    staged = {"read": 9, "lost": 0, "write_seconds": 1.0, "read_seconds": 1.0, "total_seconds": 2.0}
    slower = {**staged, "read_seconds": 50.0}
    where = {"machine": {"CPUs": 2}, "sync": "none"}
    plan = {"writers": 2, "files": 5, "rows": 10, "readers": 1}
    runs = {"ours, processes": ours, "0.2.0, threads": slow}
    document = {
        "interleaved": where | {"plan": plan, "limit_seconds": 40, "runs": runs},
        "staged": where | {"runs": {"few rows": {"ours": staged, "0.2.0": slower}}},
    }
    versus = load("versus_0_2_0")
    page = versus.page(document)
    assert "50.0x" in page
    assert "| 60 " in page
    assert "`0.2.0, threads` was cut after 40 s" in page
    assert "1.000 s (50.0x)" in page
    assert "Interleaved" not in versus.page({"staged": document["staged"]})
