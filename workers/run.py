"""`run(app)`: everything that an app defines, under one supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import filelock
import orjson

from pistributer import errors
from pistributer.queues.contract import Queue
from pistributer.storage.replacing import replace_file

from . import board, cancelling, deaths
from .app import App
from .consumers import consume
from .decisions import Say
from .excused import excused
from .loading import load_app, source_of
from .messages import find_fault
from .pools import Pool, plan
from .producers import produce
from .roles import Key, Role
from .scheduler import run_schedules
from .supervisor import Outcome, StartMethod, Supervisor
from .worker import work

_log = logging.getLogger("pistributer.supervisor")

#: Seconds between two looks for tickets that somebody has died over.
_SWEEP = 1.0
#: Seconds between two calls of `on_progress`, and between two looks at time limits and at jobs that were called off.
_PROGRESS = 0.2
#: Counting what is left may take up this part of the time: a file queue with a long backlog is read to be counted.
_SHARE = 0.05
#: … and for show it is done no more often than this, in seconds: an idle pool is to cost next to nothing.
_COUNT_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Rows that are delayed count as left."""

    #: Jobs and rows that ended, well or not, since the run began.
    done: int
    #: Of these, how many went to the dead letters.
    failed: int
    #: What waits or runs now.
    left: int

    @property
    def total(self) -> int:
        """What is known of so far; grows while producers produce."""
        return self.done + self.left


def run(
    app: App | str,
    *,
    processes: int | None = None,
    threads: int | None = None,
    concurrency: int | None = None,
    pools: Iterable[Pool] | None = None,
    until_empty: bool = False,
    start_method: StartMethod = "forkserver",
    grace: float | None = 10.0,
    on_event: Callable[[Say], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome:
    """Run the producers, tasks and consumers of `app` until told to stop.

    app          an App at the top level of a module, or where to find one: "FILE.py", "MODULE" or either with ":NAME"
    pools        which processes take from which queues; without them, each queue of tasks has a pool of its own. A queue
                 of tasks that no pool takes from is told as the event "unserved"
    processes    of each pool that does not say; as many as there are processors
    threads, concurrency
                 plain functions, and coroutines, that run at once in a process of each pool that does not say; see `Pool`
    until_empty  stop when the producers are done and nothing is left in any queue, delayed rows included; with `pools`,
                 in any queue that somebody takes from
    grace        seconds that a first TERM or INT lets running work have
    on_event     called with what happens to processes; else it is logged to "pistributer.supervisor"
    on_progress  called about five times a second

    Raises BootError if the app can not be loaded, has nothing to run, or is being run already, or if a pool is to take
    from a consumer's queue; ValueError for two pools of one name.
    """
    source = app if isinstance(app, str) else source_of(app)
    loaded = load_app(app) if isinstance(app, str) else app
    chosen = plan(loaded, pools, processes, threads, concurrency)
    return _Run(loaded, source, chosen, pools is not None, until_empty, on_event).supervise(
        start_method, grace, on_progress
    )


class _Run:
    def __init__(
        self,
        app: App,
        source: str,
        pools: list[Pool],
        only_pools: bool,
        until_empty: bool,
        on_event: Callable[[Say], object] | None,
    ) -> None:
        self.app = app
        self._pools = pools
        #: Whether queues that nobody takes from are no business of this run.
        self._only_pools = only_pools
        self.home = app.home
        self._board_path = os.path.join(self.home.run, "board")
        self._source = source
        self._until_empty = until_empty
        self._on_event = on_event
        #: How many children each role has, and how many slots of the board each of them.
        self._counts: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        #: Which queues the children of a role take from.
        self._queues_of: dict[str, tuple[str, ...]] = {}
        #: Children that are about to die of their time limit, and what to say of it.
        self._overdue: dict[Key, str] = {}
        self._called_off = cancelling.CalledOff(self.home.run)
        self._excused = excused(self.home.run)
        #: Jobs whose process was told that they were called off.
        self._interrupted: set[str] = set()
        self.roles = self._make_roles()
        self.home.create()

    def supervise(
        self,
        start_method: StartMethod,
        grace: float | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> Outcome:
        with run_lock(self.home.run, self.app.url):
            self._describe()
            self._gauge = _Gauge(board.Board(self._board_path), self._watched, self._held)
            self._tell_unserved()
            supervisor = Supervisor(
                self.roles, start_method=start_method, grace=grace, on_event=self._event,
                drained=self._gauge.drained if self._until_empty else None,
            )  # fmt: skip
            try:
                for hook in self.app.hooks:
                    hook.on_supervisor_start()
                with supervisor:
                    self._loop(supervisor, on_progress)
                for hook in self.app.hooks:
                    hook.on_supervisor_stop()
                return supervisor.outcome()
            finally:
                self._gauge.board.close()
                self.app.close()

    def _loop(self, supervisor: Supervisor, on_progress: Callable[[Progress], object] | None) -> None:
        limited = any(task.hard_time_limit for task in self.app.tasks.values())
        shown = sweep_at = 0.0
        while supervisor.step(_PROGRESS):
            if limited:
                self._end_overdue(supervisor)
            if cancelled := self._called_off.read():
                self._interrupt(supervisor, cancelled)
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + _SWEEP
                self._sweep()
            if on_progress and time.monotonic() - shown >= _PROGRESS:
                shown = time.monotonic()
                on_progress(self._gauge.progress())
        if on_progress:
            on_progress(self._gauge.progress(exact=True))

    def _sweep(self) -> None:
        """Put what was admitted by those who died since; see gate_tickets.py."""
        try:
            self.app.gate.sweep()
        except errors.PistributerError as error:  # a full disk, say: the next sweep tries again
            _log.warning("jobs that wait could not be sent on: %s", error)

    def _end_overdue(self, supervisor: Supervisor) -> None:
        """Have children killed whose task has reached its hard time limit."""
        now, pids = time.monotonic(), supervisor.pids()
        for key, slots in self._children():
            for slot in slots:
                if 0.0 < slot.deadline < now and key not in self._overdue and pids.get(key) == slot.pid:
                    self._overdue[key] = f"was killed because {slot.task} reached its hard time limit"
                    neighbours = [one.job for one in slots if one.since and one.job != slot.job and one.pid == slot.pid]
                    if neighbours:
                        self._excused.add(*neighbours)
                    supervisor.end_overdue(key, self._overdue[key])

    def _interrupt(self, supervisor: Supervisor, cancelled: frozenset[str]) -> None:
        """Signal the children that run jobs which were called off, each once."""
        pids = set(supervisor.pids().values())
        for slot in self._gauge.board.slots():
            if slot.since and slot.job in cancelled and slot.pid in pids and slot.job not in self._interrupted:
                self._interrupted.add(slot.job)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, cancelling.INTERRUPT)

    # -- roles

    def _make_roles(self) -> list[Role]:
        app = self.app
        roles = [self._role(f"producer {name}", produce, name, 1, ends=True) for name in app.producers]
        self._queues_of = {pool.role: tuple(pool.queues) for pool in self._pools}
        self._queues_of |= {f"consumer {it.name}": (it.queue,) for it in app.consumers.values()}
        roles += [self._role(pool.role, work, pool, pool.processes or 1, width=pool.width) for pool in self._pools]
        roles += [self._role(f"consumer {it.name}", consume, it.name, it.processes) for it in app.consumers.values()]
        if app.schedules:
            roles.append(self._role("scheduler", run_schedules, None, 1))
        if not roles:
            raise errors.BootError(f"{self._source!r} has nothing to run", hint="add a task, a producer or a consumer")
        return roles

    def _role(
        self,
        name: str,
        target: Callable[..., object],
        what: str | Pool | None,
        count: int,
        *,
        width: int = 1,
        ends: bool = False,
    ) -> Role:
        slot = self._slots()
        self._counts[name], self._widths[name] = count, width
        args = (self._source, self.app.url, *([] if what is None else [what]), self._board_path, slot)
        return Role(name, target, args, count, ends)

    def _slots(self) -> int:
        return sum(count * self._widths[name] for name, count in self._counts.items())

    def _children(self) -> Iterator[tuple[Key, list[board.Slot]]]:
        """Every child with its slots of the board."""
        slots = iter(self._gauge.board.slots())
        for role, count in self._counts.items():
            for index in range(count):
                yield (role, index), list(islice(slots, self._widths[role]))

    def _watched(self) -> list[Queue]:
        """The queues, with their lanes, that this run is to empty. Lanes come into being meanwhile."""
        return [self.app.queue(lane) for name in self._to_empty() for lane in self.home.lanes_of(name)]

    def _held(self) -> int:
        """The jobs that are in none of these queues yet."""
        return sum(self.app.gate.held(name) for name in self._to_empty())

    def _to_empty(self) -> list[str]:
        if self._only_pools:
            return sorted({queue for queues in self._queues_of.values() for queue in queues})
        return self.app.queue_names()

    def _tell_unserved(self) -> None:
        """Say which queues of tasks nobody takes from."""
        served = {queue for queues in self._queues_of.values() for queue in queues}
        of_tasks = {task.queue for task in self.app.tasks.values()}
        for name in sorted(set(self.app.queue_names()) - served):
            if name in of_tasks or self._holds_jobs(name):
                self._event(Say("unserved", f"no pool takes from the queue {name}: its jobs wait"))

    def _holds_jobs(self, name: str) -> bool:
        """Whether jobs were sent there; the first row tells."""
        for lane in self.home.lanes_of(name):
            for row in self.app.queue(lane).scan("ready", "claimed", "delayed"):
                return find_fault(row.value) is None
        return False

    def _describe(self) -> None:
        """Write down what runs, for `status`. The run's lock is held."""
        board.create(self._board_path, self._slots())
        deaths.shorten(self.home.run)
        cancelling.forget_all_but(self.home.run, self._jobs())
        self._excused.forget_all_but(self._jobs())
        record: dict[str, object] = {
            "pid": os.getpid(),
            "started": time.time(),
            "app": self._source,
            "roles": self._counts,
        }
        record["widths"] = {name: width for name, width in self._widths.items() if width > 1}
        replace_file(os.path.join(self.home.run, "run.json"), orjson.dumps(record) + b"\n", durable=False)

    def _jobs(self) -> Iterator[str]:
        """The ids of all jobs that have not ended."""
        yield from self.app.gate.parked()
        for name in self.app.lane_names():
            for row in self.app.queue(name).scan("ready", "claimed", "delayed"):
                if isinstance(row.value, dict) and "task" in row.value:
                    yield str(row.value.get("id"))

    # -- what the supervisor asks and tells

    def _event(self, said: Say) -> None:
        if said.key is not None and said.cause is not None and not said.cause.normal:
            self._note_death(said)
            self._wake_others(said.key[0])
        if self._on_event is not None:
            self._on_event(said)

    def _wake_others(self, role: str) -> None:
        """Have those who take from the same queues as the dead child take over at once."""
        for queue in self._queues_of.get(role, ()):
            for lane in self.home.lanes_of(queue):
                with contextlib.suppress(
                    errors.StorageError
                ):  # a full disk, say: they look by themselves, a little later
                    self.app.queue(lane).wake()

    def _note_death(self, said: Say) -> None:
        """Which job it was running: what makes a dead letter say why."""
        assert said.key is not None
        role, index = said.key
        overdue = self._overdue.pop(said.key, None)
        worker, cause = f"{role}[{index}]", overdue or str(said.cause)
        for slot in dict(self._children())[said.key]:
            if slot.since:
                deaths.note(self.home.run, worker=worker, pid=slot.pid, job=slot.job, task=slot.task, cause=cause)


class _Gauge:
    """How much is done and left."""

    def __init__(self, page: board.Board, queues: Callable[[], list[Queue]], held: Callable[[], int]) -> None:
        self.board = page
        self._queues = queues
        self._held = held
        #: The last measurement: what was left when so much was done, when it was, and when the next one is due.
        self._left = self._done = 0
        self._measured = self._due = 0.0
        #: What was settled when nothing was left, the last time that this was so.
        self._calm: int | None = None

    def progress(self, *, exact: bool = False) -> Progress:
        """Measured if that is due; else what was left, less what was done since."""
        if exact or time.monotonic() >= max(self._due, self._measured + _COUNT_AGAIN):
            self._measure()
        done, failed = self._ended()
        return Progress(done, failed, max(0, self._left - (done - self._done)))

    def drained(self) -> bool:
        """Whether nothing is left, seen twice with nothing settled between.

        One look is not enough: while it goes from queue to queue, a job may move behind its back, from one that it has
        yet to look at into one that it has looked at. Whoever moves it counts it on the board first.
        """
        if time.monotonic() < self._due:
            return False
        before = self._settled()
        self._measure()
        if self._left or before != self._settled():
            self._calm = None
            return False
        calm, self._calm = self._calm, before
        return calm == before

    def _measure(self) -> None:
        begun = time.monotonic()
        self._done, _ = self._ended()
        # First what is in no queue yet: by the time that the queues are counted, it may be in one.
        self._left = self._held() + sum(map(_left, self._queues()))
        self._measured = begun
        self._due = begun + (time.monotonic() - begun) / _SHARE

    def _ended(self) -> tuple[int, int]:
        """Jobs and rows that ended, and how many of them badly."""
        slots = self.board.slots()
        failed = sum(slot.failed for slot in slots)
        return failed + sum(slot.done for slot in slots), failed

    def _settled(self) -> int:
        return sum(slot.settled for slot in self.board.slots())


@contextlib.contextmanager
def run_lock(folder: str, url: str) -> Iterator[None]:
    """Hold the lock that one supervisor per app holds while it runs. BootError if another does."""
    lock = filelock.FileLock(os.path.join(folder, "run.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise errors.BootError(
            f"another supervisor is running the app of {url!r}",
            hint=f"`pistributer status {url}` shows it; stop it first, or give it more --processes",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _left(queue: Queue) -> int:
    stats = queue.stats()
    return stats.ready + stats.claimed + stats.delayed
