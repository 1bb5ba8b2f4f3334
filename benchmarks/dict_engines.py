"""The dictionaries that `dicts.py` measures, as a user of each would open them."""

from __future__ import annotations

import dbm.dumb
import importlib
import itertools
import os
import pickle
import shelve
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine  # noqa: F401 - finds the checkout

from pistributer.dicts import FileDirDict, IODict, LocalDict, MutableDictCached


def _newest_keys(d: Any) -> Any:
    return d.newest_keys(max_n=10)


@dataclass(frozen=True)
class Engine:
    """One dictionary in one folder."""

    name: str
    #: Whether an item is on the disk when a call returns.
    durable: bool
    make: Callable[[Path], Any]
    #: The engine whose folder, and so whose items, it opens; None: a folder of its own.
    shares: str | None = None
    newest: Callable[[Any], Any] | None = None
    #: Which measures wait for the disk, of one that is durable.
    syncs: tuple[str, ...] = ("set", "overwrite", "delete")
    #: Whether it is measured with many keys, too; "keys": only what goes through single keys is.
    many: bool | str = True

    @property
    def waits_for(self) -> tuple[str, ...]:
        return self.syncs if self.durable else ()


class Lmdb:
    """lmdb as a dict of pickles, one transaction an operation."""

    def __init__(self, folder: Path, sync: bool) -> None:
        self._env = importlib.import_module("lmdb").open(str(folder), map_size=8 << 30, sync=sync)

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

    def items(self) -> Iterator[tuple[str, Any]]:
        with self._env.begin() as transaction:
            for key, value in transaction.cursor():
                yield key.decode(), pickle.loads(value)

    def update(self, items: dict[str, Any]) -> None:
        with self._env.begin(write=True) as transaction:
            for key, value in items.items():
                transaction.put(key.encode(), pickle.dumps(value))

    def close(self) -> None:
        self._env.close()


def peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"not installed, left out: {name}", file=sys.stderr)
        return None


def fill(d: Any, keys: list[str], value: Any) -> None:
    """Not measured, so without syncs and in few transactions where an engine lets us."""
    if isinstance(d, FileDirDict):
        d = FileDirDict(d.base_dir, d.serialization_format, sync="none")
    elif isinstance(d, IODict):
        d = IODict(d.path, sync="none")
    elif isinstance(d, Lmdb):
        return d.update(dict.fromkeys(keys, value))
    elif hasattr(d, "autocommit"):
        return _fill_sqlitedict(d, keys, value)
    real, os.fsync = os.fsync, lambda fd: None
    try:
        for key in keys:
            d[key] = value
    finally:
        os.fsync = real


def _fill_sqlitedict(d: Any, keys: list[str], value: Any) -> None:
    with type(d)(d.filename, journal_mode="WAL") as target:
        for at in range(0, len(keys), 500):
            target.update(dict.fromkeys(keys[at : at + 500], value))
            target.commit()  # waits, so that its thread has never more than that to write


def engines() -> list[Engine]:
    """All that are installed; those that share a folder after the one that they share it with."""
    return [*_ours(), *_persidicts(), *_others()]


def _ours() -> list[Engine]:
    files, dated = "FileDirDict", _newest_keys
    return [
        Engine(files, True, lambda path: FileDirDict(path), newest=dated),
        Engine("FileDirDict json", True, _json(FileDirDict), newest=dated, many=False),
        Engine("MutableDictCached", True, _our_cache, shares=files, newest=dated, many="keys"),
        Engine("IODict", True, lambda path: IODict(path)),
        Engine("FileDirDict sync=none", False, lambda path: FileDirDict(path, sync="none"), shares=files, newest=dated),
        Engine("IODict sync=none", False, lambda path: IODict(path, sync="none"), shares="IODict"),
    ]


def _json(kind: Any) -> Callable[[Path], Any]:
    return lambda path: kind(base_dir=str(path), serialization_format="json")


def _our_cache(path: Path) -> Any:
    return MutableDictCached(FileDirDict(path), LocalDict(), LocalDict())


def _persidicts() -> list[Engine]:
    if not (persidict := peer("persidict")):
        return []

    def cache(path: Path) -> Any:
        etags = persidict.LocalDict(base_class_for_values=str)
        main = persidict.FileDirDict(base_dir=str(path))
        return persidict.MutableDictCached(main_dict=main, data_cache=persidict.LocalDict(), etag_cache=etags)

    files, dated, syncs = persidict.FileDirDict, _newest_keys, ("set", "overwrite")
    plain = Engine("persidict", True, lambda path: files(base_dir=str(path)), newest=dated, syncs=syncs)
    return [
        plain,
        replace(plain, name="persidict json", make=_json(files), many=False),
        replace(plain, name="persidict cached", make=cache, shares="persidict", many="keys"),
    ]


def _others() -> list[Engine]:
    # With many keys, a delete from dbm.dumb takes a second.
    found = [Engine("shelve (dumb)", False, _shelve, many=False)]
    if iodict := peer("iodict"):
        found.append(Engine("iodict", False, lambda path: iodict.IODict(path=str(path))))
    if diskcache := peer("diskcache"):
        found.append(Engine("diskcache Index", False, lambda path: diskcache.Index(str(path)), newest=_last_born))
    if sqlitedict := peer("sqlitedict"):
        found.append(Engine("sqlitedict", False, lambda path: _sqlitedict(sqlitedict, path)))
    if peer("lmdb"):
        found.append(Engine("lmdb", True, lambda path: Lmdb(path, sync=True)))
        found.append(Engine("lmdb sync=False", False, lambda path: Lmdb(path, sync=False)))
    return found


def _shelve(path: Path) -> Any:
    return shelve.Shelf(dbm.dumb.open(str(path / "s"), "c"))  # type: ignore[arg-type]


def _last_born(d: Any) -> Any:
    return list(itertools.islice(reversed(d), 10))


def _sqlitedict(module: Any, path: Path) -> Any:
    # Not durable in any mode: sqlitedict turns syncing off, and writes in a thread of its own.
    return module.SqliteDict(str(path / "d.sqlite"), autocommit=True, journal_mode="WAL", timeout=30)
