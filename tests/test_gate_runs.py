"""Keys, rates and compositions in real pools whose workers are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pistributer import App, JobFailed, chain, chord, group
from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run

from .worker_tools import RunningApp, notes, wait_for, write_app

TASKS = """
@app.task(key="key", crash_retries=50)
def book(key, n):
    note("booked", f"begin {key} {n} {os.getpid()}")
    time.sleep(0.004)
    note("booked", f"end {key} {n} {os.getpid()}")

@app.task(key="key", key_limit=2)
def pair(key, n):
    note("pairs", f"begin {n}")
    time.sleep(0.05)
    note("pairs", f"end {n}")

@app.task(key="key", retries=1, retry_delay=0.1)
def fail_first(key, n):
    seen = HERE / f"failed-{key}-{n}"
    if n == 0 and not seen.exists():
        seen.touch()
        raise ValueError("not yet")
    note("order", n)

@app.task(key="key")
def fail(key, n):
    if n == 0:
        raise ValueError("never")
    note("order", n)

@app.task(rate_limit="20/s", crash_retries=50)
def limited(n):
    note("limited", f"{time.time()} {n}")

@app.task(crash_retries=50)
def add(a, b):
    time.sleep(0.001)
    return a + b

@app.task(crash_retries=50)
def total(values):
    note("totals", f"{sum(values)} {os.getpid()}")
    return sum(values)

@app.task
def refuse(n):
    raise ValueError(f"no {n}")

@app.task
def wait_for_file(n):
    while not (HERE / "go").exists():
        time.sleep(0.005)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_app(tmp_path, TASKS)


@pytest.fixture
def app(path: Path) -> Iterator[App]:
    app = load_app(str(path))
    yield app
    app.close()


def finish(path: Path, processes: int = 2) -> None:
    assert run(str(path), until_empty=True, processes=processes, on_event=lambda said: None).reason == "drained"


@contextmanager
def kills(app: App, most: int) -> Iterator[list[int]]:
    """Kill a worker now and then, at most so often."""
    killed: list[int] = []
    over = threading.Event()

    def storm() -> None:
        chance = random.Random(7)
        while len(killed) < most and not over.wait(chance.uniform(0.02, 0.15)):
            alive = [worker.pid for worker in read_status(app.url).workers if worker.alive and worker.done]
            if alive:
                killed.append(chance.choice(alive))
                try:
                    os.kill(killed[-1], signal.SIGKILL)
                except ProcessLookupError:
                    killed.pop()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


# -- keys


def test_jobs_of_a_key_run_in_order_one_by_one_though_workers_are_killed(tmp_path: Path, path: Path, app: App) -> None:
    app.tasks["book"].send_many((f"k{n % 4}", n) for n in range(200))
    with kills(app, 8) as killed:
        finish(path, processes=3)
    assert killed, "nobody was killed"
    lines = [line.split() for line in notes(tmp_path, "booked")]
    for key in ("k0", "k1", "k2", "k3"):
        begun = [int(n) for what, k, n, _ in lines if (what, k) == ("begin", key)]
        assert begun == sorted(begun), "a job of the key overtook another"
        assert set(begun) == {n for n in range(200) if f"k{n % 4}" == key}, "a job of the key was lost"
        assert len(begun) <= 50 + len(killed), "more ran again than were killed"
    assert app.gate.held() == 0


def test_no_more_jobs_of_a_key_run_at_once_than_its_limit(tmp_path: Path, path: Path, app: App) -> None:
    app.tasks["pair"].send_many(("k", n) for n in range(12))
    finish(path, processes=4)
    running, most = 0, 0
    for line in notes(tmp_path, "pairs"):
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    assert most == 2


def test_a_retry_keeps_those_behind_it_waiting(tmp_path: Path, path: Path, app: App) -> None:
    app.tasks["fail_first"].send_many(("k", n) for n in range(3))
    finish(path)
    assert notes(tmp_path, "order") == ["0", "1", "2"]


def test_a_dead_letter_lets_the_next_go_on_and_comes_back_behind(tmp_path: Path, path: Path, app: App) -> None:
    app.tasks["fail"].send_many(("k", n) for n in range(3))
    finish(path)
    assert notes(tmp_path, "order") == ["1", "2"]
    assert app.queue().requeue_dead() == 1
    finish(path)
    assert [row.value["args"] for row in app.queue().scan("dead")] == [["k", 0]]  # it was tried again, and failed again
    assert app.gate.held() == 0


def test_a_held_job_can_be_called_off(tmp_path: Path, path: Path, app: App) -> None:
    jobs = app.tasks["book"].send_many(("k", n) for n in range(3))
    jobs[1].cancel()
    assert jobs[1].status() == "cancelled"
    finish(path)
    assert [line.split()[2] for line in notes(tmp_path, "booked") if line.startswith("begin")] == ["0", "2"]
    with pytest.raises(JobFailed, match="called off"):
        jobs[1].result(timeout=5)


def test_held_jobs_are_shown_and_waited_for(path: Path, app: App) -> None:
    jobs = [app.tasks["wait_for_file"].options(key="k").send(n) for n in range(3)]
    with RunningApp(path, processes=2) as running:
        wait_for(lambda: jobs[0].status() == "running")
        assert [job.status() for job in jobs] == ["running", "held", "held"]
        assert read_status(app.url).queues[0].held == 2
        (path.parent / "go").touch()
        assert [job.result(timeout=30) for job in jobs] == [None] * 3
        running.signal(signal.SIGTERM)
        assert running.outcome()[0]["exit_code"] == 0


# -- rates


def test_no_window_sees_more_than_the_rate_though_workers_are_killed(tmp_path: Path, path: Path, app: App) -> None:
    app.tasks["limited"].send_many((n,) for n in range(80))
    database = app.gate.tickets.database
    with database.transaction() as connection:  # what is committed before a job begins, for good
        connection.execute("CREATE TABLE log (at REAL)")
        connection.execute(
            "CREATE TRIGGER noted AFTER UPDATE OF begun ON rates BEGIN INSERT INTO log VALUES (NEW.begun); END"
        )
    with kills(app, 6):
        finish(path, processes=3)
    assert {int(line.split()[1]) for line in notes(tmp_path, "limited")} == set(range(80))
    times = sorted(at for (at,) in database.read("SELECT at FROM log"))
    assert len(times) >= 80
    assert min(after - before for before, after in zip(times, times[20:], strict=False)) >= 1.0


# -- composition


def test_a_chain_hands_each_result_on(app: App, path: Path) -> None:
    add = app.tasks["add"]
    job = chain(add.call(1, 2), add.then(10), add.then(b=100)).send()
    assert job.status() == "held"
    finish(path)
    assert job.result(timeout=5) == 113


def test_a_group_has_its_results_in_order(app: App, path: Path) -> None:
    jobs = group(app.tasks["add"].call(n, n) for n in range(20)).send()
    finish(path)
    assert (jobs.result(timeout=5), jobs.done(), len(jobs)) == ([2 * n for n in range(20)], True, 20)


def test_a_chord_is_complete_and_called_once_though_workers_are_killed(tmp_path: Path, path: Path, app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    jobs = [chord((add.call(n, k) for n in range(30)), total.then()).send() for k in range(10)]
    with kills(app, 6):
        finish(path, processes=3)
    sums = [sum(range(30)) + 30 * k for k in range(10)]
    assert [job.result(timeout=5) for job in jobs] == sums
    assert {int(line.split()[0]) for line in notes(tmp_path, "totals")} == set(sums)
    ran = notes(tmp_path, "totals")
    assert len(ran) == len(set(ran)), "one worker called a callback twice"


def test_a_member_that_fails_ends_what_follows_and_mends_it_when_tried_again(path: Path, app: App) -> None:
    add, refuse, total = app.tasks["add"], app.tasks["refuse"], app.tasks["total"]
    in_chain = chain(refuse.call(1), add.then(1), add.then(1)).send()
    in_chord = chord([add.call(1, 1), chain(refuse.call(2), add.then(1))], total.then()).send()
    finish(path)
    for job, number in ((in_chain, 1), (in_chord, 2)):
        with pytest.raises(JobFailed, match=rf"refuse \(job \w+\), .* failed: ValueError: no {number}") as caught:
            job.result(timeout=5)
        assert caught.value.kind == "MemberFailed"  # type: ignore[attr-defined]
    path.write_text(path.read_text().replace('raise ValueError(f"no {n}")', "return n"))
    assert app.queue().requeue_dead() == 2
    finish(path)
    app.close()
    assert in_chain.result(timeout=5) == 3
    assert in_chord.result(timeout=5) == 5


def test_map_gives_results_in_order_and_holds_a_window(path: Path, app: App) -> None:
    taken: list[int] = []

    def values() -> Iterator[tuple[int, int]]:
        for n in range(100):
            taken.append(n)
            yield n

    add_one = app.task(name="add_one")(lambda n: n + 1)
    path.write_text(path.read_text() + "\nadd_one = app.task(name='add_one')(lambda n: n + 1)\n")
    with RunningApp(path, processes=2):
        found = add_one.map(values(), window=10, timeout=30)
        for n, result in enumerate(found):
            assert result == n + 1
            assert len(taken) <= n + 1 + 10
    assert len(taken) == 100
    with pytest.raises(ValueError, match="window"):
        add_one.map([], window=0)


def test_calls_with_a_key_that_a_producer_yields_keep_their_order(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        TASKS
        + """
@app.producer
def numbers():
    for n in range(60):
        yield book.call(f"k{n % 2}", n)

@app.producer
def resumed(checkpoint):
    for n in range(checkpoint or 0, 20):
        yield pair.call("same", n), n + 1
""",
    )
    finish(path, processes=3)
    for key in ("k0", "k1"):
        begun = [int(line.split()[2]) for line in notes(tmp_path, "booked") if line.startswith(f"begin {key}")]
        assert begun == [n for n in range(60) if f"k{n % 2}" == key]
    running, most, ended = 0, 0, 0
    for line in notes(tmp_path, "pairs"):
        running += 1 if line.startswith("begin") else -1
        most, ended = max(most, running), ended + line.startswith("end")
    assert (most, ended) == (2, 20)


def test_threads_and_coroutines_keep_keys_and_chains(tmp_path: Path) -> None:
    path = write_app(
        tmp_path,
        TASKS
        + """
import asyncio

@app.task(key="key", crash_retries=50)
async def book_async(key, n):
    note("async", f"begin {key} {n} {os.getpid()}")
    await asyncio.sleep(0.002)
    note("async", f"end {key} {n} {os.getpid()}")

class Drop(Hook):
    def on_claim(self, run):
        if run.kwargs.get("b") == 666:
            run.drop()

app.add_hook(Drop())
""",
    )
    app = load_app(str(path))
    app.tasks["book"].send_many((f"k{n % 4}", n) for n in range(80))
    app.tasks["book_async"].send_many((f"k{n % 4}", n) for n in range(80))
    add, total = app.tasks["add"], app.tasks["total"]
    whole = chord((chain(add.call(n, 1), add.then(1)) for n in range(40)), total.then()).send()
    dropped = chain(add.call(1, b=666), add.then(1)).send()
    with kills(app, 5):
        run(str(path), until_empty=True, processes=2, threads=3, concurrency=10, on_event=lambda said: None)
    assert whole.result(timeout=5) == sum(n + 2 for n in range(40))
    with pytest.raises(JobFailed, match="a hook dropped it"):
        dropped.result(timeout=5)
    for name in ("booked", "async"):
        lines = [line.split() for line in notes(tmp_path, name)]
        for key in ("k0", "k1", "k2", "k3"):
            begun = [int(n) for what, k, n, _ in lines if (what, k) == ("begin", key)]
            assert begun == sorted(begun)
            assert set(begun) == {n for n in range(80) if f"k{n % 4}" == key}
    app.close()
