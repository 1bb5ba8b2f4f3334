"""Rows in and rows out: values, order, delays, waiting, looking."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues.contract import LOOK_AROUND, Queue

from .conformance_hooks import Hooks
from .processes import wait_for

#: Long enough to be in the future while the test runs, seconds.
LATER = 1000.0
#: Short enough to wait for, seconds.
SOON = 0.05


class DeliveryContract(Hooks):
    def test_a_value_comes_back_as_it_went_in(self, queue: Queue, good_value: Any) -> None:
        queue.put(good_value)
        (item,) = queue.claim()
        assert item.value == good_value
        assert type(item.value) is type(good_value)

    def test_put_many_brings_values_back_as_they_went_in(self, queue: Queue) -> None:
        values = list(self.values.values())
        assert queue.put_many(values) == len(values)
        assert [item.value for item in queue.claim(len(values))] == values

    def test_an_item_carries_a_unique_id_and_its_row(self, queue: Queue) -> None:
        self.fill(queue, 5)
        items = queue.claim(5)
        assert len({item.id for item in items}) == 5
        assert all(isinstance(item.id, str) and item.id for item in items)
        assert all(isinstance(item.raw, bytes) and item.raw and b"\n" not in item.raw for item in items)
        assert items[0].id in repr(items[0])

    def test_ids_are_never_used_again(self, opened: Callable[..., Queue]) -> None:
        seen: set[str] = set()
        for _ in range(3):
            with opened() as queue:
                self.fill(queue, 2)
                queue.put(self.value(2), delay=0.001)
                items = queue.claim(2) + wait_for(queue.claim)
                queue.ack(items)
            assert seen.isdisjoint(item.id for item in items)
            seen.update(item.id for item in items)

    def test_rows_of_one_producer_come_in_the_order_of_puts(self, queue: Queue) -> None:
        for start in range(0, 300, 30):
            for i in range(start, start + 10):
                queue.put(self.value(i))
            self.fill(queue, 20, start + 10)
        assert self.drain(queue) == list(range(300))

    def test_put_many_takes_any_iterable_and_says_how_many(self, queue: Queue) -> None:
        assert queue.put_many([]) == 0
        assert queue.put_many(self.value(i) for i in range(2500)) == 2500
        assert self.drain(queue) == list(range(2500))

    def test_claim_takes_no_more_than_asked(self, queue: Queue) -> None:
        self.fill(queue, 5)
        assert self.numbers(queue.claim()) == [0]
        assert self.numbers(queue.claim(3)) == [1, 2, 3]
        assert self.numbers(queue.claim(3)) == [4]
        assert queue.claim(3) == []

    @pytest.mark.parametrize("n", [0, -1])
    def test_claim_of_less_than_one_is_an_error(self, queue: Queue, n: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            queue.claim(n)

    def test_an_empty_queue_answers_at_once(self, queue: Queue) -> None:
        start = time.monotonic()
        assert queue.claim() == []
        assert time.monotonic() - start < LOOK_AROUND * 5

    def test_an_acknowledged_row_never_comes_again(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            self.fill(queue, 4)
            queue.ack(queue.claim(3))
        with opened() as queue:
            assert self.drain(queue) == [3]

    def test_rows_outlive_the_object_that_put_them(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            self.fill(queue, 3)
        assert self.drain(opened()) == [0, 1, 2]

    def test_objects_share_one_queue(self, opened: Callable[..., Queue]) -> None:
        first, second = opened(), opened()
        first.put(self.value(1))
        second.put(self.value(2))
        assert sorted(self.drain(first)) == [1, 2]
        assert second.claim() == []

    # -- delays

    def test_a_delayed_row_waits_for_its_time(self, queue: Queue) -> None:
        queue.put(self.value(1), delay=LATER)
        assert queue.claim() == []
        assert queue.stats().delayed == 1
        (row,) = queue.scan("delayed")
        assert row.due is not None
        assert abs(row.due - time.time() - LATER) < 60

    def test_a_due_row_comes_although_the_backlog_is_long(self, queue: Queue) -> None:
        self.fill(queue, 100)
        queue.put(self.value(1000), delay=SOON)
        time_due = time.monotonic() + SOON
        seen: list[int] = []
        wait_for(lambda: time.monotonic() > time_due + 0.01)
        while 1000 not in seen:
            seen += self.numbers(wait_for(queue.claim, "the due row"))
        assert len(seen) < 50

    def test_delayed_rows_come_in_the_order_in_which_they_fall_due(self, queue: Queue) -> None:
        for unit in (0.01, 0.1, 1.0, 10.0):
            started = time.monotonic()
            for i in (3, 1, 2):
                queue.put(self.value(i), delay=i * unit)
            quickly = time.monotonic() - started < unit  # else the first may rightly be due before the second
            seen: list[int] = []
            wait_for(lambda seen=seen: seen.extend(self.numbers(queue.claim())) or len(seen) == 3)
            if quickly:
                break
        assert seen == [1, 2, 3]

    def test_delayed_rows_outlive_the_object_that_put_them(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            queue.put(self.value(1), delay=SOON)
        queue = opened()
        assert self.numbers(queue.claim(timeout=10)) == [1]

    # -- waiting

    def test_wait_is_true_at_once_when_there_is_something(self, queue: Queue) -> None:
        queue.put(self.value(1))
        assert queue.wait(0) is True
        assert queue.wait() is True

    def test_wait_is_false_when_nothing_came_in_time(self, queue: Queue) -> None:
        assert queue.claim() == []  # a new object may think that there *may* be something, until it has looked
        start = time.monotonic()
        assert queue.wait(0.02) is False
        assert 0.02 <= time.monotonic() - start < 5

    def test_claim_with_a_timeout_gives_up_in_time(self, queue: Queue) -> None:
        start = time.monotonic()
        assert queue.claim(timeout=0.02) == []
        assert 0.02 <= time.monotonic() - start < 5

    @pytest.mark.parametrize("sleeper", ["same-object", "other-object"])
    def test_claim_wakes_when_a_row_is_put(self, opened: Callable[..., Queue], sleeper: str) -> None:
        queue = opened()
        consumer = queue if sleeper == "same-object" else opened()
        with background(lambda: consumer.claim(timeout=30)) as found:
            queue.put(self.value(1))
        assert self.numbers(found.value) == [1]

    def test_wait_wakes_when_a_delayed_row_falls_due(self, queue: Queue) -> None:
        queue.put(self.value(1), delay=SOON)
        assert queue.wait(30) is True
        assert self.numbers(wait_for(queue.claim)) == [1]

    # -- looking

    def test_stats_count_each_state(self, queue: Queue) -> None:
        self.fill(queue, 10)
        queue.put(self.value(10), delay=LATER)
        queue.claim(2)
        queue.bury(queue.claim())
        stats = queue.stats()
        assert (stats.ready, stats.claimed, stats.delayed, stats.dead, stats.quarantined) == (7, 2, 1, 1, 0)
        assert stats.ready_bytes > 0
        queue.purge()
        assert queue.stats().ready_bytes == 0

    def test_scan_sees_every_row_and_disturbs_nothing(self, queue: Queue) -> None:
        self.fill(queue, 8)
        queue.put(self.value(8), delay=LATER)
        held = queue.claim(2)
        (dead,) = queue.claim()
        queue.bury(dead, error="broken")
        seen = {self.number(row.value): row.state for row in queue.scan()}
        assert seen == {0: "claimed", 1: "claimed", 2: "dead", **dict.fromkeys(range(3, 8), "ready"), 8: "delayed"}
        assert queue.stats().ready == 5
        queue.ack(held)
        assert self.drain(queue) == [3, 4, 5, 6, 7]

    def test_scan_shows_ids_and_attempts(self, opened: Callable[..., Queue]) -> None:
        queue = opened()
        self.fill(queue, 2)
        (item,) = queue.claim()
        (claimed,) = opened().scan("claimed")
        assert (claimed.id, claimed.attempt) == (item.id, 1)
        queue.nack(item)
        assert [(row.id, row.attempt) for row in queue.scan("ready")][-1] == (item.id, 1)
        assert [self.number(row.value) for row in queue.scan("ready")] == [1, 0]

    def test_scan_of_many_rows_is_complete_and_in_order(self, queue: Queue) -> None:
        self.fill(queue, 1700)
        assert [self.number(row.value) for row in queue.scan("ready")] == list(range(1700))

    def test_rows_may_be_claimed_while_a_scan_runs(self, queue: Queue) -> None:
        self.fill(queue, 1200)
        rows = queue.scan("ready")
        next(rows)
        assert len(self.drain(queue)) == 1200
        assert len(list(rows)) <= 1200

    def test_purge_deletes_what_waits_and_nothing_else(self, queue: Queue) -> None:
        self.fill(queue, 6)
        queue.put(self.value(6), delay=LATER)
        (held,) = queue.claim()
        queue.bury(queue.claim())
        assert queue.purge() == 5
        assert queue.purge() == 0
        assert (queue.stats().ready, queue.stats().delayed) == (0, 0)
        assert (queue.stats().claimed, queue.stats().dead) == (1, 1)
        queue.nack(held)
        queue.put(self.value(7))
        assert self.drain(queue) == [0, 7]

    def test_retained_rows_can_be_read_again(self, opened: Callable[..., Queue]) -> None:
        queue = opened(retention=LATER)
        self.fill(queue, 5)
        queue.ack(queue.claim(3))
        assert [self.number(row.value) for row in queue.scan("retained")] == [0, 1, 2]
        assert {row.state for row in queue.scan()} == {"ready"}
        assert self.drain(queue) == [3, 4]
        assert queue.claim() == []

    def test_without_retention_an_acknowledged_row_is_forgotten(self, queue: Queue) -> None:
        self.fill(queue, 3)
        (done,) = queue.claim()
        queue.ack(done)
        assert done.id not in {row.id for row in queue.scan()}

    # -- closing

    def test_closing_twice_is_fine(self, queue: Queue) -> None:
        assert not queue.closed
        queue.close()
        queue.close()
        assert queue.closed
        assert "closed" in repr(queue)

    def test_a_closed_object_says_so(self, queue: Queue) -> None:
        queue.put(self.value(0))
        (item,) = queue.claim()
        queue.close()
        calls: list[Callable[[], Any]] = [
            lambda: queue.put(self.value(1)),
            lambda: queue.put_many([self.value(1)]),
            lambda: queue.put(self.value(1), delay=1),
            queue.claim,
            lambda: queue.claim(timeout=10),
            queue.wait,
            lambda: queue.start(item),
            lambda: queue.ack(item),
            queue.stats,
            lambda: list(queue.scan()),
            queue.purge,
        ]
        for call in calls:
            with pytest.raises((errors.QueueClosed, errors.ClaimLost)):
                call()

    def test_closing_ends_the_waits_of_other_threads(self, queue: Queue) -> None:
        with pytest.raises(errors.QueueClosed), background(lambda: queue.claim(timeout=30)) as sleeper:
            wait_for(lambda: sleeper.is_waiting(LOOK_AROUND))
            queue.close()

    def test_leaving_with_closes(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            assert queue.url in repr(queue)
        assert queue.closed

    def test_a_pickled_queue_opens_the_same_rows_with_the_same_options(self, opened: Callable[..., Queue]) -> None:
        queue = opened(max_rows=1)
        queue.put(self.value(1))
        with pickle.loads(pickle.dumps(queue)) as copy:
            assert copy.url == queue.url
            with pytest.raises(errors.QueueFull):
                copy.put(self.value(2), block=False)
            assert self.drain(copy) == [1]

    # -- threads

    def test_threads_share_one_object_and_each_row_comes_once(self, queue: Queue) -> None:
        rows, producers, consumers = 100, 4, 4
        seen: list[list[int]] = [[] for _ in range(consumers)]

        def produce(which: int) -> None:
            for i in range(rows):
                queue.put(self.value(which * rows + i))

        def consume(into: list[int]) -> None:
            while sum(map(len, seen)) < rows * producers:
                items = queue.claim(5, timeout=0.05)
                queue.ack(items)
                into.extend(self.numbers(items))

        threads = [threading.Thread(target=produce, args=(which,)) for which in range(producers)]
        threads += [threading.Thread(target=consume, args=(into,)) for into in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(chain.from_iterable(seen)) == list(range(rows * producers))


class background:  # noqa: N801 -- reads as a verb in `with`
    """Run a function in a thread; at the end of the block it is joined and `value` is what it returned."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # noqa: BLE001 -- raised in the test's own thread
            self.error = error

    def is_waiting(self, seconds: float) -> bool:
        """Whether the function has not returned for that long."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def __enter__(self) -> background:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
