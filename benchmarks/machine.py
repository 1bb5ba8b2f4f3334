"""What every benchmark here says about where it ran, and how its tables are written."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

if str(ROOT) not in sys.path:  # run from a checkout, installed or not
    sys.path.insert(0, str(ROOT))


def facts(folder: Path) -> dict[str, Any]:
    """CPU, kernel, filesystem under `folder`, Python, load before the run, and the commit that was measured."""
    from pistributer.workers.stress.report import machine_facts

    return {
        **machine_facts(folder),
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def scheduled_seconds(pid: int) -> float:
    """How long the threads of a process have run, by Linux's scheduler: ticks, which `ps` shows, are 10 ms or nothing."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def facts_line(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is readable as text too."""
    shown = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)) + " |" for row in shown
    ]
    lines.insert(1, "|" + "|".join("-" * (size + 2) for size in widths) + "|")
    return "\n".join(lines)


def save(name: str, document: dict[str, Any], text: str) -> None:
    """Keep the last results under `benchmarks/results/`: figures for programs, a page for people."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(f"saved: benchmarks/results/{name}.json and .md", file=sys.stderr)


def saved(name: str) -> dict[str, Any]:
    """The figures that `save` kept last; nothing if there are none."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def interleaved(repeats: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Run the measures in turn, `repeats` times, so that a noisy moment hits all of them; their figures, in order."""
    figures: list[list[float]] = [[] for _ in measures]
    for _ in range(repeats):
        for kept, measure in zip(figures, measures, strict=True):
            kept.append(measure())
    return figures


def median(figures: Sequence[float]) -> float:
    return statistics.median(figures)
