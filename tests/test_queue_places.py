"""Places where a file queue can not be, or not any more: full disks, read-only folders, foreign folders, no descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.queues import folder as folders
from pistributer.queues.opening import open_queue
from pistributer.storage import filesystem

from .crashing import run_killed

NEVER = 1 << 30


def in_child(act: Callable[[Callable[[str, Any], None]], None]) -> dict[str, Any]:
    """Run `act(tell)` in a child of its own; the last value told of each event."""
    return dict(run_killed(act, NEVER, torn=False).events)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root; the file-size limit test covers the same path")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("driver", ["jsonl", "txt"])
def test_a_full_disk_refuses_puts_by_name_and_can_be_emptied_by_consuming(tiny_disk: Path, driver: str) -> None:
    row = "r" * 500
    with open_queue(f"{driver}:{tiny_disk / 'q'}", segment_bytes=4096) as queue:
        stored = 0
        with pytest.raises(errors.DiskFull, match="free space"):
            while True:
                queue.put(f"{row}{stored}")
                stored += 1
        assert stored > 20
        with pytest.raises(errors.DiskFull) as caught:
            queue.put_many(f"{row}{i}" for i in range(stored, stored + 100))
        stored += caught.value.stored
        got = []
        while items := queue.claim(10):
            got += [item.value for item in items]
            queue.ack(items)
        assert got == [f"{row}{i}" for i in range(stored)]
        assert queue.stats().quarantined == 0
        queue.put("room again")
        assert queue.claim()[0].value == "room again"


def test_a_file_size_limit_is_a_full_disk_and_a_prefix_of_put_many_stands(tmp_path: Path) -> None:
    def act(tell: Callable[[str, Any], None]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        queue = open_queue(tmp_path / "q")
        try:
            queue.put_many("x" * 95 for _ in range(200))
        except errors.DiskFull as error:
            tell("stored", error.stored)
        try:
            queue.put("y" * 95)
        except errors.DiskFull as error:
            tell("put", str(error))

    told = in_child(act)
    assert 90 <= told["stored"] <= 102
    assert "append to" in told["put"]
    with open_queue(tmp_path / "q") as queue:
        stats = queue.stats()
        assert (stats.ready, stats.quarantined) == (told["stored"], 0)


def test_no_descriptors_left_is_a_typed_error_and_harms_nothing(tmp_path: Path) -> None:
    def act(tell: Callable[[str, Any], None]) -> None:
        queue = open_queue(tmp_path / "q")
        queue.put(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        queues = []
        try:
            for number in range(64):
                queues.append(open_queue(tmp_path / f"q{number}"))
                queues[-1].put(number)
                queues[-1].claim(0 + 1, start=False)
        except errors.TooManyOpenFiles as error:
            tell("error", None) if "ulimit" not in str(error) else tell("refused", str(error))
        for other in queues:
            other.close()
        queue.put(2)
        tell("after", [item.value for item in queue.claim(5)])

    told = in_child(act)
    assert "ulimit -n" in told["refused"]
    assert told["after"] == [1, 2]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with a queue in it that can not be written to, for root neither."""
    folder = tmp_path / "ro"
    folder.mkdir()
    with open_queue(folder / "q") as queue:
        queue.put(1)
    if os.geteuid():
        os.chmod(folder, 0o500)
        os.chmod(folder / "q", 0o500)
        yield folder
        os.chmod(folder / "q", 0o700)
        os.chmod(folder, 0o700)
        return
    mounted = subprocess.run(
        ["mount", "--bind", "-o", "ro", str(folder), str(folder)], capture_output=True, check=False
    )
    remounted = subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], capture_output=True, check=False)
    if mounted.returncode or remounted.returncode:
        pytest.skip("root without the right to mount can write everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_folder_is_refused_by_name(read_only: Path) -> None:
    for path in (read_only / "q", read_only / "new"):
        with pytest.raises(errors.NotWritable, match="check the owner"):
            open_queue(path)


def test_a_missing_parent_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(errors.FolderMissing, match="create the folder first"):
        open_queue(tmp_path / "no" / "q")
    with pytest.raises(FileNotFoundError, match="there is no queue"):
        open_queue(tmp_path / "q", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_queue_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    with open_queue(tmp_path / "q") as queue:
        queue.put(1)
    description = tmp_path / "q" / "pistributer.json"
    description.write_bytes(b'{"format":99,"driver":"jsonl"}\n')
    with pytest.raises(errors.NewerFormat, match="upgrade") as caught:
        open_queue(tmp_path / "q")
    assert (caught.value.found, caught.value.known) == (99, folders.FORMAT)  # type: ignore[attr-defined]
    description.write_bytes(b'{"format":1,"driver":"jsonl","added later":true}\n')
    with open_queue(tmp_path / "q") as queue:
        assert queue.stats().ready == 1


def test_a_queue_of_another_driver_is_refused_with_its_url(tmp_path: Path) -> None:
    open_queue(f"txt:{tmp_path / 'q'}").close()
    with pytest.raises(errors.DriverMismatch, match="txt:"):
        open_queue(tmp_path / "q")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":"x","driver":"jsonl"}', b"\0\0"])
def test_a_damaged_description_is_refused_with_the_cure(tmp_path: Path, content: bytes) -> None:
    with open_queue(tmp_path / "q") as queue:
        queue.put(1)
    description = tmp_path / "q" / "pistributer.json"
    sound = description.read_bytes()
    description.write_bytes(content)
    with pytest.raises(errors.NotAQueue, match="restore it"):
        open_queue(tmp_path / "q")
    description.write_bytes(sound)
    with open_queue(tmp_path / "q") as queue:
        assert queue.stats().ready == 1


def test_a_file_or_a_folder_of_somebody_else_is_not_turned_into_a_queue(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(errors.NotAQueue):
            open_queue(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["notes.txt"]


def test_an_empty_folder_becomes_a_queue(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    with open_queue(tmp_path / "q") as queue:
        queue.put(1)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_filesystem_is_refused_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime master:1 - {kind} host:/export rw\n"
    )
    monkeypatch.setattr(filesystem, "_MOUNTS", str(mounts))
    with pytest.raises(errors.UnsafeFilesystem, match=kind.replace(".", r"\.")):
        open_queue(tmp_path / "q")
    monkeypatch.setenv("PISTRIBUTER_ALLOW_NETWORK_FILESYSTEM", "1")
    open_queue(tmp_path / "q").close()


def test_a_failed_sync_is_raised_and_the_shard_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_queue(tmp_path / "q", sync="each") as queue:
        queue.put(1)

        def fail(fd: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            with pytest.raises(errors.SyncFailed, match="did not confirm"):
                queue.put(2)
        queue.put(3)
        assert [item.value for item in queue.claim(5)] in ([1, 3], [1, 2, 3])


def test_a_group_sync_failure_reaches_the_next_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    failed = threading.Event()

    def fail(fd: int) -> None:
        failed.set()
        raise OSError(5, "Input/output error")

    queue = open_queue(tmp_path / "q", sync="group")
    queue.put(0)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(errors.SyncFailed):
        queue.put(1)
        assert failed.wait(10)
        while True:
            queue.put(2)
    with pytest.raises(errors.SyncFailed):
        queue.close()
