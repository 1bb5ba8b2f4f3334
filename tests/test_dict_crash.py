"""A writer killed at every change to the disk, and many processes at once: readers see the old value or the new one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer.dicts import ITEM_NOT_AVAILABLE, FileDirDict

from .crashing import Act, every_kill
from .processes import Child

OLD, NEW = "old" * 3000, "new" * 4000
Check = Callable[[FileDirDict[str], bool], None]


def _set(d: FileDirDict[str]) -> None:
    d["a"] = NEW


def _set_deep(d: FileDirDict[str]) -> None:
    d["x", "y", "z"] = NEW


def _delete(d: FileDirDict[str]) -> None:
    del d["deep", "er", "a"]


def _transform(d: FileDirDict[str]) -> None:
    d.transform_item("a", transformer=lambda now: now + "!")


ACTS: dict[str, tuple[Callable[[FileDirDict[str]], None], tuple[str, ...], str | None, str | None]] = {
    "overwrite": (_set, ("a",), OLD, NEW),
    "new-folders": (_set_deep, ("x", "y", "z"), None, NEW),
    "delete": (_delete, ("deep", "er", "a"), OLD, None),
    "transform": (_transform, ("a",), OLD, OLD + "!"),
}


@pytest.mark.parametrize("sync", ["none", "each"])
@pytest.mark.parametrize("name", list(ACTS))
@pytest.mark.parametrize("torn", [False, True], ids=["", "torn"])
def test_a_writer_killed_at_every_step(name: str, sync: str, torn: bool, tmp_path: Path) -> None:
    act, key, old, new = ACTS[name]

    def prepare(at: int) -> Act:
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        before = FileDirDict[str](tmp_path / "d", sync="none")
        before["a"] = before["deep", "er", "a"] = OLD

        def run(tell: Callable[[str, Any], None]) -> None:
            act(FileDirDict(tmp_path / "d", sync=sync))
            tell("returned", None)

        return run

    steps = 0
    for _, told in every_kill(prepare, torn=torn):
        steps += 1
        d = FileDirDict[str](tmp_path / "d", sync="none")
        assert d.get(key) in ((new,) if told.of("returned") else (old, new))
        assert {tuple(k) for k in d} <= {("a",), ("deep", "er", "a"), ("x", "y", "z")}
        assert all(value in (OLD, NEW, OLD + "!") for value in d.values())
        assert list((tmp_path / "d" / "#stage").iterdir()) == [], "a stray file outlived the next open"
        d[key] = "after"
        assert d[key] == "after"
    assert steps >= (3 if name == "delete" else 5)


def test_the_stage_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    with Child(_hold_a_staged_file, str(tmp_path / "d")) as child:
        assert child.hear() == "staged"
        assert len(FileDirDict[str](tmp_path / "d")) == 0
        assert len(os.listdir(tmp_path / "d" / "#stage")) == 1
        child.kill()
    FileDirDict[str](tmp_path / "d")
    assert os.listdir(tmp_path / "d" / "#stage") == []


def _hold_a_staged_file(pipe: Any, folder: str) -> None:
    d = FileDirDict[str](folder)
    d._files._put_on_stage(b"half", sync=False)
    pipe.send("staged")
    pipe.recv()


def test_processes_lose_no_increment(tmp_path: Path) -> None:
    """Thirty-two of them on one key, with the default number of retries."""
    with contextlib.ExitStack() as crew:
        children = [crew.enter_context(Child(_increment, str(tmp_path / "d"), 5)) for _ in range(32)]
        for child in children:
            child.result()
    assert FileDirDict[int](tmp_path / "d", sync="none")["n"] == 160


def _increment(pipe: Any, folder: str, times: int) -> None:
    d = FileDirDict[int](folder, sync="none")
    for _ in range(times):
        d.transform_item("n", transformer=lambda now: 1 if now is ITEM_NOT_AVAILABLE else now + 1)


#: `STRESS_SECONDS=60 pytest -k overlap_on_1000_keys -o faulthandler_timeout=0` is the full run.
SECONDS = float(os.environ.get("STRESS_SECONDS", "2"))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("sync", ["none", "each"])
def test_writers_readers_deletes_and_clear_overlap_on_1000_keys(tmp_path: Path, sync: str) -> None:
    folder = str(tmp_path / "d")
    done = [0, 0]
    with contextlib.ExitStack() as crew:
        children = [crew.enter_context(Child(_write, folder, sync, seed)) for seed in range(8)]
        children += [crew.enter_context(Child(_read, folder, sync)) for _ in range(8)]
        for number, child in enumerate(children):
            done[number // 8] += child.result()
    assert min(done) > 100, done
    d = FileDirDict[Any](folder)
    assert os.listdir(tmp_path / "d" / "#stage") == []
    assert all(_whole(key, value) for key, value in d.items())


def _key(number: int) -> tuple[str, ...]:
    return (f"g{number % 10}", f"k{number}") if number % 2 else (f"k{number}",)


def _value(key: tuple[str, ...], writer: int, number: int) -> dict[str, Any]:
    return {"key": list(key), "writer": writer, "fill": [number] * (number % 3000)}


def _whole(key: Any, value: dict[str, Any]) -> bool:
    return (
        value["key"] == list(key) and len(set(value["fill"])) <= 1 and value["fill"][:1] in ([], [len(value["fill"])])
    )


def _until_the_end(pipe: Any) -> Iterator[None]:
    """Rounds of work, with a sign of life every five seconds."""
    end = sign = time.monotonic()
    end += SECONDS
    while (now := time.monotonic()) < end:
        if now > sign:
            sign = now + 5
            pipe.send("alive")
        yield


def _write(pipe: Any, folder: str, sync: str, seed: int) -> int:
    d, dice, count = FileDirDict[Any](folder, sync=sync), random.Random(seed), 0
    for _ in _until_the_end(pipe):
        key, size = _key(dice.randrange(1000)), dice.randrange(3000)
        chance = dice.random()
        if chance < 0.7:
            d[key] = _value(key, seed, size)
        elif chance < 0.9:
            d.discard(key)
        elif chance < 0.98:
            d.pop(key, None)
        elif chance < 0.99:
            d.setdefault(key, _value(key, seed, size))
        elif seed == 0:
            d.clear()
        count += 1
    return count


def _read(pipe: Any, folder: str, sync: str) -> int:
    d, dice, count = FileDirDict[Any](folder, sync=sync), random.Random(), 0
    for _ in _until_the_end(pipe):
        key = _key(dice.randrange(1000))
        value = d.get(key)
        assert value is None or _whole(key, value)
        if dice.random() < 0.01:
            assert all(_whole(found, value) for found, value in d.items())
            len(d), d.newest_keys(10), d.random_key(), d.subdicts()
        count += 1
    return count
