"""Who holds a row, how often it was tried, and where it goes: ack, nack, bury, dead letters, giving back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues.contract import Item, Queue

from .conformance_delivery import LATER, SOON, background
from .conformance_hooks import Hooks
from .processes import wait_for

Settle = Callable[[Queue, Any], None]

WAYS: dict[str, Settle] = {
    "ack": lambda queue, items: queue.ack(items),
    "nack": lambda queue, items: queue.nack(items),
    "nack-later": lambda queue, items: queue.nack(items, delay=LATER),
    "bury": lambda queue, items: queue.bury(items),
}


def ways(function: Any) -> Any:
    return pytest.mark.parametrize("settle", list(WAYS.values()), ids=list(WAYS))(function)


class ClaimContract(Hooks):
    # -- attempts

    def test_the_first_delivery_is_attempt_one(self, queue: Queue) -> None:
        self.fill(queue, 2)
        assert [item.attempt for item in queue.claim(2)] == [1, 1]

    def test_attempts_and_ids_survive_retries(self, queue: Queue) -> None:
        queue.put(self.value(1))
        (first,) = queue.claim()
        queue.nack(first)
        (second,) = queue.claim()
        queue.nack(second, delay=0.001, error="again")
        (third,) = wait_for(queue.claim)
        assert [item.attempt for item in (first, second, third)] == [1, 2, 3]
        assert first.id == second.id == third.id
        assert third.value == self.value(1)
        assert third.raw == first.raw

    def test_a_prefetched_row_counts_when_it_starts(self, queue: Queue) -> None:
        self.fill(queue, 2)
        started, waiting = queue.claim(2, start=False)
        assert (started.attempt, waiting.attempt) == (0, 0)
        queue.start(started)
        assert (started.attempt, waiting.attempt) == (1, 0)
        queue.nack([started, waiting])
        assert {self.number(item.value): item.attempt for item in queue.claim(2)} == {0: 2, 1: 1}

    def test_a_delivery_can_be_taken_back_from_the_count(self, queue: Queue) -> None:
        queue.put(self.value(1))
        for delay in (0.0, 0.001):
            (early,) = wait_for(queue.claim)
            assert early.attempt == 1
            queue.nack(early, delay=delay, counted=False)
        (prefetched,) = wait_for(lambda: queue.claim(start=False))
        queue.start(prefetched)
        queue.nack(prefetched)
        (after,) = queue.claim()
        assert after.attempt == 2

    # -- settling

    def test_a_retry_goes_to_the_back(self, queue: Queue) -> None:
        self.fill(queue, 5)
        queue.nack(queue.claim(2))
        assert self.drain(queue) == [2, 3, 4, 0, 1]

    def test_a_retry_with_a_delay_comes_when_it_is_due(self, queue: Queue) -> None:
        self.fill(queue, 1)
        start = time.time()
        queue.nack(queue.claim(), delay=SOON)
        assert self.numbers(queue.claim() or queue.claim(timeout=30)) == [0]
        assert time.time() - start >= SOON

    def test_one_item_or_any_iterable_can_be_settled(self, queue: Queue) -> None:
        self.fill(queue, 4)
        one, two, three, four = queue.claim(4)
        queue.ack(one)
        queue.ack([two])
        queue.ack(item for item in (three, four))
        queue.ack([])
        assert queue.stats().claimed == 0

    def test_items_may_be_settled_in_any_order(self, queue: Queue) -> None:
        self.fill(queue, 10)
        items = queue.claim(10)
        queue.ack(items[7:2:-2])
        queue.nack(items[0])
        queue.bury([items[9], items[2]])
        queue.ack([items[8], items[1], items[4], items[6]])
        assert queue.stats().claimed == 0
        assert self.drain(queue) == [0]

    @ways
    def test_a_held_row_is_nobody_elses(self, opened: Callable[..., Queue], settle: Settle) -> None:
        owner, other = opened(), opened()
        owner.put(self.value(1))
        (item,) = owner.claim()
        assert other.claim() == []
        with pytest.raises(errors.ClaimLost):
            settle(other, item)
        owner.ack(item)

    @ways
    def test_a_settled_row_can_not_be_settled_again(self, queue: Queue, settle: Settle) -> None:
        queue.put(self.value(1))
        (item,) = queue.claim()
        settle(queue, item)
        before = queue.stats()
        for again in WAYS.values():
            with pytest.raises(errors.ClaimLost) as caught:
                again(queue, item)
            assert caught.value.ids == [item.id]  # type: ignore[attr-defined]
        with pytest.raises(errors.ClaimLost):
            queue.start(item)
        assert queue.stats() == before

    @ways
    def test_the_others_of_a_call_are_settled_all_the_same(self, queue: Queue, settle: Settle) -> None:
        self.fill(queue, 3)
        one, two, three = queue.claim(3)
        queue.ack(two)
        with pytest.raises(errors.ClaimLost) as caught:
            settle(queue, [one, two, three])
        assert caught.value.ids == [two.id]  # type: ignore[attr-defined]
        assert queue.stats().claimed == 0

    def test_an_item_named_twice_is_settled_once(self, queue: Queue) -> None:
        self.fill(queue, 2)
        (item,) = queue.claim()
        with pytest.raises(errors.ClaimLost):
            queue.nack([item, item])
        assert self.drain(queue) == [1, 0]

    def test_a_late_ack_of_an_earlier_delivery_is_refused(self, queue: Queue) -> None:
        queue.put(self.value(1))
        (early,) = queue.claim(start=False)
        queue.nack(early)
        (now,) = queue.claim(start=False)
        with pytest.raises(errors.ClaimLost):
            queue.ack(early)
        queue.ack(now)

    def test_an_item_of_a_closed_object_is_refused_by_the_next(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            queue.put(self.value(1))
            (item,) = queue.claim()
        queue = opened()
        with pytest.raises(errors.ClaimLost):
            queue.ack(item)
        (again,) = queue.claim()
        with pytest.raises(errors.ClaimLost):
            queue.ack(item)
        queue.ack(again)

    def test_an_item_made_up_is_refused(self, queue: Queue) -> None:
        queue.put(self.value(1))
        queue.claim()
        with pytest.raises(errors.ClaimLost):
            queue.ack(Item("x", self.value(1), b"x", 1, None))

    # -- giving back

    def test_close_gives_back_what_was_not_settled(self, opened: Callable[..., Queue]) -> None:
        owner, other = opened(), opened()
        self.fill(owner, 4)
        done, *rest = owner.claim(3)
        owner.ack(done)
        owner.close()
        items = other.claim(10)
        assert sorted(self.numbers(items)) == [1, 2, 3]
        assert {self.number(item.value): item.attempt for item in items} == {1: 2, 2: 2, 3: 1}
        assert {item.id for item in rest} <= {item.id for item in items}

    def test_close_gives_prefetched_rows_back_uncounted(self, opened: Callable[..., Queue]) -> None:
        owner, other = opened(), opened()
        self.fill(owner, 2)
        owner.start(owner.claim(2, start=False)[0])
        owner.close()
        assert {self.number(item.value): item.attempt for item in other.claim(2)} == {0: 2, 1: 1}

    def test_close_wakes_those_who_wait_for_rows(self, opened: Callable[..., Queue]) -> None:
        owner, other = opened(), opened()
        self.fill(owner, 1)
        owner.claim()
        with background(lambda: other.claim(timeout=30)) as found:
            owner.close()
        assert self.numbers(found.value) == [0]

    def test_given_back_rows_come_before_the_backlog_ends(self, opened: Callable[..., Queue]) -> None:
        with opened() as owner:
            self.fill(owner, 100)
            owner.claim(10)
        assert set(self.numbers(opened().claim(50))) >= set(range(10))

    def test_given_back_rows_are_there_for_everybody(self, opened: Callable[..., Queue]) -> None:
        owner, first, second = opened(), opened(), opened()
        self.fill(owner, 10)
        owner.claim(10)
        owner.close()
        assert len(first.claim(1, timeout=30)) == 1
        assert len(second.claim(10, timeout=2)) == 9

    def test_given_back_rows_may_be_taken_in_parts(self, opened: Callable[..., Queue]) -> None:
        with opened() as owner:
            self.fill(owner, 12)
            items = owner.claim(10)
            owner.ack(items[1:8:3])
        queue = opened()
        seen: list[int] = []
        while items := queue.claim(2):
            seen += self.numbers(items)
        assert sorted(seen) == [0, 2, 3, 5, 6, 8, 9, 10, 11]
        queue.close()
        assert len(self.drain(opened())) == 9

    # -- dead letters

    def test_a_buried_row_keeps_its_history(self, queue: Queue) -> None:
        queue.put(self.value(1))
        queue.nack(queue.claim())
        (item,) = queue.claim()
        before = time.time()
        queue.bury(item, error="ValueError: \ud800 it broke")
        assert queue.claim() == []
        (row,) = queue.scan("dead")
        assert (row.id, row.state, row.value, row.attempt) == (item.id, "dead", self.value(1), 2)
        assert "it broke" in (row.error or "")
        assert row.at is not None
        assert before - 1 <= row.at <= time.time() + 1

    def test_dead_rows_outlive_the_object_that_buried_them(self, opened: Callable[..., Queue]) -> None:
        with opened() as queue:
            self.fill(queue, 2)
            queue.bury(queue.claim(2))
        assert opened().stats().dead == 2

    def test_requeued_rows_start_anew_at_the_back(self, queue: Queue) -> None:
        self.fill(queue, 3)
        dead = queue.claim(2)
        queue.bury(dead)
        assert queue.requeue_dead() == 2
        assert queue.stats().dead == 0
        items = queue.claim(3)
        assert self.numbers(items) == [2, 0, 1]
        assert [item.attempt for item in items] == [1, 1, 1]
        assert [item.id for item in items[1:]] == [item.id for item in dead]

    def test_dead_rows_are_requeued_and_dropped_by_id(self, queue: Queue) -> None:
        self.fill(queue, 4)
        items = queue.claim(4)
        queue.bury(items)
        assert queue.requeue_dead([items[1].id, "no such id"]) == 1
        assert queue.drop_dead([items[2].id, items[1].id]) == 1
        assert [self.number(row.value) for row in queue.scan("dead")] == [0, 3]
        assert self.drain(queue) == [1]
        assert queue.drop_dead() == 2
        assert queue.requeue_dead() == queue.drop_dead() == 0

    def test_a_requeued_row_can_die_again(self, queue: Queue) -> None:
        queue.put(self.value(1))
        for _ in range(3):
            queue.bury(queue.claim())
            assert queue.requeue_dead() == 1
        assert self.drain(queue) == [1]
