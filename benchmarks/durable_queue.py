"""Which driver DurableQueue should stand on: the file driver or sqlite? And what it costs beside what others offer.

    pip install 'pistributer[bench]'
    python benchmarks/durable_queue.py            half a minute
    python benchmarks/durable_queue.py --save     … kept in benchmarks/results/

Speed: put and get of one item at a time, in one process, sync="none" (a killed process loses nothing).
Order: two objects put in turns, as two processes do; how many of the items come out after one that was put later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine

from pistributer import DurableQueue, open_queue

Measure = Callable[[Path, int], "tuple[float, float]"]


def both(items: int, put: Callable[[Any], object], get: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of a put and of a get."""
    begun = time.perf_counter()
    for number in range(items):
        put(number)
    half = time.perf_counter()
    for _ in range(items):
        get()
    return (half - begun) / items * 1e6, (time.perf_counter() - half) / items * 1e6


def durable(folder: Path, items: int, *, serializer: Any) -> tuple[float, float]:
    with DurableQueue(folder / "q", serializer=serializer) as queue:
        return both(items, queue.put, queue.get)


def driver(folder: Path, items: int, *, url: str) -> tuple[float, float]:
    with open_queue(url.format(folder / "q")) as queue:
        return both(items, queue.put, lambda: queue.ack(queue.claim(1)))


def disk_deque(folder: Path, items: int) -> tuple[float, float]:
    from diskcache import Deque

    deque = Deque(directory=str(folder))
    return both(items, deque.append, deque.popleft)


def persist_queue(folder: Path, items: int) -> tuple[float, float]:
    from persistqueue import SQLiteQueue

    queue = SQLiteQueue(str(folder / "q"), auto_commit=True)
    return both(items, queue.put, queue.get)


MEASURES: dict[str, Measure] = {
    "DurableQueue": partial(durable, serializer="pickle"),
    'DurableQueue, serializer="json"': partial(durable, serializer="json"),
    "sqlite driver, claim and ack": partial(driver, url="sqlite:{}.db"),
    "jsonl driver, claim and ack": partial(driver, url="jsonl:{}"),
    "diskcache.Deque": disk_deque,
    "persist-queue, SQLiteQueue": persist_queue,
}


def out_of_order(folder: Path, url: str, items: int) -> int:
    """How many items come out after one that was put later."""
    with open_queue(url.format(folder / "q")) as one, open_queue(url.format(folder / "q")) as other:
        for number in range(items):
            (one, other)[number * 7 % 3 % 2].put(number)
        came = []
        while claimed := one.claim(1):
            one.ack(claimed)
            came.append(claimed[0].value)
    highest = list(itertools.accumulate(came, max))
    return sum(value < before for value, before in zip(came[1:], highest, strict=False))


def measure(root: Path, items: int, repeats: int) -> dict[str, Any]:
    numbers = itertools.count()

    def fresh() -> Path:
        folder = root / str(next(numbers))
        folder.mkdir()
        return folder

    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURES}
    for turn in range(repeats):
        print(f"measuring: {turn + 1} of {repeats}", file=sys.stderr, flush=True)
        for name, each in MEASURES.items():
            figures[name].append(each(fresh(), items))
    return {
        "microseconds": {
            name: [machine.median([each[which] for each in found]) for which in (0, 1)]
            for name, found in figures.items()
        },
        "out_of_order": {
            name: out_of_order(fresh(), url, 1000) for name, url in (("sqlite", "sqlite:{}.db"), ("jsonl", "jsonl:{}"))
        },
    }


def page(document: dict[str, Any]) -> str:
    rows = [
        [name, f"{put:.1f} µs", f"{get:.1f} µs"] for name, (put, get) in document["results"]["microseconds"].items()
    ]
    order = ", ".join(f"{name} {count}" for name, count in document["results"]["out_of_order"].items())
    return "\n".join(
        [
            "# A queue.Queue on disk",
            "",
            f"Machine: {machine.facts_line(document['machine'])}. Durability: a killed process loses nothing. Medians of "
            f"{document['repeats']} runs in turn, {document['items']:,} items each, one at a time.",
            "",
            machine.markdown_table(["queue", "put", "get"], rows),
            "",
            f"Of 1,000 items that two objects put in turns, so many came out after a later one: {order}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=3_000, help="items in each run (default: 3000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--folder", type=Path, help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pistributer-durable-", dir=options.folder) as folder:
        document = {
            "machine": machine.facts(Path(folder)),
            "items": options.items,
            "repeats": options.repeats,
            "results": measure(Path(folder), options.items, options.repeats),
        }
    text = page(document)
    print(json.dumps(document) if options.json else text)
    if options.save:
        machine.save("durable_queue", document, text)


if __name__ == "__main__":
    main()
