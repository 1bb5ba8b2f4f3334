"""The supervisor's rules, by feeding events and comparing instructions. No process, no clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pistributer.workers.supervision.decisions import (
    AskDrained,
    Begin,
    CodeChanged,
    Decisions,
    Drained,
    End,
    Event,
    Exited,
    Instruction,
    Kill,
    Overdue,
    Policy,
    Ready,
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
)
from pistributer.workers.supervision.roles import BOOT_EXIT, Cause, Key, Role

W0, W1, W2, W3, P0 = ("worker", 0), ("worker", 1), ("worker", 2), ("worker", 3), ("producer", 0)
POLICY = Policy(pause=0.1, longest=10.0, settle=5.0, tries=3, grace=10.0, ask=0.1)

KILLED = Cause("signal", 9)
EXITED = Cause("exit", 3)
FAILED = Cause("failed", text="ValueError: no")
BOOT = Cause("boot", text="no such module")
FINISHED = Cause("finished")
STOPPED = Cause("stopped")
RECYCLED = Cause("recycled", text="it has done its jobs")


def worker(child: object) -> None:
    """Never called: the decisions know roles by their names."""


def decisions(*, workers: int = 2, producers: int = 0, drains: bool = False, policy: Policy = POLICY) -> Decisions:
    roles = [Role("worker", worker, count=workers), Role("producer", worker, count=producers, ends=True)]
    return Decisions(roles, drains=drains, policy=policy, seed=1)


def feed(machine: Decisions, *events: Event) -> list[Instruction]:
    """What the last event is answered with, without the words."""
    answers: list[Instruction] = []
    for event in events:
        answers = machine.feed(event)
    return [answer for answer in answers if not isinstance(answer, Say)]


def running(*keys: Key) -> list[Event]:
    return [Begin(0.0), *(Spawned(key, 0.0) for key in keys), *(Ready(key, 0.0) for key in keys)]


UP = running(W0, W1)
WITH_PRODUCER = running(W0, P0)

TABLE: dict[str, tuple[dict[str, int | bool], Sequence[Event], list[Instruction]]] = {
    "every child is started": ({}, [Begin(0.0)], [Spawn(W0), Spawn(W1)]),
    "nothing to run ends at once": ({"workers": 0}, [Begin(0.0)], [End(0, "finished")]),
    "a child killed when ready comes back at once": ({}, [*UP, Exited(W0, KILLED, 1.0)], [Spawn(W0)]),
    "a child that left by os._exit when ready comes back at once": ({}, [*UP, Exited(W0, EXITED, 1.0)], [Spawn(W0)]),
    "a child told to stop by somebody else comes back at once": ({}, [*UP, Exited(W0, STOPPED, 1.0)], [Spawn(W0)]),
    "a child that raised waits": ({}, [*UP, Exited(W0, FAILED, 1.0)], []),
    "a child that raised comes back when its pause is over": (
        {}, [*UP, Exited(W0, FAILED, 1.0), Tick(1.2)], [Spawn(W0)],
    ),
    "a pause that is not over brings nothing": ({}, [*UP, Exited(W0, FAILED, 1.0), Tick(1.05)], []),
    "a child killed before it was ready waits": ({}, [Begin(0.0), Spawned(W0, 0.0), Exited(W0, KILLED, 0.1)], []),
    "a child killed twice in a row waits the second time": (
        {}, [*UP, Exited(W0, KILLED, 1.0), Spawned(W0, 1.0), Ready(W0, 1.0), Exited(W0, KILLED, 1.1)], [],
    ),
    "a child killed again after it had settled comes back at once": (
        {}, [*UP, Exited(W0, KILLED, 1.0), Spawned(W0, 1.0), Ready(W0, 1.0), Exited(W0, KILLED, 6.0)], [Spawn(W0)],
    ),
    "a process that could not be made is tried again later": (
        {}, [Begin(0.0), Exited(W0, Cause("spawn", text="no memory"), 0.0), Tick(0.2)], [Spawn(W0)],
    ),
    "a boot error stops the run at once": (
        {}, [*UP, Exited(W0, BOOT, 1.0)], [Terminate(W1)],
    ),
    "after a boot error the run ends with its code when the others have left": (
        {}, [*UP, Exited(W0, BOOT, 1.0), Exited(W1, STOPPED, 1.1)],
        [End(BOOT_EXIT, "boot", "worker[0] could not boot: no such module")],
    ),
    "a producer that ended does not come back": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, Exited(P0, FINISHED, 1.0)], [],
    ),
    "a producer that was killed comes back": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, Exited(P0, KILLED, 1.0)], [Spawn(P0)],
    ),
    "a producer stopped from outside is not done": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, Exited(P0, STOPPED, 1.0)], [Spawn(P0)],
    ),
    "when only producers run, the last one's end is the end": (
        {"workers": 0, "producers": 1}, [*running(P0), Exited(P0, FINISHED, 1.0)], [End(0, "finished")],
    ),
    "nobody asks whether the queues are empty while a producer runs": (
        {"producers": 1, "workers": 1, "drains": True}, [*WITH_PRODUCER, Tick(5.0)], [],
    ),
    "once the producers are done, somebody asks": (
        {"producers": 1, "workers": 1, "drains": True},
        [*WITH_PRODUCER, Exited(P0, FINISHED, 1.0), Tick(1.1)], [AskDrained()],
    ),
    "and asks again": (
        {"producers": 1, "workers": 1, "drains": True},
        [*WITH_PRODUCER, Exited(P0, FINISHED, 1.0), Tick(1.1), Tick(1.15), Tick(1.25)], [AskDrained()],
    ),
    "an app without producers is asked about from the start": (
        {"workers": 1, "drains": True}, [Begin(0.0), Tick(0.1)], [AskDrained()],
    ),
    "without anybody to answer, nobody is asked": ({"workers": 1}, [Begin(0.0), Tick(9.0)], []),
    "drained queues stop the rest": (
        {"producers": 1, "workers": 1, "drains": True},
        [*WITH_PRODUCER, Exited(P0, FINISHED, 1.0), Drained(1.2)], [Terminate(W0)],
    ),
    "a drained run ends well": (
        {"producers": 1, "workers": 1, "drains": True},
        [*WITH_PRODUCER, Exited(P0, FINISHED, 1.0), Drained(1.2), Exited(W0, STOPPED, 1.3)], [End(0, "drained")],
    ),
    "an early word of drained queues is ignored": (
        {"producers": 1, "workers": 1, "drains": True}, [*WITH_PRODUCER, Drained(1.0)], [],
    ),
    "a stop asks all to leave": ({}, [*UP, StopRequested("SIGTERM", 1.0)], [Terminate(W0), Terminate(W1)]),
    "a child that leaves while stopping does not come back, whatever killed it": (
        {}, [*UP, StopRequested("SIGTERM", 1.0), Exited(W0, KILLED, 1.1)], [],
    ),
    "a stopped run ends when the last has left": (
        {}, [*UP, StopRequested("SIGTERM", 1.0), Exited(W0, STOPPED, 1.1), Exited(W1, STOPPED, 1.2)],
        [End(0, "stopped")],
    ),
    "a second stop kills": (
        {}, [*UP, StopRequested("SIGTERM", 1.0), StopRequested("SIGTERM", 2.0)], [Kill(W0), Kill(W1)],
    ),
    "a third stop changes nothing": (
        {}, [*UP, *[StopRequested("SIGTERM", 1.0)] * 3], [],
    ),
    "a killed run says so": (
        {"workers": 1},
        [*running(W0), StopRequested("SIGINT", 1.0), StopRequested("SIGINT", 1.1), Exited(W0, KILLED, 1.2)],
        [End(130, "killed")],
    ),
    "a stop at once does not wait": (
        {}, [*UP, StopRequested("SIGQUIT", 1.0, at_once=True)],
        [Terminate(W0), Terminate(W1), Kill(W0), Kill(W1)],
    ),
    "a stop at once ends as killed": (
        {"workers": 1}, [*running(W0), StopRequested("SIGQUIT", 1.0, at_once=True), Exited(W0, KILLED, 1.2)],
        [End(130, "killed")],
    ),
    "a stop at once hurries one that has begun": (
        {}, [*UP, StopRequested("SIGTERM", 1.0), StopRequested("SIGQUIT", 2.0, at_once=True)], [Kill(W0), Kill(W1)],
    ),
    "who has not left when the grace is over is killed": (
        {}, [*UP, StopRequested("SIGTERM", 1.0), Exited(W0, STOPPED, 2.0), Tick(11.0)], [Kill(W1)],
    ),
    "nobody is killed before that": ({}, [*UP, StopRequested("SIGTERM", 1.0), Tick(10.9)], []),
    "a child in its pause is not waited for": (
        {"workers": 1}, [*running(W0), Exited(W0, FAILED, 1.0), StopRequested("SIGTERM", 1.01)], [End(0, "stopped")],
    ),
    "a process that appears after the stop is asked to leave": (
        {"workers": 1}, [Begin(0.0), StopRequested("SIGTERM", 0.1), Spawned(W0, 0.2)], [Terminate(W0)],
    ),
    "a process that appears after the second stop is killed": (
        {"workers": 1},
        [Begin(0.0), StopRequested("SIGTERM", 0.1), StopRequested("SIGTERM", 0.1), Spawned(W0, 0.2)], [Kill(W0)],
    ),
    "a reload asks workers to leave, not producers": (
        {"producers": 1}, [*running(W0, W1, P0), ReloadRequested(1.0)], [Terminate(W0), Terminate(W1)],
    ),
    "who leaves for a reload comes back at once": (
        {}, [*UP, ReloadRequested(1.0), Exited(W0, STOPPED, 1.1)], [Spawn(W0)],
    ),
    "a reload ends a pause": ({}, [*UP, Exited(W0, FAILED, 1.0), ReloadRequested(1.01)], [Spawn(W0), Terminate(W1)]),
    "who does not leave for a reload is killed when the grace is over": (
        {}, [*UP, ReloadRequested(1.0), Exited(W0, STOPPED, 1.1), Tick(11.0)], [Kill(W1)],
    ),
    "a stop during a reload is a stop": (
        {"workers": 1}, [*running(W0), ReloadRequested(1.0), StopRequested("SIGTERM", 1.1), Exited(W0, STOPPED, 1.2)],
        [End(0, "stopped")],
    ),
    "a change of the code stops all, producers too": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, CodeChanged(1.0)], [Terminate(W0), Terminate(P0)],
    ),
    "a run whose code has changed ends to begin anew": (
        {"workers": 1}, [*running(W0), CodeChanged(1.0), Exited(W0, STOPPED, 1.1)], [End(0, "changed")],
    ),
    "a stop meanwhile ends it for good, and lets work finish": (
        {"workers": 1}, [*running(W0), CodeChanged(1.0), StopRequested("SIGINT", 1.1), Exited(W0, STOPPED, 1.2)],
        [End(0, "stopped")],
    ),
    "only the stop after that kills": (
        {}, [*UP, CodeChanged(1.0), *[StopRequested("SIGINT", 1.1)] * 2], [Kill(W0), Kill(W1)],
    ),
    "a change of the code during a stop changes nothing": (
        {"workers": 1}, [*running(W0), StopRequested("SIGTERM", 1.0), CodeChanged(1.1), Exited(W0, STOPPED, 1.2)],
        [End(0, "stopped")],
    ),
    "a restart of one role asks its children to leave": (
        {"producers": 1}, [*UP, Restart("worker", 1.0)], [Terminate(W0), Terminate(W1)],
    ),
    "a restart of a producer by its name is one": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, Restart("producer", 1.0), Exited(P0, STOPPED, 1.1)], [Spawn(P0)],
    ),
    "a restart without a name leaves producers alone": (
        {"producers": 1, "workers": 1}, [*WITH_PRODUCER, Restart(None, 1.0)], [Terminate(W0)],
    ),
    "a role that grows gets what it lacks": ({}, [*UP, Scale("worker", 4, 1.0)], [Spawn(W2), Spawn(W3)]),
    "a role that shrinks has its last children leave": ({}, [*UP, Scale("worker", 1, 1.0)], [Terminate(W1)]),
    "who was too many does not come back": ({}, [*UP, Scale("worker", 1, 1.0), Exited(W1, STOPPED, 1.1)], []),
    "nor if it was killed": ({}, [*UP, Scale("worker", 1, 1.0), Exited(W1, KILLED, 1.1)], []),
    "nor does its boot error stop the run": ({}, [*UP, Scale("worker", 1, 1.0), Exited(W1, BOOT, 1.1)], []),
    "who is too many may take its time": ({}, [*UP, Scale("worker", 1, 1.0), Tick(1000.0)], []),
    "unless the run stops": (
        {}, [*UP, Scale("worker", 1, 1.0), StopRequested("SIGTERM", 2.0), Exited(W0, STOPPED, 2.1), Tick(12.1)], [Kill(W1)],
    ),
    "who is wanted again before it has left comes back": (
        {}, [*UP, Scale("worker", 1, 1.0), Scale("worker", 2, 1.1), Exited(W1, STOPPED, 1.2)], [Spawn(W1)],
    ),
    "who has left is made anew when it is wanted again": (
        {}, [*UP, Scale("worker", 1, 1.0), Exited(W1, STOPPED, 1.1), Scale("worker", 2, 1.2)], [Spawn(W1)],
    ),
    "a gap is filled": (
        {"workers": 3},
        [*running(W0, W1, W2), Scale("worker", 1, 1.0), Exited(W1, STOPPED, 1.1), Scale("worker", 4, 1.2)],
        [Spawn(W1), Spawn(W3)],
    ),
    "a child in its pause that is too many is forgotten": (
        {}, [*UP, Exited(W1, FAILED, 1.0), Scale("worker", 1, 1.01), Tick(60.0)], [],
    ),
    "a process that appears after it became too many is asked to leave": (
        {}, [Begin(0.0), Scale("worker", 1, 0.1), Spawned(W1, 0.2)], [Terminate(W1)],
    ),
    "the same size changes nothing": ({}, [*UP, Scale("worker", 2, 1.0)], []),
    "nothing grows while the run stops": ({}, [*UP, StopRequested("SIGTERM", 1.0), Scale("worker", 4, 1.1)], []),
    "a run ends when all that are wanted and all that are not have left": (
        {}, [*UP, Scale("worker", 1, 1.0), StopRequested("SIGTERM", 1.1), Exited(W1, STOPPED, 1.2), Exited(W0, STOPPED, 1.3)],
        [End(0, "stopped")],
    ),
    "who left to be recycled comes back at once": ({}, [*UP, Exited(W0, RECYCLED, 1.0)], [Spawn(W0)]),
    "and again": (
        {}, [*UP, *[Exited(W0, RECYCLED, 1.0), Spawned(W0, 1.0), Ready(W0, 1.0)] * 9, Exited(W0, RECYCLED, 1.0)], [Spawn(W0)],
    ),
    "who left to be recycled while the run stops stays away": (
        {"workers": 1}, [*running(W0), StopRequested("SIGTERM", 1.0), Exited(W0, RECYCLED, 1.1)], [End(0, "stopped")],
    ),
    "an end that is told twice counts once": ({}, [*UP, Exited(W0, FAILED, 1.0), Exited(W0, FAILED, 1.0)], []),
}  # fmt: skip


@pytest.mark.parametrize(("setup", "events", "expected"), [pytest.param(*row, id=name) for name, row in TABLE.items()])
def test_rule(setup: dict[str, int], events: Sequence[Event], expected: list[Instruction]) -> None:
    assert feed(decisions(**setup), *events) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", [FAILED, FINISHED, Cause("exit", 1)], ids=str)
def test_faults_of_its_own_in_a_row_are_fatal_and_stop_the_run(cause: Cause) -> None:
    machine = decisions()
    machine.feed(Begin(0.0))
    now = 0.0
    for _ in range(POLICY.tries - 1):
        assert feed(machine, Spawned(W0, now), Exited(W0, cause, now)) == []
        now += 60.0
        assert feed(machine, Tick(now)) == [Spawn(W0)]
    feed(machine, Spawned(W1, now))
    assert feed(machine, Spawned(W0, now), Exited(W0, cause, now)) == [Terminate(W1)]
    assert machine.state(W0) is State.FATAL
    (last,) = feed(machine, Exited(W1, STOPPED, now))
    assert last == End(1, "failed", f"worker[0] failed 3 times in a row; the last time it {cause}")


def test_a_child_whose_work_is_overdue_is_killed_and_comes_back_like_any_other() -> None:
    machine = decisions(workers=1)
    feed(machine, Begin(0.0), Spawned(W0, 0.0), Ready(W0, 0.1))
    assert feed(machine, Overdue(W0, "took too long", 1.0)) == [Kill(W0)]
    assert feed(machine, Exited(W0, KILLED, 1.1)) == [Spawn(W0)]
    assert feed(machine, Overdue(W0, "of the one before", 1.2)) == []  # not born yet


def test_a_child_that_is_killed_again_and_again_is_never_fatal() -> None:
    machine = decisions(workers=1)
    machine.feed(Begin(0.0))
    now = 0.0
    for _ in range(20):
        feed(machine, Spawned(W0, now), Ready(W0, now))
        answer = feed(machine, Exited(W0, KILLED, now))
        now += 60.0
        assert Spawn(W0) in [*answer, *feed(machine, Tick(now))]
    assert not machine.stopping


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    machine = decisions(workers=1, policy=Policy(pause=1.0, longest=8.0, tries=100))
    machine.feed(Begin(0.0))
    now, pauses = 0.0, []
    for _ in range(6):
        feed(machine, Spawned(W0, now), Exited(W0, EXITED, now))
        due = machine.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert feed(machine, Tick(now)) == [Spawn(W0)]
    for pause, plain in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * plain <= pause <= 1.25 * plain


def test_the_same_seed_gives_the_same_pauses() -> None:
    dues = []
    for _ in range(2):
        machine = decisions()
        feed(machine, *UP, Exited(W0, FAILED, 1.0))
        dues.append(machine.next_due())
    assert dues[0] == dues[1]


def test_without_grace_nobody_is_killed_by_the_clock() -> None:
    machine = decisions(policy=Policy(grace=None))
    feed(machine, *UP, StopRequested("SIGTERM", 1.0))
    assert machine.next_due() is None


def test_the_operator_is_told_how_a_child_died() -> None:
    machine = decisions()
    feed(machine, *UP)
    (said, _) = machine.feed(Exited(W0, Cause("signal", 9, peak_rss=7_900_000_000), 1.0))
    assert isinstance(said, Say)
    assert (said.action, said.key) == ("restart", W0)
    assert said.text == "worker[0] was killed by SIGKILL, peak memory 7900 MB; starting it again at once"


def test_an_event_costs_the_same_with_many_children() -> None:
    """Counting the children that an event looks at: the instructions and timers it makes, not the clock."""
    machine = decisions(workers=2000)
    machine.feed(Begin(0.0))
    for index in range(2000):
        machine.feed(Spawned(("worker", index), 0.0))
        machine.feed(Ready(("worker", index), 0.0))
    answers = [machine.feed(Exited(("worker", index), KILLED, 1.0)) for index in range(2000)]
    assert {len(answer) for answer in answers} == {2}
    assert machine.next_due() is None


class Rim(RuleBasedStateMachine):
    """A rim that carries out every instruction, in any order of events: no child is ever unaccounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = decisions(workers=3, producers=2, drains=True)
        self.unborn: set[Key] = set()
        self.alive: set[Key] = set()
        self.told: set[Key] = set()
        self.stops = 0
        self.end: End | None = None
        self.feed(Begin(0.0))

    def feed(self, event: Event) -> None:
        for instruction in self.machine.feed(event):
            self.carry_out(instruction)

    def carry_out(self, instruction: Instruction) -> None:
        assert self.end is None, "an instruction after the end"
        match instruction:
            case Spawn(key):
                assert key not in self.alive | self.unborn, "two processes for one child"
                self.unborn.add(key)
            case Terminate(key) | Kill(key):
                assert key in self.alive, "a signal to nobody"
                self.told.add(key)
            case End():
                assert not self.alive | self.unborn, "the end with children left"
                self.end = instruction

    @rule(step=st.sampled_from([0.0, 0.05, 1.0, 11.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.feed(Tick(self.now))

    @precondition(lambda self: self.unborn)
    @rule(data=st.data())
    def a_process_is_made(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.unborn)))
        self.unborn.remove(key)
        self.alive.add(key)
        self.feed(Spawned(key, self.now))

    @precondition(lambda self: self.unborn)
    @rule(data=st.data())
    def a_process_can_not_be_made(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.unborn)))
        self.unborn.remove(key)
        self.feed(Exited(key, Cause("spawn"), self.now))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_child_is_ready(self, data: st.DataObject) -> None:
        self.feed(Ready(data.draw(st.sampled_from(sorted(self.alive))), self.now))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), cause=st.sampled_from([KILLED, EXITED, FAILED, FINISHED, STOPPED, BOOT, RECYCLED]))
    def a_child_ends(self, data: st.DataObject, cause: Cause) -> None:
        key = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(key)
        self.told.discard(key)
        self.feed(Exited(key, cause, self.now))

    @rule()
    def a_stop(self) -> None:
        self.stops += 1
        self.feed(StopRequested("SIGTERM", self.now))

    @rule()
    def a_reload(self) -> None:
        self.feed(ReloadRequested(self.now))

    @rule()
    def a_change_of_the_code(self) -> None:
        self.feed(CodeChanged(self.now))

    @rule(role=st.sampled_from(["worker", "producer", None]))
    def a_restart(self, role: str | None) -> None:
        self.feed(Restart(role, self.now))

    @rule(count=st.integers(1, 6))
    def another_size(self, count: int) -> None:
        self.feed(Scale("worker", count, self.now))
        if not self.machine.stopping:
            wanted = {("worker", index) for index in range(count)}
            assert wanted <= set(self.machine.children())
            assert {key for key in self.alive if key[0] == "worker"} - wanted <= self.told

    @rule()
    def queues_are_drained(self) -> None:
        self.feed(Drained(self.now))

    @invariant()
    def every_child_is_accounted_for(self) -> None:
        assert set(self.machine.alive()) == self.alive | self.unborn
        if self.end is None and not self.alive | self.unborn:
            due = self.machine.next_due()
            assert due is not None, "nothing runs and nothing will"
            assert due >= self.now or self.machine.feed(Tick(self.now))

    @invariant()
    def while_stopping_every_living_child_was_told(self) -> None:
        if self.machine.stopping:
            assert self.alive <= self.told

    def teardown(self) -> None:
        """Two stops and the ends of all children always end the run."""
        for _ in range(2):
            self.feed(StopRequested("SIGTERM", self.now))
        for key in sorted(self.unborn):
            self.alive.add(key)
            self.feed(Spawned(key, self.now))
        self.unborn.clear()
        for key in sorted(self.alive):
            self.alive.remove(key)
            self.feed(Exited(key, KILLED, self.now))
        assert self.end is not None
        assert self.machine.over


TestRim = Rim.TestCase


@given(
    st.sampled_from(["finished", "stopped", "recycled", "failed", "boot", "exit", "signal", "spawn"]),
    st.integers(0, 200),
)
def test_every_cause_can_be_told(kind: str, code: int) -> None:
    assert str(Cause(kind, code, "why"))  # type: ignore[arg-type]
