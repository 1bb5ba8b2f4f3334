"""A queue and the lanes of its jobs with a priority as one queue, for those who look and tidy: commands, mostly.

A row of a lane is called `@5:0001-7` here, because ids are unique within a lane only.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from pistributer.queues.contract import Item, Queue, Row, Source, State, Stats
from pistributer.queues.opening import open_queue, split_url
from pistributer.queues.waiting import sleep_for_any

from ..home import DEFAULT_QUEUE


def add_up(stats: Iterable[Stats]) -> Stats:
    """The counts of several queues as if they were one."""
    found = list(stats)
    return Stats(**{field.name: sum(getattr(one, field.name) for one in found) for field in fields(Stats)})


def with_lanes(queue: Queue) -> Queue:
    """`queue`, which an app keeps, together with its lanes; the queue itself if it has none."""
    lanes = {level: open_queue(url, create=False) for level, url in _lanes_beside(queue.url)}
    return WholeQueue(queue, lanes) if lanes else queue


def _lanes_beside(url: str) -> list[tuple[int, str]]:
    """`(priority, URL)` of each lane of the queue at `url`, the most urgent first; see home.py for where they lie."""
    driver, path = split_url(url)
    if driver == "sqlite":
        found = glob.glob(f"{glob.escape(path.removesuffix('.db'))}@[1-9].db")
        found += glob.glob(f"{glob.escape(path)}.app/queues/{DEFAULT_QUEUE}@[1-9].db")
    else:
        found = glob.glob(f"{glob.escape(path)}@[1-9]/pistributer.json")
        found = [os.path.dirname(description) for description in found]
    lanes = [(int(lane.removesuffix(".db")[-1]), f"{driver}:{lane}") for lane in found]
    return sorted(lanes, reverse=True)


class WholeQueue(Queue):
    """What is put goes to the queue itself; what is claimed comes from the most urgent lane that has rows."""

    def __init__(self, queue: Queue, lanes: dict[int, Queue]) -> None:
        self.driver = queue.driver  # type: ignore[misc]  # that of the queue
        self.url = queue.url
        self._queue = queue
        self._lanes = lanes
        #: Where claimed items came from.
        self._owners: dict[Item, Queue] = {}

    def _all(self) -> list[tuple[str, Queue]]:
        """Each queue, and what the ids of its rows begin with here."""
        return [*((f"@{level}:", lane) for level, lane in self._lanes.items()), ("", self._queue)]

    def put(self, value: Any, *, delay: float = 0.0, block: bool = True, timeout: float | None = None) -> None:
        self._queue.put(value, delay=delay, block=block, timeout=timeout)

    def put_many(self, values: Iterable[Any], *, block: bool = True, timeout: float | None = None) -> int:
        return self._queue.put_many(values, block=block, timeout=timeout)

    def source(self, name: str) -> Source:
        return self._queue.source(name)

    def sources(self) -> dict[str, Any]:
        return {name: checkpoint for _, queue in self._all() for name, checkpoint in queue.sources().items()}

    def claim(self, n: int = 1, *, timeout: float | None = 0.0, start: bool = True) -> list[Item]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (items := self._claim_now(n, start)):
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or not self.wait(left):
                break
        return items

    def _claim_now(self, n: int, start: bool) -> list[Item]:
        for _, queue in self._all():
            if items := queue.claim(n, start=start):
                self._owners.update(dict.fromkeys(items, queue))
                return items
        return []

    def start(self, item: Item) -> None:
        self._owners.get(item, self._queue).start(item)

    def ack(self, items: Item | Iterable[Item]) -> None:
        self._settle(items, lambda queue, own: queue.ack(own))

    def nack(
        self, items: Item | Iterable[Item], *, delay: float = 0.0, error: str | None = None, counted: bool = True
    ) -> None:
        self._settle(items, lambda queue, own: queue.nack(own, delay=delay, error=error, counted=counted))

    def bury(self, items: Item | Iterable[Item], *, error: str | None = None) -> None:
        self._settle(items, lambda queue, own: queue.bury(own, error=error))

    def _settle(self, items: Item | Iterable[Item], settle: Callable[[Queue, Sequence[Item]], object]) -> None:
        by_queue: dict[Queue, list[Item]] = {}
        for item in [items] if isinstance(items, Item) else items:
            # One that is not ours is refused by the queue.
            by_queue.setdefault(self._owners.pop(item, self._queue), []).append(item)
        for queue, own in by_queue.items():
            settle(queue, own)

    def wait(self, timeout: float | None = None) -> bool:
        queues: list[Any] = [queue for _, queue in self._all()]
        deadline = None if timeout is None else time.monotonic() + timeout
        while not any(queue.may_have_rows() for queue in queues):
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            sleep_for_any(queues, left)
        return True

    def wake(self) -> None:
        for _, queue in self._all():
            queue.wake()

    def requeue_dead(self, ids: Iterable[str] | None = None) -> int:
        return self._for_ids(ids, lambda queue, own: queue.requeue_dead(own))

    def drop_dead(self, ids: Iterable[str] | None = None) -> int:
        return self._for_ids(ids, lambda queue, own: queue.drop_dead(own))

    def _for_ids(self, ids: Iterable[str] | None, call: Callable[[Queue, list[str] | None], int]) -> int:
        if ids is None:
            return sum(call(queue, None) for _, queue in self._all())
        given = list(ids)
        count = 0
        for prefix, queue in self._all():
            own = [id[len(prefix) :] for id in given if id.startswith(prefix) and (prefix or not id.startswith("@"))]
            count += call(queue, own) if own else 0
        return count

    def stats(self) -> Stats:
        return add_up(queue.stats() for _, queue in self._all())

    def scan(self, *states: State) -> Iterator[Row]:
        for prefix, queue in self._all():
            for row in queue.scan(*states):
                yield replace(row, id=prefix + row.id) if prefix else row

    def purge(self) -> int:
        return sum(queue.purge() for _, queue in self._all())

    def close(self) -> None:
        for _, queue in self._all():
            queue.close()

    @property
    def closed(self) -> bool:
        return self._queue.closed
