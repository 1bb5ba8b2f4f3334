"""What a job with a key costs beside a plain one: sent one by one, sent together, and run by two workers.

`python benchmarks/tickets.py` prints the figures and keeps them in results/tickets.{md,json}. Plain and keyed are measured
in turns, and the median of the ratios is given. Without results and without syncs (`sync="none"`), as jobs that are all
overhead.
"""

from __future__ import annotations

import sys
import tempfile
import time
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
#: Jobs that are sent one by one, and sent together to workers that wait for them.
SENT, TOGETHER = 1_000, 5_000


def one_round(folder: Path) -> dict[str, dict[str, float]]:
    """Microseconds a job, by what was done and how."""
    found: dict[str, dict[str, float]] = {}
    for kind in ("plain", "keyed"):
        place = folder / kind
        place.mkdir()
        (place / "app.py").write_text(APP)
        module: Any = load(place)
        task, done = getattr(module, kind), 0
        started = time.perf_counter()
        for n in range(SENT):
            task.send(n)
        found.setdefault("send", {})[kind] = (time.perf_counter() - started) / SENT
        with running(place, processes=2):
            wait_until_done(place, done := done + SENT)
            for what, calls in (
                ("send_many and run, a key each", ((n,) for n in range(TOGETHER))),
                ("send_many and run, one key", (("same",) for _ in range(TOGETHER))),
            ):
                started = time.perf_counter()
                task.send_many(calls)
                wait_until_done(place, done := done + TOGETHER)
                found.setdefault(what, {})[kind] = (time.perf_counter() - started) / TOGETHER
        module.app.close()
    return {what: {kind: 1e6 * value for kind, value in both.items()} for what, both in found.items()}


def wait_until_done(place: Path, jobs: int) -> None:
    from pistributer.workers.inspection.status import read_status

    deadline = time.monotonic() + 300
    while sum(worker.done for worker in read_status(place / "jobs").workers) < jobs:
        if time.monotonic() > deadline:
            raise SystemExit("the jobs were not done; see the pool's log")
        time.sleep(0.005)


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
