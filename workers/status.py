"""What an app's folder says about itself. Needs neither the app's code nor a running worker, and disturbs nobody."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.contract import Stats
from pistributer.queues.opening import open_queue
from pistributer.storage.locks import is_held

from .board import Board, Slot
from .gate_tickets import Tickets, count_held
from .home import Home, split_lane
from .whole_queue import add_up


@dataclass(frozen=True, slots=True)
class QueueStatus:
    name: str
    #: What `open_queue` opens.
    url: str
    #: Its jobs with a priority included.
    stats: Stats
    #: Those by themselves, for each level that was ever used.
    priorities: dict[int, Stats]
    #: Jobs that were sent to it and are not in it yet: most of them wait for others of their key.
    held: int = 0


@dataclass(frozen=True, slots=True)
class RunningJob:
    job: str
    task: str
    #: Seconds since the epoch.
    since: float


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
    #: What it runs now: the job's id, its task or consumer, and since when; None between jobs. Of several, the one that has
    #: run longest.
    job: str | None
    task: str | None
    since: float | None
    #: All that it runs now, the longest first.
    running: list[RunningJob]


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
    held = _held(home)
    queues = [_queue_status(home, name, held.get(name, 0)) for name in home.queue_names()]
    run = _read_run(home.run) if is_held(os.path.join(home.run, "run.lock")) else None
    if run is None:
        return AppStatus(home.url, False, None, None, None, queues, [])
    workers = _workers(home.run, run["roles"], run.get("widths", {}))
    return AppStatus(home.url, True, run["pid"], run["started"], run["app"], queues, workers)


def _held(home: Home) -> dict[str, int]:
    tickets = Tickets(home.folder)
    try:
        return count_held(tickets) if tickets.exists() else {}
    finally:
        tickets.close()


def _queue_status(home: Home, name: str, held: int) -> QueueStatus:
    lanes = home.lanes_of(name)
    stats = [_stats(home.queue_url(lane)) for lane in lanes]
    priorities = {split_lane(lane)[1]: found for lane, found in zip(lanes[:-1], stats[:-1], strict=True)}
    return QueueStatus(name, home.queue_url(name), add_up(stats), priorities, held)


def _stats(url: str) -> Stats:
    with open_queue(url, create=False) as queue:
        return queue.stats()


def _read_run(folder: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(folder, "run.json"), "rb") as file:
            found: dict[str, Any] = orjson.loads(file.read())
    except FileNotFoundError:
        return None  # the supervisor has just taken the lock
    return found


def _workers(folder: str, roles: dict[str, int], widths: dict[str, int]) -> list[WorkerStatus]:
    page = Board(os.path.join(folder, "board"))
    try:
        slots = iter(page.slots())
    finally:
        page.close()
    children = [(role, index) for role, count in roles.items() for index in range(count)]
    own = [(role, index, list(islice(slots, widths.get(role, 1)))) for role, index in children]
    return [_worker(role, index, found) for role, index, found in own if found]


def _worker(role: str, index: int, slots: list[Slot]) -> WorkerStatus:
    # The first says what the process has done; each says what it runs, at a time.
    slot = slots[0]
    running = [RunningJob(one.job, one.task, one.since) for one in slots if one.since and one.pid == slot.pid]
    running.sort(key=lambda job: job.since)
    job, task, since = (running[0].job, running[0].task, running[0].since) if running else (None, None, None)
    return WorkerStatus(
        role, index, slot.pid, _is_alive(slot.pid), slot.started, slot.done, slot.failed, slot.retried, slot.put,
        job, task, since, running,
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
