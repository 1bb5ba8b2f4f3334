"""Random operations on every driver beside a model in plain Python: whatever happens, no row is lost, doubled or reordered."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pistributer.queues.contract import Item, Queue
from pistributer.queues.opening import open_queue

LATER = 100_000.0
#: Two objects on one queue: the first one puts, both claim.
OBJECTS = 2
which = st.integers(0, OBJECTS - 1)
some = st.integers(1, 6)
pick = st.integers(0, 2**31)


class QueueMachine(RuleBasedStateMachine):
    """What must hold is asked of the driver after every step; at the end everything is drained."""

    scheme: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pistributer-model-"))
        self.url = f"{self.scheme}:{self.folder / 'q'}"
        self.queues: list[Queue] = []
        self.put_so_far = 0
        #: Rows in the order in which they must come.
        self.ordered: list[int] = []
        #: Rows that may come at any time: given back, or retried by an object other than the producer.
        self.loose: set[int] = set()
        self.held: list[dict[int, Item]] = [{} for _ in range(OBJECTS)]
        self.delayed: set[int] = set()
        self.dead: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.ids: dict[int, str] = {}

    def value(self, i: int) -> Any:
        return f"row {i}" if self.scheme == "txt" else {"i": i}

    def number(self, value: Any) -> int:
        return int(value.removeprefix("row ")) if self.scheme == "txt" else int(value["i"])

    @initialize()
    def open(self) -> None:
        self.queues = [open_queue(self.url) for _ in range(OBJECTS)]

    def new(self, count: int) -> list[int]:
        numbers = list(range(self.put_so_far, self.put_so_far + count))
        self.put_so_far += count
        self.attempts.update(dict.fromkeys(numbers, 0))
        return numbers

    def choose(self, queue: int, count: int, seed: int) -> list[int]:
        """Up to `count` of the rows that `queue` holds."""
        held = sorted(self.held[queue])
        return [held[(seed + i * 7) % len(held)] for i in range(min(count, len(held)))] if held else []

    def let_go(self, queue: int, numbers: list[int]) -> list[Item]:
        return [self.held[queue].pop(number) for number in numbers]

    # -- putting

    @rule()
    def put(self) -> None:
        (number,) = self.new(1)
        self.queues[0].put(self.value(number))
        self.ordered.append(number)

    @rule(count=some)
    def put_many(self, count: int) -> None:
        numbers = self.new(count)
        assert self.queues[0].put_many(map(self.value, numbers)) == count
        self.ordered += numbers

    @rule()
    def put_delayed(self) -> None:
        (number,) = self.new(1)
        self.queues[0].put(self.value(number), delay=LATER)
        self.delayed.add(number)

    # -- claiming

    @rule(queue=which, count=some, start=st.booleans())
    def claim(self, queue: int, count: int, start: bool) -> None:
        items = self.queues[queue].claim(count, start=start)
        available = len(self.ordered) + len(self.loose)
        assert len(items) <= min(count, available)
        assert items or not available
        for item in items:
            self.take(queue, item, start)

    def take(self, queue: int, item: Item, start: bool) -> None:
        number = self.number(item.value)
        if number in self.loose:
            self.loose.remove(number)
        else:
            assert self.ordered.pop(0) == number
        self.attempts[number] += start
        assert item.attempt == self.attempts[number]
        assert self.ids.setdefault(number, item.id) == item.id
        self.held[queue][number] = item

    @rule(queue=which, seed=pick)
    def start(self, queue: int, seed: int) -> None:
        for number in self.choose(queue, 1, seed):
            item = self.held[queue][number]
            self.queues[queue].start(item)
            self.attempts[number] += 1
            assert item.attempt == self.attempts[number]

    # -- settling

    @rule(queue=which, count=some, seed=pick)
    def ack(self, queue: int, count: int, seed: int) -> None:
        numbers = list(dict.fromkeys(self.choose(queue, count, seed)))
        self.queues[queue].ack(self.let_go(queue, numbers))

    @rule(queue=which, count=some, seed=pick)
    def nack(self, queue: int, count: int, seed: int) -> None:
        numbers = list(dict.fromkeys(self.choose(queue, count, seed)))
        self.queues[queue].nack(self.let_go(queue, numbers))
        if queue == 0:
            self.ordered += numbers
        else:
            self.loose.update(numbers)

    @rule(queue=which, count=some, seed=pick)
    def nack_later(self, queue: int, count: int, seed: int) -> None:
        numbers = list(dict.fromkeys(self.choose(queue, count, seed)))
        self.queues[queue].nack(self.let_go(queue, numbers), delay=LATER)
        self.delayed.update(numbers)

    @rule(queue=which, count=some, seed=pick)
    def bury(self, queue: int, count: int, seed: int) -> None:
        numbers = list(dict.fromkeys(self.choose(queue, count, seed)))
        self.queues[queue].bury(self.let_go(queue, numbers), error="buried")
        self.dead.update(numbers)

    @rule(queue=which)
    def requeue_dead(self, queue: int) -> None:
        assert self.queues[queue].requeue_dead() == len(self.dead)
        self.attempts.update(dict.fromkeys(self.dead, 0))
        self.loose |= self.dead
        self.dead = set()

    @precondition(lambda self: self.dead)
    @rule(queue=which, seed=pick)
    def drop_one_dead(self, queue: int, seed: int) -> None:
        number = sorted(self.dead)[seed % len(self.dead)]
        assert self.queues[queue].drop_dead([self.ids[number]]) == 1
        self.dead.remove(number)

    # -- rarer things

    @precondition(lambda self: len(self.ordered) > 8)
    @rule(queue=which)
    def purge(self, queue: int) -> None:
        assert self.queues[queue].purge() == len(self.ordered) + len(self.loose) + len(self.delayed)
        self.ordered, self.loose, self.delayed = [], set(), set()

    @rule(queue=which)
    def reopen(self, queue: int) -> None:
        self.queues[queue].close()
        self.loose |= self.held[queue].keys()
        self.held[queue] = {}
        # The new object may append elsewhere than the old one did.
        if queue == 0:
            self.loose.update(self.ordered)
            self.ordered = []
        self.queues[queue] = open_queue(self.url, create=False)

    # -- what always holds

    @invariant()
    def counts_agree(self) -> None:
        if self.queues:
            stats = self.queues[0].stats()
            found = (stats.ready, stats.claimed, stats.delayed, stats.dead, stats.quarantined)
            held = sum(map(len, self.held))
            assert found == (len(self.ordered) + len(self.loose), held, len(self.delayed), len(self.dead), 0)

    @rule(queue=which)
    def scan(self, queue: int) -> None:
        seen = [(row.state, self.number(row.value), row.attempt) for row in self.queues[queue].scan()]
        states = {
            "ready": {*self.ordered, *self.loose},
            "claimed": {number for held in self.held for number in held},
            "delayed": self.delayed,
            "dead": self.dead,
        }
        expected = [(state, number, self.attempts[number]) for state, numbers in states.items() for number in numbers]
        assert sorted(seen) == sorted(expected)

    def teardown(self) -> None:
        try:
            if self.queues:
                self.drain()
        finally:
            for queue in self.queues:
                queue.close()
            shutil.rmtree(self.folder)

    def drain(self) -> None:
        for queue in reversed(range(OBJECTS)):
            self.claim(queue, 100, True)
            self.reopen(queue)
        deadline = time.monotonic() + 10
        while self.ordered or self.loose:
            assert time.monotonic() < deadline, f"missing: {self.ordered} {self.loose}"
            self.claim(0, 5, True)
        assert self.queues[1].claim() == []


class MemoryMachine(QueueMachine):
    scheme = "memory"


class SqliteMachine(QueueMachine):
    scheme = "sqlite"


class JsonlMachine(QueueMachine):
    scheme = "jsonl"


class TxtMachine(QueueMachine):
    scheme = "txt"


_SETTINGS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = _SETTINGS
TestSqliteModel = SqliteMachine.TestCase
TestSqliteModel.settings = _SETTINGS
TestJsonlModel = JsonlMachine.TestCase
TestJsonlModel.settings = _SETTINGS
TestTxtModel = TxtMachine.TestCase
TestTxtModel.settings = _SETTINGS
