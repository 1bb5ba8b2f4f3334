"""Whether the kernel's out-of-memory killer did it, as its counters tell: of every kind of system that has any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pistributer.workers.supervision.oom import OomWatch, peak_memory
from tests.worker_tools import environment


def system(root: Path, *, group: str | None, everywhere: int | None = 0) -> None:
    """Counters as Linux shows them: `group` is the line of /proc/self/cgroup."""
    for folder in ("proc/self", "dev", "sys/fs/cgroup/memory/box", "sys/fs/cgroup/box"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if group is not None:
        (root / "proc/self/cgroup").write_text(f"5:cpu:/other\n{group}\n")
    if everywhere is not None:
        (root / "proc/vmstat").write_text(f"nr_free_pages 1\noom_kill {everywhere}\n")


def count(path: Path, kills: int) -> None:
    path.write_text(f"low 0\noom 3\noom_kill {kills}\noom_group_kill 0\n")


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/box", "sys/fs/cgroup/box/memory.events"),
        ("0::/", "sys/fs/cgroup/memory.events"),
        ("0::/a/path/of/the/host", "sys/fs/cgroup/memory.events"),
        ("4:memory:/box", "sys/fs/cgroup/memory/box/memory.oom_control"),
        ("4:hugetlb,memory:/docker/5f0c", "sys/fs/cgroup/memory/memory.oom_control"),
    ],
)
def test_a_kill_in_our_own_group_is_certain_and_counts_for_one_death(tmp_path: Path, line: str, file: str) -> None:
    system(tmp_path, group=line)
    count(tmp_path / file, 7)
    watch = OomWatch(str(tmp_path))
    assert watch.verdict(1) == "no"
    count(tmp_path / file, 8)
    (tmp_path / "proc/vmstat").write_text("oom_kill 2\n")
    assert watch.verdict(2) == "yes"
    assert watch.verdict(3) == "no"
    watch.close()


def test_without_a_counter_of_our_own_a_kill_somewhere_is_perhaps_ours(tmp_path: Path) -> None:
    system(tmp_path, group=None)
    watch = OomWatch(str(tmp_path))
    assert watch.verdict(1) == "no"
    (tmp_path / "proc/vmstat").write_text("oom_kill 1\n")
    assert watch.verdict(2) == "perhaps"
    assert watch.verdict(3) == "no"


def test_a_kill_elsewhere_is_not_ours(tmp_path: Path) -> None:
    system(tmp_path, group="0::/box")
    count(tmp_path / "sys/fs/cgroup/box/memory.events", 0)
    watch = OomWatch(str(tmp_path))
    (tmp_path / "proc/vmstat").write_text("oom_kill 9\n")
    assert watch.verdict(1) == "no"


def test_a_system_that_tells_nothing_leaves_it_open(tmp_path: Path) -> None:
    system(tmp_path, group=None, everywhere=None)
    assert OomWatch(str(tmp_path)).verdict(1) == "perhaps"


def test_the_kernels_log_names_the_victim(tmp_path: Path) -> None:
    system(tmp_path, group=None)
    log = tmp_path / "dev/kmsg"
    log.write_text("4,1,1,-;Memory cgroup out of memory: Killed process 41 (python)\n")
    watch = OomWatch(str(tmp_path))
    with log.open("a") as file:
        file.write("4,2,2,-;Out of memory: Killed process 42 (python) total-vm:1kB\n")
    assert watch.verdict(42) == "yes"
    assert watch.verdict(41) == "no"  # before our time
    watch.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_the_peak_outlives_the_memory() -> None:
    before = peak_memory(os.getpid()) or 0
    block = b"x" * 150_000_000
    del block
    assert (peak_memory(os.getpid()) or 0) >= max(before, 140_000_000)
    assert peak_memory(2**22 + 1) is None


GROUP = os.environ.get("PISTRIBUTER_TEST_CGROUP", "")


@pytest.mark.skipif(not GROUP, reason="set PISTRIBUTER_TEST_CGROUP to a memory cgroup with a limit, in which we may be")
def test_a_real_kill_is_told(tmp_path: Path) -> None:
    """In a child that moves itself into the group and runs a job that eats more than its limit."""
    code = f"""
import os, sys
open(os.path.join({GROUP!r}, "cgroup.procs"), "w").write(str(os.getpid()))
from pistributer import App, run
from tests.worker_tools import write_app
from pathlib import Path
path = write_app(Path({str(tmp_path)!r}), '''
@app.task(crash_retries=0)
def eat():
    food = []
    while True:
        food.append(b"x" * 10_000_000)
''')
from pistributer.workers.loading import load_app
app = load_app(str(path))
job = app.tasks["eat"].send()
run(str(path), processes=1, until_empty=True, on_event=print)
print("verdict", job.attempts()[-1].death.oom)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert "verdict yes" in done.stdout
