"""What a busy worker has claimed and not begun is done by an idle one."""

from __future__ import annotations

import itertools
from pathlib import Path

from pistributer import App
from tests.worker_tools import RunningApp, notes, wait_for

TASKS = """
@app.task
def quick(n):
    return os.getpid()

@app.task
def suddenly_slow(n):
    if n is None:
        note("slow", os.getpid())
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return os.getpid()

@app.consumer("rows", processes=2)
def take(row):
    if row == "slow":
        note("slow", os.getpid())
        while not (HERE / "go").exists():
            time.sleep(0.01)
    note("taken", f"{row} {os.getpid()}")
"""


def test_an_idle_worker_takes_what_waits_behind_a_long_job(app: App, app_file: Path, tmp_path: Path) -> None:
    slow, quick = app.tasks["suddenly_slow"], app.tasks["quick"]
    with RunningApp(app_file, processes=2):
        for batch in itertools.count(1):
            # Both have learnt that these jobs take microseconds, and claim hundreds at once.
            for job in slow.send_many((n,) for n in range(500)):
                job.result(30)
            jobs = slow.send_many([(None,), *((n,) for n in range(199))])
            wait_for(lambda batch=batch: len(notes(tmp_path, "slow")) == batch)
            busy = int(notes(tmp_path, "slow")[-1])
            done = [job.result(30) for job in jobs[1:]]
            assert jobs[0].status() == "running"
            (tmp_path / "go").touch()
            assert jobs[0].result(30) == busy
            if busy not in done:
                break  # all of them had been claimed with the slow one
            (tmp_path / "go").unlink()
            assert batch < 20
        assert quick.send(1).result(30)
    assert list(app.queue().scan()) == []
    assert len(set(done)) == 1


def test_rows_of_a_consumer_likewise(app: App, app_file: Path, tmp_path: Path) -> None:
    rows = app.queue("rows")
    with RunningApp(app_file, processes=1):
        rows.put_many(map(str, range(300)))
        wait_for(lambda: len(notes(tmp_path, "taken")) == 300)
        rows.put_many(["slow", *map(str, range(300, 400))])
        wait_for(lambda: len(notes(tmp_path, "taken")) == 400)
        assert not [line for line in notes(tmp_path, "taken") if line.startswith("slow")]
        (tmp_path / "go").touch()
        wait_for(lambda: len(notes(tmp_path, "taken")) == 401)
    assert sorted(int(line.split()[0]) for line in notes(tmp_path, "taken")[:400]) == list(range(400))


def test_attempts_of_what_was_given_back_are_not_counted(app: App, app_file: Path, tmp_path: Path) -> None:
    with RunningApp(app_file, processes=2):
        for job in app.tasks["suddenly_slow"].send_many((n,) for n in range(500)):
            job.result(30)
        app.tasks["suddenly_slow"].send_many([(None,), *((n,) for n in range(100))])
        wait_for(lambda: len(list(app.queue().scan())) == 1)
        assert [row.attempt for row in app.queue().scan()] == [1]
        (tmp_path / "go").touch()
