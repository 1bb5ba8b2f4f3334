"""Random processes killed all the time: a shared state counts right, a DurableQueue loses nothing.

Two seconds here; `PISTRIBUTER_STORM=60 pytest tests/test_kill_storm.py` is the long version.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from pistributer import DurableQueue, PersistedState

from .processes import Child

SECONDS = float(os.environ.get("PISTRIBUTER_STORM", "2"))
#: Seconds between two kills.
PAUSE = 0.05


def storm(folder: Path, roles: list[Callable[..., None]]) -> int:
    """Keep a process of each role running on `folder`, kill one every PAUSE seconds, and at last all; how many died."""
    numbers = iter(range(10**6))
    children = [Child(role, folder, next(numbers)) for role in roles]
    dice, deaths, end = random.Random(0), 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            time.sleep(PAUSE)
            victim = dice.randrange(len(children))
            with children[victim] as child:
                child.kill()
            children[victim] = Child(roles[victim], folder, next(numbers))
            deaths += 1
    finally:
        for child in children:
            with child:
                child.kill()
    return deaths


def notes(folder: Path, name: str, number: int) -> Callable[[str], None]:
    """Writes lines that outlive their writer."""
    fd = os.open(folder / f"{name}.{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    return lambda line: os.write(fd, line.encode() + b"\n") and None


def noted(folder: Path, name: str) -> Iterator[list[str]]:
    yield from (path.read_text().splitlines() for path in folder.glob(f"{name}.*"))


def produce(pipe: Any, folder: Path, number: int) -> None:
    note = notes(folder, "put", number)
    queue = DurableQueue(folder / "q")
    for turn in range(10**6):
        value = number * 10**6 + turn
        note(f"begun {value}")
        queue.put(value)
        note(f"done {value}")


def consume(pipe: Any, folder: Path, number: int) -> None:
    note = notes(folder, "got", number)
    queue = DurableQueue(folder / "q")
    while True:
        note(str(queue.get()))


def test_a_durable_queue_in_a_storm_of_kills(tmp_path: Path) -> None:
    assert storm(tmp_path, [produce, produce, consume, consume, consume]) > 5
    got, in_hand = Counter[int](), Counter[int]()
    for lines in noted(tmp_path, "got"):
        got.update(map(int, lines))
        in_hand.update(map(int, lines[-1:]))
    with DurableQueue(tmp_path / "q") as queue, pytest.raises(Empty):
        while True:  # half a second is far longer than the dead keep what they held
            got[queue.get(timeout=0.5)] += 1
    begun, done = (
        {int(line.split()[1]) for lines in noted(tmp_path, "put") for line in lines if line.startswith(word)}
        for word in ("begun", "done")
    )
    assert done <= set(got) <= begun
    assert [item for item, times in got.items() if times > 1 + in_hand[item]] == []


def count(pipe: Any, folder: Path, number: int) -> None:
    note = notes(folder, "counted", number)
    state = PersistedState(folder / "state.yaml", _lock="share", _vacuum_bytes=3000, count=0, by={}, log=[])
    for turn in range(1, 10**6):
        with state.transaction():
            state.count += 1
            state.by[number] = turn
            state.log.append(number)
            del state.log[:-10]
        note(str(turn))


def test_a_shared_state_in_a_storm_of_kills(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    assert storm(tmp_path, [count, count, count]) > 5
    with PersistedState(tmp_path / "state.yaml") as state:
        assert state.count == sum(state.by.values()) > 0
        assert len(state.log) == min(10, state.count)
        for path in tmp_path.glob("counted.*"):
            counted = len(path.read_text().splitlines())
            # The last one may be on disk without having been noted.
            assert state.by.get(int(path.suffix[1:]), 0) - counted in (0, 1)
