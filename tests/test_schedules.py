"""Scheduled calls: which moments are due, and that each is run once."""

from __future__ import annotations

import itertools
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pistributer import App, errors
from pistributer.workers.inspection.status import read_status
from pistributer.workers.loading import load_app
from pistributer.workers.schedules import LATE, Misfire, Schedule, find_zone
from tests.worker_tools import RunningApp, notes, wait_for, write_app


def schedule(
    *, cron: str | None = None, every: float | None = None, zone: str = "UTC", misfire: Misfire = "once"
) -> Schedule:
    return Schedule("s", "task", "default", (), {}, cron, every, find_zone(zone), misfire)


def at(text: str) -> float:
    """Seconds since the epoch of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M")


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        pytest.param("*/20 * * * *", "UTC", "2026-05-01 10:20", ["05-01 10:40", "05-01 11:00"], id="later, not at"),
        pytest.param("0 3 * * *", "Europe/Berlin", "2026-05-01 00:00", ["05-01 01:00", "05-02 01:00"], id="in a zone"),
        pytest.param("0 0 * * MON#1", "UTC", "2026-05-01 00:00", ["05-04 00:00", "06-01 00:00"], id="first Mondays"),
        # Spring: the clocks go from 02:00 to 03:00 on March 29.
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 01:00", "03-30 00:30"], id="the hour left out"
        ),
        # Autumn: from 03:00 back to 02:00 on October 25.
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"], id="the hour twice"
        ),
        pytest.param(
            "30 * * * *", "Europe/Berlin", "2026-10-25 00:00", ["10-25 00:30", "10-25 01:30"], id="hourly goes on"
        ),
    ],
)
def test_the_moments_of_a_cron_expression(cron: str, zone: str, after: str, expected: list[str]) -> None:
    found = schedule(cron=cron, zone=zone).following(at(after))
    assert [shown(moment) for moment in itertools.islice(found, len(expected))] == expected


@pytest.mark.parametrize("last", ["2026-05-01 08:00", "2026-05-01 10:00"])
@pytest.mark.parametrize(
    ("misfire", "expected"),
    [("skip", ["10:30"]), ("once", ["10:15", "10:30"]), ("all", ["…", "10:00", "10:15", "10:30"])],
)
def test_what_was_missed_is_run_as_the_schedule_says(misfire: Misfire, last: str, expected: list[str]) -> None:
    found = [
        shown(moment)[6:]
        for moment in schedule(cron="*/15 * * * *", misfire=misfire).due(at(last), at("2026-05-01 10:30:20"))
    ]
    if misfire == "all":
        assert found == [shown(at(last) + 900 * n)[6:] for n in range(1, len(found) + 1)]
        assert found[-1] == "10:30"
    else:
        assert found == expected


TIMES = st.floats(0, 4e9)


@given(TIMES, st.floats(0, 5000), st.floats(0.5, 1000), st.sampled_from(["skip", "once", "all"]))
def test_of_an_interval_each_moment_is_due_once(last: float, passed: float, every: float, misfire: Misfire) -> None:
    it, now = schedule(every=every, misfire=misfire), last + passed
    due = list(it.due(last, now))
    assert due == sorted(set(due))
    assert all(last < moment <= now for moment in due)
    wanted = list(itertools.takewhile(lambda moment: moment <= now, it.following(last)))
    missed = [moment for moment in wanted if moment <= now - LATE]
    kept = {"all": missed, "once": missed[-1:], "skip": []}[misfire]
    assert due == [*kept, *(moment for moment in wanted if moment > now - LATE)]


@given(TIMES, st.sampled_from(["* * * * *", "7 3 * * *", "0 0 29 2 *"]), st.sampled_from(["UTC", "America/New_York"]))
@example(987557579.5, "* * * * *", "UTC")  # half a second before a moment
def test_the_last_moment_before_is_followed_by_the_next_one_after(when: float, cron: str, zone: str) -> None:
    it = schedule(cron=cron, zone=zone)
    before, after = it.preceding(when), next(it.following(when))
    assert before is not None
    assert before <= when < after
    assert next(it.following(before)) == after


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")

    @app.task
    def task(n: int = 0) -> None: ...

    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "either cron= or every="),
        ({"cron": "* * * * *", "every": 1}, "either cron= or every="),
        ({"every": 0}, "must be positive"),
        ({"every": timedelta(seconds=-1)}, "must be positive"),
        ({"cron": "61 * * * *"}, "no cron expression"),
        ({"cron": "0 0 30 2 *"}, "no moment|no cron expression"),
        ({"every": 1, "zone": "Mars/Olympus"}, "no time zone"),
        ({"every": 1, "misfire": "never"}, "misfire is one of"),
        ({"every": 1, "name": "a/b"}, "letters"),
    ]
    for options, words in refused:
        with pytest.raises(ValueError, match=words):
            app.schedule(task, **options)
    with pytest.raises(errors.BadCall):
        app.schedule(task, every=1, args=("too", "many"))
    app.schedule(task, every=1)
    with pytest.raises(ValueError, match="there is a schedule"):
        app.schedule(task, every=2)


@pytest.mark.parametrize("driver", ["jsonl", "sqlite"])
def test_each_moment_is_run_once_although_the_scheduler_is_killed(tmp_path: Path, driver: str) -> None:
    url = str(tmp_path / "jobs") if driver == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}"
    path = write_app(
        tmp_path,
        """
        @app.task(results=False)
        def tick(text, n=0):
            note("ticks", f"{text} {n}")

        app.schedule(tick, every=0.02, args=("tick",), kwargs={"n": 7})
        """,
        url,
    )
    app = load_app(str(path))
    with app.queue().source("schedule.tick") as source:
        began = datetime.now(UTC).timestamp() // 1
        source.commit(began)
    with RunningApp(path, processes=1) as running:
        for kill in range(3):
            wait_for(lambda kill=kill: len(notes(tmp_path, "ticks")) > 20 * (kill + 1))
            (scheduler,) = (it for it in read_status(app.url).workers if it.role == "scheduler")
            os.kill(scheduler.pid, signal.SIGKILL)
            wait_for(lambda pid=scheduler.pid: _scheduler_pid(app) not in (0, pid))
        running.signal(signal.SIGTERM)
        outcome, _ = running.outcome()
    assert outcome["deaths"] == 3
    reached = app.queue().sources()["schedule.tick"]
    ended = [*notes(tmp_path, "ticks"), *("left" for _ in app.queue().scan())]
    assert len(ended) == round((reached - began) / 0.02)
    assert set(ended) <= {"tick 7", "left"}
    app.close()


def _scheduler_pid(app: App) -> int:
    return next((it.pid for it in read_status(app.url).workers if it.role == "scheduler" and it.alive), 0)
