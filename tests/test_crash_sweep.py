"""Killed at every change to the disk, a file queue keeps what it promised; see crashing.py for how.

What must hold afterwards, in a fresh process, for each value (each is put once, so a value names a row):

* `put` returned                       → the row is there: claimable, delayed, dead, or acknowledged by the child
* `put` was begun                      → the row is there once or not at all
* `ack` returned                       → the row never comes again
* the child had not claimed it         → it comes exactly once
* the child died holding it            → it comes exactly once, with its attempt counted
* `nack` or `bury` was begun           → it comes at least once or is among the dead
* always                               → nothing else comes: no torn, glued or foreign row
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer.queues import journal as journals
from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .crashing import Told, every_kill, run_killed

Tell = Callable[[str, Any], None]
#: Small enough that every third row begins a new segment.
SEGMENT = 60


class Sweep:
    """One driver at one durability step, in numbered folders."""

    def __init__(self, root: Path, driver: str, sync: str) -> None:
        self.root = root
        self.driver = driver
        self.sync = sync
        self.url = ""
        self.points = 0

    def fresh(self, number: object) -> None:
        self.url = f"{self.driver}:{self.root / str(number)}"

    def open(self) -> Queue:
        return open_queue(self.url, sync=self.sync, segment_bytes=SEGMENT)  # type: ignore[arg-type]

    def value(self, number: int) -> Any:
        return {"row": number} if self.driver == "jsonl" else f"row {number}"

    def number(self, value: Any) -> int:
        return int(value["row"] if self.driver == "jsonl" else value.removeprefix("row "))

    def run(self, before: Callable[[Queue], None] | None, act: Callable[[Queue, Tell], None]) -> None:
        """Kill `act` everywhere, on a queue that `before` has filled, and check what is left each time."""
        for torn in (False, True):

            def prepare(at: int, torn: bool = torn) -> Callable[[Tell], None]:
                self.fresh(f"{at}-{torn}")
                if before is not None:
                    with self.open() as queue:
                        before(queue)
                return lambda tell: self._child(act, tell)

            for _, told in every_kill(prepare, torn=torn):
                self.check(told)
                self.points += 1

    def _child(self, act: Callable[[Queue, Tell], None], tell: Tell) -> None:
        queue = self.open()
        act(queue, tell)
        # No close: what a killed process does not do.

    def check(self, told: Told) -> None:
        with self.open() as queue:
            came: Counter[int] = Counter()
            attempts: dict[int, int] = {}
            while items := queue.claim(100, timeout=0.0) or queue.claim(100, timeout=self._patience(queue)):
                for item in items:
                    came[self.number(item.value)] += 1
                    attempts[self.number(item.value)] = item.attempt
                queue.ack(items)
            dead = Counter(self.number(row.value) for row in queue.scan("dead"))
            stats = queue.stats()
        assert (stats.ready, stats.claimed, stats.delayed) == (0, 0, 0)
        self._judge(told, came, attempts, dead)

    def _patience(self, queue: Queue) -> float:
        stats = queue.stats()
        return 5.0 if stats.ready or stats.delayed else 0.0

    def _judge(self, told: Told, came: Counter[int], attempts: dict[int, int], dead: Counter[int]) -> None:
        put, putting = set(told.of("put")) | BEFORE, set(told.of("putting"))
        claimed = set(told.of("claimed"))
        acked, acking = set(told.of("acked")), set(told.of("acking"))
        moving, moved = set(told.of("moving")), set(told.of("moved"))
        assert set(came) | set(dead) <= put | putting
        for row in put | putting:
            found = came[row] + dead[row]
            if row in acked:
                assert found == 0, f"row {row} was acknowledged and came again"
            elif row in moved:
                assert found == 1, f"row {row} was moved and is there {found} times"
            elif row in moving:
                assert found >= 1, f"row {row} was lost while it was moved"
            elif row in acking or row not in put:
                assert found <= 1, f"row {row} came {found} times"
            else:
                assert found == 1, f"row {row} is there {found} times"
            if row in claimed and row in came and row not in acking | moving:
                assert attempts[row] == 2, f"attempt of row {row} was not counted"


#: Rows that `before` puts.
BEFORE: set[int] = set()


@pytest.fixture(params=["jsonl", "txt"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["none", "each"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path, driver: str, record_property: Any) -> Any:
    BEFORE.clear()
    found = Sweep(tmp_path, driver, request.param)
    yield found
    record_property("kill_points", found.points)
    print(f"{request.node.name}: {found.points} kill points")
    assert found.points > 5


def fill(sweep: Sweep, rows: range) -> Callable[[Queue], None]:
    BEFORE.update(rows)
    return lambda queue: _put_many(queue, sweep, rows)


def _put_many(queue: Queue, sweep: Sweep, rows: range) -> None:
    for row in rows:
        queue.put(sweep.value(row))


def test_put_into_a_new_queue(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        for row in range(5):
            tell("putting", row)
            queue.put(sweep.value(row))
            tell("put", row)

    sweep.run(None, act)


def test_put_many_over_several_segments(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        for rows in itertools.batched(range(12), 4) if hasattr(itertools, "batched") else [range(4), range(4, 12)]:
            for row in rows:
                tell("putting", row)
            queue.put_many([sweep.value(row) for row in rows])
            for row in rows:
                tell("put", row)

    sweep.run(None, act)


def test_put_delayed(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        for row in range(3):
            tell("putting", row)
            queue.put(sweep.value(row), delay=0.001)
            tell("put", row)

    sweep.run(None, act)


def claim(queue: Queue, sweep: Sweep, tell: Tell, n: int) -> list[Any]:
    items = queue.claim(n, timeout=5.0)
    for item in items:
        tell("claimed", sweep.number(item.value))
    return items


def ack(queue: Queue, sweep: Sweep, tell: Tell, items: list[Any]) -> None:
    rows = [sweep.number(item.value) for item in items]
    for row in rows:
        tell("acking", row)
    queue.ack(items)
    for row in rows:
        tell("acked", row)


#: What the source of the sweep puts, with the checkpoint after each; nothing between 3 and 6 is worth a row.
SOURCE_ROWS = {0: 1, 1: 2, 2: 3, 6: 7, 7: 8, 8: 9}


def import_rows(queue: Queue, sweep: Sweep, tell: Tell) -> None:
    """Go on where the checkpoint says: one by one, without rows from 3 to 6, then in a batch over a segment's end."""
    source = queue.source("imports")
    at = source.checkpoint or 0
    while at < 3:
        tell("putting", at)
        source.put(sweep.value(at), checkpoint=at + 1)
        tell("put", at)
        at += 1
    if at < 6:
        source.commit(6)
    left = [row for row in (6, 7, 8) if row >= at]
    for row in left:
        tell("putting", row)
    source.put_many([(sweep.value(row), SOURCE_ROWS[row]) for row in left])
    for row in left:
        tell("put", row)


def test_an_import_goes_on_where_it_was_killed(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        import_rows(queue, sweep, tell)

    def check(told: Told) -> None:
        came: list[int] = []

        def drain(queue: Queue) -> None:
            while items := queue.claim(100):
                came.extend(sweep.number(item.value) for item in items)
                queue.ack(items)

        with sweep.open() as queue:
            drain(queue)  # so that the segments with the last checkpoints are gone
            assert set(told.of("put")) <= {row for row in SOURCE_ROWS if row < (queue.sources().get("imports") or 0)}
            import_rows(queue, sweep, lambda event, value: None)
            drain(queue)
        assert came == list(SOURCE_ROWS)

    sweep.check = check  # type: ignore[method-assign]
    sweep.run(None, act)


def test_claim_and_ack_with_segments_deleted_on_the_way(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        for _ in range(3):
            items = claim(queue, sweep, tell, 3)
            ack(queue, sweep, tell, items[:2])

    sweep.run(fill(sweep, range(12)), act)


@pytest.mark.parametrize("delay", [0.0, 0.001], ids=["at-once", "later"])
def test_nack(sweep: Sweep, delay: float) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        items = claim(queue, sweep, tell, 2)
        for item in items:
            tell("moving", sweep.number(item.value))
            queue.nack(item, delay=delay, error="again")
            tell("moved", sweep.number(item.value))

    sweep.run(fill(sweep, range(4)), act)


def test_bury(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        for item in claim(queue, sweep, tell, 2):
            tell("moving", sweep.number(item.value))
            queue.bury(item, error="no")
            tell("moved", sweep.number(item.value))

    sweep.run(fill(sweep, range(3)), act)


def test_claim_of_delayed_rows(sweep: Sweep) -> None:
    def before(queue: Queue) -> None:
        for row in range(4):
            queue.put(sweep.value(row), delay=0.001)

    def act(queue: Queue, tell: Tell) -> None:
        claim(queue, sweep, tell, 2)
        ack(queue, sweep, tell, claim(queue, sweep, tell, 2))

    BEFORE.update(range(4))
    sweep.run(before, act)


def test_healing_a_dead_writers_torn_tail(sweep: Sweep) -> None:
    def before(queue: Queue) -> None:
        _put_many(queue, sweep, range(4))
        queue.close()
        shards = Path(queue.url.partition(":")[2], "shards")
        with open(max(shards.glob("0001-*")), "ab") as segment:
            segment.write(b'{"row":99')

    def act(queue: Queue, tell: Tell) -> None:
        for row in (10, 11):
            tell("putting", row)
            queue.put(sweep.value(row))
            tell("put", row)

    BEFORE.update(range(4))
    sweep.run(before, act)


def test_adopting_what_a_dead_consumer_left(sweep: Sweep) -> None:
    def before(queue: Queue) -> None:
        _put_many(queue, sweep, range(6))
        queue.claim(4, start=False)  # and closed without settling them

    def act(queue: Queue, tell: Tell) -> None:
        queue.claim(1, start=False)  # has a journal of its own, next to the one it adopts
        items = queue.claim(2, start=False)
        ack(queue, sweep, tell, items)

    BEFORE.update(range(6))
    sweep.run(before, act)


def run_killed_twice(
    sweep: Sweep, before: Callable[[Queue], None], first: Callable[[Queue], object], then: Callable[[Queue, Tell], None]
) -> None:
    """For each point at which `first` can be killed, and with what it left: kill `then` everywhere."""
    for died_at in itertools.count(1):
        got_through = []

        def prepare(at: int, died_at: int = died_at, got_through: list[bool] = got_through) -> Callable[[Tell], None]:
            sweep.fresh(f"{died_at}-{at}")
            with sweep.open() as queue:
                before(queue)
            told = run_killed(lambda tell: _discard(first(sweep.open())), died_at, torn=bool(at % 2))
            got_through.append(told.finished)
            return lambda tell: sweep._child(then, tell)

        for _, told in every_kill(prepare):
            sweep.check(told)
            sweep.points += 1
        if any(got_through):
            return


def _discard(result: object) -> None:
    """What was claimed is not told: its owner is dead before the child that is watched begins."""


def test_a_move_cut_short_is_resolved_whoever_comes_first(sweep: Sweep) -> None:
    """A consumer dies while it moves a dead one's rows to its own journal; the next dies while it resolves that."""

    def before(queue: Queue) -> None:
        _put_many(queue, sweep, range(4))
        queue.claim(4, start=False)

    BEFORE.update(range(4))
    run_killed_twice(
        sweep,
        before,
        first=lambda queue: queue.claim(2, start=False),
        then=lambda queue, tell: ack(queue, sweep, tell, queue.claim(3)),
    )


def test_recovery_from_a_claim_cut_short_is_itself_cut_short(sweep: Sweep) -> None:
    """A consumer dies at each step of a claim; then, for each, the one that recovers from it dies at each step."""
    run_killed_twice(
        sweep,
        fill(sweep, range(5)),
        first=lambda queue: queue.claim(2),
        then=lambda queue, tell: ack(queue, sweep, tell, queue.claim(2)),
    )


def test_rewriting_a_long_journal(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_COMPACT_ABOVE", 300)
    monkeypatch.setattr(journals, "_EMPTY_ABOVE", 50)

    def act(queue: Queue, tell: Tell) -> None:
        claim(queue, sweep, tell, 1)
        for _ in range(8):
            ack(queue, sweep, tell, claim(queue, sweep, tell, 2))

    sweep.run(fill(sweep, range(18)), act)


def test_purge_deletes_nothing_that_is_held(sweep: Sweep) -> None:
    def act(queue: Queue, tell: Tell) -> None:
        claim(queue, sweep, tell, 2)
        for row in range(2, 8):
            tell("acking", row)  # may be gone from here on
        queue.purge()

    sweep.run(fill(sweep, range(8)), act)


def test_requeueing_the_dead(sweep: Sweep) -> None:
    def before(queue: Queue) -> None:
        _put_many(queue, sweep, range(4))
        queue.bury(queue.claim(4), error="no")

    def act(queue: Queue, tell: Tell) -> None:
        for row in range(4):
            tell("moving", row)
        queue.requeue_dead()
        for row in range(4):
            tell("moved", row)

    BEFORE.update(range(4))
    sweep.run(before, act)


def test_the_sweep_notices_a_lost_row(tmp_path: Path) -> None:
    """The judge itself: a queue that forgets what it acknowledged is caught."""
    BEFORE.clear()
    sweep = Sweep(tmp_path, "jsonl", "none")
    sweep.fresh("lost")
    told = Told(events=[("putting", 1), ("put", 1)])
    with pytest.raises(AssertionError, match="there 0 times"):
        sweep.check(told)
    assert os.path.exists(tmp_path / "lost")
