"""What a job with a key costs beside a plain one: sent one by one, sent together, and run by two workers.

`python benchmarks/tickets.py` prints the figures and keeps them in results/tickets.{md,json}. Plain and keyed are measured
in turns, and the median of the ratios is given. Without results and without syncs (`sync="none"`), as jobs that are all
overhead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from pool import load, running

APP = """
from pathlib import Path
from pistributer import App

app = App(Path(__file__).parent / "jobs")

@app.task(results=False)
def plain(n):
    pass

@app.task(results=False, key="n")
def keyed(n):
    pass
"""
ROUNDS = 5
#: Jobs that are sent one by one, sent together, and run.
SENT, TOGETHER = 500, 5_000


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def one_round(folder: Path) -> dict[str, dict[str, float]]:
    """Microseconds a job, by what was done and how."""
    found: dict[str, dict[str, float]] = {"send": {}, "send_many": {}, "run, a key each": {}, "run, one key": {}}
    for kind in ("plain", "keyed"):
        place = folder / kind
        place.mkdir()
        (place / "app.py").write_text(APP)
        module: Any = load(place)
        task = getattr(module, kind)
        found["send"][kind] = seconds(lambda: [task.send(n) for n in range(SENT)]) / SENT  # noqa: B023 (called here)
        drain(place)
        found["send_many"][kind] = seconds(lambda: task.send_many((n,) for n in range(TOGETHER))) / TOGETHER  # noqa: B023
        found["run, a key each"][kind] = (seconds(lambda: drain(place)) - empty(place)) / TOGETHER  # noqa: B023
        task.send_many(("same",) for _ in range(TOGETHER))
        found["run, one key"][kind] = (seconds(lambda: drain(place)) - empty(place)) / TOGETHER  # noqa: B023
        module.app.close()
    return {what: {kind: 1e6 * value for kind, value in both.items()} for what, both in found.items()}


def drain(place: Path) -> None:
    with running(place, "--until-empty", processes=2) as pool:
        pool.wait(timeout=300)


def empty(place: Path) -> float:
    """The time that a run takes that has nothing to do."""
    return seconds(lambda: drain(place))


def main() -> None:
    rounds = []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="pistributer-tickets-") as folder:
            rounds.append(one_round(Path(folder)))
            facts = machine.facts(Path(folder))
    document, rows = {"facts": facts, "rounds": rounds}, []
    for what in rounds[0]:
        plain, keyed = (machine.median([one[what][kind] for one in rounds]) for kind in ("plain", "keyed"))
        ratio = machine.median([one[what]["keyed"] / one[what]["plain"] for one in rounds])
        rows.append([what, f"{plain:,.0f} µs", f"{keyed:,.0f} µs", f"{ratio:.1f}"])
    table = machine.markdown_table(["a job", "plain", "with a key", "ratio"], rows)
    text = f"{machine.facts_line(facts)}\n\n{table}"
    print(text)
    machine.save("tickets", document, text)


if __name__ == "__main__":
    main()
