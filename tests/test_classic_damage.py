"""Classic channels under damage: torn tails, nonsense in the index, full disks, files that vanish, few descriptors."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pistributer import Pistributer, errors

from .classic_tools import Child, fork, in_children

ROWS = ["first", "é second", "third"]


def torn(path: Path, content: bytes) -> None:
    """A channel of ours whose data file ends in the middle of a row, as a killed writer leaves it."""
    Pistributer.put(path, "longer than what this process will find in the file: others have changed it since")
    path.write_bytes(content)


def quarantine(path: Path) -> bytes:
    file = Path(f"{path}.quarantine")
    return file.read_bytes() if file.exists() else b""


# -- torn tails


@pytest.mark.parametrize("who", ["writer", "reader"])
def test_a_tail_torn_at_any_byte_costs_only_the_torn_row(tmp_path: Path, who: str) -> None:
    whole = "".join(f"{row}\n" for row in ROWS).encode()
    for cut in range(len(whole) + 1):
        path = tmp_path / f"{cut}.jsonl"
        torn(path, whole[:cut])
        kept = whole[:cut].decode(errors="ignore").split("\n")[:-1]
        if who == "writer":
            Pistributer.put(path, "after")
            kept.append("after")
        assert list(Pistributer(path)) == kept
        left = whole[:cut].rpartition(b"\n")[2]
        assert quarantine(path) == (left + b"\n" if left else b"")


@pytest.mark.parametrize("nuls", [1, 7, 512, 8192, 100_000])
def test_a_tail_of_nuls_as_a_power_cut_leaves_it_is_cut(tmp_path: Path, nuls: int) -> None:
    path = tmp_path / "c.jsonl"
    torn(path, b"good\n" + bytes(nuls))
    Pistributer.put(path, "after")
    assert list(Pistributer(path)) == ["good", "after"]
    assert quarantine(path) == bytes(nuls) + b"\n"


@pytest.mark.parametrize(
    "bad",
    [b"\0\0glued to NULs", b"in\0side", b"\xff\xfe not UTF-8", b"\xc3", bytes(9000)],
    ids=lambda bad: ascii(bad[:9]),
)
def test_a_damaged_row_goes_to_the_quarantine_and_the_others_come(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "c.jsonl"
    torn(path, b"one\n" + bad + b"\n\ntwo\n")
    queue = Pistributer(path)
    assert queue.size() == 3
    assert list(queue) == ["one", "two"]
    assert quarantine(path) == bad + b"\n"


def test_a_channel_with_nothing_but_damage_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    torn(path, b"\n\0\n\n\xff\n")
    queue = Pistributer(path)
    assert queue.isEmpty()
    assert queue.remaining() == 0
    assert quarantine(path) == b"\0\n\xff\n"


def test_healing_is_for_the_tail_of_the_batch_too(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put(path, "one")
    queue = Pistributer(path)  # has taken the file into use
    with open(f"{path}.in_use", "ab") as in_use:
        in_use.write(b"torn")
    Pistributer.put(path, "two")
    assert list(queue) == ["one", "two"]
    assert quarantine(path) == b"torn\n"


def test_without_room_for_the_quarantine_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    torn(path, b"one\nto")
    os.mkdir(f"{path}.quarantine")
    with pytest.raises(errors.StorageError):
        Pistributer.put(path, "x")
    assert path.read_bytes() == b"one\nto"
    os.rmdir(f"{path}.quarantine")
    Pistributer.put(path, "two")
    assert list(Pistributer(path)) == ["one", "two"]


# -- the index


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0" * 104,
        b"garbage\n",
        b'{"index": 2}',
        b'{"index": 2, "offset": 5, "counted": 2, "batch": 1}',
        b'{"index": 2, "offset": 9999, "counted": 2, "batch": 1}',
        b'{"index": 1, "offset": 12, "counted": 2, "batch": 1}',
        b'{"index": -3, "offset": -3, "counted": -3, "batch": -3}',
        b'{"index": 99999999999999999999, "offset": 1}',
    ],
    ids=ascii,
)
@pytest.mark.parametrize("width", [0, 104])
@pytest.mark.parametrize("reader", ["new", "living"])
def test_an_index_that_was_tampered_with_never_skips_a_row(
    tmp_path: Path, line: bytes, width: int, reader: str
) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, ["a", "bcd", "e"])
    living = Pistributer(path)
    taken = [living.next(), living.next()]
    Path(f"{path}.index").write_bytes(line.ljust(width))
    rest = list(living if reader == "living" else Pistributer(path))
    assert taken + rest[-1:] == ["a", "bcd", "e"]
    assert rest in (["e"], ["bcd", "e"], ["a", "bcd", "e"])


def test_deleting_the_index_delivers_the_batch_again_and_a_living_reader_finds_out(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, ["a", "b"])
    living = Pistributer(path)
    assert living.next() == "a"
    os.unlink(f"{path}.index")
    fresh = Pistributer(path)
    assert fresh.next() == "a"
    assert sorted([*living, *fresh]) in (["b"], ["b", "b"])
    Pistributer.put(path, "c")
    assert [*living, *fresh] == ["c"]


# -- a full disk


def limited(limit: int, function: Callable[[], Any]) -> Child:
    def run() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return function()

    return fork(run)


def test_on_a_full_disk_put_is_refused_and_what_stood_still_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"

    def fill() -> tuple[int, str, int]:
        for number in range(100):
            try:
                Pistributer.put(path, f"row {number} " + "x" * 60)
            except errors.DiskFull as error:
                return number, error.hint or "", error.stored
        raise AssertionError("the limit did not bite")

    stored, hint, of_the_last = limited(1000, fill).result()
    assert (of_the_last, "free space" in hint) == (0, True)
    assert path.read_bytes().endswith(b"\n")
    Pistributer.put(path, "after")
    rows = list(Pistributer(path))
    assert [row.split()[0] for row in rows] == ["row"] * stored + ["after"]


def test_on_a_full_disk_put_many_keeps_the_rows_that_fitted(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    rows = [f"row {number:04d}" for number in range(500)]

    def fill() -> int:
        with pytest.raises(errors.DiskFull) as caught:
            Pistributer.put_many(path, rows)
        return caught.value.stored

    stored = limited(1000, fill).result()
    assert stored == 1000 // 9
    assert list(Pistributer(path)) == rows[:stored]


def test_a_full_disk_does_not_stop_reading(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, [f"{number}" for number in range(1000)])
    assert len(limited(200, lambda: list(Pistributer(path))).result()) == 1000


# -- files and folders that vanish


def delete_file(path: Path) -> None:
    for end in ("", ".in_use"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def delete_all(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def move_away(path: Path) -> None:
    path.parent.rename(f"{path.parent}.{len(list(path.parent.parent.iterdir()))}")
    path.parent.mkdir()


@pytest.mark.parametrize("vanish", [delete_file, delete_all], ids=lambda vanish: vanish.__name__)
def test_a_put_after_the_channel_was_deleted_makes_it_anew(tmp_path: Path, vanish: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "c.jsonl"
    path.parent.mkdir()
    for number in range(20):
        Pistributer.put(path, f"lost with the folder {number}")
        if number % 2:
            Pistributer(path)  # takes it into use
        vanish(path)
        Pistributer.put(path, f"{number}")
        assert list(Pistributer(path)) == [f"{number}"]


def test_deleting_the_batch_alone_does_not_skip_rows_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, ["a", "b", "c"])
    queue = Pistributer(path)
    assert [queue.next(), queue.next()] == ["a", "b"]
    os.unlink(f"{path}.in_use")
    Pistributer.put_many(path, ["d", "e", "f"])
    assert list(Pistributer(path)) == ["d", "e", "f"]


def test_a_reader_goes_on_when_the_channel_was_deleted_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.jsonl"
    path.parent.mkdir()
    Pistributer.put_many(path, ["a", "b"])
    queue = Pistributer(path)
    assert queue.next() == "a"
    delete_all(path)
    Pistributer.put_many(path, ["c", "d"])
    assert list(queue) in (["c", "d"], ["b", "c", "d"])  # "b" was in its memory


def test_a_folder_that_was_moved_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.jsonl"
    path.parent.mkdir()
    Pistributer.put(path, "old")
    move_away(path)
    put_until_it_arrives(path)
    assert set(Pistributer(path)) == {"new"}


def put_until_it_arrives(path: Path) -> None:
    deadline = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < deadline, "never noticed"
        Pistributer.put(path, "new")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.jsonl"
    path.parent.mkdir()
    Pistributer.put(path, "x")
    shutil.rmtree(path.parent)
    with pytest.raises(errors.FolderMissing, match="folder"):
        Pistributer.put(path, "y")


def as_nobody(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        if os.getuid() == 0:
            os.setuid(65534)
        return function()

    return run


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o555)
    path = shut / "c.jsonl"

    def attempt() -> str:
        with pytest.raises(errors.NotWritable) as caught:
            Pistributer.put(path, "x")
        return str(caught.value)

    assert "owner" in in_children(as_nobody(attempt))[0]


# -- descriptors


def test_many_channels_need_few_descriptors(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(100)]

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        for turn in range(3):
            for path in paths:
                Pistributer.put(path, f"{turn}")
        queues = [Pistributer(path) for path in paths]
        assert [queue.next() for queue in queues] == ["0"] * 100
        assert [queue.next() for queue in queues] == ["1"] * 100
        assert [list(queue) for queue in queues] == [["2"]] * 100
        return len(os.listdir("/proc/self/fd"))

    assert in_children(run)[0] <= 40


def test_when_others_hold_all_descriptors_ours_are_given_up_and_then_the_error_says_so(tmp_path: Path) -> None:
    def run() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        for number in range(10):
            Pistributer.put(tmp_path / f"{number}.jsonl", "x")
        taken = []
        with pytest.raises(OSError, match="Too many"):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        Pistributer.put(tmp_path / "new.jsonl", "x")  # by closing some of the ten
        with pytest.raises(OSError, match="Too many"):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(errors.TooManyOpenFiles) as caught:
            for number in range(20, 40):
                Pistributer.put(tmp_path / f"{number}.jsonl", "x")
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for fd in taken:
            os.close(fd)
        Pistributer.put(tmp_path / "0.jsonl", "y")
        return caught.value.hint or ""

    assert "ulimit" in in_children(run)[0]
    assert list(Pistributer(tmp_path / "0.jsonl")) == ["x", "y"]


def test_readers_that_are_garbage_hold_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Pistributer.put_many(path, ["x"] * 300)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        Pistributer(path).next()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# -- interrupts


def test_ctrl_c_at_any_moment_leaves_the_channel_usable(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"

    def run() -> tuple[int, int, int]:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        queue = Pistributer(path)
        put = got = 0
        for attempt in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + attempt % 7 * 1e-5)
                # Bounded, because Python swallows what a signal handler raises inside a weakref callback.
                for _ in range(1000):
                    Pistributer.put(path, "row")
                    put += 1
                    for _ in queue:
                        got += 1
            except KeyboardInterrupt:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        return put, got, len(list(queue))

    put, got, left = in_children(run)[0]
    # An interrupted put may have stored its row, an interrupted next may have consumed one.
    assert -300 <= put - got - left <= 300
    assert left <= 300
    assert list(Pistributer(path)) == []
