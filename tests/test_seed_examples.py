"""The examples of the documents that PersistedState, DurableQueue and FlushQueue were made from run as they stand there.

A module of the old name hands on the new class; the folder is this test's. Nothing else differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNTING = """\
from persistedstate import PersistedState

STATE = PersistedState("example.state", last_id=0)

for current_id in range(STATE.last_id + 1, 100_001):
    print(f"Processing item #{current_id}")
    STATE.last_id = current_id

print("Processing DONE.")
"""

MAPPED = """\
from persistedstate import PersistedState

STATE = PersistedState("state.yaml", processed_items=[])
STATE.setdefault("key", {})
STATE["key"].setdefault("nested", 2)

STATE.processed_items.append("<some item>")
STATE["key"]["nested"] += 1
"""

DURABLE = """\
import iodict
q = iodict.DurableQueue(path='/tmp/iodict')  # Could be any path on the file system
q.put("test")
data = q.get()
print(repr(data))
"""

FLUSH = """\
import queue

import iodict


class NewQueue(queue.Queue, iodict.FlushQueue):
    def __init__(self, path, lock=None, semaphore=None):
        super().__init__()
        self.path = path
        self.lock = lock
        self.semaphore = semaphore


q = NewQueue(path='/tmp/iodict')  # Could be any path on the file system
q.put("test")
print(q.qsize())
q.flush()
print(q.qsize())
q.ingest()
print(q.qsize())
print(repr(q.get()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "persistedstate.py").write_text("from pistributer import PersistedState\n")
    (tmp_path / "iodict.py").write_text("from pistributer import DurableQueue, FlushQueue\n")
    return tmp_path


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    code = code.replace("/tmp/iodict", str(folder / "iodict-folder"))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent.parent)])}
    # Unbuffered, so that a killed child's last words are here.
    return subprocess.Popen([sys.executable, "-u", "-c", code], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)


def output(code: str, folder: Path) -> list[str]:
    process = start(code, folder)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.splitlines()


def test_a_script_that_is_killed_goes_on_with_the_first_unprocessed_item(folder: Path) -> None:
    with start(COUNTING, folder) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(500)]
        process.kill()
        seen += process.stdout.readlines()
    last = int(seen[-1].rpartition("#")[2])
    said = output(COUNTING, folder)
    # The item that was being printed when the kill came may be printed again; none is left out.
    assert int(said[0].rpartition("#")[2]) <= last + 1
    assert said[-2:] == ["Processing item #100000", "Processing DONE."]
    assert output(COUNTING, folder) == ["Processing DONE."]
    assert (folder / "example.state").read_text() == "last_id: 100000\n"


def test_the_mapped_state_file(folder: Path) -> None:
    for count in (1, 2):
        assert output(MAPPED, folder) == []
        items = "- <some item>\n" * count
        assert (folder / "state.yaml").read_text() == f"processed_items:\n{items}key:\n  nested: {2 + count}\n"


def test_the_durable_queue(folder: Path) -> None:
    assert output(DURABLE, folder) == ["'test'"]
    assert output(DURABLE, folder) == ["'test'"]  # and nothing came twice


def test_the_flushing_queue(folder: Path) -> None:
    assert output(FLUSH, folder) == ["1", "0", "1", "'test'"]
