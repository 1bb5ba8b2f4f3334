"""A queue and its lanes as one, for those who look and tidy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pistributer import App, ClaimLost, open_queue
from pistributer.queues.contract import Queue
from pistributer.workers.inspection.whole_queue import WholeQueue, with_lanes


@pytest.fixture(params=["jsonl", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    app = App(str(tmp_path / "jobs") if request.param == "jsonl" else f"sqlite:{tmp_path / 'jobs.db'}")
    app.queue("default").put("plain")
    for level in (2, 7):
        app.queue(f"default@{level}").put(f"level {level}")
    yield app
    app.close()


@pytest.fixture
def whole(app: App) -> Iterator[Queue]:
    with with_lanes(open_queue(app.home.queue_url("default"), create=False)) as whole:
        yield whole


def test_a_queue_without_lanes_is_itself(app: App) -> None:
    app.queue("other@3")
    with with_lanes(open_queue(app.home.queue_url("default"), create=False)) as whole:
        assert isinstance(whole, WholeQueue)
    app.queue("mail").put(1)
    with with_lanes(open_queue(app.home.queue_url("mail"), create=False)) as plain:
        assert not isinstance(plain, WholeQueue)


def test_rows_come_by_priority_and_go_back_where_they_were(app: App, whole: Queue) -> None:
    assert [row.value for row in whole.scan()] == ["level 7", "level 2", "plain"]
    assert len({row.id for row in whole.scan()}) == 3
    assert whole.stats().ready == 3
    [first], [second], [third] = (whole.claim(5) for _ in range(3))
    assert [item.value for item in (first, second, third)] == ["level 7", "level 2", "plain"]
    whole.nack(first)
    assert app.queue("default@7").stats().ready == 1
    whole.bury([second, third], error="both")
    assert next(row.id[:3] for row in whole.scan("dead")) == "@2:"
    assert whole.requeue_dead(["@2:no", "no"]) == 0
    assert whole.requeue_dead() == 2
    [item] = whole.claim(start=False)
    whole.start(item)
    whole.ack(item)
    with pytest.raises(ClaimLost):
        whole.ack(item)
    assert (whole.stats().ready, whole.purge(), whole.stats().ready) == (2, 2, 0)
    assert whole.claim(timeout=0.01) == []


def test_what_is_put_is_plain_and_wakes_who_waits(app: App, whole: Queue) -> None:
    whole.purge()
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.extend(item.value for item in whole.claim(timeout=30.0)))
    waiting.start()
    app.queue("default@2").put("urgent")
    waiting.join(30)
    assert found == ["urgent"]
    whole.put("one")
    assert whole.put_many(["two", "three"]) == 2
    assert app.queue("default").stats().ready == 3
    source = whole.source("import")
    source.put("four", checkpoint=4)
    source.close()
    assert whole.sources() == {"import": 4}
    whole.wake()


def test_dead_rows_are_dropped_by_their_own_ids_only(app: App, whole: Queue) -> None:
    for _ in range(3):
        whole.bury(whole.claim())
    ids = {row.value: row.id for row in whole.scan("dead")}
    assert whole.drop_dead([ids["level 7"]]) == 1
    assert {row.value for row in whole.scan("dead")} == {"level 2", "plain"}
    assert whole.drop_dead() == 2
    whole.close()
    assert whole.closed
