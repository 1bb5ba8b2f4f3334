"""Eager and memory mode: an app whose queues lie in memory, and the players that take the part of its processes.

The players are the loops of the real workers (`TaskLoop`, `RowLoop`, `BatchLoop`, the scheduler's entries, the pump of
producers). They run until there is nothing to claim, in the thread that asks, and nothing ever sleeps.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import orjson

from pistributer import errors
from pistributer.queues.contract import Queue
from pistributer.workers.app import App
from pistributer.workers.declarations import Consumer
from pistributer.workers.execution.consumers import BatchLoop, RowLoop
from pistributer.workers.execution.loop import Loop
from pistributer.workers.execution.producers import pump
from pistributer.workers.execution.scheduler import Entry
from pistributer.workers.execution.worker import Logs, TaskLoop
from pistributer.workers.home import split_lane
from pistributer.workers.hooks import Hook, Run
from pistributer.workers.inspection.dead import DeadLetter, find_dead
from pistributer.workers.inspection.finding import Wanted
from pistributer.workers.messages import find_fault
from pistributer.workers.progress import use_none, use_page
from pistributer.workers.stand_in import StandIn
from pistributer.workers.supervision import board
from pistributer.workers.supervision.pages import Page, page_path
from pistributer.workers.tasks import Task

from .clock import Clock
from .playing import JsonDict, PlainCaller, PlayedLanes, Player, Puts, Shelf

#: Moments that `run_until_empty` and a wait without a limit go through before they take it for an endless repetition.
_MOST_MOMENTS = 1000
#: Seconds that a job in another thread of the test may take, and between two looks.
_PATIENCE, _PAUSE = 30.0, 0.001


@dataclass(frozen=True, slots=True)
class Sent:
    """A call of a task that was sent while the stage was up, as its worker gets it."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    #: Seconds.
    delay: float
    #: Of the job.
    id: str


class Stage(StandIn):
    """What `eager` and `memory` give. The app's own `queue(name)` looks into its queues, as ever.

    clock  moves delays, pauses between attempts and schedules
    sent   every call that was sent since the block began, in order
    """

    def __init__(self, app: App, *, eager: bool, propagate: bool, start: float) -> None:
        self.app = app
        self.clock = Clock(start, self._advance)
        self.sent: list[Sent] = []
        self._eager = eager
        self._propagate = propagate
        #: The loops of one thread, and of one level of tasks that send and wait, are not used by another.
        self._players: dict[tuple[str, int], tuple[Player, Loop]] = {}
        self._levels: set[int] = set()
        self._lock = threading.Lock()
        self._schedules: dict[str, Entry] = {}
        self._started: list[str] = []
        self._open: list[Callable[[], object]] = []
        #: What the last put was refused with, if it was.
        self.full: errors.QueueFull | None = None
        #: What must reach the test: Ctrl-C, and with `propagate` what a job failed with.
        self._raised: BaseException | None = None

    # -- for the test

    def run_due(self) -> None:
        """Run what is due now, and what that sends, until nothing is. Jobs that wait for their time stay."""
        with self._level() as level:
            while sum(self._take_turn(name, level) for name in self.app.queue_names()):
                pass  # each queue had its turn, and one of them had something to do
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def run_until_empty(self) -> None:
        """`run_due`, again at each moment for which a job waits, until none does; the clock moves along. Schedules rest.

        WorkError if that does not end: a job that snoozes for ever, say.
        """
        for _ in range(_MOST_MOMENTS):
            self.run_due()
            moment = self._next_due()
            if moment == math.inf:
                return
            self.clock.set(moment)
        waiting = ", ".join(sorted({str(call.task) for call in self.waiting()}))
        raise errors.WorkError(
            f"after {_MOST_MOMENTS:,} moments there is still something to do: {waiting}",
            hint="let it come to an end, or call clock.advance(seconds) and run_due()",
        )

    def run_producers(self) -> None:
        """Run each of the app's producers to its end. What they put waits, or runs at once in eager mode."""
        for producer in self.app.producers.values():
            pump(self._player(f"producer {producer.name}", _Pumping(self)), self.app, producer, self._desk)

    def waiting(self) -> list[Sent]:
        """The calls that wait now, delayed ones included."""
        return [
            _sent(name, row.value, max(0.0, row.due - self.clock.now()) if row.due else 0.0)
            for name in self._home.lane_names()
            for row in self.app.queue(name).scan("ready", "delayed")
            if find_fault(row.value) is None
        ]

    def calls(self, task: Task[Any, Any]) -> list[Sent]:
        """What was sent of one task."""
        return [call for call in self.sent if call.task == task.name]

    def dead(self) -> list[DeadLetter]:
        """What was given up, with the reason."""
        return [
            letter
            for lane in self._home.lane_names()
            for letter in find_dead(self.app.queue(lane), split_lane(lane)[0], Wanted())
        ]

    # -- for the app

    def open_queue(self, name: str, options: Mapping[str, Any]) -> Queue:
        return Puts(name, self._home.store(name), options, self._was_put)

    def now(self) -> float:
        return self.clock.now()

    def wait_for(self, job_id: str, timeout: float | None) -> str | None:
        if not self._eager:
            return "in memory mode nothing runs before run_due() or run_until_empty()"
        limit = math.inf if timeout is None else self.clock.now() + timeout
        for _ in range(_MOST_MOMENTS):
            self._wait_for_other_threads(job_id)
            if self.app.results.find(job_id) is not None:
                return None
            moment = self._next_due()
            if moment > limit or moment == math.inf:
                break
            self._advance(moment)
        if limit != math.inf:
            self._advance(limit)
        return "it has not ended, and this is the time until when to wait, by the test's clock"

    def _wait_for_other_threads(self, job_id: str) -> None:
        """One of them may have claimed the job, and be about to end it."""
        deadline = time.monotonic() + _PATIENCE
        while self._is_claimed(job_id) and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def _is_claimed(self, job_id: str) -> bool:
        rows = (row for name in self._home.lane_names() for row in self.app.queue(name).scan("claimed"))
        return any(isinstance(row.value, dict) and row.value.get("id") == job_id for row in rows)

    # -- playing

    @contextlib.contextmanager
    def up(self) -> Iterator[Stage]:
        """The app is here until the end of the block."""
        home, results, propagate = self.app.home, self.app.result_store, _Propagate(self)
        with tempfile.TemporaryDirectory(prefix="pistributer-test-") as folder:
            # A real folder, for whatever is no queue: notes of jobs that were called off, and the like.
            self._home = Shelf(os.path.join(folder, "app"), self.clock.now)
            self.app.move(self._home, cast(Any, JsonDict()), self)
            self._home.create()
            if self._propagate:
                self.app.add_hook(propagate)
            try:
                self._desk = self._make_desk()
                self._put_scheduled()
                yield self
            finally:
                try:
                    self._close()
                finally:
                    self.app.move(home, results)
                    self.app.hooks = tuple(hook for hook in self.app.hooks if hook is not propagate)

    def _make_desk(self) -> board.Desk:
        path = os.path.join(self.app.home.run, "board")
        board.create(path, 1)
        self._reports = use_page(Page(page_path(path, 0), fresh=True))
        return board.Desk(path, 0)

    def _close(self) -> None:
        for role in reversed(self._started):
            for hook in self.app.hooks:
                hook.on_stop(role)
        for close in self._open:
            close()
        use_none()

    def _was_put(self, queue: str, rows: list[bytes], delay: float, full: errors.QueueFull | None) -> None:
        self.full = full
        values = [orjson.loads(row) for row in rows]
        self.sent += [_sent(queue, value, delay) for value in values if find_fault(value) is None]
        if self._eager and rows:
            self.run_due()

    def _advance(self, target: float) -> None:
        self._put_scheduled()  # those that are new begin here
        while (moment := min(self._next_due() if self._eager else math.inf, self._next_scheduled())) <= target:
            self.clock.set(moment)
            self._put_scheduled()
            if self._eager:
                self.run_due()
        self.clock.set(target)
        if self._eager:
            self.run_due()

    def _next_due(self) -> float:
        """When the next delayed row falls due that somebody takes."""
        lanes = (self.app.queue(name) for name in self._home.lane_names() if self._takes(split_lane(name)[0]))
        return min((row.due for lane in lanes for row in lane.scan("delayed") if row.due is not None), default=math.inf)

    def _takes(self, queue: str) -> bool:
        """Whether the app has something for this queue, or a job was sent to it: it may have a pool of its own."""
        if any(task.queue == queue for task in self.app.tasks.values()) or self._consumer(queue) is not None:
            return True
        return any(call.queue == queue for call in self.sent)

    def _next_scheduled(self) -> float:
        """After the present moment; what is due at it has been put."""
        now = self.clock.now()
        return min((next(it.following(now), math.inf) for it in self.app.schedules.values()), default=math.inf)

    def _put_scheduled(self) -> None:
        now = self.clock.now()
        for name, schedule in self.app.schedules.items():
            if name not in self._schedules:
                player = self._player("scheduler", Player("scheduler"))
                self._schedules[name] = Entry(player, self.app, schedule, self._desk)
            self._schedules[name].run(now)

    @contextlib.contextmanager
    def _level(self) -> Iterator[int]:
        """A number that nobody else has who runs jobs at this moment: another thread, or a job that waits for this one."""
        with self._lock:
            level = next(number for number in range(len(self._levels) + 1) if number not in self._levels)
            self._levels.add(level)
        try:
            yield level
        finally:
            with self._lock:
                self._levels.discard(level)

    def _take_turn(self, queue: str, level: int) -> bool:
        """Run the loop of one queue to its end; False if there is nothing to do for it."""
        lanes = self._home.lanes_of(queue)
        if not self._takes(queue) or not any(self.app.queue(lane).stats().ready for lane in lanes):
            return False
        if (queue, level) not in self._players:
            self._players[queue, level] = self._make_player(queue)
        player, loop = self._players[queue, level]
        player.leaves = False
        loop.run()
        return self._raised is None

    def _make_player(self, queue: str) -> tuple[Player, Loop]:
        consumer = self._consumer(queue)
        role = f"worker {queue}" if consumer is None else f"consumer {consumer.name}"
        player = self._player(role, Player(role))
        caller = PlainCaller(self.interrupt)
        lanes = PlayedLanes(self.app, queue, player)
        self._open.append(caller.close)
        if consumer is None:
            logs = Logs(self.app, self._reports)
            self._open.append(logs.close)
            return player, TaskLoop(player, self.app, lanes, self._desk, caller, logs)
        kind = BatchLoop if consumer.batch > 1 else RowLoop
        # Nothing comes while a batch waits, so it does not wait.
        return player, kind(player, replace(consumer, max_wait=None), lanes, self._desk, caller, self._home.history)

    def _player(self, role: str, player: Player) -> Player:
        if role not in self._started:
            self._started.append(role)
            for hook in self.app.hooks:
                hook.on_start(role)
        return player

    def _consumer(self, queue: str) -> Consumer | None:
        return next((it for it in self.app.consumers.values() if it.queue == queue), None)

    def interrupt(self, error: BaseException) -> None:
        """Raise it in the test as soon as the loop that runs lets go."""
        self._raised = error

    def __repr__(self) -> str:
        return f"<Stage {'eager' if self._eager else 'memory'} {self.clock!r}>"


class _Pumping(Player):
    """A producer's process. While a queue is full, it is the turn of those who take from it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__("producer")
        self._stage = stage
        self._gave_turn = False

    def stop_requested(self) -> bool:
        full, gave_turn = self._stage.full, self._gave_turn
        self._gave_turn = full is not None
        if full is not None:
            if gave_turn:
                raise full  # nobody takes from it
            self._stage.run_due()
        return False


class _Propagate(Hook):
    """Has the sender see what its job failed with."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def on_dead(self, run: Run) -> None:
        if run.error is not None:
            self._stage.interrupt(run.error)


def _sent(queue: str, message: dict[str, Any], delay: float) -> Sent:
    name, priority = split_lane(queue)
    args, kwargs = message.get("args", []), message.get("kwargs", {})
    return Sent(message["task"], args, kwargs, name, priority, float(delay), message["id"])


@contextlib.contextmanager
def eager(app: App, *, propagate: bool = False, start: float | datetime | None = None) -> Iterator[Stage]:
    """Until the end of the block, every `.send` runs the task at once, in this process, before it returns.

    Arguments and results go through JSON, failures are judged as a worker does. What has to wait (a delay, a pause before
    the next attempt, a Snooze) waits for `clock.advance`, or for somebody who calls `Job.result`: that moves the clock on
    to the moment at which the job ends, without sleeping. Rows of the app's consumers are treated alike.

    propagate  have `.send` raise what the job failed with when it is given up; else it goes to the dead letters, and
               `Job.result` raises JobFailed, as in production
    start      what the clock shows at first; now

    Not enforced: hard time limits, and soft ones of plain functions outside the main thread. A task that kills its process
    kills the test.
    """
    with Stage(app, eager=True, propagate=propagate, start=_seconds(start)).up() as stage:
        yield stage


@contextlib.contextmanager
def memory(app: App, *, propagate: bool = False, start: float | datetime | None = None) -> Iterator[Stage]:
    """Until the end of the block, what is sent waits in memory, until `run_due` or `run_until_empty` runs it here.

    Otherwise as `eager`; `Job.result` raises ResultTimeout at once if the job has not been run.
    """
    with Stage(app, eager=False, propagate=propagate, start=_seconds(start)).up() as stage:
        yield stage


def _seconds(start: float | datetime | None) -> float:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError(f"start={start.isoformat()!r} has no time zone; say datetime(…, tzinfo=UTC)")
        return start.timestamp()
    return time.time() if start is None else start
