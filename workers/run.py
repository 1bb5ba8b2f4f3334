"""`run(app)`: everything that an app defines, under one supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pistributer import errors
from pistributer.queues.contract import Queue

from . import cancelling
from .app import App
from .execution.deaths import Deaths
from .execution.excused import excused, suspects
from .execution.orphans import Orphans
from .execution.overdue import Overdue
from .inspection import status
from .inspection.gauge import Gauge, Progress
from .loading import load_app, source_of
from .messages import find_fault, jobs_of
from .plan import parts_of, plan_pools
from .pools import Pool
from .reloading import Code, run_anew
from .supervision import runs
from .supervision.board import Slot
from .supervision.control_server import ControlServer
from .supervision.crew import Crew
from .supervision.decisions import Say
from .supervision.notify import Notifier
from .supervision.recycling import Recycle
from .supervision.roles import NEWS, Cause, Key
from .supervision.run_control import Commands
from .supervision.supervisor import Outcome, StartMethod, Supervisor, log_event

__all__ = ["Options", "Progress", "run"]

#: Seconds between two calls of `on_progress`, and between two looks at everything that no descriptor tells.
_PROGRESS = 0.2
#: … while nothing ends: an idle pool is to cost next to nothing.
_CALM = 0.4
#: A process whose hard time limit comes within so many seconds is asked where it is: when it has come, it is killed.
_ASK_BEFORE = 1.5 * _PROGRESS
#: Seconds between two looks for tickets that somebody has died over.
_SWEEP = 1.0

_log = logging.getLogger("pistributer.supervisor")


@dataclass(frozen=True)
class Options:
    """How an app is run; see `run`."""

    pools: list[Pool]
    #: Whether queues that nobody takes from are no business of this run.
    only_pools: bool
    until_empty: bool
    recycle: Recycle


def run(
    app: App | str,
    *,
    processes: int | tuple[int, int] | None = None,
    threads: int | None = None,
    concurrency: int | None = None,
    pools: Iterable[Pool] | None = None,
    until_empty: bool = False,
    start_method: StartMethod = "forkserver",
    preload: Iterable[str] = (),
    grace: float | None = 10.0,
    recycle_jobs: int | None = None,
    recycle_memory: int | None = None,
    reload: bool = False,
    on_event: Callable[[Say], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome:
    """Run the producers, tasks and consumers of `app` until told to stop.

    app          an App at the top level of a module, or where to find one: "FILE.py", "MODULE" or either with ":NAME"
    pools        which processes take from which queues; without them, each queue of tasks has a pool of its own. A queue
                 of tasks that no pool takes from is told as the event "unserved"
    processes    of each pool that does not say, or `(least, most)`: then what waits decides. As many as there are
                 processors. A size that was set by `scale` holds until another number is given here
    threads, concurrency
                 plain functions, and coroutines, that run at once in a process of each pool that does not say; see `Pool`
    until_empty  stop when the producers are done and nothing is left in any queue, delayed rows included; with `pools`,
                 in any queue that somebody takes from
    preload      modules to import once for all workers, which share that memory; they stay as they are when HUP brings new code
    grace        seconds that a first TERM or INT lets running work have
    recycle_jobs, recycle_memory
                 replace a consumer, or a worker of a pool that does not say, after so many rows or jobs, or when it has
                 so many bytes of resident memory
    reload       for development: begin anew when the app's code changes; what runs has `grace` seconds
    on_event     called with what happens to processes; else it is logged to "pistributer.supervisor"
    on_progress  called up to five times a second

    Several runs of one app, from one source or from several, share its queues; each producer runs in one of them, and each
    schedule. Raises BootError if the app can not be loaded or has nothing to run, or if a pool is to take from a
    consumer's queue; ValueError for two pools of one name, and for numbers that make no sense.
    """
    source = app if isinstance(app, str) else source_of(app)
    loaded = load_app(app) if isinstance(app, str) else app
    if preload and start_method == "spawn":
        raise ValueError("processes that are spawned share nothing, so there is nothing to preload")
    least, most = processes if isinstance(processes, tuple) else (processes, None)
    if most is not None and not 1 <= (least or 0) <= most:
        raise ValueError(f"processes are at least 1 and at most the second number, not {processes!r}")
    given = None if pools is None else list(pools)

    def start(app: App, code: Code | None = None) -> Outcome:
        chosen = plan_pools(
            app, given, processes=least, most=most, threads=threads, concurrency=concurrency,
            recycle_jobs=recycle_jobs, recycle_memory=recycle_memory,
        )  # fmt: skip
        options = Options(chosen, given is not None, until_empty, Recycle(recycle_jobs, recycle_memory))
        return _Run(app, source, options, on_event, code).supervise(start_method, preload, grace, on_progress)

    return run_anew(loaded, source, start, on_event or log_event) if reload else start(loaded)


class _Run:
    def __init__(
        self,
        app: App,
        source: str,
        options: Options,
        on_event: Callable[[Say], object] | None,
        code: Code | None,
    ) -> None:
        self.app = app
        self.home = app.home
        self._source = source
        self._options = options
        self._on_event = on_event or log_event
        self._code = code
        self._called_off = cancelling.CalledOff(self.home.run)
        self._excused = excused(self.home.run)
        self._overdue = Overdue(self._excused, ask_before=_ASK_BEFORE)
        self._suspects = suspects(self.home.run)
        #: Jobs whose process was told that they were called off.
        self._interrupted: set[str] = set()
        #: The paused queues because of which a run that waits for empty queues can not end, as they were last told.
        self._held_up: frozenset[str] = frozenset()
        self._notifier = Notifier()
        self._sweep_at = 0.0
        parts = parts_of(app, source, options.pools, options.recycle)
        self.home.create()
        self._premises = runs.Premises(self.home.run)
        self.crew = Crew(parts, self.home.run, self._premises)

    def supervise(
        self,
        start_method: StartMethod,
        preload: Iterable[str],
        grace: float | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> Outcome:
        with contextlib.ExitStack() as stack:
            stack.callback(self.app.close)
            stack.callback(self._premises.leave)
            self._premises.take(self._source, self.crew.seats, sorted(self._served() | set(self.app.queue_names())))
            self._tidy()
            self._deaths = Deaths(self._premises.board, self.app.open_history_log())
            stack.callback(self._deaths.close)
            self._orphans = Orphans(self.home.run, self._deaths, self._overdue)
            self._gauge = Gauge(self.home.run, self._premises.folder, self._watched, self.app.gate.held)
            stack.callback(self._gauge.close)
            supervisor = Supervisor(
                self.crew.roles(), start_method=start_method, preload=preload, grace=grace, on_event=self._event,
                examine=self._examine,
                drained=self._drained if self._options.until_empty else None,
            )  # fmt: skip
            self._tell_unserved()
            self.crew.begin(supervisor)
            stack.callback(self.crew.close)
            for hook in self.app.hooks:
                hook.on_supervisor_start()
            with supervisor, contextlib.ExitStack() as ends:
                self._loop(supervisor, [*self._duties(supervisor, ends, on_progress)])
            if on_progress is not None:
                on_progress(self._gauge.progress(exact=True))
            for hook in self.app.hooks:
                hook.on_supervisor_stop()
        return supervisor.outcome()

    def _loop(self, supervisor: Supervisor, duties: list[Callable[[], object]]) -> None:
        due, pause, settled = 0.0, _PROGRESS, 0
        limited = self._has_hard_limits()
        while supervisor.step(pause):
            if (now := time.monotonic()) >= due:
                for duty in duties:
                    duty()
                before, settled = settled, self._gauge.board.totals().settled
                pause = _PROGRESS if limited or self._overdue.expected or settled != before else _CALM
                due = now + pause

    def _has_hard_limits(self) -> bool:
        return any(task.hard_time_limit for task in self.app.tasks.values())

    def _duties(
        self,
        supervisor: Supervisor,
        ends: contextlib.ExitStack,
        on_progress: Callable[[Progress], object] | None,
    ) -> Iterator[Callable[[], object]]:
        """What to do five times a second, half as often while nothing ends, and what to end when the run does."""
        yield self._look_at_wishes
        yield lambda: self._deaths.look(self._running_slots(supervisor))
        yield self._sweep
        yield lambda: self._overdue.end(supervisor, self._slots)
        yield lambda: self._interrupt(supervisor)
        if self.crew.autoscales:
            yield self._follow_load
        if (code := self._code) is not None:
            yield lambda: supervisor.begin_anew() if code.look() else None
        if server := self._open_control(supervisor):
            ends.callback(server.close)
            yield server.look
        if self._notifier:
            ends.callback(self._notifier.close)
            yield lambda: self._notify(supervisor)
        if on_progress is not None:
            yield lambda: on_progress(self._gauge.progress())

    # -- duties

    def _look_at_wishes(self) -> None:
        try:
            self.crew.look()
        except (errors.StateError, errors.StorageError) as error:
            self._say("state", f"what operators asked for can not be read, so nothing changes: {error}")

    def _sweep(self) -> None:
        """Once a second, put what was admitted by those who died since (tickets/store.py), and end whom they left behind."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP
        try:
            self.app.gate.sweep()
        except errors.PistributerError as error:  # a full disk, say: the next sweep tries again
            _log.warning("jobs that wait could not be sent on: %s", error)
        try:
            for text in self._orphans.look():
                self._say("time_limit", text)
        except errors.PistributerError as error:
            _log.warning("workers of a dead supervisor could not be ended: %s", error)

    def _running_slots(self, supervisor: Supervisor) -> Iterator[Slot]:
        """Those of children that live."""
        for key, pid in supervisor.pids().items():
            yield from (slot for slot in self._slots(key) if slot.pid == pid)

    def _interrupt(self, supervisor: Supervisor) -> None:
        """Signal the children that run jobs which were called off, each once."""
        if not (cancelled := self._called_off.read()):
            return
        for key, pid in supervisor.pids().items():
            for slot in self._slots(key):
                if slot.since and slot.job in cancelled and slot.pid == pid and slot.job not in self._interrupted:
                    self._interrupted.add(slot.job)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, NEWS)

    def _follow_load(self) -> None:
        self._gauge.progress()
        self.crew.follow_load(self._gauge.ready, self._gauge.board, time.monotonic())

    def _open_control(self, supervisor: Supervisor) -> ControlServer | None:
        """Without it the run goes on: not every filesystem can hold a socket."""
        try:
            commands = Commands(self.crew, supervisor, self._gauge.board)
            return ControlServer(runs.control_folder(self._premises.folder), supervisor, commands.answer)
        except errors.StorageError as error:
            _log.warning("this run can not be controlled: %s", error)
            return None

    def _notify(self, supervisor: Supervisor) -> None:
        totals = self._gauge.board.totals()
        self._notifier.look(
            ready=supervisor.settled, stopping=supervisor.stopping and not supervisor.reloading,
            reloading=supervisor.reloading,
            status=f"{len(supervisor.pids())} processes, {totals.done} done, {totals.failed} failed",
        )  # fmt: skip

    def _drained(self) -> bool:
        if not self.crew.settled:
            return False  # a process that can not boot must be heard of, even if there was nothing for it to do
        if self._gauge.drained():
            return True
        paused = frozenset(queue for queue in self.crew.paused if self._gauge.ready.get(queue))
        if paused and sum(self._gauge.ready[queue] for queue in paused) == self._gauge.left and paused != self._held_up:
            self._held_up = paused
            names = ", ".join(sorted(paused))
            self._say("held_up", f"only paused queues have rows left: {names}; waiting until they are resumed")
        return False

    # -- what the supervisor tells

    def _tidy(self) -> None:
        status.note_run(self.home.run, self._source)
        # Else a job may move behind the back of the look at all of them.
        if self._premises.alone and not runs.left_behind(self.home.run):
            cancelling.forget_all_but(self.home.run, self._jobs())
            self._excused.forget_all_but(self._jobs())
            self._suspects.forget_all_but(self._jobs())

    def _jobs(self) -> Iterator[str]:
        """The ids of all jobs that have not ended, and of those that are yet to follow from one, or from a dead letter."""
        yield from self.app.gate.parked()
        yield from self.app.gate.awaited()
        for name in self.app.lane_names():
            for row in self.app.queue(name).scan():
                if find_fault(row.value) is None and (row.state != "dead" or "then" in row.value):
                    yield from jobs_of(row.value)

    def _say(self, action: str, text: str) -> None:
        self._on_event(Say(action, text))

    def _event(self, said: Say) -> None:
        if said.key is not None and said.cause is not None and not said.cause.normal:
            self._note_death(said)
            self._note_suspects(said.key)
            self._wake_others(said.key[0])
        if said.action == "reloading":
            self._notifier.reloads()
        self._on_event(said)

    def _wake_others(self, role: str) -> None:
        """Have those who take from the same queues as the dead child take over at once."""
        for lane in self._lanes(self.crew.queues_of.get(role, ())):
            with contextlib.suppress(errors.StorageError):  # a full disk, say: they look by themselves, a little later
                lane.wake()

    def _note_death(self, said: Say) -> None:
        """Which job it was running: what makes a dead letter say why."""
        assert said.key is not None
        assert said.cause is not None
        role, index = said.key
        rows_of = self.crew.queues_of[role][0] if role.startswith("consumer ") else None
        number = self.crew.seats[role].of(index)[0]
        for slot in self._slots(said.key):
            self._deaths.note(number, f"{role}[{index}]", slot, said.cause, rows_of)

    def _examine(self, key: Key, pid: int, cause: Cause) -> Cause:
        number = self.crew.seats[key[0]].of(key[1])[0]
        return self._deaths.examine(number, self._slots(key), cause, pid, self._overdue.reasons.pop(key, None))

    def _note_suspects(self, key: Key) -> None:
        running = [slot.job for slot in self._slots(key) if slot.since]
        if len(running) > 1:
            self._suspects.add(*running)

    def _slots(self, key: Key) -> list[Slot]:
        """What the child shows on the board."""
        role, index = key
        return self._gauge.board.of(self.crew.seats[role], index)

    # -- queues

    def _served(self) -> set[str]:
        """The queues that somebody takes from."""
        return {queue for queues in self.crew.queues_of.values() for queue in queues}

    def _lanes(self, queues: Iterable[str]) -> list[Queue]:
        return [self.app.queue(lane) for lanes in self.home.lanes(queues) for lane in lanes]

    def _watched(self) -> dict[str, list[Queue]]:
        """The queues that this run is to empty, with their lanes."""
        names = self._served() if self._options.only_pools else self.app.queue_names()
        return {name: self._lanes([name]) for name in names}

    def _tell_unserved(self) -> None:
        """Say which queues of tasks nobody takes from."""
        of_tasks = {task.queue for task in self.app.tasks.values()}
        for name in sorted(set(self.app.queue_names()) - self._served()):
            if name in of_tasks or self._holds_jobs(name):
                self._say("unserved", f"no pool takes from the queue {name}: its jobs wait")

    def _holds_jobs(self, name: str) -> bool:
        """Whether jobs were sent there; the first row tells."""
        for lane in self._lanes([name]):
            for row in lane.scan("ready", "claimed", "delayed"):
                return find_fault(row.value) is None
        return False
