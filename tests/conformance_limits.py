"""`max_rows`, `max_bytes`, `max_row_bytes`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pistributer import errors
from pistributer.queues.contract import Queue

from .conformance_delivery import LATER, background
from .conformance_hooks import Hooks
from .processes import wait_for

Open = Callable[..., Queue]


class LimitContract(Hooks):
    def test_a_full_queue_refuses_when_told_not_to_wait(self, opened: Open) -> None:
        queue = opened(max_rows=3)
        self.fill(queue, 3)
        with pytest.raises(errors.QueueFull) as caught:
            queue.put(self.value(3), block=False)
        assert caught.value.stored == 0
        assert self.drain(queue) == [0, 1, 2]

    def test_a_full_queue_refuses_after_the_timeout(self, opened: Open) -> None:
        queue = opened(max_rows=1)
        queue.put(self.value(0))
        start = time.monotonic()
        with pytest.raises(errors.QueueFull):
            queue.put(self.value(1), timeout=0.03)
        assert 0.03 <= time.monotonic() - start < 5

    def test_a_blocked_put_goes_on_when_there_is_room(self, opened: Open) -> None:
        queue, consumer = opened(max_rows=1), opened()
        queue.put(self.value(0))
        with background(lambda: queue.put(self.value(1))):
            assert self.numbers(wait_for(consumer.claim)) == [0]
        assert self.numbers(consumer.claim()) == [1]

    def test_a_blocked_put_many_goes_on_in_order(self, opened: Open) -> None:
        queue, consumer = opened(max_rows=7), opened()
        seen: list[int] = []
        with background(lambda: queue.put_many([self.value(i) for i in range(50)])) as stored:
            while len(seen) < 50:
                assert consumer.stats().ready <= 7
                items = consumer.claim(3, timeout=30)
                consumer.ack(items)
                seen += self.numbers(items)
        assert stored.value == 50
        assert seen == list(range(50))

    def test_put_many_says_how_much_of_it_is_stored(self, opened: Open) -> None:
        queue = opened(max_rows=5)
        with pytest.raises(errors.QueueFull) as caught:
            queue.put_many([self.value(i) for i in range(2000)], block=False)
        assert caught.value.stored == 5
        assert self.drain(queue) == [0, 1, 2, 3, 4]

    def test_claimed_rows_do_not_count(self, opened: Open) -> None:
        queue = opened(max_rows=2)
        self.fill(queue, 2)
        queue.claim(2)
        self.fill(queue, 2, 2)
        with pytest.raises(errors.QueueFull):
            queue.put(self.value(4), block=False)

    def test_delayed_rows_count(self, opened: Open) -> None:
        queue = opened(max_rows=2)
        queue.put(self.value(0), delay=LATER)
        queue.put(self.value(1))
        for delay in (0.0, LATER):
            with pytest.raises(errors.QueueFull):
                queue.put(self.value(2), delay=delay, block=False)

    def test_a_retry_has_room_even_on_a_full_queue(self, opened: Open) -> None:
        queue = opened(max_rows=1)
        queue.put(self.value(0))
        (item,) = queue.claim()
        queue.put(self.value(1))
        queue.nack(item)
        assert self.drain(queue) == [1, 0]

    def test_purge_makes_room(self, opened: Open) -> None:
        queue = opened(max_rows=2)
        self.fill(queue, 1)
        queue.put(self.value(1), delay=LATER)
        queue.purge()
        self.fill(queue, 2)
        assert queue.stats().ready == 2

    def test_max_bytes_counts_rows_with_their_newlines(self, opened: Open) -> None:
        queue = opened(max_bytes=100)
        queue.put_many([self.long_value(49)] * 2)
        with pytest.raises(errors.QueueFull):
            queue.put(self.long_value(10), block=False)
        queue.ack(queue.claim())
        queue.put(self.long_value(49), block=False)
        with pytest.raises(errors.QueueFull):
            queue.put_many([self.long_value(10)] * 2, block=False)

    def test_max_bytes_stays_exact_through_claims_and_retries(self, opened: Open) -> None:
        queue = opened(max_bytes=200)
        for _ in range(5):
            queue.put_many([self.long_value(19)] * 10, block=False)
            with pytest.raises(errors.QueueFull):
                queue.put(self.long_value(19), block=False)
            items = queue.claim(10)
            queue.nack(items[:5])
            queue.ack(items[5:])
            assert queue.stats().ready_bytes >= 100  # a file driver writes a retry's history too
            queue.ack(queue.claim(5))
            assert queue.stats().ready_bytes == 0

    def test_a_row_longer_than_max_bytes_fits_an_empty_queue(self, opened: Open) -> None:
        queue = opened(max_bytes=100)
        queue.put(self.long_value(500))
        with pytest.raises(errors.QueueFull):
            queue.put(self.long_value(10), block=False)

    def test_threads_fill_a_queue_to_exactly_its_limit(self, opened: Open) -> None:
        queues = [opened(max_rows=25) for _ in range(3)]
        stored: list[int] = []

        def fill(queue: Queue) -> None:
            for i in range(30):
                try:
                    queue.put(self.value(i), block=False)
                    stored.append(i)
                except errors.QueueFull:
                    pass

        threads = [threading.Thread(target=fill, args=(queue,)) for queue in queues]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stored) == queues[0].stats().ready == 25

    @pytest.mark.parametrize(
        "limit", [{"max_rows": 0}, {"max_bytes": -1}, {"max_row_bytes": 0}, {"retention": -1.0}], ids=str
    )
    def test_limits_that_make_no_sense_are_refused(self, opened: Open, limit: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="positive"):
            opened(**limit)

    def test_an_unknown_sync_is_refused(self, opened: Open) -> None:
        with pytest.raises(ValueError, match="sync"):
            opened(sync="sometimes")

    @pytest.mark.parametrize("sync", ["none", "group", "each"])
    def test_every_step_of_the_dial_works(self, opened: Open, sync: str) -> None:
        with opened(sync=sync) as queue:
            queue.put(self.value(0))
            self.fill(queue, 5, 1)
            first, *rest = queue.claim(6)
            queue.nack(first)
            queue.ack(rest)
        assert self.drain(opened(sync=sync)) == [0]

    # -- the longest row

    def test_a_row_at_the_limit_is_stored_and_one_over_it_is_not(self, opened: Open) -> None:
        queue = opened(max_row_bytes=50)
        queue.put(self.long_value(50))
        for put in (queue.put, lambda value: queue.put(value, delay=1), lambda value: queue.put_many([value])):
            with pytest.raises(errors.RowTooLarge) as caught:
                put(self.long_value(51))
            assert (caught.value.size, caught.value.limit) == (51, 50)  # type: ignore[attr-defined]
        assert queue.stats().ready == 1
        assert len(queue.claim()[0].raw) == 50

    def test_a_row_of_two_megabytes_goes_through(self, queue: Queue) -> None:
        value = self.long_value(2_000_000)
        queue.put(value)
        self.fill(queue, 1)
        large, small = queue.claim(2)
        assert large.value == value
        queue.nack(large)
        queue.ack(small)
        assert queue.claim()[0].value == value
