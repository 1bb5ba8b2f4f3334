"""What a consumer's process does: call its function with the rows of a queue.

With `batch`, rows come together the first time. If the function raises, they all go back at once and come again one by
one, so that one bad row costs the others a second delivery, not their life; the same happens to rows whose process was
killed.
"""

from __future__ import annotations

import math
import random
import time
import traceback
from collections.abc import Callable
from typing import Any

from pistributer.queues.contract import Item

from ..declarations import Consumer
from ..history import row_id
from ..pools import Pool
from ..retries import Snooze, judge
from ..supervision.board import Desk
from ..supervision.child import Child
from ..supervision.last_words import open_page
from ..supervision.paused import PausePage, beside
from .calling import Caller
from .deaths import explain
from .lanes import Lanes
from .loop import WAIT, Loop, leave
from .worker import load_checked


class RowLoop(Loop):
    """One row at a time, claimed ahead."""

    def __init__(self, child: Child, consumer: Consumer, lanes: Lanes, desk: Desk, caller: Caller, past: str) -> None:
        super().__init__(child, lanes, desk)
        #: The folder of the app's history.
        self._past = past
        self._consumer = consumer
        self._call: Callable[[Any], Any] = caller.plain(consumer.function)
        self._shown = consumer.name.encode()
        self._chance = random.Random()

    def handle(self, item: Item) -> None:
        if item.attempt >= self._consumer.most_attempts:
            self._refuse_deadly(item)
            return
        self.queue.start(item)
        self._call_alone(item, item.value)

    def _call_alone(self, item: Item, value: Any) -> None:
        self.desk.running(item.id, self._shown, item.attempt)
        try:
            self._call(value)
        except BaseException as error:  # noqa: BLE001 (as for tasks: even sys.exit fails the row, not the process)
            self._failed(item, error)
        else:
            self.finish(item)
        self.desk.idle()

    def _failed(self, item: Item, error: BaseException) -> None:
        # The first attempt in a batch is in company, and does not count against the row.
        failures = max(1, item.attempt - (self._consumer.batch > 1))
        verdict = judge(error, failures, self._consumer.policy, self._chance)
        text = _describe(item, error)
        if verdict.again_in is not None:
            self.give_back([item], delay=verdict.again_in, error=text, counted=verdict.counted)
        elif verdict.cancelled:
            self.finish(item)
        else:
            self.bury([item], error=text)

    def _refuse_deadly(self, item: Item) -> None:
        text = "times and never finished: each time its process died, or it had failed before"
        cause, words = explain(self._past, row_id(self._consumer.queue, item.id))
        self.bury([item], error=f"{words}handed out {item.attempt} {text}{cause}")


class BatchLoop(RowLoop):
    """Many rows at a time. Their attempts are counted by the claim, because all of them begin at once.

    With `max_wait` rows are claimed as they come and begin later, all at once; their attempts are counted then, so that
    those whose process is killed while they wait come again as if nothing had been.
    """

    #: Whether the next claim is to take one row only.
    _alone = False

    def run(self) -> None:
        while not self.child.stop_requested():
            age = None if self._alone else self._consumer.max_wait
            self._handle_claim(self._claim() if age is None else self._gather(age))

    def _handle_claim(self, items: list[Item]) -> None:
        """All new rows together, or one of those that failed in company.

        The others of those go back as if they had not been claimed: each may kill this process, and the attempts of who was
        only waiting behind it must not run out.
        """
        fresh = [item for item in items if item.attempt == 1]
        again = [item for item in items if item.attempt > 1]
        self._alone = bool(again)
        if waiting := again[0 if fresh else 1 :]:
            self.give_back(waiting, delay=0.0, error=None, counted=False)
        if fresh:
            self._call_together(fresh)
        elif again:
            self._again(again[0])
            self.settle()
        self.child.did(len(items) - len(waiting))

    def _claim(self) -> list[Item]:
        items = self.lanes.claim(1 if self._alone else self._consumer.batch, WAIT, start=True)
        self.queue = self.lanes.current
        return items

    def _gather(self, max_wait: float) -> list[Item]:
        """A whole batch, or what there is `max_wait` seconds after the first row; nothing if a stop was requested."""
        items: list[Item] = []
        call_at = math.inf
        while len(items) < self._consumer.batch and (now := time.monotonic()) < call_at:
            if self.child.stop_requested():
                return []  # they go back when the queue is closed
            if self.lanes.paused():
                return self._rest(items)
            found = self.queue.claim(self._consumer.batch - len(items), timeout=min(WAIT, call_at - now), start=False)
            if found and not items:
                call_at = time.monotonic() + max_wait
            items += found
        for item in items:
            self.queue.start(item)
        return items

    def _rest(self, items: list[Item]) -> list[Item]:
        """The queue is paused: give `items` back, and take none."""
        if items:
            self.lanes.put_back()
            self.queue = self.lanes.current
        self.child.wait_news(WAIT)
        return []

    def _call_together(self, items: list[Item]) -> None:
        self.desk.running(f"{len(items)} rows", self._shown, 1)
        try:
            self._call([item.value for item in items])
        except Snooze as error:
            self.give_back(items, delay=max(0.0, error.seconds), error=_describe(items[0], error), counted=False)
        except BaseException as error:  # noqa: BLE001 (see above)
            self.give_back(items, delay=0.0, error=_describe(items[0], error))
        else:
            for item in items:
                self.finish(item)
            self.settle()
        self.desk.idle()

    def _again(self, item: Item) -> None:
        """A row that failed in company, or whose process was killed: by itself, as a list of one."""
        if item.attempt > self._consumer.most_attempts:
            self._refuse_deadly(item)
        else:
            self._call_alone(item, [item.value])


def consume(child: Child, source: str, url: str, name: str, board: str, slot: int) -> None:
    """The role of a consumer's process, until told to stop."""
    app = load_checked(source, url)
    consumer, caller = app.consumers[name], Caller()
    kind = BatchLoop if consumer.batch > 1 else RowLoop
    lanes = Lanes(app, Pool(consumer.queue), PausePage(beside(board)), child)
    open_page(board, slot + child.index)
    loop = kind(child, consumer, lanes, Desk(board, slot + child.index), caller, app.home.history)
    for hook in app.hooks:
        hook.on_start(child.role)
    loop.listen()
    child.ready()
    try:
        loop.run()
        for hook in app.hooks:
            hook.on_stop(child.role)
    finally:
        leave(app.close, caller.close)


def _describe(item: Item, error: BaseException) -> str:
    tail = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return f"attempt {item.attempt}: {''.join(traceback.format_exception(type(error), error, tail))}"
