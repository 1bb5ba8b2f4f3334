"""Bad input and a bad disk: a typed error that says what to do, and a queue unharmed."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .conformance_hooks import Hooks
from .processes import run

Open = Callable[..., Queue]
#: A user who owns nothing.
NOBODY = 65534


class RefusalContract(Hooks):
    def test_a_value_that_can_not_be_a_row_is_refused(self, queue: Queue, bad_value: Any) -> None:
        queue.put(self.value(0))
        for put in (queue.put, lambda value: queue.put(value, delay=1), lambda value: queue.put_many([value])):
            with pytest.raises(errors.RowError) as caught:
                put(bad_value)
            assert caught.value.hint
        queue.put(self.value(1))
        assert self.drain(queue) == [0, 1]
        assert queue.stats().delayed == 0

    def test_a_bad_value_keeps_its_whole_batch_out(self, queue: Queue, bad_value: Any) -> None:
        with pytest.raises(errors.RowError):
            queue.put_many([self.value(0), bad_value, self.value(1)])
        assert queue.claim() == []

    def test_an_iterable_that_fails_passes_its_error_on(self, queue: Queue) -> None:
        def values() -> Any:
            yield self.value(0)
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            queue.put_many(values())
        queue.put(self.value(1))
        assert self.drain(queue)[-1] == 1

    @pytest.mark.parametrize(
        "error", [errors.QueueFull, errors.QueueClosed, errors.ClaimLost, errors.RowError], ids=str
    )
    def test_errors_of_the_queue_survive_pickling(self, error: type[errors.PistributerError]) -> None:
        copy = pickle.loads(pickle.dumps(error("what", hint="do this", ids=["1"])))
        assert (type(copy), copy.message, copy.hint, copy.ids) == (error, "what", "do this", ["1"])

    # -- what lies at the path

    def test_a_missing_parent_folder_is_refused(self, tmp_path: Path) -> None:
        self.need_files()
        with pytest.raises(errors.FolderMissing) as caught:
            open_queue(self.url_in(tmp_path / "not" / "there"))
        assert caught.value.hint
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_queue_is_refused_when_none_may_be_made(self, tmp_path: Path) -> None:
        self.need_files()
        with pytest.raises(errors.FolderMissing):
            open_queue(self.url_in(tmp_path), create=False)
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_queue_opens_when_none_may_be_made(self, opened: Open) -> None:
        opened().put(self.value(1))
        assert self.drain(opened(create=False)) == [1]

    def test_a_queue_of_another_driver_is_refused(self, tmp_path: Path) -> None:
        self.need_files()
        found = self.other_driver_in(tmp_path)
        with pytest.raises(errors.FormatError) as caught:
            open_queue(self.url_in(tmp_path))
        assert found in str(caught.value)
        assert isinstance(caught.value, errors.DriverMismatch | errors.NotAQueue)
        assert caught.value.hint

    def test_a_newer_format_is_refused_and_left_alone(self, url: str, tmp_path: Path) -> None:
        self.need_files()
        open_queue(url).close()
        self.make_newer(tmp_path)
        with pytest.raises(errors.NewerFormat, match="upgrade"):
            open_queue(url)

    def test_something_else_at_the_path_is_refused_and_left_alone(self, url: str, tmp_path: Path) -> None:
        self.need_files()
        path = self.path_in(tmp_path)
        path.write_bytes(b"somebody's letters\n" * 100)
        with pytest.raises(errors.NotAQueue) as caught:
            open_queue(url)
        assert caught.value.hint
        assert path.read_bytes() == b"somebody's letters\n" * 100

    def test_a_folder_of_other_things_is_refused_and_left_alone(self, url: str, tmp_path: Path) -> None:
        self.need_files()
        path = self.path_in(tmp_path)
        path.mkdir()
        (path / "letters.txt").write_text("dear")
        with pytest.raises(errors.NotAQueue):
            open_queue(url)
        assert [file.name for file in path.iterdir()] == ["letters.txt"]

    def test_a_damaged_row_is_set_aside_and_counted(self, url: str, opened: Open, tmp_path: Path) -> None:
        self.need_files()
        with opened() as queue:
            self.fill(queue, 5)
        self.damage(tmp_path, 2)
        queue = opened()
        assert len(list(queue.scan("ready"))) == 4
        assert self.drain(queue) == [0, 1, 3, 4]
        assert queue.stats().quarantined == 1
        queue.close()
        assert self.drain(opened()) == []

    # -- what the disk says

    def test_a_full_disk_is_a_typed_error_and_nothing_stored_is_lost(self, url: str, opened: Open) -> None:
        self.need_files()
        stored, partly = run(_fill_the_disk, url, self.options, self.value(0))
        assert stored > 10
        queue = opened()
        assert len(self.drain(queue)) == stored + partly
        queue.put(self.value(1))
        assert self.drain(queue) == [1]
        assert queue.stats().quarantined == 0

    def test_a_queue_works_again_when_there_is_space(self, url: str, opened: Open) -> None:
        self.need_files()
        run(_fill_and_free_the_disk, url, self.value(0))
        assert set(self.drain(opened())) == {0}

    def test_a_shortage_of_descriptors_is_a_typed_error(self, url: str, opened: Open) -> None:
        self.need_files()
        with opened() as queue:
            self.fill(queue, 3)
        assert run(_starve, url) > 0
        assert self.drain(opened()) == [0, 1, 2]

    @pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs root, to be somebody else for once")
    @pytest.mark.parametrize("state", ["missing", "existing"])
    def test_a_read_only_folder_is_a_typed_error(self, state: str) -> None:
        self.need_files()
        folder = Path(tempfile.mkdtemp(dir="/tmp"))
        try:
            folder.chmod(0o755)
            if state == "existing":
                with open_queue(self.url_in(folder), **self.options) as queue:
                    queue.put(self.value(1))
            assert run(_open_as_nobody, self.url_in(folder)) == "NotWritable"
            if state == "existing":
                with open_queue(self.url_in(folder)) as queue:
                    assert self.drain(queue) == [1]
        finally:
            shutil.rmtree(folder)


def _limit_files(size: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), hard))


def _fill_the_disk(pipe: Any, url: str, options: dict[str, Any], value: Any) -> tuple[int, int]:
    """Rows stored by `put` before the disk was full, and by a `put_many` after that."""
    queue, stored = open_queue(url, **options), 0
    _limit_files(100_000)
    with pytest.raises(errors.DiskFull, match="free space"):
        while True:
            queue.put(value)
            stored += 1
    with pytest.raises(errors.DiskFull) as caught:
        queue.put_many([value] * 3000)
    return stored, caught.value.stored


def _fill_and_free_the_disk(pipe: Any, url: str, value: Any) -> None:
    with open_queue(url) as queue:
        _limit_files(100_000)
        with pytest.raises(errors.DiskFull):
            queue.put_many([value] * 100_000)
        before = queue.stats().ready
        _limit_files(resource.RLIM_INFINITY)
        queue.put(value)
        assert queue.stats().ready == before + 1
        queue.ack(queue.claim(10))
        assert queue.stats().ready == before - 9


def _starve(pipe: Any, url: str) -> int:
    """Open, put and claim with ever more descriptors until it works; how often it did not."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    spare: list[int] = []
    with pytest.raises(OSError, match="Too many open files"):
        while True:
            spare.append(os.open(os.devnull, os.O_RDONLY))
    for refused in range(40):
        try:
            with open_queue(url) as queue:
                items = queue.claim(3)
                queue.nack(items)
                assert len(items) == 3
                return refused
        except errors.TooManyOpenFiles:
            pass
        os.close(spare.pop())
    raise AssertionError("forty descriptors are not enough")


def _open_as_nobody(pipe: Any, url: str) -> str:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        open_queue(url)
    except errors.StorageError as error:
        return type(error).__name__
    return "opened"
