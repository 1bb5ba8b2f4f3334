"""What an app's folder says about itself. Needs neither the app's code nor a running worker, and disturbs nobody."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.contract import Stats
from pistributer.queues.opening import open_queue
from pistributer.storage.locks import is_held

from .board import Board, Slot
from .home import Home


@dataclass(frozen=True, slots=True)
class QueueStatus:
    name: str
    #: What `open_queue` opens.
    url: str
    stats: Stats


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One process of a running supervisor."""

    role: str
    index: int
    pid: int
    #: False: it died a moment ago, or has not started yet.
    alive: bool
    #: When it started, seconds since the epoch.
    started: float
    done: int
    failed: int
    retried: int
    put: int
    #: What it runs now: the job's id, its task or consumer, and since when; None between jobs.
    job: str | None
    task: str | None
    since: float | None


@dataclass(frozen=True, slots=True)
class AppStatus:
    url: str
    #: Whether a supervisor holds the app's lock; its process id, start and source if so.
    running: bool
    pid: int | None
    started: float | None
    app: str | None
    queues: list[QueueStatus]
    workers: list[WorkerStatus]

    @property
    def dead(self) -> int:
        """Dead letters in all queues."""
        return sum(queue.stats.dead for queue in self.queues)


def read_status(url: str | os.PathLike[str]) -> AppStatus:
    """The state of the app at `url`, as given to `App`. FolderMissing if there is none."""
    home = Home(url)
    if not home.exists():
        hint = "an app's folder is made when it first sends or runs"
        raise errors.FolderMissing(f"there is no app at {home.url!r}", hint=hint, path=home.folder)
    queues = [_queue_status(name, home.queue_url(name)) for name in home.queue_names()]
    run = _read_run(home.run) if is_held(os.path.join(home.run, "run.lock")) else None
    if run is None:
        return AppStatus(home.url, False, None, None, None, queues, [])
    workers = _workers(home.run, run["roles"])
    return AppStatus(home.url, True, run["pid"], run["started"], run["app"], queues, workers)


def _queue_status(name: str, url: str) -> QueueStatus:
    with open_queue(url, create=False) as queue:
        return QueueStatus(name, url, queue.stats())


def _read_run(folder: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(folder, "run.json"), "rb") as file:
            found: dict[str, Any] = orjson.loads(file.read())
    except FileNotFoundError:
        return None  # the supervisor has just taken the lock
    return found


def _workers(folder: str, roles: dict[str, int]) -> list[WorkerStatus]:
    page = Board(os.path.join(folder, "board"))
    try:
        slots = iter(page.slots())
    finally:
        page.close()
    names = [(role, index) for role, count in roles.items() for index in range(count)]
    return [_worker(role, index, slot) for (role, index), slot in zip(names, slots, strict=False)]


def _worker(role: str, index: int, slot: Slot) -> WorkerStatus:
    busy = bool(slot.since)
    return WorkerStatus(
        role, index, slot.pid, _is_alive(slot.pid), slot.started, slot.done, slot.failed, slot.retried, slot.put,
        slot.job if busy else None, slot.task if busy else None, slot.since if busy else None,
    )  # fmt: skip


def _is_alive(pid: int) -> bool:
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
