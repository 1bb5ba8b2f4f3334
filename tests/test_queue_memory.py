"""The memory driver, by the conformance suite, and what it alone does."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import pytest

from pistributer import errors
from pistributer.queues.opening import open_queue

from .conformance import QueueContract
from .processes import run, wait_for


class TestMemoryQueue(QueueContract):
    one_process = "rows in memory are one process's own"
    no_files = "nothing is on disk"

    def url_in(self, folder: Path) -> str:
        # Named, so that objects share it; by the test's own folder, so that tests do not.
        return f"memory:{folder}"


def test_queues_without_a_name_share_nothing() -> None:
    with open_queue("memory:") as one, open_queue("memory:") as other:
        one.put(1)
        assert other.claim() == []


def test_a_queue_without_a_name_can_be_pickled_within_its_process() -> None:
    with open_queue("memory:") as queue, pickle.loads(pickle.dumps(queue)) as copy:
        queue.put(1)
        assert copy.claim()[0].value == 1


def test_a_missing_name_is_refused_when_none_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(errors.FolderMissing):
        open_queue(f"memory:{tmp_path}", create=False)


def test_another_process_is_told_that_it_can_not_open_it(tmp_path: Path) -> None:
    with open_queue(f"memory:{tmp_path}") as queue:
        assert "jsonl" in run(_unpickle, pickle.dumps(queue))


def _unpickle(pipe: object, data: bytes) -> str:
    try:
        pickle.loads(data)
    except errors.QueueError as error:
        return str(error)
    return "opened"


def test_a_forked_child_starts_empty_and_its_parent_keeps_everything(tmp_path: Path) -> None:
    with open_queue(f"memory:{tmp_path}") as queue:
        queue.put_many([1, 2, 3])
        queue.claim()
        assert run(lambda pipe: (queue.claim(), queue.put(4), [item.value for item in queue.claim()])[2]) == [4]
        assert [item.value for item in queue.claim(5)] == [2, 3]


def test_an_owner_that_was_dropped_without_close_gives_back(tmp_path: Path) -> None:
    queue, owner = (open_queue(f"memory:{tmp_path}") for _ in range(2))
    queue.put(1)
    assert len(owner.claim()) == 1
    del owner
    gc.collect()
    assert queue.stats().ready == 1
    assert queue.claim()[0].attempt == 2


def test_retained_rows_expire(tmp_path: Path) -> None:
    with open_queue(f"memory:{tmp_path}", retention=0.05) as queue:
        queue.put_many([1, 2])
        queue.ack(queue.claim(2))
        seen = [row.value for row in queue.scan("retained")]
        assert seen in ([1, 2], [])  # [] only if this machine slept in between
        wait_for(lambda: not list(queue.scan("retained")))
