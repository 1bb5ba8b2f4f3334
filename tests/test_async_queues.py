"""Queues and jobs can be awaited: the loop goes on meanwhile, and a cancelled task loses nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pistributer import (
    AsyncDurableQueue,
    AsyncQueue,
    DurableQueue,
    JobFailed,
    QueueClosed,
    QueueShutDown,
    ResultTimeout,
    open_queue,
)
from pistributer.workers.loading import load_app

from .processes import Child

DRIVERS = ["jsonl", "txt", "sqlite", "memory"]


def play(scene: Coroutine[Any, Any, Any]) -> Any:
    """Run `scene` while a metronome shows that the loop is never blocked for long."""

    async def conducted() -> Any:
        async def metronome() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.005)
                pauses.append(loop.time() - before)

        loop, pauses = asyncio.get_running_loop(), [0.0]
        beat = loop.create_task(metronome())
        try:
            result = await asyncio.wait_for(scene, 60)
        finally:
            beat.cancel()
        assert max(pauses) < 5, "the loop was blocked"
        return result

    return asyncio.run(conducted())


def url(driver: str, folder: Path) -> str:
    return f"{driver}:{folder / 'q'}" + (".db" if driver == "sqlite" else "")


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_can_be_awaited(driver: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncQueue(url(driver, tmp_path)) as queue:
            waiting = asyncio.create_task(queue.get())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await queue.put("first")
            item = await waiting
            assert (item.value, item.attempt) == ("first", 1)
            await queue.nack(item, error="again")
            (item,) = await queue.claim(5)
            assert (item.value, item.attempt) == ("first", 2)
            await queue.ack(item)
            assert await queue.put_many(["a", "b", "c"]) == 3
            one, two = await queue.claim(2, start=False)
            await queue.start(one)
            await queue.bury(one, error="no")
            await queue.ack([two])
            stats = await queue.stats()
            assert (stats.ready, stats.dead) == (1, 1)
            assert [item.value for item in await queue.claim(5)] == ["c"]
            assert await queue.claim(timeout=0.05) == []
            with pytest.raises(TimeoutError):
                await queue.get(timeout=0.05)

    play(scene())


def test_many_tasks_wait_and_each_row_goes_to_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncQueue(open_queue(tmp_path / "q")) as queue:

            async def work() -> None:
                while (item := await queue.get()).value is not None:
                    got.append(item.value)
                    await queue.ack(item)
                await queue.ack(item)

            got: list[int] = []
            workers = [asyncio.create_task(work()) for _ in range(20)]
            for number in range(200):
                await queue.put(number)
            await queue.put_many([None] * 20)
            await asyncio.gather(*workers)
            assert sorted(got) == list(range(200))

    play(scene())


def test_a_row_that_was_claimed_for_a_cancelled_task_goes_to_the_next(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncQueue(open_queue(tmp_path / "q")) as queue:
            claiming, go_on = threading.Event(), threading.Event()
            claim = queue.queue.claim

            def slow(*args: Any, **options: Any) -> Any:
                items = claim(*args, **options)
                claiming.set()
                go_on.wait(30)
                return items

            queue.queue.claim = slow  # type: ignore[method-assign]
            await queue.put("x")
            task = asyncio.create_task(queue.get())
            await until(claiming.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            assert (await queue.get(timeout=10)).value == "x"

    play(scene())


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncQueue(tmp_path / "q", max_rows=1) as queue:
            await queue.put(1)
            putting = asyncio.create_task(queue.put(2))
            await asyncio.sleep(0.03)
            assert not putting.done()
            await queue.ack(await queue.get())
            await putting
            assert (await queue.get()).value == 2

    play(scene())


@pytest.mark.parametrize("durable", [False, True])
def test_a_closed_queue_ends_those_who_wait_and_refuses_the_rest(durable: bool, tmp_path: Path) -> None:
    async def scene() -> None:
        queue: Any = (AsyncDurableQueue if durable else AsyncQueue)(tmp_path / "q")
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0.02)
        await queue.close()
        await queue.close()
        with pytest.raises(QueueClosed):
            await waiting
        for call in (queue.get, lambda: queue.put(1)):
            with pytest.raises(QueueClosed):
                await call()

    play(scene())


# -- DurableQueue


def test_a_durable_queue_can_be_awaited(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncDurableQueue(tmp_path / "q", maxsize=2) as queue:
            waiting = asyncio.create_task(queue.get())
            await queue.put((1, {2}))
            assert await waiting == (1, {2})
            await queue.put("a")
            await queue.put("b")
            assert (await queue.qsize(), await queue.full(), await queue.empty()) == (2, True, False)
            putting = asyncio.create_task(queue.put("c"))
            assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]
            await putting
            joining = asyncio.create_task(queue.join())
            for _ in range(4):
                assert not joining.done()
                await queue.task_done()
            await joining
            with pytest.raises(ValueError, match="too many times"):
                await queue.task_done()
            waiting = asyncio.create_task(queue.get())
            await queue.shutdown()
            with pytest.raises(QueueShutDown):
                await waiting
            with pytest.raises(QueueShutDown):
                await queue.put(1)

    play(scene())


def hold_two(pipe: Any, path: Path) -> None:
    async def scene() -> None:
        queue = AsyncDurableQueue(path)

        async def get_and_hold() -> None:
            pipe.send(await queue.get())
            await asyncio.sleep(60)

        await asyncio.gather(get_and_hold(), get_and_hold())

    asyncio.run(scene())


def test_an_item_is_in_the_hand_of_its_task(tmp_path: Path) -> None:
    """The get of one task does not say that another one is done: killed, both items come again."""
    with DurableQueue(tmp_path / "q") as queue:
        for number in range(3):
            queue.put(number)
        with Child(hold_two, tmp_path / "q") as child:
            assert {child.hear(), child.hear()} == {0, 1}
            child.kill()
        assert [queue.get(timeout=10) for _ in range(3)] == [0, 1, 2]


def test_an_item_that_was_got_for_a_cancelled_task_goes_to_the_next(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncDurableQueue(tmp_path / "q") as queue:
            for _ in range(20):
                waiting = asyncio.create_task(queue.get())
                await asyncio.sleep(0.001)
                waiting.cancel()
            for number in range(50):
                await queue.put(number)
                waiting = asyncio.create_task(queue.get())
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                if waiting.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await waiting
                    assert await queue.get() == number
                else:
                    assert await waiting == number

    play(scene())


# -- jobs


def test_a_job_can_be_awaited(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        f"from pistributer import App\napp = App({str(tmp_path / 'home')!r})\n\n\n@app.task\ndef double(n):\n"
        "    if n < 0:\n        raise ValueError('negative')\n    return 2 * n\n"
    )
    (double,) = load_app(str(app)).tasks.values()

    async def scene() -> None:
        jobs = [double.send(n) for n in range(40)]
        bad = double.send(-1)
        with pytest.raises(ResultTimeout):
            await jobs[0].wait(timeout=0.05)
        running = run_command(app)
        assert await asyncio.gather(*jobs) == [2 * n for n in range(40)]
        with pytest.raises(JobFailed, match="negative"):
            await bad
        await running

    play(scene())


def run_command(app: Path) -> Any:
    command = [sys.executable, "-m", "pistributer", "run", str(app), "--until-empty"]
    return asyncio.ensure_future(
        asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=60)
    )


def test_asyncio_is_loaded_by_those_only_who_use_it() -> None:
    code = "import sys, pistributer; pistributer.DurableQueue, pistributer.open_queue; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
