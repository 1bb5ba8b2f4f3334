"""The counter of persistedstate's own page, `state.counter += 1`, beside the stores that it names, in one run.

    pip install 'pistributer[bench]'
    python benchmarks/state.py            a minute
    python benchmarks/state.py --save     … kept in benchmarks/results/

Stores are compared with those that promise the same after each increment:

    none    a killed process loses nothing; a power cut may cost the last seconds
    each    a power cut loses nothing

lmdb with a writable map is shown as well. It makes no system call at all, and is no match: its manual says that a power cut
may then cost the whole file, not the last seconds.

persistedstate, sqlitedict and shelve never sync, so they are not in the second group. All are measured in turn, several
times, with fresh files, from the open store to the last increment; medians are shown.
"""

from __future__ import annotations

import argparse
import dbm
import itertools
import json
import shelve
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine

from pistributer import PersistedState

#: Counts up so many times in the folder, and returns the seconds that it took.
Counter = Callable[[Path, int], float]


def timed(turns: int, step: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(turns):
        step()
    return time.perf_counter() - started


def ours(folder: Path, turns: int, *, sync: Any) -> float:
    with PersistedState(folder / "state.yaml", _sync=sync, counter=0) as state:

        def step() -> None:
            state.counter += 1

        took = timed(turns, step)
        assert state.counter == turns
    return took


def original(folder: Path, turns: int) -> float:
    from persistedstate import PersistedState as Original

    state = Original(folder / "state.yaml", counter=0)

    def step() -> None:
        state.counter += 1

    took = timed(turns, step)
    state.close()
    return took


def disk_cache(folder: Path, turns: int, *, full: bool) -> float:
    from diskcache import Cache

    # SQLite in WAL mode: NORMAL (its default) does not sync a commit, FULL does.
    with Cache(str(folder), sqlite_synchronous=2 if full else 1) as cache:
        cache["counter"] = 0

        def step() -> None:
            cache["counter"] += 1

        return timed(turns, step)


def sqlite_dict(folder: Path, turns: int) -> float:
    from sqlitedict import SqliteDict

    with SqliteDict(str(folder / "state.db"), autocommit=True) as state:
        state["counter"] = 0

        def step() -> None:
            state["counter"] += 1

        return timed(turns, step)


def lmdb_store(folder: Path, turns: int, *, full: bool, writemap: bool = False) -> float:
    import lmdb

    with lmdb.open(str(folder), sync=full, writemap=writemap) as store:
        with store.begin(write=True) as change:
            change.put(b"counter", b"0")

        def step() -> None:
            with store.begin(write=True) as change:
                change.put(b"counter", b"%d" % (int(change.get(b"counter")) + 1))

        return timed(turns, step)


def shelf(folder: Path, turns: int) -> float:
    with shelve.open(str(folder / "state")) as state:
        state["counter"] = 0

        def step() -> None:
            state["counter"] += 1

        return timed(turns, step)


def groups() -> dict[str, dict[str, Counter]]:
    return {
        "none": {
            "pistributer": partial(ours, sync="none"),
            "persistedstate 23.5": original,
            "diskcache": partial(disk_cache, full=False),
            "sqlitedict": sqlite_dict,
            "lmdb": partial(lmdb_store, full=False),
            "lmdb, writable map": partial(lmdb_store, full=False, writemap=True),
            f"shelve ({_shelf_kind()})": shelf,
        },
        "group": {"pistributer": partial(ours, sync="group")},
        "each": {
            "pistributer": partial(ours, sync="each"),
            "diskcache": partial(disk_cache, full=True),
            "lmdb": partial(lmdb_store, full=True),
        },
    }


def _shelf_kind() -> str:
    with tempfile.TemporaryDirectory() as folder:
        shelve.open(folder + "/x").close()
        return dbm.whichdb(folder + "/x") or "dbm"


def measure(root: Path, turns: int, repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds an increment."""
    found: dict[str, dict[str, float]] = {}
    numbers = itertools.count()

    def once(counter: Counter, count: int) -> float:
        folder = root / str(next(numbers))
        folder.mkdir()
        return counter(folder, count) / count * 1e6

    for step, counters in groups().items():
        print(f"measuring: sync={step}", file=sys.stderr, flush=True)
        # A disk that confirms each increment is a thousand times slower.
        count = max(1, turns // 20) if step == "each" else turns
        figures = machine.interleaved(repeats, *[partial(once, counter, count) for counter in counters.values()])
        found[step] = dict(zip(counters, map(machine.median, figures), strict=True))
    return found


def page(document: dict[str, Any]) -> str:
    rows = []
    for step, figures in document["microseconds"].items():
        mine = figures["pistributer"]
        rows += [
            [step, name, f"{micros:.1f} µs", f"{micros * document['turns'] / 1e6:.3f} s", f"{micros / mine:.1f}"]
            for name, micros in sorted(figures.items(), key=lambda each: each[1])
        ]
    header = ["promise", "store", "an increment", f"{document['turns']:,} of them", "times ours"]
    return "\n".join(
        [
            "# Counting",
            "",
            f"Machine: {machine.facts_line(document['machine'])}. Medians of {document['repeats']} runs in turn; for "
            f'"each", of a twentieth of the increments. Promises: none = a killed process loses nothing, each = a power cut '
            "loses nothing, group = a power cut costs a few milliseconds.",
            "",
            machine.markdown_table(header, rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=10_000, help="increments in each run (default: 10000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--folder", type=Path, help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pistributer-state-", dir=options.folder) as folder:
        document = {
            "machine": machine.facts(Path(folder)),
            "turns": options.turns,
            "repeats": options.repeats,
            "microseconds": measure(Path(folder), options.turns, options.repeats),
        }
    text = page(document)
    print(json.dumps(document) if options.json else text)
    if options.save:
        machine.save("state", document, text)


if __name__ == "__main__":
    main()
