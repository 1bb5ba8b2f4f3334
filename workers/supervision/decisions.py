"""The supervisor's decisions: events in, instructions out. No clock, no process, and chance comes from a seed.

The rim (`supervisor.py`) turns signals, pipes and clocks into events, feeds them here one by one, and carries out what
comes back. So every rule below is tested by feeding events, and the rim has none.

A child's states::

    BACKOFF ──Spawn──> STARTING ──Ready──> RUNNING ──Exited──> BACKOFF | DONE | FATAL
       ^                  │ Exited            │ stop, reload
       └──────────────────┘                   └──> STOPPING ──Exited──> DONE (stop) | STARTING (reload)

The rules:

* A child that ended abnormally comes back after a pause that doubles, with jitter; after it had run for `settle`
  seconds the count starts from zero. One that was killed, or left by `os._exit`, after it was ready comes back at once
  the first time: the fault is most often outside, or in the one task that it ran.
* A fault of its own (it died before it was ready, or its target raised or returned too early) counts towards FATAL;
  `tries` of them in a row stop the run with an error. A boot error stops the run at once: the next try would fail too.
* One dead child never stops the pool otherwise.
* A child whose work has reached its hard time limit is killed, and then treated like any that was.
* The first stop request lets children finish, and kills them after `grace` seconds; the second, or one that is to be
  carried out at once, kills them now.
* A change of the code stops the run as a first stop request does, so that it can begin anew; a stop request meanwhile is
  the first.
* A role may get more children or fewer while it runs. Those that are too many finish what they run, however long it
  takes, and are forgotten; if they are wanted again before that, they come back.
* A child that left to be recycled comes back at once, and nothing is held against it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass

from .events import (
    AskDrained,
    Begin,
    CodeChanged,
    Drained,
    End,
    Event,
    Exited,
    Instruction,
    Kill,
    Overdue,
    Policy,
    Ready,
    Reason,
    ReloadRequested,
    Restart,
    Say,
    Scale,
    Spawn,
    Spawned,
    State,
    StopRequested,
    Terminate,
    Tick,
)  # fmt: skip
from .roles import BOOT_EXIT, Cause, Key, Role

__all__ = [
    "AskDrained", "Begin", "CodeChanged", "Counts", "Decisions", "Drained", "End", "Event", "Exited", "Instruction", "Kill",
    "Overdue", "Policy", "Ready", "Reason", "ReloadRequested", "Restart", "Say", "Scale", "Spawn", "Spawned", "State",
    "StopRequested", "Terminate", "Tick",
]  # fmt: skip

_ALIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
_ENDED = frozenset({State.DONE, State.FATAL})


@dataclass(slots=True)
class _Child:
    key: Key
    ends: bool
    state: State = State.BACKOFF
    #: A Spawn was given, and the process does not exist yet.
    unborn: bool = False
    #: When it became ready; None before.
    ready_at: float | None = None
    #: Abnormal ends in a row; sets the pause.
    failures: int = 0
    #: Those of them that were its own fault; sets FATAL.
    faults: int = 0
    #: When BACKOFF ends, or when a STOPPING child is killed. Timers that say otherwise are stale.
    due: float | None = None
    #: Its role has become smaller: when its process ends it is forgotten.
    leaving: bool = False


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    restarts: int = 0
    deaths: int = 0


@dataclass(slots=True)
class _Stop:
    """Why the run is stopping."""

    exit_code: int
    reason: Reason
    error: str | None = None
    killing: bool = False


class Decisions:
    """All that a supervisor knows. `feed` it events in the order in which they happened.

    drains  whether AskDrained has anybody to answer it: then, once all ending roles are done, a Drained stops the rest
    """

    def __init__(
        self, roles: Iterable[Role], *, drains: bool = False, policy: Policy | None = None, seed: int | None = None
    ) -> None:
        self.policy = policy or Policy()
        self.counts = Counts()
        self._chance = random.Random(seed)
        roles = tuple(roles)
        #: How many children each role has; `_highest` how many it ever had, because those that leave may leave gaps.
        self._sizes = {role.name: role.count for role in roles}
        self._highest = dict(self._sizes)
        self._ends = {role.name: role.ends for role in roles}
        self._children = {
            (role.name, index): _Child((role.name, index), role.ends) for role in roles for index in range(role.count)
        }
        # Counters instead of scans, so that an event costs the same for 4 children and for 400.
        self._alive = 0
        self._unended = len(self._children)
        self._ending = sum(child.ends for child in self._children.values())
        self._drains = drains
        self._ask_at: float | None = None
        self._stop: _Stop | None = None
        self._over = False
        self._timers: list[tuple[float, Key]] = []

    def feed(self, event: Event) -> list[Instruction]:
        """What to do about `event`. Events about children that have ended already change nothing."""
        if self._over:
            return []
        match event:
            case Begin(now):
                return self._begin(now)
            case Spawned(key, now) if key in self._children:
                return self._spawned(self._children[key], now)
            case Ready(key, now) if key in self._children:
                return self._ready(self._children[key], now)
            case Exited(key, cause, now) if key in self._children:
                return self._exited(self._children[key], cause, now)
            case Overdue(key, text, _):
                return [Say("time_limit", f"{_name(key)} {text}", key), Kill(key)] if self._is_born(key) else []
            case StopRequested(by, now, at_once):
                return self._stop_requested(by, now, at_once)
            case CodeChanged(now):
                return self._code_changed(now)
            case ReloadRequested(now):
                return self._renew(None, "SIGHUP: every worker", now)
            case Restart(role, now):
                return self._renew(role, f"restart: {role or 'every worker'}", now)
            case Scale(role, count, now):
                return self._scale(role, count, now)
            case Drained(now):
                return self._drained(now)
            case Tick(now):
                return self._tick(now)
            case _:
                return []  # about a child that has left for good

    def next_due(self) -> float | None:
        """When the next Tick is wanted, by the clock of the events; None if nothing is waiting for time to pass."""
        times = [self._timers[0][0]] if self._timers else []
        if self._ask_at is not None:
            times.append(self._ask_at)
        return min(times, default=None)

    def state(self, key: Key) -> State:
        return self._children[key].state

    def children(self) -> list[Key]:
        """All children, those that are leaving included."""
        return list(self._children)

    def size(self, role: str) -> int:
        """How many children the role is to have."""
        return self._sizes[role]

    def alive(self) -> list[Key]:
        """The children that have, or are about to have, a process."""
        return [child.key for child in self._children.values() if child.state in _ALIVE]

    @property
    def stopping(self) -> bool:
        return self._stop is not None

    @property
    def changing(self) -> bool:
        """It stops to begin anew."""
        return self._stop is not None and self._stop.reason == "changed"

    @property
    def over(self) -> bool:
        """End has been given."""
        return self._over

    def _is_born(self, key: Key) -> bool:
        return key in self._children and _born(self._children[key])

    # -- starting

    def _begin(self, now: float) -> list[Instruction]:
        if not self._children:
            return self._end(0, "finished")
        spawns = [self._spawn(child) for child in self._children.values()]
        self._ask_later(now)
        return spawns

    def _spawn(self, child: _Child) -> Instruction:
        child.state, child.unborn, child.ready_at, child.due = State.STARTING, True, None, None
        self._alive += 1
        return Spawn(child.key)

    def _spawned(self, child: _Child, now: float) -> list[Instruction]:
        if not child.unborn:
            return []
        child.unborn = False
        if child.state is not State.STOPPING:
            return []
        # The stop came between the instruction and the process.
        if self._stop is not None and self._stop.killing:
            return [Kill(child.key)]
        child.state = State.STARTING
        told = self._tell_to_leave(child, now)
        child.due = None if child.leaving and self._stop is None else child.due
        return told

    def _ready(self, child: _Child, now: float) -> list[Instruction]:
        if child.state in _ALIVE and child.ready_at is None:
            child.ready_at = now
            child.state = State.RUNNING if child.state is State.STARTING else child.state
        return []

    # -- ending

    def _exited(self, child: _Child, cause: Cause, now: float) -> list[Instruction]:
        if child.state not in _ALIVE:
            return []
        was, child.unborn, child.due = child.state, False, None
        self._alive -= 1
        self.counts.deaths += not cause.normal
        if self._stop is not None:
            return self._left(child, cause)
        if child.leaving:
            self._forget(child)
            return _say_died(child, cause)
        if cause.kind == "recycled":
            child.failures = child.faults = 0
            return [Say("recycled", f"{_name(child.key)} {cause}", child.key), self._spawn(child)]
        if cause.kind == "boot":
            return self._fatal(child, cause, _Stop(BOOT_EXIT, "boot", f"{_name(child.key)} {cause}"), now)
        if child.ends and cause.kind == "finished":
            return self._done(child, now)
        if was is State.STOPPING:
            child.failures = child.faults = 0
            return [*_say_died(child, cause), self._spawn(child)]
        return self._restart(child, cause, now)

    def _left(self, child: _Child, cause: Cause) -> list[Instruction]:
        """It ended while the run is stopping: whatever the cause, it does not come back."""
        self._retire(child, State.DONE)
        return _say_died(child, cause) + self._end_if_last()

    def _done(self, child: _Child, now: float) -> list[Instruction]:
        self._retire(child, State.DONE)
        self._ask_later(now)
        return [Say("done", f"{_name(child.key)} is done", child.key), *self._end_if_last()]

    def _restart(self, child: _Child, cause: Cause, now: float) -> list[Instruction]:
        outside = child.ready_at is not None and cause.kind in ("signal", "exit", "stopped")
        if child.ready_at is not None and now - child.ready_at >= self.policy.settle:
            child.failures = child.faults = 0
        child.failures += 1
        child.faults = 0 if outside else child.faults + 1
        if child.faults >= self.policy.tries:
            error = f"{_name(child.key)} failed {child.faults} times in a row; the last time it {cause}"
            return self._fatal(child, cause, _Stop(1, "failed", error), now)
        self.counts.restarts += 1
        pause = 0.0 if outside and child.failures == 1 else self._pause(child.failures)
        return self._come_back(child, cause, pause, now)

    def _come_back(self, child: _Child, cause: Cause, pause: float, now: float) -> list[Instruction]:
        when = f"in {pause:.1f} s" if pause else "at once"
        said = Say("restart", f"{_name(child.key)} {cause}; starting it again {when}", child.key, cause)
        if not pause:
            return [said, self._spawn(child)]
        child.state = State.BACKOFF
        self._wake_at(child, now + pause)
        return [said]

    def _pause(self, failures: int) -> float:
        # Jitter keeps children that died together from coming back together.
        doubled = self.policy.pause * 2.0 ** min(failures - 1, 32)
        return min(doubled, self.policy.longest) * self._chance.uniform(0.75, 1.25)

    def _fatal(self, child: _Child, cause: Cause, stop: _Stop, now: float) -> list[Instruction]:
        self._retire(child, State.FATAL)
        return [Say(stop.reason, str(stop.error), child.key, cause), *self._begin_stop(stop, now)]

    def _retire(self, child: _Child, state: State) -> None:
        child.state = state
        self._unended -= 1
        self._ending -= child.ends

    def _end_if_last(self) -> list[Instruction]:
        if self._stop is not None:
            stop = self._stop
            return [] if self._alive else self._end(stop.exit_code, stop.reason, stop.error)
        return [] if self._unended else self._end(0, "finished")

    def _end(self, exit_code: int, reason: Reason, error: str | None = None) -> list[Instruction]:
        self._over = True
        return [End(exit_code, reason, error)]

    # -- stopping and reloading

    def _stop_requested(self, by: str, now: float, at_once: bool) -> list[Instruction]:
        if (self._stop is None or self.changing) and not at_once:
            text = f"{by}: finishing what runs in {self._alive} processes; again: stop now and give it back"
            return [Say("stopping", text), *self._begin_stop(_Stop(0, "stopped"), now)]
        if self._stop is None:
            stop = _Stop(130, "killed")
            return [*self._begin_stop(stop, now), *self._kill_all(stop, by)]
        return [] if self._stop.killing else self._kill_all(self._stop, by)

    def _code_changed(self, now: float) -> list[Instruction]:
        if self._stop is not None:
            return []
        said = Say("reloading", "the code has changed: what runs finishes, and the run begins anew")
        return [said, *self._begin_stop(_Stop(0, "changed"), now)]

    def _kill_all(self, stop: _Stop, by: str) -> list[Instruction]:
        stop.killing = True
        if stop.error is None:
            stop.reason, stop.exit_code = "killed", 130
        said = Say("killing", f"{by}: stopping now; what was running goes back to its queue")
        return [said, *(Kill(child.key) for child in self._children.values() if _born(child))]

    def _begin_stop(self, stop: _Stop, now: float) -> list[Instruction]:
        self._stop = stop
        self._ask_at = None
        told: list[Instruction] = []
        for child in self._children.values():
            told += self._tell_to_leave(child, now)
            if child.state is State.BACKOFF:
                self._retire(child, State.DONE)
        return told + self._end_if_last()

    def _tell_to_leave(self, child: _Child, now: float) -> list[Instruction]:
        if child.state not in _ALIVE:
            return []
        told_before, child.state = child.state is State.STOPPING, State.STOPPING
        if self.policy.grace is not None:
            self._wake_at(child, now + self.policy.grace)
        return [] if child.unborn or told_before else [Terminate(child.key)]

    def _renew(self, role: str | None, who: str, now: float) -> list[Instruction]:
        """New processes for one role, or for all but the ending ones, whose work would begin again."""
        if self._stop is not None:
            return []
        told: list[Instruction] = [Say("reloading", f"{who} finishes what it runs and starts afresh")]
        for child in self._children.values():
            if child.leaving or (child.ends if role is None else child.key[0] != role):
                continue
            if child.state is State.BACKOFF:
                told.append(self._spawn(child))
            elif child.state in _ALIVE and child.state is not State.STOPPING:
                told += self._tell_to_leave(child, now)
        return told

    # -- growing and shrinking

    def _scale(self, role: str, count: int, now: float) -> list[Instruction]:
        if self._stop is not None or self._sizes[role] == count:
            return []
        text = f"{role}: {count} instead of {self._sizes[role]} processes"
        told: list[Instruction] = [Say("scaled", text)]
        self._sizes[role] = count
        self._highest[role] = max(self._highest[role], count)
        for index in range(self._highest[role]):
            key = (role, index)
            told += self._add(key) if index < count else self._let_leave(key, now)
        return told

    def _add(self, key: Key) -> list[Instruction]:
        if key in self._children:
            self._children[key].leaving = False  # one that was about to leave comes back when it has
            return []
        child = self._children[key] = _Child(key, self._ends[key[0]])
        self._unended += 1
        self._ending += child.ends
        return [self._spawn(child)]

    def _let_leave(self, key: Key, now: float) -> list[Instruction]:
        child = self._children.get(key)
        if child is None or child.leaving:
            return []
        child.leaving = True
        if child.state not in _ALIVE:
            self._forget(child)
            return []
        told = self._tell_to_leave(child, now)
        child.due = None  # nobody waits for its place, so it may take its time
        return told

    def _forget(self, child: _Child) -> None:
        if child.state not in _ENDED:
            self._retire(child, State.DONE)
        del self._children[child.key]

    def _drained(self, now: float) -> list[Instruction]:
        if self._stop is not None or self._ending:
            return []
        return [Say("drained", "nothing is left to do"), *self._begin_stop(_Stop(0, "drained"), now)]

    # -- time

    def _ask_later(self, now: float) -> None:
        if self._drains and not self._ending and self._stop is None:
            self._ask_at = now + self.policy.ask

    def _wake_at(self, child: _Child, due: float) -> None:
        child.due = due
        heapq.heappush(self._timers, (due, child.key))

    def _tick(self, now: float) -> list[Instruction]:
        told: list[Instruction] = []
        while self._timers and self._timers[0][0] <= now:
            due, key = heapq.heappop(self._timers)
            child = self._children.get(key)
            if child is not None and child.due == due:
                child.due = None
                told += self._due(child)
        if self._ask_at is not None and self._ask_at <= now:
            self._ask_at = now + self.policy.ask
            told.append(AskDrained())
        return told

    def _due(self, child: _Child) -> list[Instruction]:
        if child.state is State.BACKOFF:
            return [self._spawn(child)]
        if not _born(child):
            return []
        text = f"{_name(child.key)} did not finish within {self.policy.grace:g} s; what it runs goes back to its queue"
        return [Say("grace_over", text, child.key), Kill(child.key)]


def _born(child: _Child) -> bool:
    return child.state in _ALIVE and not child.unborn


def _say_died(child: _Child, cause: Cause) -> list[Instruction]:
    return [] if cause.normal else [Say("died", f"{_name(child.key)} {cause}", child.key, cause)]


def _name(key: Key) -> str:
    return f"{key[0]}[{key[1]}]"
