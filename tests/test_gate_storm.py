"""Senders, workers and supervisors killed at random: each job is admitted once, and nothing that follows is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from pistributer import chain, chord
from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run

from .processes import Child, wait_for
from .worker_tools import RunningApp, notes, write_app

APP = """
class Ledger(Hook):
    def before_run(self, run):
        note("ledger", f"{run.task.name} {run.job_id} {os.getpid()} {run.args!r:.60}")

app.add_hook(Ledger())

@app.task(key="key", crash_retries=1000, results=False)
def book(key, sender, n):
    time.sleep(0.001)

@app.task(crash_retries=1000, results=False)
def first(sender, n):
    return [sender, n]

@app.task(key=lambda pair: pair[0], crash_retries=1000, results=False)
def second(pair):
    return pair

@app.task(crash_retries=1000, results=False)
def third(pair):
    note("chained", f"{pair[0]} {pair[1]}")

@app.task(crash_retries=1000, results=False)
def gather(pairs, sender, n):
    note("gathered", f"{sender} {n} {len(pairs)}")
"""
SECONDS = float(os.environ.get("PISTRIBUTER_STORM", "3"))
SENDERS = 2


def send_on(pipe: Any, path: str, sender: int) -> None:
    """Send one numbered lot after the other, beginning with the one that may have been interrupted."""
    app = load_app(path)
    book, first, second, third, gather = (app.tasks[name] for name in ("book", "first", "second", "third", "gather"))
    sent = Path(path).parent / f"sent-{sender}"
    done = sent.read_text().count("\n") if sent.exists() else 0
    for n in range(done, 100_000):
        book.options(idempotency_id=f"{sender}-{n}").send(f"k{n % 3}", sender, n)
        chain(first.call(sender, n), second.then(), third.then()).send()
        if n % 5 == 0:
            chord([first.call(sender, n) for _ in range(4)], gather.then(sender, n)).send()
        with sent.open("a") as file:
            file.write(f"{n}\n")
        time.sleep(0.005)


def test_a_storm_of_kills(tmp_path: Path) -> None:
    path = write_app(tmp_path, APP)
    app = load_app(str(path))
    app.home.create()
    chance, kills = random.Random(11), 0
    running = RunningApp(path, processes=3)
    senders = [Child(send_on, str(path), number, method="spawn") for number in range(SENDERS)]
    try:
        wait_for(lambda: all((tmp_path / f"sent-{number}").exists() for number in range(SENDERS)), "the senders")
        wait_for(lambda: notes(tmp_path, "chained"), "the workers")
        begun = time.monotonic()
        while time.monotonic() - begun < SECONDS:
            time.sleep(chance.uniform(0.05, 0.25))
            workers = [worker.pid for worker in read_status(app.url).workers if worker.alive and worker.pid]
            which = chance.random()
            if which < 0.3:
                number = chance.randrange(SENDERS)
                senders[number].kill()
                senders[number].__exit__(None, None, None)
                senders[number] = Child(send_on, str(path), number, method="spawn")
            elif which < 0.4:
                os.kill(running.process.pid, signal.SIGKILL)
                running.process.wait()
                running = RunningApp(path, processes=3)
            elif workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
            kills += 1
    finally:
        for child in senders:
            child.kill()
            child.__exit__(None, None, None)
        running.signal(signal.SIGTERM)
        running.process.wait(30)
        running.__exit__(None, None, None)
    assert kills, "nobody was killed"
    # Orphans of a killed supervisor leave by themselves.
    wait_for(lambda: not any(worker.alive for worker in read_status(app.url).workers), "the workers' end")
    assert run(str(path), until_empty=True, processes=2, on_event=lambda said: None).reason == "drained"
    judge(tmp_path)
    assert app.gate.held() == 0
    app.close()


def judge(folder: Path) -> None:
    lines = [line.split(" ", 3) for line in notes(folder, "ledger")]
    jobs: dict[str, set[str]] = defaultdict(set)
    for task, job, _, args in lines:
        if task == "book":
            jobs[args].add(job)
    assert all(len(ids) == 1 for ids in jobs.values()), "a job was admitted twice"
    once = [(job, pid) for _, job, pid, _ in lines]
    assert len(once) == len(set(once)), "one process ran a job twice"
    for sender in range(SENDERS):
        sent = [int(line) for line in (folder / f"sent-{sender}").read_text().split()]
        assert sent == list(range(len(sent)))
        booked = {args for args in jobs if args.split(", ")[1] == str(sender)}
        assert len(booked) in (len(sent), len(sent) + 1), "a job was lost"
        chained = {int(line.split()[1]) for line in notes(folder, "chained") if line.startswith(f"{sender} ")}
        assert set(sent) <= chained, "a chain was lost"
        gathered = [line for line in notes(folder, "gathered") if line.startswith(f"{sender} ")]
        assert {f"{sender} {n} 4" for n in sent if n % 5 == 0} <= set(gathered), "a chord was lost"
        for key in ("k0", "k1", "k2"):
            order = [int(args.strip("[]").split(", ")[2]) for task, _, _, args in lines
                     if task == "book" and args.startswith(f"['{key}', {sender}, ")]  # fmt: skip
            assert order == sorted(order), "a job overtook another one of its key"
