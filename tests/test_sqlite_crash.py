"""Killed before any of its SQL statements, a sqlite queue keeps what it promised; and it survives a storm of kills.

What happens inside a statement is SQLite's matter. What is ours: that each step is one transaction, that the owner's lock
and his rows in the database never disagree in a way that loses or doubles a row, and that taking over from the dead may be
interrupted as well.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .processes import Child, wait_for
from .sqlite_tools import die_before, foreign

Scene = Callable[[Any, str], None]


def told_by(scene: Scene, url: str, at: int) -> tuple[list[Any], bool]:
    """What a child that is killed before its statement `at` said until then, and whether it got through."""
    told: list[Any] = []
    with Child(_act, scene, url, at) as child:
        while True:
            try:
                told.append(child.hear())
            except EOFError:
                wait_for(lambda: not child.alive, "the child's end")
                return told, False
            if told[-1] == "finished":
                return told, True


def _act(pipe: Any, scene: Scene, url: str, at: int) -> None:
    die_before(at)
    scene(pipe, url)
    pipe.send("finished")


def every_kill(scene: Scene, folder: Path) -> Any:
    """Runs `scene` in a fresh queue, killed before each of its statements in turn; yields URL, what was said, and where."""
    for at in range(1, 1000):
        url = f"sqlite:{folder / f'{at}.db'}"
        told, finished = told_by(scene, url, at)
        yield url, told, at
        if finished:
            assert at > 20, "the scene was hardly interrupted"
            return
    raise AssertionError("the scene never got through")


def drain(queue: Queue) -> dict[str, int]:
    """Everything that can still be claimed, with its attempt."""
    found: dict[str, int] = {}
    while items := queue.claim(100, timeout=0.0):
        for item in items:
            assert item.value not in found, "delivered twice"
            found[item.value] = item.attempt
        queue.ack(items)
    return found


def put_scene(pipe: Any, url: str) -> None:
    with open_queue(url) as queue:
        for value in "ab":
            pipe.send(("put", value))
            queue.put(value)
            pipe.send(("is put", value))
        pipe.send(("put", "cde"))
        queue.put_many("cde")
        pipe.send(("is put", "cde"))
        pipe.send(("put", "f"))
        queue.put("f", delay=0.000001)
        pipe.send(("is put", "f"))


def test_killed_while_putting_what_was_acknowledged_is_there_and_nothing_is_half_there(tmp_path: Path) -> None:
    for url, told, at in every_kill(put_scene, tmp_path):
        with open_queue(url) as queue:
            found = set(drain(queue))
        begun = "".join(told_of(told, "put"))
        safe = "".join(told_of(told, "is put"))
        assert set(safe) <= found <= set(begun), at
        assert len(found & set("cde")) in (0, 3), at


def import_scene(pipe: Any, url: str) -> None:
    with open_queue(url) as queue, queue.source("imports") as source:
        at = source.checkpoint or 0
        while at < 2:
            source.put("abcdefg"[at], checkpoint=at + 1)
            at += 1
            pipe.send(("is put", at))
        source.commit(at)
        source.put_many([("abcdefg"[i], i + 1) for i in range(at, 7)])
        pipe.send(("is put", 7))


def test_killed_while_importing_the_next_holder_goes_on_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    for url, told, at in every_kill(import_scene, tmp_path):
        with open_queue(url) as queue:
            assert (queue.sources().get("imports") or 0) >= max(told_of(told, "is put"), default=0), at
        import_scene(_Silence(), url)
        with open_queue(url) as queue:
            assert list(drain(queue)) == list("abcdefg"), at


class _Silence:
    def send(self, value: object) -> None:
        """Nobody listens."""


def claim_scene(pipe: Any, url: str) -> None:
    queue = open_queue(url)
    queue.put_many("abcdefgh")
    queue.put("i", delay=0.000001)
    pipe.send(("is put", "abcdefghi"))
    steps: list[tuple[str, int, Callable[[Any], None]]] = [
        ("ack", 2, queue.ack),
        ("nack", 2, queue.nack),
        ("bury", 1, queue.bury),
        ("later", 1, lambda items: queue.nack(items, delay=0.000001)),
        ("keep", 2, lambda items: None),
    ]
    for name, count, settle in steps:
        items = queue.claim(count)
        values = "".join(item.value for item in items)
        pipe.send(("claimed", values))
        pipe.send((f"to {name}", values))
        settle(items)
        pipe.send((f"did {name}", values))
    queue.close()


def test_killed_while_claiming_and_settling_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    for url, told, at in every_kill(claim_scene, tmp_path):
        put, claimed, acked = ("".join(told_of(told, what)) for what in ("is put", "claimed", "did ack"))
        with open_queue(url) as queue:
            dead = {row.value for row in queue.scan("dead")}
            found = drain(queue)
        assert not set(found) & dead, at
        gone = set(put) - set(found) - dead
        assert set(acked) <= gone <= set(acked) | set("".join(told_of(told, "to ack"))) or not put, at
        assert set("".join(told_of(told, "did bury"))) <= dead <= set("".join(told_of(told, "to bury"))), at
        counted = Counter(claimed)
        assert all(counted[value] + 1 <= attempt <= counted[value] + 2 for value, attempt in found.items() if put), at


def rescue_scene(pipe: Any, url: str) -> None:
    """Take over from an owner that died; the scene itself may die of it, again and again."""
    queue = open_queue(url)
    while items := queue.claim(2):
        pipe.send(("claimed", "".join(item.value for item in items)))
        queue.ack(items)
        pipe.send(("did ack", "".join(item.value for item in items)))
    queue.close()


def test_killed_while_taking_over_from_the_dead_no_row_is_lost(tmp_path: Path) -> None:
    for at in range(1, 60):
        url = f"sqlite:{tmp_path / f'{at}.db'}"
        with Child(_hold, url) as child:
            child.hear()
            child.kill()
        told, _ = told_by(rescue_scene, url, at)
        acked = Counter("".join(told_of(told, "did ack")))
        with open_queue(url) as queue:
            found = drain(queue)
        assert not set(found) & set(acked), at
        maybe = set("".join(told_of(told, "claimed"))) - set(acked)
        assert set("abcd") - maybe <= set(found) | set(acked), at
        assert all(found[value] >= 2 for value in found if value in "abc"), at


def _hold(pipe: Any, url: str) -> None:
    queue = open_queue(url)
    queue.put_many("abcd")
    queue.claim(3)
    pipe.send("held")
    pipe.recv()


def told_of(told: list[Any], what: str) -> list[str]:
    return [entry[1] for entry in told if entry[0] == what]


# -- a storm


def test_a_storm_of_kills_loses_nothing_and_leaves_a_sound_database(tmp_path: Path) -> None:
    url, dice = f"sqlite:{tmp_path / 'q.db'}", random.Random(7)
    put: set[int] = set()
    seen: Counter[int] = Counter()
    victims = [dice.randrange(4) for _ in range(12)]
    with ExitStack() as stack:
        children = [stack.enter_context(Child(_churn, url, start * 10**6)) for start in range(4)]
        for start, victim in enumerate(victims, 4):
            for _ in range(dice.randrange(1, 20)):
                note(children[victim].hear(), put, seen)
            children[victim].kill()
            note_rest(children[victim], put, seen)
            children[victim] = stack.enter_context(Child(_churn, url, start * 10**6))
        for child in children:
            child.kill()
            note_rest(child, put, seen)
    left = []
    with open_queue(url) as queue:
        while items := queue.claim(500):
            left += [item.value for item in items]
            queue.ack(items)
    seen.update(left)
    assert max(seen.values()) == 1
    # Each kill may have cut off the report of one ack, of five rows.
    assert len(put - seen.keys()) <= 5 * (len(victims) + 4)
    with foreign(tmp_path / "q.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _churn(pipe: Any, url: str, start: int) -> None:
    queue = open_queue(url)
    for base in range(start, start + 10**6, 10):
        queue.put_many(range(base, base + 10))
        pipe.send(("put", list(range(base, base + 10))))
        items = queue.claim(5)
        queue.ack(items)
        pipe.send(("acked", [item.value for item in items]))


def note(report: tuple[str, list[int]], put: set[int], seen: Counter[int]) -> None:
    what, values = report
    if what == "put":
        put.update(values)
    else:
        seen.update(values)


def note_rest(child: Child, put: set[int], seen: Counter[int]) -> None:
    """What a killed child said before it died."""
    while True:
        try:
            note(child.hear(), put, seen)
        except EOFError:
            return


@pytest.mark.parametrize("count", [1, 3])
def test_rows_of_owners_that_died_one_after_the_other_add_up(tmp_path: Path, count: int) -> None:
    url = f"sqlite:{tmp_path / 'q.db'}"
    for _ in range(count):
        with Child(_hold, url) as child:
            child.hear()
            child.kill()
    with open_queue(url) as queue:
        assert queue.stats().ready == 4 * count
        assert sum(len(queue.claim(2)) for _ in range(2 * count)) == 4 * count
