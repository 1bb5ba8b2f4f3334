"""Sources: a named producer's checkpoint is committed with its rows, whatever happens."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues.contract import Queue, Source
from pistributer.queues.opening import open_queue

from .conformance_hooks import Hooks
from .processes import Child, wait_for

Open = Callable[..., Queue]

#: How long a child puts before it is killed, at most, in seconds.
_LONGEST_LIFE = 0.02


class SourceContract(Hooks):
    def pairs(self, *numbers: int) -> list[tuple[Any, int]]:
        """Values whose checkpoint is the number of the next one."""
        return [(self.value(i), i + 1) for i in numbers]

    def test_a_source_begins_without_a_checkpoint(self, queue: Queue) -> None:
        with queue.source("imports") as source:
            assert source.checkpoint is None
        assert queue.sources() == {"imports": None}

    def test_rows_of_a_source_come_out_like_all_others(self, queue: Queue) -> None:
        with queue.source("imports") as source:
            source.put(self.value(0), checkpoint=1)
            assert source.put_many(self.pairs(1, 2)) == 2
        items = queue.claim(3)
        assert self.numbers(items) == [0, 1, 2]
        assert len({item.id for item in items}) == 3
        assert [item.attempt for item in items] == [1, 1, 1]

    def test_the_checkpoint_is_that_of_the_last_row(self, opened: Open) -> None:
        source = opened().source("imports")
        source.put_many(self.pairs(0, 1))
        source.put(self.value(2), checkpoint={"file": "a", "line": [3, None]})
        assert source.checkpoint == {"file": "a", "line": [3, None]}
        source.close()
        assert opened().source("imports").checkpoint == {"file": "a", "line": [3, None]}

    def test_it_outlives_the_rows(self, opened: Open) -> None:
        queue = opened(segment_bytes=200)
        with queue.source("imports") as source:
            for pair in self.pairs(*range(50)):
                source.put_many([pair])
                assert len(self.drain(queue)) == 1
        with opened() as other:
            assert other.sources() == {"imports": 50}
            assert other.source("imports").checkpoint == 50

    def test_rows_keep_their_order_over_several_holders(self, opened: Open) -> None:
        for start in (0, 10, 20):
            with opened() as queue, queue.source("imports") as source:
                source.put_many(self.pairs(*range(start, start + 10)))
                queue.put(self.value(100))  # by another producer of the same process
        assert [i for i in self.drain(opened()) if i < 100] == list(range(30))

    def test_sources_do_not_share_checkpoints(self, queue: Queue) -> None:
        with queue.source("a") as a, queue.source("a.b-1") as b:
            a.put(self.value(0), checkpoint="of a")
            b.put(self.value(1), checkpoint="of b")
            assert queue.sources() == {"a": "of a", "a.b-1": "of b"}

    def test_commit_sets_the_checkpoint_without_a_row(self, opened: Open) -> None:
        with opened() as queue, queue.source("imports") as source:
            source.put(self.value(0), checkpoint=1)
            source.commit(7)
            assert source.checkpoint == 7
        queue = opened()
        with queue.source("imports") as source:
            assert source.checkpoint == 7
            source.put(self.value(1), checkpoint=8)
        assert queue.sources() == {"imports": 8}
        assert self.drain(queue) == [0, 1]

    def test_commit_of_none_starts_over(self, queue: Queue) -> None:
        with queue.source("imports") as source:
            source.put(self.value(0), checkpoint=1)
            source.commit(None)
        with queue.source("imports") as source:
            assert source.checkpoint is None
            source.put(self.value(0), checkpoint=1)
        items = queue.claim(2)
        assert self.numbers(items) == [0, 0]
        assert items[0].id != items[1].id

    def test_one_object_at_a_time_holds_a_source(self, opened: Open) -> None:
        queue, other = opened(), opened()
        source = queue.source("imports")
        for second in (queue, other):
            with pytest.raises(errors.SourceBusy) as caught:
                second.source("imports")
            assert caught.value.name == "imports"
        source.close()
        other.source("imports").close()

    def test_a_closed_source_puts_nothing(self, opened: Open) -> None:
        queue = opened()
        closed, left = queue.source("closed"), queue.source("left")
        closed.close()
        closed.close()
        queue.close()
        for source in (closed, left):
            with pytest.raises(errors.QueueClosed, match=source.name):
                source.put(self.value(0), checkpoint=1)
            with pytest.raises(errors.QueueClosed):
                source.commit(1)
        assert self.drain(opened()) == []

    def test_a_refused_value_or_checkpoint_leaves_everything_as_it_was(self, queue: Queue) -> None:
        with queue.source("imports") as source:
            source.put(self.value(0), checkpoint=1)
            for value, checkpoint in ((object(), 2), (self.value(1), object()), (self.value(1), float("nan"))):
                with pytest.raises(errors.RowError):
                    source.put_many([(self.value(5), 5), (value, checkpoint)])
            with pytest.raises(errors.RowError):
                source.commit({1, 2})
            assert source.checkpoint == 1
            source.put(self.value(1), checkpoint=2)
        assert queue.sources() == {"imports": 2}
        assert self.drain(queue) == [0, 1]

    def test_a_row_over_the_limit_is_refused(self, opened: Open) -> None:
        queue = opened(max_row_bytes=100)
        with queue.source("imports") as source, pytest.raises(errors.RowTooLarge):
            source.put(self.long_value(101), checkpoint=1)
        assert queue.sources() == {"imports": None}

    def test_a_full_queue_leaves_the_checkpoint_of_the_last_row_that_is_in(self, opened: Open) -> None:
        queue = opened(max_rows=5)
        source = queue.source("imports")
        with pytest.raises(errors.QueueFull) as caught:
            source.put_many(self.pairs(*range(2000)), block=False)
        assert caught.value.stored == source.checkpoint == 5
        start = time.monotonic()
        with pytest.raises(errors.QueueFull):
            source.put(self.value(5), checkpoint=6, timeout=0.03)
        assert time.monotonic() - start >= 0.03
        assert queue.sources() == {"imports": 5}
        assert self.drain(queue) == [0, 1, 2, 3, 4]
        source.put(self.value(5), checkpoint=6)
        assert self.drain(queue) == [5]

    @pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a b", "ä", "a\n", "x" * 101])
    def test_bad_names_are_refused(self, queue: Queue, name: str) -> None:
        with pytest.raises(ValueError, match="letters"):
            queue.source(name)

    # -- processes

    def test_a_forked_child_can_not_use_its_parents_source(self, queue: Queue) -> None:
        self.need_processes()
        with queue.source("imports") as source:
            with Child(_put_one, source, self.value(0)) as child:
                assert child.result() == "QueueClosed"
            source.put(self.value(1), checkpoint=1)
        assert self.drain(queue) == [1]

    def test_a_killed_holder_lets_go(self, opened: Open, url: str) -> None:
        self.need_processes()
        queue = opened()
        with Child(_hold, url) as child:
            child.hear()
            with pytest.raises(errors.SourceBusy):
                queue.source("imports")
            child.kill()
            source = wait_for(lambda: _try(queue, "imports"), "the source")
        assert source.checkpoint is None

    def test_an_import_that_is_killed_again_and_again_is_whole_and_in_order(self, opened: Open, url: str) -> None:
        """The short version of `benchmarks/import_storm.py`."""
        self.need_processes()
        total, chance, kills = 3000, random.Random(7), 0
        values = [self.value(i) for i in range(total)]
        queue = opened()
        seen: list[int] = []
        while queue.sources().get("imports") != total:
            with Child(_import, url, values) as child:
                child.hear()
                if kills < 15:
                    time.sleep(chance.uniform(0, _LONGEST_LIFE))  # not a wait for anything: the moment of the kill
                    child.kill()
                    kills += 1
                else:
                    child.result()
            if kills % 3 == 0:  # what is consumed meanwhile makes no difference
                seen += self.drain(queue)
        seen += self.drain(queue)
        assert seen == list(range(total))


def _put_one(pipe: Any, source: Source, value: Any) -> str:
    try:
        source.put(value, checkpoint=1)
    except errors.PistributerError as error:
        return type(error).__name__
    return "put"


def _hold(pipe: Any, url: str) -> None:
    queue = open_queue(url)
    source = queue.source("imports")
    pipe.send(source.name)
    pipe.recv()


def _try(queue: Queue, name: str) -> Source | None:
    try:
        return queue.source(name)
    except errors.SourceBusy:
        return None


def _import(pipe: Any, url: str, values: list[Any]) -> None:
    """Go on where the checkpoint says, sometimes row by row, sometimes in batches."""
    with open_queue(url, segment_bytes=5000) as queue:
        source = queue.source("imports")
        pipe.send("began")
        at = source.checkpoint or 0
        while at < len(values):
            batch = [(values[i], i + 1) for i in range(at, min(at + at % 40 + 1, len(values)))]
            source.put_many(batch)
            at += len(batch)
