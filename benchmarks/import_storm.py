"""An import of 100,000 rows whose producer is killed a hundred times: is every row there once, and in order?

    python benchmarks/import_storm.py                    jsonl, txt and sqlite, a hundred kills each
    python benchmarks/import_storm.py --kills 10 --rows 10000

The queue is consumed while this goes on. tests/conformance_sources.py runs the short version. Exit code 4 if a row is
missing, doubled or out of order.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

SOURCE = "import"


def main() -> None:
    options = parse()
    failed = False
    with tempfile.TemporaryDirectory(prefix="pistributer-storm-") as folder:
        print(machine.facts_line(machine.facts(Path(folder))))
        for driver in ("jsonl", "txt", "sqlite"):
            found = storm(f"{driver}:{folder}/{driver}", options.rows, options.kills, options.seed)
            print(f"{driver}: " + ", ".join(f"{value:,} {name}" for name, value in found.items()))
            failed |= bool(found["lost"] or found["doubled"] or found["out of order"]) or found["kills"] < options.kills
    raise SystemExit(4 if failed else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    return parser.parse_args()


def storm(url: str, rows: int, kills: int, seed: int) -> dict[str, Any]:
    chance, done = random.Random(seed), 0
    seen: list[int] = []
    started = time.monotonic()
    with open_queue(url) as queue:
        for mark in sorted(chance.randrange(rows) for _ in range(kills)):
            done += kill_at(mark, queue, url, rows)
            seen += drain(queue)
        os.waitpid(start(url, rows), 0)
        seen += drain(queue)
    return {
        "rows": rows,
        "kills": done,
        "lost": len(set(range(rows)) - set(seen)),
        "doubled": len(seen) - len(set(seen)),
        "out of order": sum(after < before for before, after in itertools.pairwise(seen)),
        "seconds": round(time.monotonic() - started, 1),
    }


def kill_at(mark: int, queue: Queue, url: str, rows: int) -> int:
    """Import in a child that is killed about when it has come to row `mark`; 1 if that was before it ended."""
    pid = start(url, rows)
    while (queue.sources().get(SOURCE) or 0) < mark:
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return int(os.WIFSIGNALED(status))


def start(url: str, rows: int) -> int:
    """A child that imports the rows from where the last one came to; its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            import_rows(url, rows)
            status = 0
        finally:
            os._exit(status)
    return pid


def import_rows(url: str, rows: int) -> None:
    with open_queue(url, segment_bytes=1_000_000) as queue, queue.source(SOURCE) as source:
        for number in range(source.checkpoint or 0, rows):
            source.put(f"row {number}", checkpoint=number + 1)


def drain(queue: Queue) -> list[int]:
    seen = []
    while items := queue.claim(1000):
        seen += [int(item.value.removeprefix("row ")) for item in items]
        queue.ack(items)
    return seen


if __name__ == "__main__":
    main()
