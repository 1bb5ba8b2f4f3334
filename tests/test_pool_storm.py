"""Pools with threads, weights and priorities, whose workers are killed at random: every job is done, none is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from tests.worker_tools import APP_DRIVERS, RunningApp, app_url, notes, wait_for, write_app

TASKS = """
import asyncio

ledger = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def done(n):
    os.write(ledger, f"{n}\\n".encode())

@app.task(crash_retries=1000, results=False)
def plain(n):
    if n % 199 == 0:
        time.sleep(0.2)  # others wait behind it, and are taken over
    done(n)

@app.task(queue="other", crash_retries=1000, results=False)
async def awaited(n):
    await asyncio.sleep(0.001)
    done(n)
"""
KILLS = 12


@pytest.mark.parametrize("driver", APP_DRIVERS)
def test_nothing_is_lost_when_workers_are_killed(tmp_path: Path, driver: str) -> None:
    url = app_url(tmp_path, driver)
    path = write_app(tmp_path, TASKS, url)
    app, chance = load_app(str(path)), random.Random(driver)
    pools = ["crowd=other=2,default=1:processes=2:threads=3:concurrency=5", "single=default,other:processes=2"]
    sent = 0
    with RunningApp(path, pools=pools) as running:
        for kill in range(KILLS):
            for task in (app.tasks["plain"], app.tasks["awaited"]):
                urgent = task.options(priority=chance.choice([0, 3, 9]))
                for n in range(sent, sent + 20):
                    urgent.send(n)
                task.send_many((n,) for n in range(sent + 20, sent + 150))
                sent += 150
            enough = sent * kill // (KILLS + 1)
            wait_for(lambda enough=enough: len(notes(tmp_path, "ledger")) > enough)
            victims = [worker.pid for worker in read_status(app.url).workers if worker.alive]
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        wait_for(
            lambda: not list(app.queue().scan()) and all(not left(queue.stats) for queue in read_status(app.url).queues)
        )
        running.signal(signal.SIGTERM)
        outcome, _ = running.outcome()
    assert outcome["deaths"] >= KILLS // 2
    assert {int(n) for n in notes(tmp_path, "ledger")} == set(range(sent))
    app.close()


def left(stats: object) -> int:
    return sum(getattr(stats, state) for state in ("ready", "claimed", "delayed", "dead", "quarantined"))
