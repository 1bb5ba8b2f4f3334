"""What the library costs beside the system calls that it can not do without, on the same 60-byte rows.

    python benchmarks/floors.py                  queue and classic operations against bare loops; a minute
    python benchmarks/floors.py --pool           … and the pool: wake-up, rescue, tasks a second, backlog (pool.py)
    python benchmarks/floors.py --pool --save    … kept in benchmarks/results/

A figure and its floor are measured in turn, several times, so that a noisy moment hits both; medians are shown. Everything
runs with sync="none": rows are in the page cache when a call returns.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import machine

from pistributer.queues.classic import Pistributer
from pistributer.queues.opening import open_queue

#: 60 bytes on disk, with the newline.
VALUE = {"id": 123456, "name": "a row of the benchmark", "more": 7.5125}
ROW = b'{"id":123456,"name":"a row of the benchmark","more":7.5125}\n'
TEXT = ROW[:-1].decode()
BATCH = 256


@dataclass
class Result:
    """Microseconds a row: ours, the floor's, and what is promised."""

    name: str
    ours: float
    floor: float
    floor_is: str
    target: str
    met: bool | None

    @property
    def share(self) -> float:
        """Which part of the floor's rate is reached."""
        return self.floor / self.ours


class Bench:
    """Names fresh paths, and times loops."""

    def __init__(self, folder: Path, rows: int, repeats: int) -> None:
        self.folder, self.rows, self.repeats = folder, rows, repeats
        self._numbers = itertools.count()

    def fresh(self, suffix: str = "") -> str:
        return str(self.folder / f"{next(self._numbers):05d}{suffix}")

    def compare(
        self, name: str, ours: Callable[[], float], floor: Callable[[], float], floor_is: str, target: Target
    ) -> Result:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        mine, bare = (machine.median(figures) for figures in machine.interleaved(self.repeats, ours, floor))
        return Result(name, mine, bare, floor_is, target.text, target.is_met(mine, bare))


@dataclass
class Target:
    text: str
    is_met: Callable[[float, float], bool | None] = lambda ours, floor: None


def share_of_floor(share: float) -> Target:
    return Target(f"at least {share:.0%} of the floor's rate", lambda ours, floor: floor / ours >= share)


def at_most(micros: float) -> Target:
    return Target(f"at most {micros} µs", lambda ours, floor: ours <= micros)


NO_TARGET = Target("-")


def timed(rows: int, work: Callable[[], object]) -> float:
    """Microseconds a row."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / rows * 1e6


# -- floors


def floor_write(bench: Bench) -> float:
    fd = os.open(bench.fresh(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work() -> None:
        for _ in range(bench.rows):
            os.write(fd, ROW)

    try:
        return timed(bench.rows, work)
    finally:
        os.close(fd)


def floor_write_batches(bench: Bench) -> float:
    fd = os.open(bench.fresh(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    rows = [ROW] * BATCH
    count = bench.rows // BATCH

    def work() -> None:
        for _ in range(count):
            os.write(fd, b"".join(rows))

    try:
        return timed(count * BATCH, work)
    finally:
        os.close(fd)


def floor_locked_write(bench: Bench) -> float:
    fd = os.open(bench.fresh(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work() -> None:
        for _ in range(bench.rows):
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, ROW)
            fcntl.flock(fd, fcntl.LOCK_UN)

    try:
        return timed(bench.rows, work)
    finally:
        os.close(fd)


def floor_claim(bench: Bench, batch: int, *, ack: bool = True) -> float:
    """Lock, read a batch, note it in a journal, move a cursor in place, unlock; then note that it is done."""
    path = bench.fresh()
    with open(path, "wb") as file:
        file.write(ROW * bench.rows)
    flags = os.O_RDWR | os.O_CREAT
    data, journal, cursor = (
        os.open(path, flags),
        os.open(path + ".journal", flags | os.O_APPEND),
        os.open(path + ".c", flags),
    )
    size = batch * len(ROW)
    count = bench.rows // batch

    def work() -> None:
        for number in range(count):
            fcntl.flock(cursor, fcntl.LOCK_EX)
            rows = os.pread(data, size, number * size)
            if ack:
                os.write(journal, rows)
            os.pwrite(cursor, b"%016d" % number, 0)
            fcntl.flock(cursor, fcntl.LOCK_UN)
            rows.split(b"\n")
            if ack:
                os.write(journal, b"done\n")

    try:
        return timed(count * batch, work)
    finally:
        for fd in (data, journal, cursor):
            os.close(fd)


# -- ours


def queue_put(bench: Bench, driver: str) -> float:
    with open_queue(url_of(driver, bench.fresh())) as queue:
        value: Any = TEXT if driver == "txt" else VALUE
        put = queue.put
        put(value)  # the queue is open, with its file, before the clock starts

        def work() -> None:
            for _ in range(bench.rows):
                put(value)

        return timed(bench.rows, work)


def queue_put_many(bench: Bench, driver: str) -> float:
    with open_queue(url_of(driver, bench.fresh())) as queue:
        values: list[Any] = [TEXT if driver == "txt" else VALUE] * BATCH
        count = bench.rows // BATCH
        queue.put(values[0])

        def work() -> None:
            for _ in range(count):
                queue.put_many(values)

        return timed(count * BATCH, work)


def queue_claim(bench: Bench, driver: str, batch: int) -> float:
    rows = bench.rows if batch > 1 else bench.rows // 4
    with open_queue(url_of(driver, bench.fresh())) as queue:
        queue.put_many([TEXT if driver == "txt" else VALUE] * rows)

        def work() -> None:
            while items := queue.claim(batch):
                queue.ack(items)

        return timed(rows, work)


def classic_put(bench: Bench) -> float:
    path = bench.fresh(".jsonl")
    Pistributer.put(path, VALUE)

    def work() -> None:
        for _ in range(bench.rows):
            Pistributer.put(path, VALUE)

    return timed(bench.rows, work)


def classic_next(bench: Bench) -> float:
    path = bench.fresh(".jsonl")
    Pistributer.put_many(path, [VALUE] * bench.rows)
    with Pistributer(path) as channel:

        def work() -> None:
            for _ in range(bench.rows):
                channel.next()

        return timed(bench.rows, work)


def url_of(driver: str, path: str) -> str:
    return f"{driver}:{path}" + (".db" if driver == "sqlite" else "")


def measure(bench: Bench) -> Iterator[Result]:
    """DESIGN section 6, the rows of it that are about one operation."""
    for driver in ("jsonl", "txt"):
        yield from measure_driver(bench, driver)
    puts = partial(classic_put, bench), partial(floor_locked_write, bench)
    yield bench.compare("classic put", *puts, "flock, write", NO_TARGET)
    nexts = partial(classic_next, bench), partial(floor_claim, bench, 1, ack=False)
    yield bench.compare("classic next", *nexts, "flock, pread, pwrite", NO_TARGET)


def measure_driver(bench: Bench, driver: str) -> Iterator[Result]:
    puts = partial(queue_put, bench, driver), partial(floor_write, bench)
    yield bench.compare(f"put, {driver}", *puts, "write", share_of_floor(0.6))
    many = partial(queue_put_many, bench, driver), partial(floor_write_batches, bench)
    yield bench.compare(f"put_many of {BATCH}, {driver}", *many, "join, write", at_most(0.5))
    for batch, target in ((BATCH, at_most(1.5)), (1, NO_TARGET)):
        claims = partial(queue_claim, bench, driver, batch), partial(floor_claim, bench, batch)
        yield bench.compare(
            f"claim and ack of {batch}, {driver}", *claims, "flock, pread, write, pwrite, write", target
        )


# -- the page


def table(results: list[Result]) -> str:
    rows = [
        [
            result.name,
            f"{result.ours:.2f} µs",
            f"{result.floor:.2f} µs ({result.floor_is})",
            f"{result.share:.0%}",
            result.target,
            {True: "yes", False: "NO", None: "-"}[result.met],
        ]
        for result in results
    ]
    header = ["operation, a row", "ours", "floor", "of its rate", "target", "met"]
    return machine.markdown_table(header, rows)


def page(document: dict[str, Any], results: list[Result], pool: list[list[str]]) -> str:
    lines = [
        "# Against the floor",
        "",
        f"Machine: {machine.facts_line(document['machine'])}. Durability: sync=none, floors included. Rows of {len(ROW)} "
        f"bytes; medians of {document['repeats']} runs in turn.",
        "",
        table(results),
    ]
    if pool:
        lines += ["", "## The pool", "", machine.markdown_table(["what", "measured", "target", "met"], pool)]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=40_000, help="rows in each run (default: 40000)")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each (default: 7)")
    parser.add_argument("--folder", type=Path, help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--pool", action="store_true", help="measure wake-up, rescue, tasks and backlog too")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    return parser.parse_args()


def main() -> None:
    options = parse()
    assert len(ROW) == 60
    with tempfile.TemporaryDirectory(prefix="pistributer-floors-", dir=options.folder) as folder:
        facts = machine.facts(Path(folder))
        results = list(measure(Bench(Path(folder), options.rows, options.repeats)))
        pool_figures = measure_pool(Path(folder)) if options.pool else []
    document = {
        "machine": facts,
        "sync": "none",
        "rows": options.rows,
        "repeats": options.repeats,
        "results": [asdict(result) for result in results],
        "pool": pool_figures,
    }
    text = page(document, results, [pool_row(figure) for figure in pool_figures])
    print(json.dumps(document) if options.json else text)
    if options.save:
        machine.save("floors", document, text)


def measure_pool(folder: Path) -> list[dict[str, Any]]:
    import pool

    return [asdict(figure) for figure in pool.measure(folder)]


def pool_row(figure: dict[str, Any]) -> list[str]:
    return [figure["name"], figure["shown"], figure["target"], "yes" if figure["met"] else "NO"]


if __name__ == "__main__":
    main()
