"""The one call that `put` is made of: the same in C and in Python, and whole whatever happens around it."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.storage.appending import AppendFile
from pistributer.storage.doorbell import Doorbell
from pistributer.storage.quick_append import PlainQuickAppend, QuickAppend
from pistributer.storage.turns import Turn

from .processes import run

KINDS = [PlainQuickAppend, *([QuickAppend] if QuickAppend is not PlainQuickAppend else [])]
ROW = b'{"n":1}\n'

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "python" if kind is PlainQuickAppend else "c")


def opened(folder: Path, kind: Any, limit: int = 1000, longest: int = 100) -> tuple[Turn, AppendFile, Any]:
    turn, file = Turn(), AppendFile(str(folder / "rows")).open()
    return turn, file, kind(turn, file, Doorbell(str(folder)), limit, longest)


@each_kind
def test_a_row_is_appended_and_the_turn_given_back(tmp_path: Path, kind: Any) -> None:
    turn, file, quick = opened(tmp_path, kind)
    assert [quick(ROW) for _ in range(3)] == [True] * 3
    assert (tmp_path / "rows").read_bytes() == ROW * 3
    assert file.size == 3 * len(ROW)
    assert turn.try_turn()
    file.close()


@each_kind
def test_nothing_is_done_in_anothers_turn_at_a_limit_or_to_a_closed_file(tmp_path: Path, kind: Any) -> None:
    turn, file, quick = opened(tmp_path, kind, limit=2 * len(ROW))
    turn.take_turn()
    assert quick(ROW) is False
    turn.give_turn()
    assert quick(ROW) is True
    assert quick(ROW) is False  # that row would reach the limit
    assert quick(b"x" * 100 + b"\n") is False
    file.close()
    assert quick(ROW) is False
    assert turn.try_turn()
    assert (tmp_path / "rows").read_bytes() == ROW


@each_kind
def test_threads_that_wait_for_the_turn_are_woken(tmp_path: Path, kind: Any) -> None:
    turn, file, quick = opened(tmp_path, kind, limit=1 << 30)

    def work() -> None:
        for _ in range(2000):
            while not quick(ROW):
                turn.take_turn()
                turn.give_turn()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert file.size == 8000 * len(ROW) == os.path.getsize(tmp_path / "rows")
    file.close()


@each_kind
def test_a_full_disk_leaves_whole_rows_and_says_how_it_ended(tmp_path: Path, kind: Any) -> None:
    def fill(pipe: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        turn, file, quick = opened(tmp_path, kind)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        assert quick(ROW)
        assert quick(ROW)
        with pytest.raises(errors.StorageError) as caught:
            quick(ROW)  # four bytes fit
        assert caught.value.stored == 0
        assert turn.try_turn()
        assert file.size == 2 * len(ROW)

    run(fill)
    assert (tmp_path / "rows").read_bytes() == ROW * 2


@each_kind
def test_a_refusing_kernel_is_left_to_the_long_way(tmp_path: Path, kind: Any) -> None:
    turn, file, quick = opened(tmp_path, kind)
    real, file.fd = file.fd, os.open(tmp_path / "rows", os.O_RDONLY)
    try:
        if kind is PlainQuickAppend:
            with pytest.raises(errors.StorageError):
                quick(ROW)
        else:
            assert quick(ROW) is False
    finally:
        os.close(file.fd)
        file.fd = real
    assert turn.try_turn()
    file.close()


@each_kind
def test_who_waits_is_rung(tmp_path: Path, kind: Any) -> None:
    _, file, quick = opened(tmp_path, kind)
    waiter = Doorbell(str(tmp_path))
    waiter.arm(3)
    assert quick(ROW)
    assert waiter.sleep(30)
    waiter.close()
    file.close()


@each_kind
def test_a_bell_may_be_closed_while_a_thread_is_about_to_append(tmp_path: Path, kind: Any) -> None:
    turn, file = Turn(), AppendFile(str(tmp_path / "rows")).open()
    bell = Doorbell(str(tmp_path))
    quick = kind(turn, file, bell, 1000, 100)
    file.close()
    bell.close()
    assert quick(ROW) is False


@each_kind
def test_what_is_no_row_is_refused(tmp_path: Path, kind: Any) -> None:
    for args in [(), ("text\n",), (None,), (ROW, ROW)]:
        turn, file, quick = opened(tmp_path, kind)
        with pytest.raises(TypeError):
            quick(*args)
        assert turn.try_turn()
        file.close()


@each_kind
def test_nothing_is_kept_alive_and_no_reference_is_lost(tmp_path: Path, kind: Any) -> None:
    class Owner(Turn):
        __slots__ = ("__weakref__", "quick")

    owner, file = Owner(), AppendFile(str(tmp_path / "rows")).open()
    bell = Doorbell(str(tmp_path))
    owner.quick = kind(owner, file, bell, 1 << 30, 100)
    row = bytes(ROW)
    before = sys.getrefcount(row), sys.getrefcount(True)
    for _ in range(1000):
        owner.quick(row)
    assert sys.getrefcount(row) == before[0]
    assert abs(sys.getrefcount(True) - before[1]) < 100
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    bell.close()
    assert bell.page.closed
    file.close()


def test_the_c_version_takes_only_objects_with_these_slots(tmp_path: Path) -> None:
    for kind in KINDS[1:]:
        with pytest.raises((TypeError, AttributeError)):
            kind(object(), AppendFile(str(tmp_path / "rows")), Doorbell(str(tmp_path)), 1, 1)
        with pytest.raises((TypeError, AttributeError)):
            kind(Turn(), 3, Doorbell(str(tmp_path)), 1, 1)
