"""The life-cycle matrix: signals to every kind of process, once, twice and past the grace, while jobs misbehave.

However a run ends, no process is left, no lock is held, nothing is claimed, and every job is done, dead or back in its
queue; what is back comes again. A part of the matrix runs here; the whole of it, a quarter of an hour:

    PISTRIBUTER_LIFE_CYCLE=full python -m pytest -q tests/test_life_cycle.py
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import Literal, get_args

import pytest

from tests.life_cycle import Kind, Scene, Victim
from tests.worker_tools import APP_DRIVERS, wait_for

FULL = os.environ.get("PISTRIBUTER_LIFE_CYCLE") == "full"
SIGNALS = (SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGKILL)
When = Literal["once", "twice", "past the grace"]
#: How the run ends that is sent these, and with which exit code.
OUTCOMES = {
    (SIGTERM, "once"): ("stopped", 0),
    (SIGINT, "once"): ("stopped", 0),
    (SIGTERM, "past the grace"): ("stopped", 0),
    (SIGINT, "past the grace"): ("stopped", 0),
    (SIGTERM, "twice"): ("killed", 130),
    (SIGINT, "twice"): ("killed", 130),
    (SIGQUIT, "once"): ("killed", 130),
    (SIGQUIT, "twice"): ("killed", 130),
}


@dataclass(frozen=True)
class Case:
    victim: Victim
    signal: signal.Signals
    when: When = "once"
    kind: Kind = "waits"
    driver: str = "jsonl"

    def __str__(self) -> str:
        return f"{self.signal.name} {self.when} to {self.victim}, a job {self.kind}, {self.driver}"

    @property
    def outcome(self) -> tuple[str, int] | None:
        """How the run ends by this, if it does in good order."""
        return OUTCOMES.get((self.signal, self.when)) if self.victim == "supervisor" else None


def matrix() -> Iterator[Case]:
    for victim, number, kind, driver in itertools.product(get_args(Victim), SIGNALS, get_args(Kind), APP_DRIVERS):
        if victim == "fork server" and number != SIGKILL:
            continue  # it is part of the machinery, and has handlers of its own
        yield Case(victim, number, "once", kind, driver)
        yield Case(victim, number, "twice", kind, driver)
        if victim == "supervisor" and number in (SIGTERM, SIGINT, SIGHUP):
            yield Case(victim, number, "past the grace", kind, driver)


SAMPLE = [
    Case("supervisor", SIGTERM, driver="sqlite"),
    Case("supervisor", SIGINT, kind="forks"),
    Case("supervisor", SIGQUIT),
    Case("supervisor", SIGHUP, kind="exits"),
    Case("supervisor", SIGKILL),
    Case("supervisor", SIGKILL, "twice", "forks", "sqlite"),
    Case("supervisor", SIGTERM, "twice", "forks"),
    Case("supervisor", SIGTERM, "past the grace", "forks"),
    Case("supervisor", SIGHUP, "past the grace", driver="sqlite"),
    Case("worker", SIGTERM),
    Case("worker", SIGQUIT),
    Case("worker", SIGINT, "twice", "eats"),
    Case("worker", SIGKILL, "once", "forks"),
    Case("worker", SIGKILL, "twice", "forks", "sqlite"),
    Case("producer", SIGTERM),
    Case("producer", SIGKILL, "twice"),
    Case("fork server", SIGKILL, "once", "forks"),
]


@pytest.mark.parametrize("case", list(matrix()) if FULL else SAMPLE, ids=str)
def test_a_run_that_is_sent_signals_leaves_nothing_behind(tmp_path: Path, case: Case) -> None:
    with Scene(tmp_path, case.driver, grace=0.3 if case.when == "past the grace" else 20.0) as scene:
        scene.start()
        scene.wait_until_up()
        number = scene.send(case.kind)
        strike(scene, case)
        if case.when != "past the grace" and case.outcome != ("killed", 130):
            scene.calm()
        end(scene, case)
        scene.assert_settled()
        assert_as_expected(scene, case, number)
        scene.assert_drains()
        assert_nothing_doubled(scene, case, number)


def strike(scene: Scene, case: Case) -> None:
    struck = scene.strike(case.victim, case.signal)
    if case.when == "twice" and (case.signal, case.victim) == (SIGKILL, "supervisor"):
        scene.supervisor.process.wait()
        scene.start()
        scene.wait_until_up()
    elif case.when == "twice" and case.signal == SIGKILL:
        wait_for(lambda: scene.pid_of(case.victim) != struck)
        if case.victim == "worker" and case.kind in ("waits", "forks"):
            wait_for(lambda: len(scene.begun(max(scene.sent))) == 2)
    if case.when == "twice":
        # Two of the same that come at once are one to the kernel.
        again = SIGTERM if case.signal == SIGINT else SIGINT if case.signal == SIGTERM else case.signal
        scene.strike(case.victim, again)


def end(scene: Scene, case: Case) -> None:
    """Have the run end, if it does not by itself, and see how."""
    if case.victim == "supervisor" and case.signal == SIGKILL:
        scene.supervisor.process.wait()
        return
    if case.outcome is None:
        if case.when == "past the grace":
            wait_for(lambda: len(scene.begun(max(scene.sent))) > 1 or case.kind == "eats")
            scene.calm()
        wait_for(lambda: scene.ended().keys() | scene.numbers("dead") == scene.sent)
        scene.supervisor.signal(SIGTERM)
    outcome, _ = scene.supervisor.outcome()
    assert (outcome["reason"], outcome["exit_code"]) == (case.outcome or ("stopped", 0))


def assert_as_expected(scene: Scene, case: Case, number: int) -> None:
    """What this signal in particular is for."""
    if case.kind == "waits" and case.victim == "supervisor":
        finishes = case.signal in (SIGTERM, SIGINT) and case.when == "once"
        if finishes or case.signal in (SIGHUP, SIGKILL):
            assert scene.ended()[number] == 1, "what runs is let finish"
        else:
            assert number in scene.numbers("ready"), "what runs goes back"
    if case.victim == "worker" and case.signal == SIGQUIT and case.kind == "waits":
        assert "in wait_for_calm" in scene.supervisor.output()
        assert len(scene.begun(number)) == 1
    if case.victim == "worker" and case.signal == SIGKILL and case.kind in ("waits", "forks"):
        assert len(set(scene.begun(number))) == len(scene.begun(number)) == (3 if case.when == "twice" else 2)


def assert_nothing_doubled(scene: Scene, case: Case, number: int) -> None:
    """A job came to its end twice only if a process was killed meanwhile, and a job of which there are too many is dead."""
    kills = case.signal == SIGKILL or case.when == "past the grace" or case.outcome == ("killed", 130)
    if not kills and case.kind != "exits":
        assert set(scene.ended().values()) == {1}
        assert set(scene.collected().values()) == {1}
    if case.kind == "exits":
        (why,) = scene.why_dead()
        assert "WorkerDied" in why
        assert len(scene.begun(number)) <= 3
    elif case.kind == "eats":
        assert all("MemoryError" in why or "WorkerDied" in why for why in scene.why_dead())
    else:
        assert scene.why_dead() == []
