"""Persistent dictionaries beside their peers, on the same values, in one run.

    python benchmarks/dicts.py --save                           everything; about 10 minutes and 12 GB of disk
    python benchmarks/dicts.py --scenarios small:1000           one of its parts; half a minute
    python benchmarks/dicts.py --folder /somewhere              on another disk; the folder must be there

Peers are used if they are installed; the extra `bench` brings them. All dictionaries of a scenario are open at once and are
measured in turn, some operations each, round after round, so that a noisy moment hits all of them; shown are medians of the
rounds, and for the pairs that are compared the median of what each round says. There are two groups, which are not to be
compared with each other: `durable`, where an item is on the disk when a call returns, and `cached`, where it is in the page
cache (or in a transaction that is not synced). An engine is in the group that its defaults put it in; ours are in both.

Before each measure everything is synced, so that none pays for what another has written. Everything is hot: it was written
or read just before. On ext4 each dictionary gets a block group of its own (the flag of `chattr +T`): who creates a file there
passes by every inode of the group that was freed within the last minutes, so that the deletions of one engine would slow down
another. Those of a run before still do: leave five minutes between two.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import gc
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from dict_engines import Engine, engines, fill

from pistributer.dicts import FileDirDict, LocalDict

VALUES: dict[str, Any] = {
    "small": {"id": 123456, "name": "a small value", "more": [1, 2.5, None]},
    "100 kB": {"id": 1, "data": random.Random(1).randbytes(100_000)},
}
SCENARIOS = ("small:1000", "100 kB:1000", "small:100000", "100 kB:10000")
#: Rounds, and operations of one round, of measures that go through single keys.
ROUNDS, EACH = 15, 20
#: With fewer keys, all engines are measured.
FEW = 10_000
#: Rounds of measures that go through the whole dictionary, of few keys and of many. What persidict takes bounds them.
WHOLE_ROUNDS = {"len": (15, 7), "newest(10)": (15, 3), "iterate": (7, 2)}
Act = Callable[[Any], object]


class Bench:
    """One scenario: every engine with `keys` items of one value."""

    def __init__(self, folder: Path, label: str, keys: int) -> None:
        self.label, self.keys, self.value = label, keys, VALUES[label]
        self.folder, self.started = folder, time.perf_counter()
        self.few = keys < FEW
        self.engines = [engine for engine in engines() if self.few or engine.many]
        self.open: dict[str, Any] = {}
        self.rounds: dict[str, dict[str, list[float]]] = {engine.name: {} for engine in self.engines}

    def run(self) -> dict[str, dict[str, list[float]]]:
        """Microseconds of each round, by engine and measure: an operation's; `len` and `newest(10)`: the whole call's;
        `iterate`: an item's."""
        try:
            self._fill()
            self._measure()
        finally:
            for d in self.open.values():
                close(d)
        return self.rounds

    def _fill(self) -> None:
        keys = [f"key{number:07d}" for number in range(self.keys)]
        for engine in self.engines:
            self._say(f"fill {engine.name}")
            path = self.folder / (engine.shares or engine.name).replace(" ", "-")
            if not engine.shares:
                path.mkdir()
            self.open[engine.name] = d = engine.make(path)
            if not engine.shares:
                fill(d, keys, self.value)

    def _measure(self) -> None:
        known = random.Random(7).sample(range(self.keys), ROUNDS * EACH)
        hot = [f"key{number:07d}" for number in known[: 5 * EACH]]
        self._singles("set", lambda engine, turn: self._fresh(engine, turn), self._set)
        self._singles("delete", lambda engine, turn: self._fresh(engine, turn), lambda d, key: d.__delitem__(key))
        for d in self.open.values():
            _ = [d[key] for key in hot]
        self._singles("get", lambda engine, turn: hot, lambda d, key: d[key])
        self._wholes("len", len, None)
        self._wholes("newest(10)", None, None)
        self._wholes("iterate", lambda d: sum(1 for _ in d.items()), self.keys)
        chosen = [[f"key{number:07d}" for number in known[at : at + EACH]] for at in range(0, len(known), EACH)]
        self._singles("overwrite", lambda engine, turn: chosen[turn], self._set)

    def _set(self, d: Any, key: str) -> None:
        d[key] = self.value

    def _fresh(self, engine: Engine, turn: int) -> list[str]:
        # Of each engine others, because some share a folder.
        return [f"new-{self.engines.index(engine)}-{turn}-{number}" for number in range(EACH)]

    def _singles(self, name: str, keys: Callable[[Engine, int], list[str]], act: Callable[[Any, str], object]) -> None:
        def once(engine: Engine, turn: int) -> float:
            d, chosen = self.open[engine.name], keys(engine, turn)
            started = time.perf_counter()
            for key in chosen:
                act(d, key)
            return (time.perf_counter() - started) / len(chosen)

        # Those that wait for the disk apart from those that do not: who comes after a wait finds cold caches.
        waiting = [engine for engine in self.engines if name in engine.waits_for]
        for chosen in filter(None, (waiting, [engine for engine in self.engines if engine not in waiting])):
            self._in_turn(name, chosen, ROUNDS, once)

    def _wholes(self, name: str, act: Act | None, share: int | None) -> None:
        """`act`, or what the engine has for its newest keys, on the whole dictionary."""

        def once(engine: Engine, _: int) -> float:
            d, run = self.open[engine.name], act or engine.newest
            assert run is not None
            if name == "len" and self.few:  # so short that what ran before it would be measured
                run(d)
            started = time.perf_counter()
            run(d)
            return (time.perf_counter() - started) / (share or 1)

        chosen = [one for one in self.engines if (self.few or one.many is True) and (act or one.newest)]
        self._in_turn(name, chosen, WHOLE_ROUNDS[name][0 if self.few else 1], once)

    def _in_turn(self, name: str, chosen: list[Engine], rounds: int, once: Callable[[Engine, int], float]) -> None:
        self._say(f"{name} of {len(chosen)}")
        dice = random.Random(name)
        gc.collect()
        os.sync()
        for turn in range(rounds):
            # Shuffled and not rotated: each would else find the processor's caches as the same neighbour leaves them.
            for engine in dice.sample(chosen, len(chosen)):
                self.rounds[engine.name].setdefault(name, []).append(once(engine, turn) * 1e6)

    def _say(self, what: str) -> None:
        now = time.perf_counter() - self.started
        print(f"{self.label}, {self.keys:,} keys: {now:4.0f} s, {what}", file=sys.stderr, flush=True)


def close(d: Any) -> None:
    if hasattr(d, "close"):
        d.close()


def spread(folder: Path) -> None:
    """Have ext4 put what is made in `folder` into block groups of its own."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        flags = array.array("i", [0])
        fcntl.ioctl(fd, 0x80086601, flags)  # FS_IOC_GETFLAGS
        flags[0] |= 0x00020000  # FS_TOPDIR_FL, linux/fs.h
        fcntl.ioctl(fd, 0x40086602, flags)  # FS_IOC_SETFLAGS
    except OSError:
        pass  # another filesystem has no such flag, and no need of it
    finally:
        os.close(fd)


def results(folder: Path) -> list[dict[str, Any]]:
    """What it costs a worker to keep the result of a job, in each place where it could be kept. Nothing is synced."""
    from pistributer.storage.sqlite_db import Database
    from pistributer.workers.result_dict import DictResults
    from pistributer.workers.results import ResultLog

    def sqlite(path: Path, batch: int) -> Callable[[int], None]:
        database = Database(
            str(path / "r.db"), prepare=lambda c: c.execute("CREATE TABLE IF NOT EXISTS r (k PRIMARY KEY, v)")
        )
        row = json.dumps({"ok": True, "value": 1})
        waiting: list[tuple[str, str]] = []

        def add(number: int) -> None:
            waiting.append((f"{number:032x}", row))
            if len(waiting) >= batch:
                with database.transaction() as connection:
                    connection.executemany("INSERT OR REPLACE INTO r VALUES (?, ?)", waiting)
                waiting.clear()

        return add

    def log(path: Path) -> Callable[[int], None]:
        kept = ResultLog(str(path))

        def add(number: int) -> None:
            kept.add(f"{number:032x}", 1)
            if number % 100 == 99:
                kept.flush()

        return add

    def in_dict(d: Any) -> Callable[[int], None]:
        kept = DictResults(d)
        return lambda number: kept.add(f"{number:032x}", 1)

    ways: dict[str, Callable[[Path], Callable[[int], None]]] = {
        "log, 100 at once (the default)": log,
        "sqlite, 100 in a transaction": lambda path: sqlite(path, 100),
        "sqlite, each in a transaction": lambda path: sqlite(path, 1),
        "FileDirDict json, sync=none": lambda path: in_dict(
            FileDirDict(path, serialization_format="json", sync="none")
        ),
        "LocalDict json, for scale": lambda path: in_dict(LocalDict(serialization_format="json")),
    }
    figures: dict[str, list[float]] = {name: [] for name in ways}
    adds = {name: way(_made(folder / f"results-{number}")) for number, (name, way) in enumerate(ways.items())}
    for turn, (name, add) in itertools.product(range(ROUNDS), adds.items()):
        started = time.perf_counter()
        for number in range(turn * 200, turn * 200 + 200):
            add(number)
        figures[name].append((time.perf_counter() - started) / 200 * 1e6)
    return [{"kept in": name, "micros": machine.median(found)} for name, found in figures.items()]


def _made(path: Path) -> Path:
    path.mkdir()
    return path


#: Ours, theirs, and the measures of the pair. persidict syncs what it sets and not what it deletes, so ours that syncs
#: nothing is compared there; with JSON and with caches it is the same delete. iodict syncs nothing.
_READS = ("get", "iterate", "len", "newest(10)")
PAIRS: list[tuple[str, str, tuple[str, ...]]] = [
    ("FileDirDict", "persidict", ("set", "overwrite", *_READS)),
    ("FileDirDict sync=none", "persidict", ("delete",)),
    ("FileDirDict json", "persidict json", ("set", "overwrite", *_READS)),
    ("MutableDictCached", "persidict cached", ("set", "overwrite", *_READS)),
    ("IODict sync=none", "iodict", ("set", "overwrite", "delete", "get", "iterate", "len")),
]
_IN_PLACE = (
    "iodict writes into the item itself, where readers, and whoever comes after a kill, meet half a value; ours renames one "
    "that is whole, which is one more change of a folder"
)
#: Why another engine's design must win where it does.
REASONS = {
    ("iodict", "set"): _IN_PLACE,
    ("iodict", "overwrite"): _IN_PLACE,
    (
        "iodict",
        "delete",
    ): "ours takes the kernel's lock, which holds between all processes; iodict's ends at its object",
}


def compared(rounds: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """For each measure of each pair, how many times as fast ours is: the median of the rounds' ratios."""
    found = []
    for ours, theirs, names in PAIRS:
        for name in names:
            mine, peers = rounds.get(ours, {}).get(name), rounds.get(theirs, {}).get(name)
            if mine and peers:
                ratio = machine.median([other / one for one, other in zip(mine, peers, strict=True)])
                reason = REASONS.get((theirs, name)) if ratio < 1 else None
                found.append({"ours": ours, "theirs": theirs, "measure": name, "ratio": ratio, "reason": reason})
    return found


COLUMNS = ("set", "overwrite", "delete", "get", "iterate", "len", "newest(10)")


NOTES = """\
Read them with this in mind. persidict syncs what it sets, and not what it deletes. iodict and dbm.dumb write in place: killed
half-way they leave half a value, and readers see one meanwhile; that is faster than to replace a file. diskcache, sqlitedict
and lmdb keep one database, with an index for `len` and for what was added last, and no file that a person can read.
sqlitedict answers before it has written, and never syncs. With 100 kB, 100,000 keys would be 10 GB for each of nine engines,
more than memory holds, and would measure the disk; 10,000 are measured."""


def page(document: dict[str, Any]) -> str:
    lines = [
        "# Dictionaries beside their peers",
        "",
        f"Machine: {machine.facts_line(document['machine'])}. Medians of rounds in turn, everything hot. Microseconds: of "
        "one operation; for `iterate` of one item; for `len` and `newest(10)` of the whole call. `durable` means that an item "
        "is on the disk when a call returns.",
        "",
        NOTES,
    ]
    for scenario in document["scenarios"]:
        lines += _scenario_lines(scenario)
    if document["results"]:
        rows = [[row["kept in"], f"{row['micros']:.1f} µs"] for row in document["results"]]
        lines += ["", "## Keeping the result of a job", "", machine.markdown_table(["kept in", "a result"], rows)]
    return "\n".join(lines)


def _scenario_lines(scenario: dict[str, Any]) -> list[str]:
    title = f"{scenario['values']} values, {scenario['keys']:,} keys"
    lines = ["", f"## {title}", "", "How many times as fast as the original, in the same mode:", ""]
    lines += [_pair_table(scenario["pairs"]), "", *_behind(scenario["pairs"])]
    for durable in (True, False):
        rows = [row for row in scenario["rows"] if row["durable"] == durable]
        cells = [[row["engine"], *(_shown(row.get(name)) for name in COLUMNS)] for row in rows]
        lines += ["", f"{'Durable' if durable else 'Cached'}, microseconds:", ""]
        lines.append(machine.markdown_table(["engine", *COLUMNS], cells))
    return lines


def _pair_table(pairs: list[dict[str, Any]]) -> str:
    ratios = {(pair["ours"], pair["theirs"], pair["measure"]): pair["ratio"] for pair in pairs}
    cells = []
    for ours, theirs in dict.fromkeys((pair["ours"], pair["theirs"]) for pair in pairs):
        found = (ratios.get((ours, theirs, name)) for name in COLUMNS)
        cells.append([f"{ours} : {theirs}", *("-" if ratio is None else f"{ratio:.2f}" for ratio in found)])
    return machine.markdown_table(["pair", *COLUMNS], cells)


def _behind(pairs: list[dict[str, Any]]) -> list[str]:
    behind = [pair for pair in pairs if pair["ratio"] < 1]
    if not behind:
        return ["Behind in none."]
    return [
        f"- `{pair['measure']}` of {pair['ours']}, {pair['ratio']:.2f}: {pair['reason'] or 'no reason but speed'}."
        for pair in behind
    ]


def _shown(micros: float | None) -> str:
    return "-" if micros is None else f"{micros:,.1f}" if micros < 1000 else f"{micros:,.0f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, help='as in "100 kB:1000" (default: four of them)')
    parser.add_argument("--folder", type=Path, help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    return parser.parse_args()


def main() -> None:
    options = parse()
    # Everything is deleted at the end, because what is deleted before would slow down what is created then.
    with tempfile.TemporaryDirectory(prefix="pistributer-dicts-", dir=options.folder) as name:
        folder = Path(name)
        facts = machine.facts(folder)
        scenarios = [measure(folder, *one.split(":")) for one in options.scenarios]
        document = {"machine": facts, "scenarios": scenarios, "results": results(folder)}
    print(json.dumps(document) if options.json else page(document))
    if options.save:
        machine.save("dicts", document, page(document))


def measure(above: Path, label: str, keys: str) -> dict[str, Any]:
    folder = _made(above / f"{label}-{keys}".replace(" ", "-"))
    spread(folder)
    bench = Bench(folder, label, int(keys))
    rounds = bench.run()
    rows = [
        {
            "engine": engine.name, "durable": engine.durable,
            **{name: machine.median(found) for name, found in rounds[engine.name].items()},
        }
        for engine in bench.engines
    ]  # fmt: skip
    return {"values": label, "keys": int(keys), "pairs": compared(rounds), "rows": rows}


if __name__ == "__main__":
    main()
