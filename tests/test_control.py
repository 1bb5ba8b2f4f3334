"""Controlling a run from outside: pause, scale, restart, stop, with one supervisor, with several and with none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers import control
from pistributer.workers.app import App
from pistributer.workers.inspection.status import WorkerStatus, read_status
from pistributer.workers.loading import load_app
from pistributer.workers.supervision import control_server, run_state, runs
from tests.worker_tools import DEADLINE, RunningApp, is_alive, is_gone, notes, wait_for, write_app

SLOW = """
@app.task
def hold(name):
    note("begun", f"{name} {os.getpid()}")
    while not (HERE / name).exists():
        time.sleep(0.01)
    note("ended", name)

@app.task
def quick(n):
    note("quick", n)
    return n
"""


@contextmanager
def running(path: Path, **options: Any) -> Iterator[RunningApp]:
    # Forked children are there at once; tests/test_workers_run.py has the other ways.
    with RunningApp(path, **{"start_method": "fork", **options}) as run:
        app = load_app(str(path))
        wait_for(lambda: settled(app, run.process.pid))
        yield run
        app.close()


def settled(app: App, pid: int) -> bool:
    """Whether every process of this supervisor has come up."""
    try:
        (answer,) = control.status(app.url, pid=pid)
    except (errors.WorkError, errors.StorageError):
        return False
    up = [worker.role for worker in workers(app.url, pid)]
    roles = {name: role["processes"] for name, role in answer.fields["roles"].items() if "producer" not in name}
    return all(up.count(name) == count for name, count in roles.items())


def workers(url: str, supervisor: int | None = None) -> list[WorkerStatus]:
    found = [worker for worker in read_status(url).workers if worker.alive]
    return [worker for worker in found if supervisor in (None, worker.supervisor)]


def begun(folder: Path) -> list[str]:
    return [line.split()[0] for line in notes(folder, "begun")]


# -- pausing


@pytest.mark.parametrize("driver", ["jsonl", "sqlite"])
def test_a_paused_queue_is_left_alone_and_resumes_where_it_was(tmp_path: Path, driver: str) -> None:
    url = str(tmp_path / "jobs") if driver == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"
    path = write_app(tmp_path, SLOW, url)
    app = load_app(str(path))
    app.tasks["hold"].send("a")
    with running(path, processes=1) as run:
        wait_for(lambda: begun(tmp_path) == ["a"])
        for n in range(50):
            app.tasks["quick"].send(n)
        assert control.pause(url, "default") == control.Paused("default", True, (run.process.pid,))
        assert read_status(url).queues[0].paused
        assert control.paused(url) == ["default"]
        (tmp_path / "a").touch()
        # What ran has ended, and nothing that waited was begun; all of it is given back.
        wait_for(lambda: app.queue().stats().claimed == 0 and notes(tmp_path, "ended") == ["a"])
        assert app.queue().stats().ready == 50
        assert {row.attempt for row in app.queue().scan("ready")} == {0}
        late = app.tasks["quick"].send(50)
        assert notes(tmp_path, "quick") == []
        assert control.resume(url, "default").changed
        assert late.result(DEADLINE) == 50
        assert notes(tmp_path, "quick") == [str(n) for n in range(51)]
    app.close()


def test_a_paused_consumer_takes_nothing(tmp_path: Path) -> None:
    body = """
        @app.consumer("one")
        def single(row):
            note("rows", row)

        @app.consumer("many", batch=8)
        def batch(rows):
            for row in rows:
                note("rows", row)
    """
    path = write_app(tmp_path, body)
    app = load_app(str(path))
    app.queue("one").put("a")
    app.queue("many").put("b")
    with running(path):
        wait_for(lambda: sorted(notes(tmp_path, "rows")) == ["a", "b"])
        for queue in ("one", "many"):
            control.pause(app.url, queue)
            app.queue(queue).put_many(["c", "d"])
        wait_for(lambda: all(app.queue(queue).stats().ready == 2 for queue in ("one", "many")))
        assert len(notes(tmp_path, "rows")) == 2
        for queue in ("one", "many"):
            control.resume(app.url, queue)
        wait_for(lambda: len(notes(tmp_path, "rows")) == 6)
        assert app.queue("many").stats().dead == 0
    app.close()


def test_a_resumed_worker_wakes_at_once(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    with running(path, processes=1):
        delays = []
        for n in range(3):
            control.pause(app.url, "default")
            job = app.tasks["quick"].send(n)
            wait_for(lambda: app.queue().stats().ready == 1)
            begun_at = time.monotonic()
            control.resume(app.url, "default")
            job.result(DEADLINE)
            delays.append(time.monotonic() - begun_at)
        # Far below the 0.4 s after which everybody looks around by himself; the best of three on a busy machine.
        assert min(delays) < 0.3
    app.close()


def test_a_pause_outlives_every_supervisor_and_needs_none(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    job = app.tasks["quick"].send(1)
    assert control.pause(app.url, "default") == control.Paused("default", True, ())
    assert not control.pause(app.url, "default").changed
    with running(path, processes=1) as run:
        run.signal(signal.SIGKILL)
        run.process.wait()
    with running(path, processes=1, until_empty=True) as run:
        assert control.status(app.url)[0].fields["paused"] == ["default"]
        assert notes(tmp_path, "quick") == []
        control.resume(app.url, "default")
        outcome, said = run.outcome()
    # It waited for the paused queue, and said so.
    assert outcome["reason"] == "drained"
    assert said.count("held_up") <= 1
    assert job.result(DEADLINE) == 1
    app.close()


def test_until_empty_waits_for_a_paused_queue_and_says_so_once(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.tasks["quick"].send(1)
    control.pause(app.url, "default")
    with running(path, processes=1, until_empty=True, note_events=str(tmp_path / "events")) as run:
        wait_for(lambda: "held_up" in notes(tmp_path, "events"))
        control.resume(app.url, "default")
        outcome, said = run.outcome()
    assert (outcome["reason"], said.count("held_up")) == ("drained", 1)
    app.close()


def test_only_a_queue_that_there_is_can_be_paused(tmp_path: Path) -> None:
    app = load_app(str(write_app(tmp_path, SLOW)))
    app.tasks["quick"].send(1)
    with pytest.raises(errors.ControlError, match=r"no queue 'defualt'.*did you mean 'default'"):
        control.pause(app.url, "defualt")
    with pytest.raises(errors.FolderMissing, match="no app"):
        control.pause(tmp_path / "nothing", "default")
    assert not os.path.exists(run_state.state_path(app.home.run))
    app.close()


# -- size


def test_a_pool_grows_and_shrinks_and_a_restart_comes_up_as_it_went_down(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    jobs = [app.tasks["hold"].send(name) for name in "abc"]
    with running(path, processes=1) as run:
        wait_for(lambda: begun(tmp_path) == ["a"])
        (answer,) = control.scale(app.url, "default", "+2")
        assert (answer.pid, answer.fields) == (run.process.pid, {"role": "worker default", "processes": 3, "asked": 1})
        wait_for(lambda: sorted(begun(tmp_path)) == ["a", "b", "c"])
        control.scale(app.url, "default", 2)
        # Who is too many finishes what it runs.
        assert len(workers(app.url)) == 3
        for name in "abc":
            (tmp_path / name).touch()
        wait_for(lambda: len(workers(app.url)) == 2)
        assert all(job.result(DEADLINE) is None for job in jobs)
        run.signal(signal.SIGKILL)
        run.process.wait()
    with running(path, processes=1):
        assert len(workers(app.url)) == 2
        control.scale(app.url, "default", "reset")
        wait_for(lambda: len(workers(app.url)) == 1)
    app.close()


def test_a_size_that_was_set_holds_until_run_asks_for_another(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.home.create()
    run_state.set_size(app.home.run, "worker default", 1, 3)
    with running(path, processes=1):
        assert len(workers(app.url)) == 3
    with running(path, processes=2):
        assert len(workers(app.url)) == 2
    app.close()


@pytest.mark.parametrize(
    ("what", "to", "words"),
    [
        ("defualt", "2", "nothing called 'defualt'.*did you mean 'default'"),
        ("default", "0", "can have 1 to 64 processes, not 0.*pause the queue"),
        ("default", "65", "can have 1 to 64 processes, not 65"),
        ("default", "-7", "not -6"),
        ("default", "many", "'many' is no number of processes"),
        ("numbers", "2", "producer numbers is one process"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused_and_changes_nothing(
    ten_workers: App, what: str, to: str, words: str
) -> None:
    with pytest.raises(errors.ControlError, match=words):
        control.scale(ten_workers.url, what, to)
    assert control.status(ten_workers.url)[0].fields["roles"]["worker default"]["processes"] == 1


@pytest.fixture(scope="module")
def ten_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("run")
    path = write_app(
        folder,
        SLOW + "\n@app.producer\ndef numbers():\n    while True:\n        time.sleep(0.01)\n        yield 'x', 1\n",
    )
    with running(path, processes=1):
        yield load_app(str(path))


# -- restart and stop


def test_a_restart_replaces_the_processes_that_are_meant(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW + "\n@app.consumer('rows')\ndef rows(row):\n    pass\n")
    app = load_app(str(path))
    with running(path, processes=1):
        before = {worker.role: worker.pid for worker in workers(app.url)}
        assert control.restart(app.url, "rows")[0].fields == {"roles": ["consumer rows"]}
        wait_for(lambda: pid_of(app, "consumer rows") not in (None, before["consumer rows"]))
        assert pid_of(app, "worker default") == before["worker default"]
        control.restart(app.url)
        wait_for(lambda: pid_of(app, "worker default") not in (None, before["worker default"]))
    app.close()


def pid_of(app: App, role: str) -> int | None:
    return next((worker.pid for worker in workers(app.url) if worker.role == role), None)


def test_a_stop_finishes_what_runs_and_waits_for_the_end(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    for name in "ab":
        app.tasks["hold"].send(name)
    with running(path, processes=1, grace=None) as run:
        wait_for(lambda: begun(tmp_path) == ["a"])
        with pytest.raises(errors.ControlError, match="still finishing what runs"):
            control.stop(app.url, wait=0.1)
        assert is_alive(run.process.pid)
        (tmp_path / "a").touch()
        control.stop(app.url, wait=DEADLINE)
        outcome, said = run.outcome()
    assert (outcome["exit_code"], outcome["reason"], said) == (0, "stopped", ["stopping"])
    assert app.queue().stats().ready == 1
    with pytest.raises(errors.NoSupervisor, match="no supervisor is running the app"):
        control.stop(app.url)
    app.close()


def test_a_stop_now_gives_what_ran_back(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.tasks["hold"].send("never")
    with running(path, processes=1) as run:
        wait_for(lambda: begun(tmp_path))
        (answer,) = control.stop(app.url, now=True, wait=DEADLINE)
        assert answer.pid == run.process.pid
        assert run.outcome()[0]["reason"] == "killed"
    assert app.queue().stats().ready == 1
    app.close()


# -- several supervisors


def test_two_supervisors_share_the_queues_and_are_asked_one_by_one_or_all(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    jobs = [app.tasks["hold"].send(name) for name in "ab"]
    with running(path, processes=1) as first, running(path, processes=1) as second:
        pids = [first.process.pid, second.process.pid]
        assert [it.pid for it in read_status(app.url).supervisors] == pids
        wait_for(lambda: sorted(begun(tmp_path)) == ["a", "b"])
        assert {worker.supervisor for worker in workers(app.url)} == set(pids)
        assert [answer.pid for answer in control.scale(app.url, "default", 2)] == pids
        assert [answer.pid for answer in control.scale(app.url, "default", 3, pid=pids[1])] == pids[1:]
        wait_for(lambda: [len(workers(app.url, pid)) for pid in pids] == [2, 3])
        assert [answer.fields["processes"] for answer in control.scale(app.url, "default", "+1")] == [3, 3]
        wait_for(lambda: [len(workers(app.url, pid)) for pid in pids] == [3, 3])
        assert set(control.pause(app.url, "default").seen_by) == set(pids)
        control.resume(app.url, "default")
        with pytest.raises(errors.NoSupervisor, match=f"no supervisor with process id 1.*{pids[0]}, {pids[1]}"):
            control.restart(app.url, pid=1)
        for name in "ab":
            (tmp_path / name).touch()
        assert [job.result(DEADLINE) for job in jobs] == [None, None]
        control.stop(app.url, pid=pids[0], wait=DEADLINE)
        assert app.tasks["quick"].send(7).result(DEADLINE) == 7
        assert [it.pid for it in read_status(app.url).supervisors] == pids[1:]
    app.close()


def test_until_empty_waits_for_what_the_other_supervisor_runs(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.tasks["hold"].send("a")
    with running(path, processes=1) as first:
        wait_for(lambda: begun(tmp_path) == ["a"])
        with running(path, processes=1, until_empty=True) as second:
            for n in range(20):
                app.tasks["quick"].send(n)
            wait_for(lambda: len(notes(tmp_path, "quick")) == 20)
            assert second.process.poll() is None
            (tmp_path / "a").touch()
            assert second.outcome()[0]["reason"] == "drained"
        assert first.process.poll() is None
    app.close()


PRODUCERS = """
@app.producer
def numbers():
    note("producing", os.getpid())
    for n in range(40):
        yield "rows", n
        while n == 20 and not (HERE / "go on").exists():
            time.sleep(0.01)

@app.producer
def counted(checkpoint):
    for n in range(checkpoint or 0, 40):
        yield ("counted", n), n + 1
        while n == 20 and not (HERE / "go on").exists():
            time.sleep(0.01)

@app.consumer("rows")
def rows(row):
    note("rows", row)

@app.consumer("counted")
def count(row):
    note("counted", row)

@app.task
def tick():
    note("ticks")

app.schedule(tick, every=3600)
"""


def test_a_producer_runs_once_while_there_are_supervisors(tmp_path: Path) -> None:
    path = write_app(tmp_path, PRODUCERS)
    app = load_app(str(path))
    with running(path, processes=1) as first:
        wait_for(lambda: all(len(notes(tmp_path, name)) == 21 for name in ("rows", "counted")))
        with running(path, processes=1, until_empty=True) as second:
            # A third, that comes and goes while the producers run, does not produce either.
            with running(path, processes=1) as third:
                third.signal(signal.SIGTERM)
                assert third.outcome()[0]["reason"] == "stopped"
            assert second.process.poll() is None
            (tmp_path / "go on").touch()
            assert second.outcome()[0]["reason"] == "drained"
        # One that comes after they are done has nothing to produce.
        with RunningApp(path, processes=1, until_empty=True, start_method="fork") as late:
            assert late.outcome()[0]["reason"] == "drained"
        assert first.process.poll() is None
    for name in ("rows", "counted"):
        assert sorted(map(int, notes(tmp_path, name))) == list(range(40))
    assert len(notes(tmp_path, "producing")) == 1
    app.close()


def test_a_producer_of_a_killed_supervisor_goes_on_in_the_other_one(tmp_path: Path) -> None:
    path = write_app(tmp_path, PRODUCERS)
    app = load_app(str(path))
    with running(path, processes=1) as first:
        wait_for(lambda: all(len(notes(tmp_path, name)) == 21 for name in ("rows", "counted")))
        with running(path, processes=1, until_empty=True) as second:
            first.signal(signal.SIGKILL)
            first.process.wait()
            (tmp_path / "go on").touch()
            assert second.outcome()[0]["reason"] == "drained"
    # With a checkpoint without a gap or a repeat; without one it began again.
    assert sorted(map(int, notes(tmp_path, "counted"))) == list(range(40))
    assert set(map(int, notes(tmp_path, "rows"))) == set(range(40))
    assert len(notes(tmp_path, "producing")) == 2
    app.close()


def test_a_new_supervisor_starts_beside_what_a_killed_one_left(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    jobs = [app.tasks["hold"].send("a"), app.tasks["quick"].send(1)]
    with running(path, processes=1) as first:
        wait_for(lambda: begun(tmp_path) == ["a"])
        worker = workers(app.url)[0].pid
        first.signal(signal.SIGKILL)
        first.process.wait()
        assert is_alive(worker)
        assert not read_status(app.url).running
        (left,) = runs.folders(app.home.run)
        with running(path, processes=1) as second:
            assert jobs[1].result(DEADLINE) == 1
            # The folder stays as long as the one who works in it.
            assert left in runs.folders(app.home.run)
            (tmp_path / "a").touch()
            wait_for(lambda: is_gone(worker))
            assert jobs[0].result(DEADLINE) is None
            with running(path, processes=1):
                assert left not in runs.folders(app.home.run)
            second.signal(signal.SIGTERM)
            second.outcome()
    assert begun(tmp_path) == ["a"]
    app.close()


def test_until_empty_waits_for_what_workers_of_a_killed_supervisor_still_run(tmp_path: Path) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.tasks["hold"].send("a")
    with running(path, processes=1) as first:
        wait_for(lambda: begun(tmp_path) == ["a"])
        first.signal(signal.SIGKILL)
        first.process.wait()
        with running(path, processes=1, until_empty=True) as second:
            (tmp_path / "a").touch()
            assert second.outcome()[0]["reason"] == "drained"
    assert notes(tmp_path, "ended") == ["a"]
    assert begun(tmp_path) == ["a"]
    app.close()


def test_a_paused_queue_of_a_pool_with_threads_is_left_alone_and_its_others_are_not(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task(queue="slow")
        def hold(name):
            note("begun", name)
            while not (HERE / name).exists():
                time.sleep(0.01)

        @app.task(queue="quick")
        def quick(n):
            note("quick", n)
            return n
        """,
    )
    app = load_app(str(path))
    for name in "abcd":
        app.tasks["hold"].send(name)
    with running(path, pools=["all=slow,quick:processes=1:threads=2"]):
        wait_for(lambda: sorted(begun(tmp_path)) == ["a", "b"])
        control.pause(app.url, "slow")
        for name in "abcd":
            (tmp_path / name).touch()
        assert app.tasks["quick"].send(1).result(DEADLINE) == 1
        wait_for(lambda: app.queue("slow").stats().claimed == 0)
        assert (len(begun(tmp_path)), app.queue("slow").stats().ready) == (2, 2)
        control.resume(app.url, "slow")
        wait_for(lambda: sorted(begun(tmp_path)) == ["a", "b", "c", "d"])
        # What many may be called is asked about; a pool and each of its queues are one.
        assert control.scale(app.url, "quick", 2)[0].fields == {"role": "worker all", "processes": 2, "asked": 1}
        wait_for(lambda: len(workers(app.url)) == 2)
    app.close()


def test_a_batch_that_waits_for_more_rows_is_given_back_by_a_pause(tmp_path: Path) -> None:
    body = """
        @app.consumer("rows", batch=8, max_wait=600)
        def batch(rows):
            note("rows", rows)
    """
    path = write_app(tmp_path, body)
    app = load_app(str(path))
    app.queue("rows").put_many(range(3))
    with running(path):
        wait_for(lambda: app.queue("rows").stats().claimed == 3)
        control.pause(app.url, "rows")
        wait_for(lambda: app.queue("rows").stats().ready == 3)
        control.resume(app.url, "rows")
        app.queue("rows").put_many(range(3, 8))
        wait_for(lambda: notes(tmp_path, "rows") == [str(list(range(8)))])
    app.close()


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_the_door_of_a_killed_supervisor_is_shut_though_its_workers_live(tmp_path: Path, start_method: str) -> None:
    path = write_app(tmp_path, SLOW)
    app = load_app(str(path))
    app.tasks["hold"].send("a")
    with running(path, processes=1, start_method=start_method) as run:
        wait_for(lambda: begun(tmp_path) == ["a"])
        (folder,) = runs.folders(app.home.run)
        run.signal(signal.SIGKILL)
        run.process.wait()
        with pytest.raises(errors.NoSupervisor, match="has just ended"):
            control._ask(folder, run.process.pid, "status", {})
        with pytest.raises(errors.NoSupervisor, match="no supervisor is running"):
            control.status(app.url)
        (tmp_path / "a").touch()
        wait_for(lambda: notes(tmp_path, "ended") == ["a"])
    app.close()


def test_each_supervisor_sees_to_its_own_children(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task(crash_retries=0, hard_time_limit=1.0)
        def endless():
            note("by", os.getppid())
            while True:
                time.sleep(0.01)

        @app.task
        def hold():
            note("by", os.getppid())
            time.sleep(600)

        @app.task(crash_retries=0)
        def die():
            note("by", os.getppid())
            time.sleep(1)
            os._exit(9)
        """,
    )
    app = load_app(str(path))
    with running(path, processes=1) as first, running(path, processes=1) as second:
        pids = {str(first.process.pid), str(second.process.pid)}
        for number, (name, ends) in enumerate([("endless", "hard time limit"), ("die", "left with exit code 9")], 1):
            jobs = []
            for begun_now in (2 * number - 1, 2 * number):
                # One after the other: a worker that has just been quick claims ahead.
                jobs.append(app.tasks[name].send())
                wait_for(lambda begun_now=begun_now: len(notes(tmp_path, "by")) == begun_now)
            assert set(notes(tmp_path, "by")[-2:]) == pids
            for job in jobs:
                with pytest.raises(errors.JobFailed, match=ends):
                    job.result(DEADLINE)
        jobs = []
        for number in (5, 6):
            jobs.append(app.tasks["hold"].send())
            wait_for(lambda number=number: len(notes(tmp_path, "by")) == number)
        for job in jobs:
            job.cancel()
        wait_for(lambda: {job.status() for job in jobs} == {"cancelled"})
    app.close()


@pytest.mark.parametrize("leaves", [True, False])
def test_who_hangs_up_is_no_supervisor_any_more_unless_he_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    monkeypatch.setattr(control, "_COMING_OR_GOING", DEADLINE if leaves else 0.1)
    app = App(tmp_path / "jobs")
    app.home.create()
    premises = runs.Premises(app.home.run)
    premises.take("app.py", {}, [])
    listener = control_server._listen(runs.control_folder(premises.folder))
    listener.settimeout(DEADLINE)

    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()  # with the rest of a request unread, which is a reset
        if leaves:
            premises.leave()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(
        errors.NoSupervisor if leaves else errors.ControlError, match="just ended" if leaves else "reset"
    ):
        control.status(app.url)
    thread.join()
    listener.close()
    premises.leave()
    app.close()
