"""One worker, several queues: whoever puts into any of them wakes it, and no ring is lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer import App, Pool, errors
from pistributer.workers.execution.lanes import Lanes
from tests.processes import Child, wait_for
from tests.worker_tools import APP_DRIVERS, app_url


@pytest.fixture(params=APP_DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return app_url(tmp_path, request.param)


@pytest.fixture
def app(url: str) -> Iterator[App]:
    app = App(url)
    yield app
    app.close()


def claim_one(lanes: Lanes, timeout: float = 0.0) -> Any:
    items = lanes.claim(1, timeout, start=True)
    if not items:
        return None
    lanes.current.ack(items)
    return items[0].value


def test_strict_order_and_levels(app: App) -> None:
    for name in ("low", "high", "low@9", "high@2", "high@7"):
        app.queue(name).put(name)
    lanes = Lanes(app, Pool("p", ["high", "low"]))
    assert [claim_one(lanes) for _ in range(6)] == ["high@7", "high@2", "high", "low@9", "low", None]


def test_a_full_level_does_not_hold_up_an_urgent_one(url: str) -> None:
    app = App(url, max_rows=2)
    app.queue("low").put_many(["first", "second"])
    with pytest.raises(errors.QueueFull):
        app.queue("low").put("third", block=False)
    app.queue("low@5").put("urgent", block=False)
    assert [claim_one(Lanes(app, Pool("p", ["low"]))) for _ in range(2)] == ["urgent", "first"]
    app.close()


def test_weights(app: App) -> None:
    for name in ("a", "b"):
        app.queue(name).put_many([name] * 40)
    lanes = Lanes(app, Pool("p", {"a": 3, "b": 1}))
    assert "".join(claim_one(lanes) for _ in range(8)) == "aabaaaba"


def test_a_lane_that_comes_later_is_found(app: App, url: str) -> None:
    lanes = Lanes(app, Pool("p", ["a", "b"]))
    assert claim_one(lanes) is None
    other = App(url)
    other.queue("b@5").put("urgent")
    assert wait_for(lambda: claim_one(lanes)) == "urgent"
    other.close()


def wait_and_take(pipe: Any, url: str, queues: list[str]) -> None:
    app = App(url)
    lanes = Lanes(app, Pool("p", queues))
    pipe.send("ready")
    while (found := claim_one(lanes, 30.0)) != "end":
        if found is not None:
            pipe.send((found, time.monotonic()))
    app.close()


def test_a_put_into_any_queue_wakes_the_sleeper(app: App, url: str) -> None:
    with Child(wait_and_take, url, ["a", "b", "c"]) as child:
        child.hear()
        delays = []
        for name in [*"abcabcabcabc", "a@5", "b@5", "b@5"]:
            queue: Any = app.queue(name)
            wait_for(app.queue("c")._bell.has_sleepers, "the child's sleep")  # type: ignore[attr-defined]
            sent = time.monotonic()
            queue.put(name)
            found, at = child.hear()
            assert found == name
            delays.append(at - sent)
        app.queue("a").put("end")
        child.result()
    # Whoever only looks now and then, every 0.4 s, can not do this.
    assert sorted(delays)[len(delays) // 2] < 0.1


def test_a_ring_is_handed_on_to_the_next_who_sleeps(app: App, url: str) -> None:
    """Two rings meet in one worker, which follows one of them. The other row goes to the other worker, at once."""
    lanes = Lanes(app, Pool("p", ["a", "b"]))
    with Child(wait_and_take, url, ["b"]) as child:
        child.hear()
        bell = app.queue("b")._bell  # type: ignore[attr-defined]
        wait_for(bell.has_sleepers)
        # As if this worker slept, too: its waiter is found first, and the row in b rings nobody else.
        rung = threading.Thread(target=lanes.sleep, args=(30.0,))
        rung.start()
        app.queue("a").put("mine")
        rung.join()
        lanes._rung = [app.queue("a"), app.queue("b")]
        app.queue("b").put("theirs")
        assert claim_one(lanes) == "mine"
        assert lanes._rung == []
        assert child.hear()[0] == "theirs"
        app.queue("b").put("end")
        child.result()


def test_who_is_awake_is_not_rung(app: App) -> None:
    lanes = Lanes(app, Pool("p", ["a", "b"]))
    app.queue("b").put("there already")
    lanes.sleep(30.0)
    assert not any(queue._bell.has_sleepers() for queue in lanes.all())  # type: ignore[attr-defined]
    assert claim_one(lanes) == "there already"
