"""What a worker process does: run the jobs of its pool's queues."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pistributer import errors
from pistributer.queues.contract import Item

from ..app import App
from ..cancelling import CALLED_OFF, CalledOff
from ..hooks import Run
from ..loading import load_app
from ..messages import find_fault
from ..pools import Pool
from ..progress import CURRENT, Reports, use_page
from ..retries import Cancel
from ..supervision.board import Desk
from ..supervision.child import Child
from ..supervision.last_words import open_page
from ..supervision.paused import PausePage, beside
from ..tickets.worker import WorkerTickets
from .calling import Caller, SharedLoop
from .deaths import explain
from .excused import excused
from .lanes import Lanes
from .loop import SETTLE_AFTER, Loop, leave
from .ready import Preparing, Ready, until
from .time_limits import SoftTimeLimits


class Logs:
    """What a worker process writes down of its jobs, before it settles their rows."""

    def __init__(self, app: App, reports: Reports) -> None:
        self.results = app.open_result_log()
        self.history = app.open_history_log()
        self._reports = reports

    def flush(self, running: Collection[Run] = ()) -> None:
        """Put on disk what has ended; the progress of those that are `running` is not over."""
        self._reports.flush(self.history, running)
        self.results.flush()
        self.history.flush()

    def close(self) -> None:
        leave(self.results.close, self.history.close)


class TaskLoop(Loop):
    """Runs the jobs of `lanes` as tasks of `app`."""

    #: What holds tasks to their soft time limits.
    time_limits = SoftTimeLimits

    def __init__(
        self,
        child: Child,
        app: App,
        lanes: Lanes,
        desk: Desk,
        caller: Caller | SharedLoop,
        logs: Logs,
    ) -> None:
        super().__init__(child, lanes, desk)
        self._caller = caller
        self._logs = logs
        self._past = app.home.history
        self._called_off = CalledOff(app.home.run)
        self._excused = excused(app.home.run)
        self._cancelled: frozenset[str] = frozenset()
        #: The job whose task runs at this moment.
        self._current: str | None = None
        #: The jobs with tickets that were begun here.
        self._tickets = WorkerTickets(app, logs.results)
        self._preparing = Preparing(app, caller, logs.results, logs.history, self.time_limits, self._tickets.hand_on)
        self._tasks = self._preparing.all()

    def run(self) -> None:
        outside = CURRENT.get()
        try:
            super().run()
        finally:
            CURRENT.set(outside)  # once, not after each job; in a test, what follows may be another job

    def before_batch(self) -> None:
        self._cancelled = self._called_off.read()

    def before_settle(self) -> None:
        self.flush_logs()
        self._tickets.flush()

    def flush_logs(self) -> None:
        """What has ended; nothing runs at this moment."""
        self._logs.flush()

    def settle(self) -> None:
        super().settle()
        self._tickets.settle()

    def idle(self) -> None:
        self._tickets.tidy()

    def interrupted(self) -> None:
        # By now, perhaps another one runs.
        if self._current is not None and self._current in self._called_off.read() and isinstance(self._caller, Caller):
            self._current = None
            self._caller.interrupt()

    def handle(self, item: Item) -> None:
        message = item.value
        fault = find_fault(message)
        if fault is not None:
            self.bury([item], error=fault)
            return
        ready = self._tasks.get(message["task"])
        if ready is None:
            self._refuse_unknown(item, message)
            return
        if "options" in message:
            ready = self._preparing.on_terms(ready, message["options"])
        if message["id"] in self._cancelled:
            if self._take_turn(ready, item, message):
                self._end_cancelled(ready, item, message, CALLED_OFF)
            return
        policy = ready.task.policy
        if "retries" in message:
            policy = replace(policy, limit=message["retries"])
        attempts = item.attempt
        if attempts:  # rare, so the file is looked at only now
            attempts = max(0, attempts - self._excused.read()[message["id"]])
        run = Run(message["id"], ready.task, message, attempts + 1, policy)
        if attempts and attempts >= ready.task.most_attempts(policy.limit):
            if self._take_turn(ready, item, message):
                self._refuse_deadly(ready, item, run)
        elif (not ready.claimed or self._may_begin(ready, item, run)) and self._take_turn(ready, item, message):
            self._run((ready.followed or ready) if self._tickets.begun else ready, item, run)

    def _take_turn(self, ready: Ready, item: Item, message: dict[str, Any]) -> bool:
        """Whether the job's ticket, if it has one, lets it begin; else the row has been dealt with."""
        if "ticket" not in message and not ready.keyed:
            return True
        try:
            verdict = self._tickets.begin(item, ready.task, self.queue)
        except errors.BadCall as error:
            self._end_badly(item, message, error)
            return False
        if verdict.what == "off":
            self._end_cancelled(ready, item, message, verdict.text)
        elif verdict.what == "bury":
            self._bury_settled([item], verdict.text)
        elif verdict.what == "drop":
            self._drop(item)
        return verdict.what == "run"

    def _drop(self, item: Item) -> None:
        """Acknowledge a row that is not where its job is now."""
        super().finish(item)
        self._moved += 1

    # -- the ends of a job with a ticket

    def finish(self, item: Item) -> None:
        if self._tickets.begun:
            self._tickets.done(item.value["id"])
        super().finish(item)

    def give_back(self, items: list[Item], *, delay: float, error: str | None, counted: bool = True) -> None:
        if self._tickets.begun:
            self._tickets.again([item.value["id"] for item in items])
        super().give_back(items, delay=delay, error=error, counted=counted)

    def bury(self, items: list[Item], *, error: str) -> None:
        if self._tickets.begun and self._tickets.dead([item.value for item in items], error):
            self._bury_settled(items, error)
        else:
            super().bury(items, error=error)

    def _bury_settled(self, items: list[Item], error: str) -> None:
        """Bury, and forget the tickets at once: somebody may try a dead letter again a moment later."""
        self.settle()
        super().bury(items, error=error)
        self._tickets.settle()
        self._tickets.tidy()

    def _may_begin(self, ready: Ready, item: Item, run: Run) -> bool:
        """Ask the hooks. The first that postpones or drops the job has decided."""
        for step in ready.claimed:
            step(run)
            if run.postponed is not None:
                self.give_back([item], delay=run.postponed, error=None)
                return False
            if run.dropped:
                if self._take_turn(ready, item, run.message):
                    self._tickets.failed(run.message, Cancel("a hook dropped it"))
                    self.finish(item)
                return False
        return True

    def _run(self, ready: Ready, item: Item, run: Run) -> None:
        if ready.slow:
            self.settle()
        begun = run.begun = time.perf_counter()
        self.queue.start(item)
        self.desk.running(run.job_id, ready.shown, run.attempt, ready.terms.hard_time_limit)
        try:
            for step in ready.before:
                step(run)
            self._current = run.job_id
            CURRENT.set(run)
            try:
                run.value = ready.call(*run.args, **run.kwargs)
            finally:
                self._current = None
            for step in ready.after:
                step(run)
        except BaseException as error:  # noqa: BLE001 (a task that calls sys.exit fails; it does not take the worker along)
            run.error = error
            self._failed(ready, item, run, error)
        else:
            self.finish(item)
        self.desk.idle()
        ready.slow = time.perf_counter() - begun > SETTLE_AFTER

    def _failed(self, ready: Ready, item: Item, run: Run, error: BaseException) -> None:
        for step in ready.failed:
            step(run)
        self.end_failed(ready, item, run, error)

    def end_failed(self, ready: Ready, item: Item, run: Run, error: BaseException) -> None:
        """Carry out what `on_failure` of the hooks has decided."""
        text = f"attempt {run.attempt}: {run.traceback}"
        if run.retry_in is not None:
            for step in ready.retried:
                step(run)
            self.give_back([item], delay=run.retry_in, error=text, counted=run.counted)
        elif run.cancelled:
            self._tickets.failed(run.message, error)
            self.finish(item)
        else:
            for step in ready.dead:
                step(run)
            self._tickets.failed(run.message, error)
            self.bury([item], error=text)

    def _end_cancelled(self, ready: Ready, item: Item, message: dict[str, Any], text: str) -> None:
        if ready.terms.results is not False:
            kind, kept = Cancel.__name__, until(ready.terms.results)
            self._logs.results.add_failure(message["id"], kind, text, "", item.attempt, kept, task=message["task"])
        self._tickets.failed(message, Cancel(text))
        self.finish(item)

    def _refuse_unknown(self, item: Item, message: dict[str, Any]) -> None:
        name = message["task"]
        hint = f"the app has {', '.join(sorted(self._tasks)) or 'no tasks'}; add the task, then requeue the dead letter"
        error = errors.TaskNotFound(f"the app has no task {name!r}", hint=hint, task=name)
        verdict = self._tickets.begin(item, None, self.queue) if "ticket" in message else None
        if verdict is not None and verdict.what == "drop":
            self._drop(item)
        else:
            self._end_badly(item, message, error)

    def _refuse_deadly(self, ready: Ready, item: Item, run: Run) -> None:
        cause, words = explain(self._past, run.job_id)
        run.attempt -= 1  # this one is not begun
        text = f"begun {run.attempt} times and never ended: each time its worker died, or it failed before{cause}"
        run.error = error = errors.WorkerDied(text)
        for step in ready.dead:
            step(run)
        self._end_badly(item, run.message, error, words)

    def _end_badly(self, item: Item, message: dict[str, Any], error: errors.WorkError, words: str = "") -> None:
        """`words` come before the error, as a traceback does."""
        kind, text = type(error).__name__, str(error)
        self._logs.results.add_failure(message["id"], kind, text, words, item.attempt, task=message["task"])
        self._tickets.failed(message, error)
        self.bury([item], error=f"{words}{kind}: {text}")


def work(child: Child, source: str, url: str, pool: Pool, board: str, slot: int) -> None:
    """The role of a worker process: run the jobs of a pool's queues, of the app at `source`, until told to stop."""
    app = load_checked(source, url)
    first = slot + child.index * pool.width
    logs = Logs(app, use_page(open_page(board, first)))
    for hook in app.hooks:
        hook.on_start(child.role)
    loop: TaskLoop
    caller: Caller | SharedLoop
    lanes = Lanes(app, pool, PausePage(beside(board)), child)
    if pool.width == 1:
        caller, desk = Caller(), Desk(board, first)
        loop = TaskLoop(child, app, lanes, desk, caller, logs)
    else:
        from .concurrency import ConcurrentLoop  # here, because it needs this module

        caller, desks = SharedLoop(), [Desk(board, first + number) for number in range(pool.width)]
        loop = ConcurrentLoop(child, app, pool, lanes, desks, caller, logs)
    loop.listen()
    child.ready()
    try:
        loop.run()
        for hook in app.hooks:
            hook.on_stop(child.role)
    finally:
        leave(loop.idle, logs.close, app.close, caller.close)


def load_checked(source: str, url: str) -> App:
    """The app at `source`, which must be the one that the supervisor saw."""
    app = load_app(source)
    if app.url != url:
        raise errors.BootError(
            f"{source!r} is the app of {app.url!r} in a worker process, and of {url!r} in the supervisor",
            hint="do not let the folder depend on the process, the time or chance",
        )
    return app
