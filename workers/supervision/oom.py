"""Whether the kernel's out-of-memory killer ended a process. Linux only; elsewhere nobody can tell.

Three witnesses, none of which is there everywhere:

* `oom_kill` of the worker's cgroup (memory.events in version 2, memory.oom_control in version 1): counts its kills, raised
  before the process gets its signal. Ours to read in a container, too.
* /dev/kmsg names each victim by its process id; often readable only by root, and of no use in a pid namespace.
* `oom_kill` in /proc/vmstat counts all of the machine: if it has not grown, nobody was killed.
"""

from __future__ import annotations

import os
import re
from typing import Literal

Verdict = Literal["yes", "no", "perhaps"]

_VICTIM = re.compile(rb"[Kk]illed process (\d+)")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.M)


class OomWatch:
    """Begin before the processes in question are started. `root` is for tests."""

    def __init__(self, root: str = "/") -> None:
        self._everywhere = os.path.join(root, "proc/vmstat")
        self._group = _counter_file(root)
        self._kmsg = _open_log(os.path.join(root, "dev/kmsg"))
        self._victims: set[int] = set()
        self._seen_everywhere = _count(self._everywhere)
        self._seen_group = _count(self._group)

    def verdict(self, pid: int) -> Verdict:
        """Whether it killed `pid`, a process that has just died of SIGKILL which nobody here sent."""
        everywhere, group = _count(self._everywhere), _count(self._group)
        before, self._seen_everywhere = self._seen_everywhere, everywhere
        if group is not None and self._seen_group is not None and group > self._seen_group:
            self._seen_group += 1  # one kill each: others that died at the same time are asked about next
            return "yes"
        if pid in self._read_victims():
            return "yes"
        if everywhere is None or before is None:
            return "perhaps"
        # It grew by somebody else's death if our own group can tell and did not.
        return "perhaps" if everywhere > before and group is None else "no"

    def close(self) -> None:
        if self._kmsg is not None:
            os.close(self._kmsg)
            self._kmsg = None

    def _read_victims(self) -> set[int]:
        while self._kmsg is not None:
            try:
                record = os.read(self._kmsg, 8192)
            except BrokenPipeError:
                continue  # records were overwritten before we read them
            except OSError:
                break  # BlockingIOError: that was all
            if not record:
                break
            self._victims.update(int(found[1]) for found in _VICTIM.finditer(record))
        return self._victims


def peak_memory(pid: int) -> int | None:
    """The largest resident size of a living process so far, in bytes, where the system tells."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            found = re.search(rb"^VmHWM:\s+(\d+) kB$", file.read(), re.M)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def _counter_file(root: str) -> str | None:
    """Where the kills in this process's cgroup are counted."""
    for path in _group_paths(root):
        if _count(path) is not None:
            return path
    return None


def _group_paths(root: str) -> list[str]:
    try:
        with open(os.path.join(root, "proc/self/cgroup"), encoding="utf-8") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    mount = os.path.join(root, "sys/fs/cgroup")
    found = []
    for _, controllers, name in (group for group in groups if len(group) == 3):
        if "memory" in controllers.split(","):
            # A container may see its own group as the root of the mount while the name is still that of the host.
            found += [os.path.join(mount, "memory", part, "memory.oom_control") for part in (name.lstrip("/"), "")]
        elif not controllers:
            found += [os.path.join(mount, part, "memory.events") for part in (name.lstrip("/"), "")]
    return found


def _count(path: str | None) -> int | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = _COUNT.search(file.read())
    except OSError:
        return None
    return None if found is None else int(found[1])


def _open_log(path: str) -> int | None:
    """The kernel's log, from its end on; None if we may not read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        return None
    return fd
