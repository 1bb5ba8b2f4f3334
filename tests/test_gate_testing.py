"""Keys, rates and compositions in the testing kit's eager and memory mode, with the kit's clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from pistributer import App, JobFailed, JobSkipped, chain, chord, group
from pistributer.testing import eager, memory


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App(tmp_path / "jobs")

    @app.task(key="who", retries=1, retry_delay=60.0)
    def book(who: str, n: int) -> str:
        if n < 0:
            raise ValueError("not yet")
        ran.append(f"{who}{n}")
        return who

    @app.task(unique="skip")
    def index(n: int) -> int:
        ran.append(f"index {n}")
        return n

    @app.task(rate_limit="2/m")
    def mail(n: int) -> int:
        ran.append(f"mail {n}")
        return n

    ran: list[str] = []
    app.ran = ran  # type: ignore[attr-defined]
    app.task(name="add")(lambda a, b=1: a + b)
    app.task(name="total")(sum)
    return app


def ran(app: App) -> list[str]:
    found: list[str] = app.ran  # type: ignore[attr-defined]
    return found


def test_a_key_in_memory_mode(app: App) -> None:
    with memory(app) as stage:
        jobs = app.tasks["book"].send_many(("a", n) for n in range(3))
        assert [job.status() for job in jobs] == ["queued", "held", "held"]
        stage.run_until_empty()
        assert [job.result() for job in jobs] == ["a"] * 3
    assert ran(app) == ["a0", "a1", "a2"]
    assert not app.gate.tickets.exists(), "the real app has not been touched"


def test_a_retry_holds_its_key_until_the_clock_comes_to_it(app: App) -> None:
    with memory(app) as stage:
        failing, after = app.tasks["book"].send_many([("a", -1), ("a", 1)])
        stage.run_due()
        assert (failing.status(), after.status(), ran(app)) == ("delayed", "held", [])
        stage.run_until_empty()
        assert (failing.status(), after.status(), ran(app)) == ("failed", "done", ["a1"])


def test_compositions_in_eager_mode(app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    with eager(app):
        assert chain(add.call(1), add.then(10), add.then(100)).send().result() == 112
        assert chord([add.call(n) for n in range(3)], total.then()).send().result() == 6
        assert chord([], total.then()).send().result() == 0
        assert group([add.call(1), add.call(2)]).send().result() == [2, 3]
        assert list(add.map(range(5), window=2)) == [1, 2, 3, 4, 5]
        with pytest.raises(JobFailed, match="which this follows from"):
            chain(add.call(1), add.then("text"), add.then()).send().result()


def test_uniqueness_and_ids(app: App) -> None:
    index = app.tasks["index"]
    with memory(app) as stage:
        first, second = index.send(1), index.send(1)
        with pytest.raises(JobSkipped):
            second.result()
        same = index.options(idempotency_id="x").send(2)
        assert index.options(idempotency_id="x").send(2) == same
        stage.run_due()
        assert first.result() == 1
        stage.clock.advance(86401.0)
        assert index.options(idempotency_id="x").send(2) != same
    assert ran(app) == ["index 1", "index 2"]


def test_a_rate_goes_by_the_clock(app: App) -> None:
    mail = app.tasks["mail"]
    with memory(app) as stage:
        start = stage.clock.now()
        mail.send_many((n,) for n in range(5))
        stage.run_due()
        assert ran(app) == ["mail 0", "mail 1"]
        stage.run_until_empty()
        assert len(ran(app)) == 5
        assert stage.clock.now() - start >= 120.0
