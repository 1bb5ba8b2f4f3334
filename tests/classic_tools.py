"""What the tests of the classic channels share: the drivers, children that are reaped, and how release 0.2.0 reads."""

from __future__ import annotations

import json
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pistributer import Pistributer, PistributerTxt

FileDriver = type[Pistributer] | type[PistributerTxt]
DRIVERS: list[FileDriver] = [Pistributer, PistributerTxt]


@dataclass
class Child:
    """A forked child that runs one function and hands back what it returned."""

    pid: int
    pipe: int

    def result(self) -> Any:
        with open(self.pipe, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        assert data, f"the child ended with status {status}"
        value, problem = pickle.loads(data)
        assert problem is None, problem
        return value


def fork(function: Callable[[], Any]) -> Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    os.close(reading)
    answer: tuple[Any, str | None]
    try:
        answer = function(), None
    except BaseException:  # noqa: BLE001 - the parent fails with it
        answer = None, traceback.format_exc()
    with open(writing, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def in_children(*functions: Callable[[], Any]) -> list[Any]:
    """Run the functions at once, each in a child of its own; their results."""
    return [child.result() for child in [fork(function) for function in functions]]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Release020:
    """Reads a channel as release 0.2.0 does: what `__init__`, `isEmpty` and `next` of it do to the files."""

    def __init__(self, path: Path | str) -> None:
        self.data, self.in_use, self.index = (Path(f"{path}{end}") for end in ("", ".in_use", ".index"))
        self._begin()

    def _begin(self) -> None:
        self._consumed: dict[str, int] = {"index": 0}
        if self.index.is_file():
            self._consumed = json.loads(self.index.read_text())
        else:
            self.index.write_text(json.dumps(self._consumed))
        self.q: list[str] = []
        if self.in_use.is_file():
            self._load()
        elif self.data.is_file():
            os.rename(self.data, self.in_use)
            self._load()
            self._update(0)
        else:
            self.index.unlink()

    def _load(self) -> None:
        with open(self.in_use, encoding="utf-8") as rows:
            self.q = [row for row in rows.read().split("\n") if row]

    def _update(self, count: int) -> None:
        self._consumed["index"] = count
        self.index.write_text(json.dumps(self._consumed))

    def is_empty(self) -> bool:
        if self._consumed["index"] < len(self.q):
            return False
        self.index.unlink(missing_ok=True)
        self.in_use.unlink(missing_ok=True)
        if not self.data.is_file():
            return True
        self._begin()
        return False

    def next(self) -> str:
        assert not self.is_empty()
        row = self.q[self._consumed["index"]]
        self._update(self._consumed["index"] + 1)
        return row

    def rest(self) -> list[str]:
        rows = []
        while not self.is_empty():
            rows.append(self.next())
        return rows
