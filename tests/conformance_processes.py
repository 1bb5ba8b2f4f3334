"""Several processes on one queue: started in every way, sharing an object, killed while they hold rows."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues import claiming, contract, sqlite
from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .conformance_delivery import background
from .conformance_hooks import Hooks
from .processes import METHODS, Child, Method, run, wait_for

Open = Callable[..., Queue]

methods = pytest.mark.parametrize("method", METHODS)


class ProcessContract(Hooks):
    # -- one queue object in many processes

    @methods
    def test_children_use_the_queue_of_their_parent(self, queue: Queue, method: Method) -> None:
        self.need_processes()
        queue.put(self.value(0))
        (held,) = queue.claim()
        queue.put(self.value(1))
        assert run(_claim_and_put, queue, self.value(2), method=method) == [self.value(1)]
        queue.ack(held)
        assert self.drain(queue) == [2]

    @methods
    def test_processes_share_the_work_and_each_row_comes_once(self, queue: Queue, method: Method) -> None:
        self.need_processes()
        rows, producers, consumers = 150, 2, 2
        values = [[self.value(which * rows + i) for i in range(rows)] for which in range(producers)]
        with ExitStack() as stack:
            producing = [stack.enter_context(Child(_produce, queue, part, method=method)) for part in values]
            consuming = [stack.enter_context(Child(_consume, queue, method=method)) for _ in range(consumers)]
            for child in producing:
                child.result()
            wait_for(lambda: queue.stats().ready == queue.stats().claimed == 0, "an empty queue")
            for child in consuming:
                child.say("stop")
            seen = [self.number(value) for child in consuming for value in child.result()]
        assert sorted(seen) == list(range(rows * producers))

    def test_rows_of_each_producer_process_keep_their_order(self, queue: Queue) -> None:
        self.need_processes()
        rows, producers = 200, 3
        values = [[self.value(which * rows + i) for i in range(rows)] for which in range(producers)]
        seen: list[int] = []
        with ExitStack() as stack:
            for part in values:
                stack.enter_context(Child(_produce, queue, part))
            while len(seen) < rows * producers:
                items = queue.claim(20, timeout=30)
                queue.ack(items)
                seen += self.numbers(items)
        for which in range(producers):
            own = [i for i in seen if i // rows == which]
            assert own == sorted(own)

    def test_a_forked_child_holds_none_of_its_parents_rows(self, queue: Queue) -> None:
        self.need_processes()
        self.fill(queue, 2)
        items = queue.claim(2)
        assert run(_settle_what_the_parent_holds, queue, items) == ["ClaimLost", "ClaimLost", 0]
        assert queue.stats().claimed == 2
        queue.ack(items)

    def test_a_killed_owner_gives_back_although_a_forked_child_of_his_lives(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        self.fill(queue, 2)
        with Child(_claim_then_fork, url) as owner:
            orphan = owner.hear()
            try:
                owner.kill()
                assert sorted(self.numbers(queue.claim(2, timeout=30))) == [0, 1]
            finally:
                os.kill(orphan, signal.SIGKILL)

    def test_a_fork_beside_a_busy_thread_leaves_a_child_that_works(self, queue: Queue) -> None:
        self.need_processes()
        stop = threading.Event()

        def put_until_stopped() -> None:
            while not stop.is_set():
                queue.put(self.value(1))
                queue.ack(queue.claim())

        thread = threading.Thread(target=put_until_stopped)
        thread.start()
        try:
            for _ in range(5):
                assert run(_put_and_count, queue, self.value(2)) > 0
        finally:
            stop.set()
            thread.join()
        assert self.drain(queue).count(2) + 5 >= 5

    def test_processes_fill_a_queue_to_exactly_its_limit(self, opened: Open) -> None:
        self.need_processes()
        queue = opened(max_rows=30)
        with ExitStack() as stack:
            children = [stack.enter_context(Child(_fill_up, queue, self.value(1))) for _ in range(3)]
            stored = [child.result() for child in children]
        assert sum(stored) == queue.stats().ready == 30

    def test_a_put_blocked_in_another_process_goes_on_when_there_is_room(self, opened: Open) -> None:
        self.need_processes()
        queue = opened(max_rows=2)
        with Child(_produce, queue, [self.value(i) for i in range(20)]) as child:
            seen: list[int] = []
            while len(seen) < 20:
                items = queue.claim(timeout=30)
                queue.ack(items)
                seen += self.numbers(items)
            child.result()
        assert seen == list(range(20))

    def test_a_sleeper_wakes_within_milliseconds_of_a_put_in_another_process(self, queue: Queue) -> None:
        self.need_processes()
        with Child(_tell_when_rows_come, queue) as child:
            delays = []
            for i in range(7):
                assert child.hear() == "sleeping"
                wait_for(lambda: _is_asleep(child.pid), "the child's sleep")
                put_at = time.time()
                queue.put(self.value(i))
                delays.append(child.hear() - put_at)
        # A waiter that only looks around by itself would take LOOK_AROUND / 2 = 200 ms.
        assert statistics.median(delays) < 0.02, delays

    # -- death

    def test_the_rows_of_a_killed_process_are_back_at_once_and_counted(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        self.fill(queue, 4)
        with Child(_claim_and_wait, url) as child:
            ids, done = child.hear()
            assert queue.stats().claimed == 3
            died = time.monotonic()
            child.kill()
            items = wait_for(lambda: queue.claim(2, timeout=30)) + queue.claim(2)
            took = time.monotonic() - died
        assert {item.id for item in items} <= set(ids) - {done}
        assert {self.number(item.value): item.attempt for item in items} == {1: 2, 2: 1, 3: 1}
        # The aim is a fraction of a second; this leaves room for a machine that is busy with other things.
        assert took < 2

    def test_a_waiter_that_is_told_of_a_death_need_not_look_for_it(
        self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.need_processes()
        for module in (contract, claiming, sqlite):
            monkeypatch.setattr(module, "LOOK_AROUND", 60.0)
        monkeypatch.setattr(claiming, "_NET", 60.0)
        queue, other = opened(), opened()
        self.fill(queue, 1)
        with Child(_claim_one_and_wait, url) as child:
            child.hear()
            with background(lambda: other.claim(timeout=30)) as claimed:
                wait_for(lambda: queue._bell.page[0] == 1, "the waiter's sleep")  # type: ignore[attr-defined]
                child.kill()
                queue.wake()
        (item,) = claimed.value
        assert item.attempt == 2

    def test_stats_and_scan_call_a_dead_owners_rows_ready(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        self.fill(queue, 4)
        with Child(_claim_and_wait, url) as child:
            child.hear()
            assert len(list(queue.scan("claimed"))) == 3
            child.kill()
        assert (queue.stats().ready, queue.stats().claimed) == (3, 0)
        assert sorted(self.number(row.value) for row in queue.scan("ready")) == [1, 2, 3]
        assert list(queue.scan("claimed")) == []

    def test_attempts_add_up_over_many_deaths(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        queue.put(self.value(0))
        for _ in range(4):
            with Child(_claim_one_and_wait, url) as child:
                child.hear()
                child.kill()
        (item,) = queue.claim(timeout=30)
        assert item.attempt == 5

    def test_who_takes_a_dead_owners_place_does_not_take_his_rows_uncounted(self, opened: Open, url: str) -> None:
        self.need_processes()
        with opened() as queue:
            self.fill(queue, 3)
        with Child(_claim_one_and_wait, url) as child:
            child.hear()
            child.kill()
        queue = opened()
        items = queue.claim(3, timeout=30)
        items += queue.claim(3, timeout=0.5) if len(items) < 3 else []
        assert {self.number(item.value): item.attempt for item in items} == {0: 2, 1: 1, 2: 1}

    def test_a_producer_killed_while_it_puts_leaves_whole_rows(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        with Child(_put_for_ever, url, self.value(7)) as child:
            for _ in range(5):
                acknowledged = child.hear()
            child.kill()
        seen = self.drain(queue)
        assert len(seen) >= acknowledged
        assert set(seen) == {7}
        assert queue.stats().quarantined <= 1

    def test_first_opens_may_race(self, url: str, opened: Open) -> None:
        self.need_processes()
        with ExitStack() as stack:
            children = [stack.enter_context(Child(_open_and_put, url, self.options, self.value(i))) for i in range(8)]
            for child in children:
                child.hear()
            for child in children:
                child.say("go")
            for child in children:
                child.result()
        assert sorted(self.drain(opened())) == list(range(8))


# -- what the children do


def _claim_and_put(pipe: Any, queue: Queue, value: Any) -> list[Any]:
    items = queue.claim(10)
    queue.ack(items)
    queue.put(value)
    queue.close()
    return [item.value for item in items]


def _produce(pipe: Any, queue: Queue, values: list[Any]) -> None:
    for value in values[: len(values) // 2]:
        queue.put(value)
    queue.put_many(values[len(values) // 2 :])
    queue.close()


def _consume(pipe: Any, queue: Queue) -> list[Any]:
    stop = threading.Event()
    threading.Thread(target=lambda: (pipe.recv(), stop.set()), daemon=True).start()
    seen: list[Any] = []
    while not stop.is_set():
        items = queue.claim(7, timeout=0.05)
        seen += [item.value for item in items]
        queue.ack(items)
    queue.close()
    return seen


def _settle_what_the_parent_holds(pipe: Any, queue: Queue, items: list[Any]) -> list[Any]:
    told: list[Any] = []
    for settle in (queue.ack, queue.nack):
        try:
            settle(items)
        except errors.ClaimLost as error:
            told.append(type(error).__name__)
    told.append(len(queue.claim(2)))
    queue.close()
    return told


def _claim_then_fork(pipe: Any, url: str) -> None:
    queue = open_queue(url)
    queue.claim(2)
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    pipe.send(pid)
    pipe.recv()


def _put_and_count(pipe: Any, queue: Queue, value: Any) -> int:
    queue.put(value)
    return queue.stats().ready + queue.stats().claimed


def _fill_up(pipe: Any, queue: Queue, value: Any) -> int:
    stored = 0
    try:
        while True:
            queue.put(value, block=False)
            stored += 1
    except errors.QueueFull:
        return stored


def _tell_when_rows_come(pipe: Any, queue: Queue) -> None:
    for _ in range(7):
        pipe.send("sleeping")
        items = queue.claim(timeout=30)
        pipe.send(time.time())
        queue.ack(items)


def _is_asleep(pid: int) -> bool:
    """Whether the kernel says so; elsewhere than on Linux, a moment later."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"
    except FileNotFoundError:
        time.sleep(0.02)
        return True


def _claim_and_wait(pipe: Any, url: str) -> None:
    """Four rows: 0 acknowledged, 1 started, 2 and 3 not."""
    queue = open_queue(url)
    items = queue.claim(2, start=False) + queue.claim(2, start=False)
    queue.start(items[0])
    queue.ack(items[0])
    queue.start(items[1])
    pipe.send(([item.id for item in items], items[0].id))
    pipe.recv()


def _claim_one_and_wait(pipe: Any, url: str) -> None:
    queue = open_queue(url)
    assert len(queue.claim(timeout=30)) == 1
    pipe.send("held")
    pipe.recv()


def _put_for_ever(pipe: Any, url: str, value: Any) -> None:
    queue, count = open_queue(url), 0
    while True:
        for _ in range(20):
            queue.put(value)
        queue.put_many([value] * 30)
        count += 50
        pipe.send(count)


def _open_and_put(pipe: Any, url: str, options: dict[str, Any], value: Any) -> None:
    pipe.send("ready")
    pipe.recv()
    with open_queue(url, **options) as queue:
        queue.put(value)
