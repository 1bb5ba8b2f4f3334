"""The supervisor with real processes: nobody is lost, nobody is left behind, and each death has a cause."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer.workers.supervision.decisions import Policy, Say, State
from pistributer.workers.supervision.roles import BOOT_EXIT, Key, Role
from pistributer.workers.supervision.supervisor import StartMethod, Supervisor
from tests import worker_targets as targets
from tests.worker_tools import environment, is_alive, is_gone, wait_for

METHODS: list[StartMethod] = ["forkserver", "spawn", "fork"]
QUICK = Policy(pause=0.01, longest=0.05, settle=5.0, tries=3, grace=10.0)


@pytest.fixture(params=METHODS)
def start_method(request: pytest.FixtureRequest) -> StartMethod:
    method: StartMethod = request.param
    return method


class Watched:
    """A supervisor that is stepped until a condition holds, and what it said."""

    def __init__(self, *roles: Role, **options: Any) -> None:
        self.said: list[Say] = []
        options.setdefault("policy", QUICK)
        self.supervisor = Supervisor(roles, on_event=self.said.append, **options)

    def until(self, condition: Callable[[], object]) -> None:
        wait_for(condition, self.supervisor.step)

    def until_running(self) -> None:
        self.until(lambda: set(self.supervisor.states().values()) <= {State.RUNNING, State.DONE})

    def until_over(self) -> None:
        self.until(lambda: not self.supervisor.step(0.01))

    def actions(self) -> list[str]:
        return [said.action for said in self.said]

    def text_of(self, action: str) -> str:
        return next(said.text for said in self.said if said.action == action)


@contextlib.contextmanager
def watched(*roles: Role, **options: Any) -> Iterator[Watched]:
    watch = Watched(*roles, **options)
    with watch.supervisor:
        yield watch


def test_ending_children_end_the_run(tmp_path: Path, start_method: StartMethod) -> None:
    role = Role("p", targets.note_and_end, (str(tmp_path),), count=3, ends=True)
    outcome = Supervisor([role], start_method=start_method).run()
    assert (outcome.exit_code, outcome.reason, outcome.restarts, outcome.deaths) == (0, "finished", 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p-0", "p-1", "p-2"]


def test_a_killed_child_is_replaced_and_the_others_stay(start_method: StartMethod) -> None:
    with watched(Role("w", targets.stay, count=3), start_method=start_method) as watch:
        watch.until_running()
        before = watch.supervisor.pids()
        os.kill(before["w", 1], signal.SIGKILL)
        watch.until(lambda: watch.supervisor.pids().get(("w", 1), before["w", 1]) != before["w", 1])
        watch.until_running()
        after = watch.supervisor.pids()
        assert {key for key in before if before[key] != after[key]} == {("w", 1)}
        assert watch.text_of("restart") == "w[1] was killed by SIGKILL; starting it again at once"
    outcome = watch.supervisor.outcome()
    assert outcome.restarts == 1
    assert all(is_gone(pid) for pid in after.values())


def test_a_child_that_left_a_forked_child_behind_is_still_seen_dead(tmp_path: Path, start_method: StartMethod) -> None:
    """The grandchild holds every pipe that its parent held."""
    with watched(Role("w", targets.fork_and_stay, (str(tmp_path),)), start_method=start_method) as watch:
        watch.until_running()
        first = watch.supervisor.pids()["w", 0]
        try:
            os.kill(first, signal.SIGKILL)
            watch.until(lambda: "restart" in watch.actions())
            watch.until_running()
        finally:
            watch.supervisor.close()
            for note in tmp_path.glob("grandchild-*"):
                os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_child_that_can_not_start_is_fatal_after_some_tries() -> None:
    with watched(Role("bad", targets.fail_before_ready), Role("good", targets.stay)) as watch:
        watch.until_over()
    outcome = watch.supervisor.outcome()
    assert (outcome.exit_code, outcome.reason) == (1, "failed")
    assert outcome.error == "bad[0] failed 3 times in a row; the last time it left with exit code 7"
    assert watch.supervisor.states() == {("bad", 0): State.FATAL, ("good", 0): State.DONE}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param(targets.raise_after_ready, "raised RuntimeError: the source is gone", id="raises"),
        pytest.param(targets.leave_too_early, "returned", id="returns before it is told to"),
    ],
)
def test_a_target_that_fails_at_once_every_time_is_fatal(
    target: Callable[..., object], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with watched(Role("w", target)) as watch:
        watch.until_over()
    error = watch.supervisor.outcome().error
    assert error is not None
    assert words in error


def test_a_boot_error_stops_the_run_at_once_with_its_words() -> None:
    with watched(Role("w", targets.boot_or_stay, count=3)) as watch:
        watch.until_over()
    outcome = watch.supervisor.outcome()
    assert (outcome.exit_code, outcome.reason, outcome.restarts) == (BOOT_EXIT, "boot", 0)
    assert outcome.error == "w[1] could not boot: only the second can not boot"


def test_the_hint_of_a_boot_error_survives(start_method: StartMethod) -> None:
    outcome = Supervisor([Role("w", targets.refuse_to_boot)], start_method=start_method).run()
    assert outcome.error == "w[0] could not boot: there is no app (write one)"


def test_term_lets_children_finish(tmp_path: Path, start_method: StartMethod) -> None:
    with watched(Role("w", targets.finish_slowly, (str(tmp_path),), count=2), start_method=start_method) as watch:
        watch.until_running()
        os.kill(os.getpid(), signal.SIGTERM)
        watch.until_over()
    assert watch.supervisor.outcome().exit_code == 0
    assert watch.supervisor.outcome().reason == "stopped"
    assert sorted(path.name for path in tmp_path.glob("finished-*")) == ["finished-0", "finished-1"]
    assert watch.text_of("stopping") == "SIGTERM: finishing what runs in 2 processes; again: stop now and give it back"


def test_the_second_interrupt_kills() -> None:
    with watched(Role("w", targets.never_leave, count=2)) as watch:
        watch.until_running()
        pids = watch.supervisor.pids().values()
        os.kill(os.getpid(), signal.SIGINT)
        watch.until(lambda: "stopping" in watch.actions())
        assert all(map(is_alive, pids))
        os.kill(os.getpid(), signal.SIGINT)
        watch.until_over()
    assert (watch.supervisor.outcome().exit_code, watch.supervisor.outcome().reason) == (130, "killed")


def test_who_does_not_leave_within_the_grace_is_killed() -> None:
    policy = Policy(grace=0.2)
    with watched(Role("slow", targets.never_leave), Role("good", targets.stay), policy=policy) as watch:
        watch.until_running()
        watch.supervisor.request_stop()
        watch.until_over()
    assert watch.supervisor.outcome().exit_code == 0
    assert "slow[0] did not finish within 0.2 s" in watch.text_of("grace_over")
    assert [said.key for said in watch.said if said.action == "died"] == [("slow", 0)]


def test_ctrl_c_that_reaches_the_whole_group_is_the_supervisors_to_decide() -> None:
    with watched(Role("w", targets.stay)) as watch:
        watch.until_running()
        pid = watch.supervisor.pids()["w", 0]
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)  # delivered after the two before it, so its effect shows that they had none
        watch.until(lambda: "restart" in watch.actions())
        assert watch.text_of("restart") == "w[0] stopped as told; starting it again at once"


def test_hup_replaces_workers_and_leaves_producers(tmp_path: Path) -> None:
    roles = [Role("w", targets.stay, count=2), Role("p", targets.stay, ends=True)]
    with watched(*roles) as watch:
        watch.until_running()
        before = watch.supervisor.pids()
        os.kill(os.getpid(), signal.SIGHUP)
        watch.until(lambda: renewed(before, watch.supervisor.pids()) == {("w", 0), ("w", 1)})
        watch.until_running()
        assert watch.supervisor.pids()["p", 0] == before["p", 0]
    assert watch.supervisor.outcome().restarts == 0


def renewed(before: dict[Key, int], after: dict[Key, int]) -> set[Key]:
    return {key for key in after if after[key] != before[key]}


def test_drained_queues_stop_the_run_once_producers_are_done(tmp_path: Path) -> None:
    left = [3]

    def drained() -> bool:
        assert (tmp_path / "p-0").exists(), "asked before the producer was done"
        left[0] -= 1
        return left[0] == 0

    roles = [Role("p", targets.note_and_end, (str(tmp_path),), ends=True), Role("w", targets.stay)]
    with watched(*roles, drained=drained) as watch:
        watch.until_over()
    assert watch.supervisor.outcome().reason == "drained"
    assert left == [0]


@pytest.mark.parametrize("start_method", METHODS)
def test_children_leave_when_the_supervisor_is_killed(tmp_path: Path, start_method: StartMethod) -> None:
    command = [sys.executable, "-m", "tests.worker_targets", start_method, str(tmp_path)]
    supervisor = subprocess.Popen(command, env=environment())
    try:
        wait_for((tmp_path / "pids").exists)
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        assert len(pids) == 2
        assert all(map(is_alive, pids))
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_for(lambda: all(map(is_gone, pids)))


def test_a_killed_fork_server_costs_its_children_but_not_the_run(tmp_path: Path) -> None:
    with watched(Role("w", targets.stay, count=2)) as watch:
        watch.until_running()
        before = watch.supervisor.pids()
        server = int(Path(f"/proc/{before['w', 0]}/stat").read_text().rpartition(")")[2].split()[1])
        assert b"forkserver" in Path(f"/proc/{server}/cmdline").read_bytes()
        os.kill(server, signal.SIGKILL)
        watch.until(lambda: len(renewed(before, watch.supervisor.pids())) == 2)
        watch.until_running()
        wait_for(lambda: all(map(is_gone, before.values())))


def test_request_stop_works_from_another_thread() -> None:
    supervisor = Supervisor([Role("w", targets.stay)])
    with supervisor:
        stopper = threading.Timer(0.05, supervisor.request_stop)
        stopper.start()
        while supervisor.step():
            pass
        stopper.join()
    assert supervisor.outcome().reason == "stopped"


def test_a_supervisor_may_run_in_a_thread() -> None:
    supervisor = Supervisor([Role("p", targets.end, count=2, ends=True)])
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    thread.join(30)
    assert supervisor.outcome().reason == "finished"


def test_signal_handlers_are_given_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    Supervisor([Role("p", targets.end, ends=True)]).run()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_an_error_in_the_callers_loop_leaves_no_child() -> None:
    supervisor = Supervisor([Role("w", targets.never_leave, count=2)])
    pids: list[int] = []

    def loop() -> None:
        with supervisor:
            pids.extend(supervisor.pids().values())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert len(pids) == 2
    assert all(map(is_gone, pids))


def test_an_error_in_on_event_reaches_the_caller_and_leaves_no_child() -> None:
    def refuse(said: Say) -> None:
        raise LookupError(said.action)

    supervisor = Supervisor([Role("p", targets.end, ends=True), Role("w", targets.stay)], on_event=refuse)
    with pytest.raises(LookupError, match="done"):
        supervisor.run()


def test_many_children_start_and_leave(start_method: StartMethod) -> None:
    count = 12 if start_method == "spawn" else 80
    with watched(Role("w", targets.stay, count=count), start_method=start_method) as watch:
        watch.until_running()
        assert len(set(watch.supervisor.pids().values())) == count
        watch.supervisor.request_stop()
        watch.until_over()
    assert watch.supervisor.outcome().deaths == 0


def test_a_storm_of_kills_loses_no_child() -> None:
    with watched(Role("w", targets.stay, count=4)) as watch:
        watch.until_running()
        for number in range(24):
            victim = ("w", number % 4)
            watch.until(lambda victim=victim: watch.supervisor.states()[victim] is State.RUNNING)
            os.kill(watch.supervisor.pids()[victim], signal.SIGKILL)
            watch.until(lambda number=number: watch.actions().count("restart") == number + 1)
        watch.until_running()
    assert watch.supervisor.outcome().restarts == 24


def test_events_are_logged_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pistributer.supervisor"):
        Supervisor([Role("p", targets.end, ends=True)]).run()
    (record,) = caplog.records
    assert (record.action, record.child) == ("done", ("p", 0))  # type: ignore[attr-defined]


def test_misuse_is_told() -> None:
    supervisor = Supervisor([Role("p", targets.end, ends=True)])
    with pytest.raises(RuntimeError, match="start"):
        supervisor.step()
    with pytest.raises(RuntimeError, match="not over"):
        supervisor.outcome()
    supervisor.run()
    with pytest.raises(RuntimeError, match="before"):
        supervisor.start()
    supervisor.close()


def test_waiting_uses_no_processor_time() -> None:
    with watched(Role("w", targets.stay, count=4)) as watch:
        watch.until_running()
        used = time.process_time()
        watch.supervisor.step(0.5)
        assert time.process_time() - used < 0.05
