"""What the processes of a running app do and use: for `ps` and `top`. Needs nobody's code and disturbs nobody."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from ..supervision.pages import JobProgress
from .status import AppStatus, RunningJob, SupervisorStatus, WorkerStatus, read_status


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process of an app."""

    #: "supervisor", "worker QUEUE", "consumer NAME", "producer NAME" or "scheduler".
    role: str
    index: int
    pid: int
    #: "busy", "idle", or "gone": it died a moment ago, or has not started yet.
    state: str
    #: When it started, seconds since the epoch.
    started: float
    #: What it runs now, and since when; None between jobs.
    job: str | None
    task: str | None
    since: float | None
    #: How far that job says that it is; None if it says nothing.
    progress: JobProgress | None
    #: All that it runs now, the longest first.
    running: list[RunningJob]
    done: int
    failed: int
    retried: int
    put: int
    #: Resident, in bytes, what it shares with others included; None if the system does not say.
    memory: int | None
    #: The process id of its supervisor; its own, of a supervisor.
    supervisor: int
    #: Share of one processor since the last look; since its start, at the first one. None if the system does not say.
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Picture:
    """An app at one moment."""

    status: AppStatus
    processes: list[ProcessStatus]
    #: Seconds since the epoch.
    at: float


class Watcher:
    """Looks at the app at `url`, again and again. Raises as `read_status`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[int, _Usage] = {}

    def look(self) -> Picture:
        """The app now."""
        status = read_status(self._url)
        used, self._known = self._known, {}
        processes = [self._supervisor(supervisor, used) for supervisor in status.supervisors]
        processes += [self._worker(worker, used) for worker in status.workers]
        return Picture(status, processes, time.time())

    def _supervisor(self, it: SupervisorStatus, used: dict[int, _Usage]) -> ProcessStatus:
        memory, cpu = self._usage(it.pid, used)
        state = "gone" if memory is None else "busy"
        return ProcessStatus(
            "supervisor", 0, it.pid, state, it.started, None, None, None, None, [], 0, 0, 0, 0, memory, it.pid, cpu
        )

    def _worker(self, it: WorkerStatus, used: dict[int, _Usage]) -> ProcessStatus:
        memory, cpu = self._usage(it.pid, used) if it.alive else (None, None)
        state = "gone" if not it.alive else "busy" if it.since else "idle"
        progress = it.running[0].progress if it.running else None
        return ProcessStatus(
            it.role, it.index, it.pid, state, it.started, it.job, it.task, it.since, progress, it.running, it.done,
            it.failed, it.retried, it.put, memory, it.supervisor, cpu,
        )  # fmt: skip

    def _usage(self, pid: int, used: dict[int, _Usage]) -> tuple[int | None, float | None]:
        try:
            usage = used.get(pid) or _Usage(pid)
            found = usage.measure()
        except psutil.Error:
            return None, None  # it has ended meanwhile, or belongs to somebody else
        self._known[pid] = usage
        return found


class _Usage:
    """Of one process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._seen, self._seconds = self._process.create_time(), 0.0

    def measure(self) -> tuple[int, float]:
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), int(self._process.memory_info().rss)
        now, seconds = time.time(), times.user + times.system
        share = (seconds - self._seconds) / max(now - self._seen, 1e-3)
        self._seen, self._seconds = now, seconds
        return memory, share
