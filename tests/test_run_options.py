"""Recycling, preloading, reloading, autoscaling and telling systemd, with real processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pistributer import errors
from pistributer.workers import control
from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from pistributer.workers.supervision.notify import Notifier
from tests.worker_tools import DEADLINE, RunningApp, notes, wait_for, write_app

WHO = """
@app.task
def who(n):
    note("who", os.getpid())
    return n
"""


def until_empty(path: Path, **options: Any) -> Any:
    said: list[Any] = []
    outcome = run(str(path), until_empty=True, on_event=said.append, **{"processes": 1, **options})
    return outcome, [it.action for it in said]


# -- recycling


def test_a_worker_is_replaced_after_so_many_jobs_and_no_job_is_lost(tmp_path: Path) -> None:
    path = write_app(tmp_path, WHO)
    app = load_app(str(path))
    jobs = app.tasks["who"].send_many((n,) for n in range(25))
    outcome, said = until_empty(path, recycle_jobs=10)
    assert [job.result(DEADLINE) for job in jobs] == list(range(25))
    pids = notes(tmp_path, "who")
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [10, 10, 5]
    # It is no fault, and nothing was restarted.
    assert (outcome.reason, outcome.restarts, outcome.deaths, said.count("recycled")) == ("drained", 0, 0, 2)
    assert app.queue().stats().dead == 0
    app.close()


def test_a_consumer_is_replaced_after_so_many_rows(tmp_path: Path) -> None:
    body = """
        @app.consumer("one")
        def single(row):
            note("one", os.getpid())

        @app.consumer("many", batch=4)
        def batch(rows):
            for row in rows:
                note("many", os.getpid())
    """
    path = write_app(tmp_path, body)
    app = load_app(str(path))
    for queue in ("one", "many"):
        app.queue(queue).put_many(range(20))
    _, said = until_empty(path, recycle_jobs=8)
    for queue in ("one", "many"):
        pids = notes(tmp_path, queue)
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [8, 8, 4]
    assert said.count("recycled") == 4
    app.close()


def test_a_worker_that_grows_is_replaced(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        kept = []

        @app.task
        def leak():
            kept.append(bytearray(40_000_000))
            note("who", os.getpid())
            time.sleep(0.1)  # longer than a worker goes without a look at its memory
        """,
    )
    app = load_app(str(path))
    app.tasks["leak"].send_many(() for _ in range(6))
    _, said = until_empty(path, recycle_memory=150_000_000)
    assert said.count("recycled") >= 1
    assert len(notes(tmp_path, "who")) == 6
    assert len(set(notes(tmp_path, "who"))) == said.count("recycled") + 1
    app.close()


def test_a_limit_that_no_process_can_keep_stops_the_run_with_an_error(tmp_path: Path) -> None:
    path = write_app(tmp_path, WHO)
    app = load_app(str(path))
    app.tasks["who"].send(1)
    outcome, _ = until_empty(path, recycle_memory=1_000_000)
    assert outcome.reason == "boot"
    assert "raise recycle_memory" in str(outcome.error)
    app.close()


# -- preloading


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_what_is_preloaded_is_imported_once(tmp_path: Path, start_method: str) -> None:
    (tmp_path / "heavy.py").write_text(
        "import os\nfrom pathlib import Path\n"
        f"with open({str(tmp_path / 'imports')!r}, 'a') as file:\n    file.write('once\\n')\n"
    )
    path = write_app(tmp_path, "@app.task\ndef use():\n    import heavy\n    note('used', os.getpid())\n")
    app = load_app(str(path))  # puts the folder on the module path
    app.tasks["use"].send_many(() for _ in range(3))
    with RunningApp(
        path, processes=2, until_empty=True, start_method=start_method, preload=["heavy"], path=[str(tmp_path)]
    ) as running:
        assert running.outcome()[0]["reason"] == "drained"
    assert len(notes(tmp_path, "used")) == 3
    assert notes(tmp_path, "imports") == ["once"]
    app.close()


def test_what_can_not_be_preloaded_is_refused_at_once(tmp_path: Path) -> None:
    path = write_app(tmp_path, WHO)
    with pytest.raises(errors.BootError, match="no module 'no_such_thing' to preload"):
        run(str(path), preload=["no_such_thing"])
    with pytest.raises(ValueError, match="share nothing"):
        run(str(path), preload=["json"], start_method="spawn")
    assert not read_status(tmp_path / "jobs").running


# -- reloading


def test_a_change_of_the_code_begins_anew_and_a_broken_one_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_app.py").write_text("ANSWER = 1\n")
    path = write_app(tmp_path, "import neighbour_of_app\n\n@app.task\ndef ask():\n    return neighbour_of_app.ANSWER\n")
    app = load_app(str(path))
    with RunningApp(path, processes=1, reload=True, note_events=str(tmp_path / "events")) as running:
        assert app.tasks["ask"].send().result(DEADLINE) == 1
        change(tmp_path / "neighbour_of_app.py", "ANSWER = = 2\n")
        wait_for(lambda: notes(tmp_path, "events") == ["code"])
        assert app.tasks["ask"].send().result(DEADLINE) == 1
        change(tmp_path / "neighbour_of_app.py", "ANSWER = 3\n")
        wait_for(lambda: "reloading" in notes(tmp_path, "events"))
        wait_for(lambda: app.tasks["ask"].send().result(DEADLINE) == 3)
        # What is imported for the first time is watched too, even if that fails.
        (tmp_path / "below_app").mkdir()
        (tmp_path / "below_app" / "__init__.py").touch()
        (tmp_path / "below_app" / "late.py").write_text("ANSWER = = 4")
        change(tmp_path / "neighbour_of_app.py", "from below_app.late import ANSWER\n")
        wait_for(lambda: notes(tmp_path, "events").count("code") == 2)
        change(tmp_path / "below_app" / "late.py", "ANSWER = 4\n")
        wait_for(lambda: app.tasks["ask"].send().result(DEADLINE) == 4)
        running.signal(signal.SIGTERM)
        outcome, said = running.outcome()
    assert (outcome["reason"], outcome["restarts"]) == ("stopped", 0)
    assert said == ["code", "reloading", "code", "reloading", "stopping"]
    app.close()


MORE = """
@app.task(queue="other")
def more(n):
    note("more", n)

@app.producer
def bring():
    for n in range(3):
        yield more.call(n)

@app.consumer("rows")
def take(row):
    note("rows", row)

@app.task(queue="other")
def tick():
    note("ticks")

app.schedule(tick, every=0.1)
"""


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_what_the_code_has_more_of_gets_its_processes(tmp_path: Path, start_method: str) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def slow():
            note("begun")
            time.sleep(2.0)
            note("ended")
        """,
    )
    app = load_app(str(path))
    app.tasks["slow"].send()
    options = {"processes": 1, "reload": True, "start_method": start_method, "note_events": str(tmp_path / "events")}
    with RunningApp(path, **options) as running:
        wait_for(lambda: notes(tmp_path, "begun"))
        change(path, path.read_text() + MORE)
        app.queue("rows").put({"n": 1})
        wait_for(lambda: sorted(notes(tmp_path, "more")) == ["0", "1", "2"])
        wait_for(lambda: notes(tmp_path, "rows") and notes(tmp_path, "ticks"))
        # What ran had the time that a first TERM gives it.
        assert (notes(tmp_path, "begun"), notes(tmp_path, "ended")) == ([""], [""])
        roles = {"worker default", "worker other", "consumer take", "producer bring", "scheduler"}
        (answer,) = control.status(app.url)
        assert answer.fields["roles"].keys() == roles
        # … and what it has no more is gone.
        change(path, path.read_text().replace(MORE, ""))
        wait_for(lambda: notes(tmp_path, "events").count("reloading") == 2)
        wait_for(lambda: [found.fields["roles"].keys() for found in statuses(app.url)] == [{"worker default"}])
        running.signal(signal.SIGINT)
        assert running.outcome()[0]["reason"] == "stopped"
    app.close()


def statuses(url: str) -> list[control.Answer]:
    """Of nobody between two runs."""
    try:
        return control.status(url)
    except errors.NoSupervisor:
        return []


BOOM = """
from pistributer import errors

class Boom(Hook):
    def on_start(self, role):
        raise errors.BootError("no database")

app.add_hook(Boom())
"""


def test_changed_code_that_loads_and_does_not_run_is_waited_out(tmp_path: Path) -> None:
    good = "\n@app.task\ndef ask():\n    return 1\n"
    path = write_app(tmp_path, good)
    app = load_app(str(path))
    with RunningApp(path, processes=1, reload=True, note_events=str(tmp_path / "events")) as running:
        assert app.tasks["ask"].send().result(DEADLINE) == 1
        text = path.read_text()
        for broken in (
            "",  # nothing to run
            good + BOOM,
        ):
            told = notes(tmp_path, "events").count("code")
            change(path, text.replace(good, broken))
            wait_for(lambda told=told: notes(tmp_path, "events").count("code") > told)
            assert not read_status(app.url).running
            assert running.process.poll() is None
        change(path, text.replace("return 1", "return 2"))
        assert app.tasks["ask"].send().result(DEADLINE) == 2
        change(path, text.replace(good, ""))
        wait_for(lambda: notes(tmp_path, "events")[-1] == "code")
        # Nothing runs, so there is nothing to finish.
        running.signal(signal.SIGINT)
        assert running.outcome()[0]["reason"] == "stopped"
    app.close()


def test_a_stop_while_what_runs_ends_for_a_change_is_a_stop(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def hold():
            note("begun")
            while not (HERE / "go").exists():
                time.sleep(0.02)
            note("ended")
        """,
    )
    app = load_app(str(path))
    app.tasks["hold"].send()
    with RunningApp(path, processes=1, reload=True, note_events=str(tmp_path / "events")) as running:
        wait_for(lambda: notes(tmp_path, "begun"))
        change(path, path.read_text() + "\n")
        wait_for(lambda: notes(tmp_path, "events") == ["reloading"])
        running.signal(signal.SIGTERM)
        wait_for(lambda: notes(tmp_path, "events") == ["reloading", "stopping"])
        (tmp_path / "go").touch()
        assert running.outcome()[0]["reason"] == "stopped"
    assert notes(tmp_path, "ended") == [""]
    app.close()


def change(path: Path, text: str) -> None:
    """So that the time of the file changes too, however coarse the clock of the filesystem is."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 2_000_000_000, before + 2_000_000_000))


# -- autoscaling


def test_a_pool_grows_with_what_waits_and_an_operator_has_the_last_word(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        """
        @app.task
        def hold(n):
            note("begun", n)
            while not (HERE / "go").exists():
                time.sleep(0.02)
        """,
    )
    app = load_app(str(path))
    app.tasks["hold"].send_many((n,) for n in range(8))
    with RunningApp(path, processes=[1, 3]) as running:
        # One more than that is never made, however many wait.
        wait_for(lambda: len(notes(tmp_path, "begun")) == 3)
        (answer,) = control.status(app.url)
        assert answer.fields["roles"]["worker default"]["processes"] == 3
        control.scale(app.url, "default", 5)
        wait_for(lambda: len(notes(tmp_path, "begun")) == 5)
        (tmp_path / "go").touch()
        wait_for(lambda: len(notes(tmp_path, "begun")) == 8)
        running.signal(signal.SIGTERM)
        running.outcome()
    app.close()


# -- systemd


def listener(address: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind(address)
    found.settimeout(DEADLINE)
    return found


def test_systemd_is_told_of_the_whole_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_app(tmp_path, WHO)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with listener(str(tmp_path / "notify")) as heard, RunningApp(path, processes=2) as running:
        told: list[str] = []

        def hear(line: str) -> None:
            while line not in told:
                told.extend(heard.recv(4096).decode().splitlines())

        hear("READY=1")
        assert len([worker for worker in read_status(tmp_path / "jobs").workers if worker.alive]) == 2
        told.clear()
        hear("WATCHDOG=1")
        told.clear()
        hear("WATCHDOG=1")
        running.signal(signal.SIGHUP)
        hear("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in told)
        told.clear()
        hear("READY=1")
        running.signal(signal.SIGTERM)
        hear("STOPPING=1")
        running.outcome()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_an_abstract_address_is_no_file() -> None:
    name = f"pistributer-{os.getpid()}-{time.monotonic_ns()}"
    with listener(f"\0{name}") as heard:
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.look(ready=True, stopping=False, reloading=False, status="2 processes")
        assert heard.recv(4096).decode() == "READY=1\nSTATUS=2 processes"
        notifier.look(ready=True, stopping=False, reloading=False, status="2 processes")
        notifier.look(ready=True, stopping=True, reloading=False, status="2 processes")
        assert heard.recv(4096).decode() == "STOPPING=1"
        notifier.close()


def test_nobody_and_a_socket_that_is_gone_cost_nothing(tmp_path: Path) -> None:
    assert not Notifier({})
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    assert gone
    gone.look(ready=True, stopping=False, reloading=False, status="fine")
    gone.close()
