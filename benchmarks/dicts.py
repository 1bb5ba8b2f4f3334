"""Persistent dictionaries beside their peers, on the same values, in one run.

    python benchmarks/dicts.py                    1,000 keys; two minutes
    python benchmarks/dicts.py --keys 100000      … and more of them; several minutes
    python benchmarks/dicts.py --save             … kept in benchmarks/results/

Peers are used if they are installed; the extra `bench` brings them. Each measure of all engines is
taken in turn, several times, and medians are shown. There are two groups, which are not to be compared with each other:
`durable`, where an item is on the disk when a call returns, and `cached`, where it is in the page cache (or in a transaction
that is not synced). An engine is in the group that its defaults put it in; ours are in both.
"""

from __future__ import annotations

import argparse
import dbm.dumb
import importlib
import itertools
import json
import os
import pickle
import random
import shelve
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

from pistributer.dicts import FileDirDict, IODict, LocalDict, MutableDictCached

SMALL = {"id": 123456, "name": "a small value", "more": [1, 2.5, None]}
LARGE = {"id": 1, "data": random.Random(1).randbytes(100_000)}
#: Operations of one measure that go through single keys.
SAMPLE = 300
#: Up to so many keys everything is measured, and several times.
FEW = 10_000


class Engine:
    """One dictionary in one folder, by what a user of it would write."""

    def __init__(self, name: str, durable: bool, make: Callable[[Path], Any], **ways: Callable[[Any], Any]) -> None:
        self.name, self.durable, self.make, self.ways = name, durable, make, ways

    def newest(self, d: Any) -> Any:
        return self.ways["newest"](d) if "newest" in self.ways else None

    def iterate(self, d: Any) -> int:
        return sum(1 for _ in self.ways.get("items", lambda d: d.items())(d))


class Lmdb:
    """lmdb as a dict of pickles, one transaction an operation."""

    def __init__(self, folder: Path, sync: bool) -> None:
        self._env = importlib.import_module("lmdb").open(str(folder), map_size=4 << 30, sync=sync)

    def __setitem__(self, key: str, value: Any) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.put(key.encode(), pickle.dumps(value))

    def __getitem__(self, key: str) -> Any:
        with self._env.begin() as transaction:
            return pickle.loads(transaction.get(key.encode()))

    def __delitem__(self, key: str) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.delete(key.encode())

    def __len__(self) -> int:
        return int(self._env.stat()["entries"])

    def items(self) -> Any:
        with self._env.begin() as transaction:
            for key, value in transaction.cursor():
                yield key.decode(), pickle.loads(value)

    def fill(self, keys: list[str], value: Any) -> None:
        with self._env.begin(write=True) as transaction:
            for key in keys:
                transaction.put(key.encode(), pickle.dumps(value))

    def close(self) -> None:
        self._env.close()


def peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"not installed, left out: {name}", file=sys.stderr)
        return None


def engines(keys: int) -> list[Engine]:
    newest = {"newest": lambda d: d.newest_keys(max_n=10)}
    found = [
        Engine("FileDirDict", True, lambda path: FileDirDict(path), **newest),
        Engine("FileDirDict json", True, lambda path: FileDirDict(path, serialization_format="json"), **newest),
        Engine("IODict", True, lambda path: IODict(path)),
        Engine("FileDirDict sync=none", False, lambda path: FileDirDict(path, sync="none"), **newest),
        Engine("IODict sync=none", False, lambda path: IODict(path, sync="none")),
        Engine("shelve (dumb)", False, lambda path: shelve.Shelf(dbm.dumb.open(str(path / "s"), "c"))),  # type: ignore[arg-type]  # noqa: SIM115 - Shelf closes it
    ]
    few = keys <= FEW
    if few:
        found.insert(2, Engine("MutableDictCached", True, lambda path: _cached(FileDirDict(path)), **newest))
    if persidict := peer("persidict"):
        found.append(Engine("persidict", True, lambda path: persidict.FileDirDict(base_dir=str(path)), **newest))
        as_json = lambda path: persidict.FileDirDict(base_dir=str(path), serialization_format="json")  # noqa: E731
        found.append(Engine("persidict json", True, as_json, **newest))
        if few:
            found.append(Engine("persidict cached", True, lambda path: _persidict_cached(persidict, path), **newest))
    if iodict := peer("iodict"):
        found.append(Engine("iodict", False, lambda path: iodict.IODict(path=str(path))))
    if diskcache := peer("diskcache"):
        last = lambda d: list(itertools.islice(reversed(d), 10))  # noqa: E731 - by birth, not by change
        found.append(Engine("diskcache Index", False, lambda path: diskcache.Index(str(path)), newest=last))
    if sqlitedict := peer("sqlitedict"):
        found.append(Engine("sqlitedict", True, lambda path: _sqlitedict(sqlitedict, path)))
    if peer("lmdb"):
        found.append(Engine("lmdb", True, lambda path: Lmdb(path, sync=True)))
        found.append(Engine("lmdb sync=False", False, lambda path: Lmdb(path, sync=False)))
    # With many keys, a delete from dbm.dumb takes a second; and JSON and caches have the files of the others.
    return found if few else [engine for engine in found if not engine.name.endswith(("json", "(dumb)"))]


def _cached(main: Any) -> Any:
    return MutableDictCached(main, LocalDict(), LocalDict())


def _persidict_cached(persidict: Any, path: Path) -> Any:
    main = persidict.FileDirDict(base_dir=str(path))
    return persidict.MutableDictCached(
        main_dict=main, data_cache=persidict.LocalDict(), etag_cache=persidict.LocalDict(base_class_for_values=str)
    )


def _sqlitedict(module: Any, path: Path) -> Any:
    # FULL: sqlitedict turns syncing off by default, and writes in a thread of its own.
    return module.SqliteDict(str(path / "d.sqlite"), autocommit=True, journal_mode="WAL", timeout=30)


class Bench:
    def __init__(self, folder: Path, keys: int, repeats: int) -> None:
        self.folder, self.keys, self.repeats = folder, keys, repeats
        self.dice = random.Random(7)

    def measure(self, engine: Engine, value: Any, keys: int) -> dict[str, float]:
        """Microseconds an operation; `iterate`, `len` and `newest` for the whole dictionary."""
        path = self.folder / engine.name.replace(" ", "-")
        path.mkdir()
        d = engine.make(path)
        try:
            return self._operations(engine, d, value, keys)
        finally:
            if hasattr(d, "close") and not isinstance(d, IODict):
                d.close()
            shutil.rmtree(path)

    def _operations(self, engine: Engine, d: Any, value: Any, keys: int) -> dict[str, float]:
        self._fill(d, value, keys - SAMPLE)
        fresh = [f"key{number:07d}" for number in range(keys - SAMPLE, keys)]
        known = [f"key{self.dice.randrange(keys):07d}" for _ in range(SAMPLE)]
        found = {
            "set": _each(fresh, lambda key: d.__setitem__(key, value)),
            "overwrite": _each(known, lambda key: d.__setitem__(key, value)),
        }
        for key in known:
            d[key]
        found["get"] = _each(known, lambda key: d[key])
        found["len"] = _best(lambda: len(d))
        if engine.newest(d) is not None:
            found["newest(10)"] = _best(lambda: engine.newest(d))
        found["iterate"] = _best(lambda: engine.iterate(d)) / keys
        found["delete"] = _each(fresh, d.__delitem__)
        return found

    def _fill(self, d: Any, value: Any, count: int) -> None:
        """Not measured, so without syncs where an engine lets us."""
        target, keys = d, [f"key{number:07d}" for number in range(count)]
        if isinstance(d, Lmdb):
            d.fill(keys, value)
            return
        if isinstance(d, FileDirDict | IODict):
            target = type(d)(d.base_dir if isinstance(d, FileDirDict) else d.path, **_format(d), sync="none")
        if isinstance(d, MutableDictCached):
            target = FileDirDict(d.main_dict.base_dir, sync="none")  # type: ignore[attr-defined]
        real, os.fsync = os.fsync, lambda fd: None
        try:
            for key in keys:
                target[key] = value
        finally:
            os.fsync = real


def _format(d: Any) -> dict[str, str]:
    return {"serialization_format": d.serialization_format} if isinstance(d, FileDirDict) else {}


def _each(keys: list[str], act: Callable[[str], Any]) -> float:
    started = time.perf_counter()
    for key in keys:
        act(key)
    return (time.perf_counter() - started) / len(keys) * 1e6


def _best(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1e6


def run(bench: Bench, label: str, value: Any, keys: int) -> list[dict[str, Any]]:
    chosen = engines(keys)
    figures: dict[str, list[dict[str, float]]] = {engine.name: [] for engine in chosen}
    for _ in range(bench.repeats):
        for engine in chosen:
            print(f"{label}: {engine.name}", file=sys.stderr, flush=True)
            figures[engine.name].append(bench.measure(engine, value, keys))
    return [
        {
            "values": label, "keys": keys, "engine": engine.name, "durable": engine.durable,
            **{name: machine.median([one[name] for one in figures[engine.name]]) for name in figures[engine.name][0]},
        }
        for engine in chosen
    ]  # fmt: skip


def results(bench: Bench) -> list[dict[str, Any]]:
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
    for number, (name, way) in itertools.product(range(bench.repeats), ways.items()):
        path = bench.folder / f"results-{number}-{len(figures[name])}-{abs(hash(name))}"
        path.mkdir()
        add = way(path)
        figures[name].append(_each([str(count) for count in range(2000)], lambda key, add=add: add(int(key))))  # type: ignore[misc]
        shutil.rmtree(path)
    return [{"kept in": name, "micros": machine.median(found)} for name, found in figures.items()]


COLUMNS = ("set", "overwrite", "get", "delete", "iterate", "len", "newest(10)")


NOTES = """\
Read them with this in mind. persidict syncs what it sets, and not what it deletes. Its `len` counts names; ours leaves out
those that are no items, and symbolic links. iodict and dbm.dumb write in place: killed half-way they leave half a value, and
readers see one meanwhile; that is faster than to replace a file. diskcache, sqlitedict and lmdb keep one database, with an
index for `len` and for what was added last, and no file that a person can read. sqlitedict answers before it has written."""


def page(document: dict[str, Any]) -> str:
    lines = [
        "# Dictionaries beside their peers",
        "",
        f"Machine: {machine.facts_line(document['machine'])}. Medians of {document['repeats']} runs in turn. Microseconds: of "
        "one operation; for `iterate` of one item; for `len` and `newest(10)` of the whole call. `durable` means that an item "
        "is on the disk when a call returns.",
        "",
        NOTES,
    ]
    for label, keys in dict.fromkeys((row["values"], row["keys"]) for row in document["rows"]):
        for durable in (True, False):
            rows = [
                row
                for row in document["rows"]
                if (row["values"], row["keys"], row["durable"]) == (label, keys, durable)
            ]
            title = f"## {label} values, {keys:,} keys, {'durable' if durable else 'cached'}"
            cells = [[row["engine"], *(_shown(row.get(name)) for name in COLUMNS)] for row in rows]
            lines += ["", title, "", machine.markdown_table(["engine", *COLUMNS], cells)]
    if document["results"]:
        rows = [[row["kept in"], f"{row['micros']:.1f} µs"] for row in document["results"]]
        lines += ["", "## Keeping the result of a job", "", machine.markdown_table(["kept in", "a result"], rows)]
    return "\n".join(lines)


def _shown(micros: float | None) -> str:
    return "-" if micros is None else f"{micros:,.1f}" if micros < 1000 else f"{micros:,.0f}"


def merged(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """One document of several runs on one machine, for runs that are too long to be made at once."""
    rows = [row for document in documents for row in document["rows"]]
    kept = [row for document in documents for row in document["results"]]
    return {**documents[0], "rows": rows, "results": kept}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, nargs="+", default=[1000], help="how many keys (default: 1000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--folder", type=Path, help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--merge", type=Path, nargs="+", help="measure nothing; put the JSON of earlier runs together")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    return parser.parse_args()


def main() -> None:
    options = parse()
    document = merged([json.loads(path.read_text()) for path in options.merge]) if options.merge else measure(options)
    print(json.dumps(document) if options.json else page(document))
    if options.save:
        machine.save("dicts", document, page(document))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pistributer-dicts-", dir=options.folder) as folder:
        facts = machine.facts(Path(folder))
        rows: list[dict[str, Any]] = []
        for keys in options.keys:
            bench = Bench(Path(folder), keys, options.repeats if keys <= FEW else 1)
            rows += run(bench, "small", SMALL, keys)
            if keys <= FEW:
                rows += run(bench, "100 kB", LARGE, keys)
        kept = results(Bench(Path(folder), 0, options.repeats)) if min(options.keys) <= FEW else []
    return {"machine": facts, "repeats": options.repeats, "rows": rows, "results": kept}


if __name__ == "__main__":
    main()
