"""The rim around `decisions`: it makes processes, sends signals, waits, and reads the clock. It decides nothing.

One selector holds everything that can happen: a process's end (its pidfd, or what its start method offers instead), the
pipe on which all children report, and the pipe into which signals are written. It is kept, not built anew per wait, so
that an event costs the same with 4 children and with 400. There are no threads.

A signal handler may run at any instruction, so it does nothing: Python writes the signal's number to a wake-up socket,
and the loop reads it there.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Literal

from . import decisions, preloading
from .child import child_main
from .decisions import State
from .processes import (
    STOPS,
    HasFileno,
    Rim,
    Running,
    allow_descriptors,
    cause_of,
    main_module_hidden,
    needs_main,
    reap,
    signals_held_back,
)  # fmt: skip
from .roles import Cause, Key, Role

StartMethod = Literal["forkserver", "spawn", "fork"]

_log = logging.getLogger("pistributer.supervisor")

#: What the fork server imports once, so that its children need not.
_PRELOAD = ("pistributer.workers.supervision.child",)
_PRELOADING = "pistributer.workers.supervision.preloading"

_children_of_multiprocessing: set[BaseProcess] = getattr(multiprocessing.process, "_children", set())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    exit_code  0: finished, drained or stopped in good order; 1: a child failed again and again; 78: one could not boot;
               130: stopped at once
    error      what made the run fail
    restarts   how often a child was started again
    deaths     how many children ended abnormally, those that were killed at the end included
    """

    exit_code: int
    reason: decisions.Reason
    error: str | None = None
    restarts: int = 0
    deaths: int = 0


class Supervisor:
    """Runs the children of `roles` and keeps them running, until they are done or a stop is asked for.

    start_method  "forkserver" (the default), "spawn" or "fork". Under the first two the roles' targets and arguments
                  travel by pickle, so targets are module-level functions.
    preload       names of modules that are imported once for all children, which then share that memory; BootError at
                  the start if there is none of that name. Not under "spawn", where nothing is shared
    grace         seconds that children may take to finish after the first stop request; None: no limit
    policy        the other numbers: pauses, tries
    seed          for the jitter of restarts
    on_event      called with each `decisions.Say`; without it they are logged to "pistributer.supervisor"
    examine       called as `examine(key, pid, cause)` with each child that ended; may return a cause that says more
    drained       called between events once all ending roles are done; when it returns true, the rest is stopped

    `run()` does everything. A caller with a loop of its own uses `start()`, `step()` and `close()` (or `with`). TERM
    and INT ask for a stop, QUIT for one at once, and HUP for a reload, if the supervisor runs in the main thread;
    `request_stop()` works from any.
    """

    def __init__(
        self,
        roles: Iterable[Role],
        *,
        start_method: StartMethod = "forkserver",
        preload: Iterable[str] = (),
        grace: float | None = 10.0,
        policy: decisions.Policy | None = None,
        seed: int | None = None,
        on_event: Callable[[decisions.Say], object] | None = None,
        examine: Callable[[Key, int, Cause], Cause] | None = None,
        drained: Callable[[], bool] | None = None,
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._policy = policy or decisions.Policy(grace=grace)
        self._decisions = decisions.Decisions(
            self._roles.values(), drains=drained is not None, policy=self._policy, seed=seed
        )
        self._context = multiprocessing.get_context(start_method)
        targets = {role.target.__module__ for role in self._roles.values()} - {"__main__"}
        self._targets = sorted(targets)
        self._preload = list(preload)
        self._need_main = {role.name for role in self._roles.values() if needs_main(role)}
        self._on_event = on_event or log_event
        self._examine = examine
        self._drained = drained
        self._running: dict[Key, Running] = {}
        self._instructions: deque[decisions.Instruction] = deque()
        self._carrying_out = False
        self._end: decisions.End | None = None
        self._rim: Rim | None = None

    # -- for the caller

    def run(self) -> Outcome:
        """Supervise until the end. Whatever happens, no child is left behind."""
        with self:
            while self.step():
                pass
        return self.outcome()

    def start(self) -> None:
        """Start all children. Raises TooManyOpenFiles if there can not be so many."""
        if self._rim is not None:
            raise RuntimeError("this supervisor was started before")
        allow_descriptors(len(self._decisions.children()))
        self._prepare_start_method()
        self._rim = Rim(self._context)
        self._feed(decisions.Begin(time.monotonic()))

    def step(self, timeout: float | None = None) -> bool:
        """Wait for something to happen, `timeout` seconds at most, and see to it. False when the run is over."""
        if self._end is not None:
            return False
        for what, seen in self._require_rim().wait(self._nap(timeout)):
            match what:
                case "signal":
                    self._signals(seen)
                case "report":
                    self._reports()
                case call if callable(call):
                    call()
                case key:
                    self._exited(key)
        self._feed(decisions.Tick(time.monotonic()))
        return self._end is None

    def request_stop(self) -> None:
        """As TERM does: the first call lets children finish, the second kills them. From any thread."""
        self._require_rim().note(signal.SIGTERM)

    def end_overdue(self, key: Key, text: str) -> None:
        """Kill a child whose work has reached its hard time limit; `text` says so. It is started again like any other."""
        self._feed(decisions.Overdue(key, text, time.monotonic()))

    def reload(self) -> None:
        """As HUP does: every worker finishes what it runs, and a new process takes its place."""
        self._feed(decisions.ReloadRequested(time.monotonic()))

    def begin_anew(self) -> None:
        """Stop in good order, because the code has changed; the outcome's reason is "changed" if nobody stops it meanwhile."""
        self._feed(decisions.CodeChanged(time.monotonic()))

    def restart(self, role: str) -> None:
        """The same for the children of one role. KeyError if there is no such role."""
        self._feed(decisions.Restart(self._roles[role].name, time.monotonic()))

    def scale(self, role: str, count: int) -> None:
        """Have `count` children of `role` from now on, at least 1. Those that are too many finish what they run and leave.

        KeyError if there is no such role, TooManyOpenFiles if there can not be so many.
        """
        if count < 1:
            raise ValueError(f"a role has at least one process, not {count}")
        allow_descriptors(len(self._decisions.children()) + max(0, count - self.size(role)))
        self._feed(decisions.Scale(role, count, time.monotonic()))

    def size(self, role: str) -> int:
        """How many children the role has, or is about to have."""
        return self._decisions.size(role)

    def stop(self, *, now: bool = False) -> None:
        """Let children finish, or kill them `now`. From the thread that takes the steps; twice is as once."""
        for wanted in (not self.stopping or self._decisions.changing, now):
            if wanted:
                self._feed(decisions.StopRequested("stop", time.monotonic()))

    @property
    def settled(self) -> bool:
        """Whether every child is set up, or done."""
        return all(state in (State.RUNNING, State.DONE) for state in self.states().values())

    @property
    def reloading(self) -> bool:
        """Whether some child is about to be replaced."""
        return self._decisions.changing or (not self.stopping and State.STOPPING in self.states().values())

    @property
    def stopping(self) -> bool:
        """Whether the run is on its way to its end."""
        return self._decisions.stopping

    def attach(self, thing: HasFileno, call: Callable[[], object], *, write: bool = False) -> None:
        """Have `step` call `call()` whenever `thing` is readable (`write`: writable). May be called again to change it."""
        self._require_rim().attach(thing, call, write=write)

    def detach(self, thing: HasFileno) -> None:
        """No longer. What is not attached is passed over."""
        self._require_rim().detach(thing)

    def pids(self) -> dict[Key, int]:
        """The process id of each living child, by `(role name, index)`."""
        return {key: running.pid for key, running in self._running.items()}

    def states(self) -> dict[Key, decisions.State]:
        """The state of every child."""
        return {key: self._decisions.state(key) for key in self._decisions.children()}

    def outcome(self) -> Outcome:
        """How the run ended. RuntimeError before it has."""
        if self._end is None:
            raise RuntimeError("the run is not over")
        counts = self._decisions.counts
        return Outcome(self._end.exit_code, self._end.reason, self._end.error, counts.restarts, counts.deaths)

    def close(self) -> None:
        """Kill what still runs, and give back signals and descriptors. Closing twice is fine."""
        if self._rim is None:
            return
        # Perhaps it is because the caller's listener raised that we are here.
        self._on_event = log_event
        try:
            for _ in range(2):
                self._feed(decisions.StopRequested("closing", time.monotonic()))
            while self.step():
                pass
        finally:
            self._rim.close()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- events in

    def _nap(self, timeout: float | None) -> float | None:
        """How long to sleep: until something is due, or as long as the caller allows."""
        due = self._decisions.next_due()
        if due is None:
            return timeout
        left = max(0.0, due - time.monotonic())
        return left if timeout is None else min(left, timeout)

    def _signals(self, numbers: bytes) -> None:
        now = time.monotonic()
        for number in numbers:
            if number in STOPS:
                at_once = number == signal.SIGQUIT
                self._feed(decisions.StopRequested(signal.Signals(number).name, now, at_once))
            elif number == signal.SIGHUP:
                self._feed(decisions.ReloadRequested(now))

    def _reports(self) -> None:
        for role, index, what, text, peak in self._require_rim().reports():
            key, now = (role, index), time.monotonic()
            if what == "ready":
                self._feed(decisions.Ready(key, now))
            elif key in self._running:
                self._running[key].farewell = Cause(what, text=text, peak_rss=peak)

    def _exited(self, key: Key) -> None:
        running = self._running.get(key)
        if running is None:
            return
        # What it reported before it died is in the pipe by now, and counts.
        self._reports()
        running = self._running.pop(key)
        self._require_rim().unwatch(running)
        code = reap(running.process)
        farewell = running.farewell
        cause = farewell if farewell is not None and code >= 0 else cause_of(code)
        if self._examine is not None:
            cause = self._examine(key, running.pid, cause)
        self._feed(decisions.Exited(key, cause, time.monotonic()))

    # -- instructions out

    def _feed(self, event: decisions.Event) -> None:
        """Carry out what the decisions answer. What is answered to events meanwhile comes after it."""
        self._instructions.extend(self._decisions.feed(event))
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while self._instructions:
                self._carry_out(self._instructions.popleft())
        finally:
            self._carrying_out = False

    def _carry_out(self, instruction: decisions.Instruction) -> None:
        match instruction:
            case decisions.Spawn(key):
                self._spawn(key)
            case decisions.Terminate(key):
                self._send(key, signal.SIGTERM)
            case decisions.Kill(key):
                self._send(key, signal.SIGKILL)
            case decisions.AskDrained():
                if self._drained is not None and self._drained():
                    self._feed(decisions.Drained(time.monotonic()))
            case decisions.Say():
                self._on_event(instruction)
            case decisions.End():
                self._end = instruction

    def _spawn(self, key: Key) -> None:
        rim, role = self._require_rim(), self._roles[key[0]]
        inherited = rim.own_ends if self._context.get_start_method() == "fork" else ()
        arguments = (*key, role.target, role.args, rim.report_end, rim.lifeline_end, inherited)
        process = self._context.Process(target=child_main, args=arguments, name=f"{key[0]}[{key[1]}]")  # type: ignore[attr-defined]
        try:
            with signals_held_back(), main_module_hidden(role.name not in self._need_main):
                process.start()
        except (OSError, EOFError) as error:
            self._feed(decisions.Exited(key, Cause("spawn", text=str(error)), time.monotonic()))
            return
        # Else each start would poll all children that were started before: seconds, with 364 of them.
        _children_of_multiprocessing.discard(process)
        self._running[key] = rim.watch(key, process, self._context.get_start_method())
        self._feed(decisions.Spawned(key, time.monotonic()))

    def _send(self, key: Key, number: int) -> None:
        if key in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running[key].pid, number)

    # -- set-up

    def _prepare_start_method(self) -> None:
        # Started here, because starting it unblocks the signals that `signals_held_back` blocks around a start.
        resource_tracker.ensure_running()
        method = self._context.get_start_method()
        if method == "forkserver":
            self._context.set_forkserver_preload([*_PRELOAD, *self._targets, *([_PRELOADING] if self._preload else [])])
        if self._preload:
            self._prepare_preload(method)

    def _prepare_preload(self, method: str) -> None:
        wanted = preloading.describe(self._preload)
        if method == "fork":
            for name in self._preload:
                importlib.import_module(name)
        elif method == "forkserver":
            os.environ[preloading.VARIABLE] = wanted
            try:
                with signals_held_back():  # its children inherit that
                    forkserver.ensure_running()
            finally:
                del os.environ[preloading.VARIABLE]

    def _require_rim(self) -> Rim:
        if self._rim is None:
            raise RuntimeError("call start() first")
        return self._rim


def log_event(said: decisions.Say) -> None:
    _log.info(said.text, extra={"action": said.action, "child": said.key})
