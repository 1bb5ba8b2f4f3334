"""Rate limits on a clock of the test's own: the promise, and how often a waiting job is put off."""

from __future__ import annotations

import heapq
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pistributer import App, RateLimit
from pistributer.workers.tickets import store
from pistributer.workers.tickets.rates import begin

from .gate_tools import work


def simulate(
    limit: RateLimit, arrivals: list[float], late: float, seed: int, *, deaths: float = 0.0
) -> tuple[list[float], Counter[int]]:
    """When jobs began, and how often each was put off, by workers who come back to a job up to `late` seconds late.

    `deaths`: the share of jobs whose worker is killed when it has just been told to begin.
    """
    chance = random.Random(seed)
    begun: list[float] = []
    put_off: Counter[int] = Counter()
    coming = [(at, number) for number, at in enumerate(arrivals)]
    heapq.heapify(coming)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        store._prepare(connection)
        while coming:
            now, number = heapq.heappop(coming)
            wait = begin(connection, "task", limit, f"job{number}", now)
            if wait:
                put_off[number] += 1
                heapq.heappush(coming, (now + wait + chance.uniform(0.0, late), number))
                continue
            begun.append(now)
            if chance.random() < deaths:
                heapq.heappush(coming, (now + chance.uniform(0.0, late), number))
        [(promised,)] = connection.execute("SELECT count(*) FROM promised").fetchall()
        assert promised == 0
    return begun, put_off


def most_in_a_window(times: list[float], per: float) -> int:
    """The most of `times` that fall into any span of `per` seconds, its end excluded."""
    times = sorted(times)
    return max(sum(start <= at < start + per for at in times) for start in times)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 8), per=st.sampled_from([0.1, 1.0, 60.0]), burst=st.integers(1, 8), seed=st.integers(0, 1000),
    lateness=st.sampled_from([0.0, 0.01, 0.3, 5.0]), deaths=st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_no_window_ever_sees_more_than_the_count(
    count: int, per: float, burst: int, seed: int, lateness: float, deaths: float
) -> None:
    chance = random.Random(seed)
    arrivals = [1e6 + chance.uniform(0.0, 5.0) * per for _ in range(60)]
    limit = RateLimit(count, per, min(burst, count))
    begun, _ = simulate(limit, arrivals, lateness * per, seed, deaths=deaths)
    # The last digits of a float are worth 0.1 µs here.
    assert most_in_a_window(begun, per - 1e-6) <= count


def test_a_waiting_job_is_put_off_about_once() -> None:
    begun, put_off = simulate(RateLimit(10), [1e6] * 500, 0.005, seed=1)
    assert len(begun) == 500
    assert sum(put_off.values()) <= 1.1 * 490
    # At most one hundredth slower than the limit.
    assert begun[-1] - begun[0] <= 49 * 1.011 + 0.1


def test_jobs_that_were_all_missed_are_planned_anew_not_polled() -> None:
    """As after a minute without workers: all come back at once, and each is put off once more."""
    limit = RateLimit(10)
    begun, put_off = simulate(limit, [1e6] * 300, 60.0, seed=2)
    assert most_in_a_window(begun, 0.999) <= 10
    assert sum(put_off.values()) <= 3 * 300


def test_burst_spreads_what_may_begin_at_once() -> None:
    begun, _ = simulate(RateLimit(10, burst=2), [1e6] * 40, 0.0, seed=1)
    assert most_in_a_window(begun, 0.001) <= 2
    assert begun[-1] - begun[0] == pytest.approx(3.8, abs=0.2)


def test_jobs_begin_in_the_order_in_which_they_came() -> None:
    order: list[int] = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        store._prepare(connection)
        coming = [(1e6, number) for number in range(50)]
        while coming:
            now, number = heapq.heappop(coming)
            wait = begin(connection, "task", RateLimit(5), f"job{number}", now)
            if wait:
                heapq.heappush(coming, (now + wait, number))
            else:
                order.append(number)
    assert order == list(range(50))


def test_a_limit_that_is_changed_keeps_what_has_begun() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        store._prepare(connection)
        for number in range(5):
            assert begin(connection, "task", RateLimit(5), f"a{number}", 1e6) == 0.0
        assert begin(connection, "task", RateLimit(6), "b", 1e6 + 0.5) == 0.0
        assert begin(connection, "task", RateLimit(6), "c", 1e6 + 0.5) >= 0.5
        assert begin(connection, "task", RateLimit(3), "d", 1e6 + 0.5) >= 0.5
        assert begin(connection, "task", RateLimit(3), "d", 1e6 + 1.1) == 0.0


def test_a_purge_forgets_what_was_planned(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    task = app.task(rate_limit="1/h", name="task")(lambda n: n)
    jobs = task.send_many((n,) for n in range(5))
    work(app, ready_only=True)
    assert (jobs[0].status(), jobs[4].status()) == ("done", "delayed")
    assert app.purge() == 4
    [(promised,)] = app.gate.tickets.database.read("SELECT count(*) FROM promised")
    [(planned, begun)] = app.gate.tickets.database.read("SELECT max(planned), max(begun) FROM rates")
    assert (promised, planned) == (0, begun)
    app.close()
