"""A worker process that runs several jobs at once: plain functions in threads, coroutines on one event loop.

The main thread alone claims, counts attempts, and settles; queues see one thread. A job is begun by it, made by a thread
(attempts.py), which for a coroutine waits for the event loop, and comes back to it to be settled. So hooks may take their
time: none of them runs on the event loop.

    in the main thread         on_start, on_claim, on_retry, on_dead, on_stop
    in the attempt's thread    wrappers, before_run, after_run, on_failure: several at once, so they must be safe for threads

Rows are claimed as there are threads for them. What kind of task a row needs is known only once it is claimed, so one may wait
here for a thread of its kind; nothing is claimed meanwhile. It is not begun: it goes back, uncounted, when the process leaves
or dies. So does what waits for a job to end that runs alone, because a worker died of it, perhaps.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from pistributer.queues.contract import Item, Queue

from ..app import App
from ..hooks import Run
from ..messages import find_fault
from ..pools import Pool
from ..retries import Cancel
from ..supervision.board import Desk
from ..supervision.child import Child
from .attempts import Attempt
from .calling import SharedLoop
from .excused import suspects
from .lanes import Lanes
from .loop import WAIT
from .ready import Ready
from .time_limits import CoroutineTimeLimits, time_is_up
from .worker import Logs, TaskLoop


class ConcurrentLoop(TaskLoop):
    """Runs up to `pool.threads` plain functions and `pool.concurrency` coroutines at once. One of `desks` for each."""

    time_limits = CoroutineTimeLimits

    def __init__(
        self,
        child: Child,
        app: App,
        pool: Pool,
        lanes: Lanes,
        desks: list[Desk],
        caller: SharedLoop,
        logs: Logs,
    ) -> None:
        super().__init__(child, app, lanes, desks[0], caller, logs)
        self._shared_loop = caller
        self._desks = list(reversed(desks))
        self._ended: deque[Attempt] = deque()
        self._bell = _Bell()
        self._running: set[Attempt] = set()
        #: Those whose soft time limit this thread minds.
        self._limited: set[Attempt] = set()
        #: Plain functions, coroutines.
        self._crews = (_Crew(pool.threads or 1, self._note_end), _Crew(pool.concurrency or 1, self._note_end))
        #: Which of the two the app's tasks need; by it, how many rows are worth claiming.
        kinds = {ready.is_async for ready in self._tasks.values()} or {False}
        self._needed = [self._crews[kind] for kind in kinds]
        self._suspects = suspects(app.home.run)
        #: What runs, or is to run next, is to run alone.
        self._alone = False

    def flush_logs(self) -> None:
        self._logs.flush({attempt.run for attempt in self._running})

    # -- the loop

    def run(self) -> None:
        try:
            while not self.child.stop_requested():
                self._settle_ended()
                if not self._begin_waiting() or not self._claim():
                    self.idle()
                    self._sleep(WAIT)
            while self._running:  # the supervisor loses patience, not we
                self._settle_ended()
                self._sleep(WAIT)
        finally:
            for crew in self._crews:
                crew.close()
            self._bell.close()

    def _claim(self) -> bool:
        """Claim as many rows as there are threads for. False if there are none of either."""
        free = [crew.free for crew in self._needed]
        # While one crew is busy, rows for the other are looked for one by one: the first that does not fit waits.
        items = self.lanes.claim(max(1, min(free)), 0.0) if any(free) else []
        if items:
            self.before_batch()
            for item in items:
                self._crew_of(item).waiting.append((self.lanes.current, item))
            self._begin_waiting()
        return bool(items)

    def _crew_of(self, item: Item) -> _Crew:
        task = item.value.get("task") if isinstance(item.value, dict) else None
        ready = self._tasks.get(task) if isinstance(task, str) else None
        return self._crews[ready is not None and ready.is_async]

    def _begin_waiting(self) -> bool:
        """Begin what was claimed, as far as there are threads. False if something still waits for one."""
        for crew in self._crews:
            while crew.waiting and crew.free and self._has_room_for(crew.waiting[0][1]):
                queue, item = crew.waiting.popleft()
                self._turn_to(queue)
                if self.lanes.is_paused(queue):
                    queue.nack(item)  # others that run hold the queue, so it can not be closed for its place
                else:
                    self.handle(item)
        self.settle()
        return not any(crew.waiting for crew in self._crews)

    def _has_room_for(self, item: Item) -> bool:
        """A job whose worker died may have killed it. It runs alone, or it would use up the attempts of others, too."""
        if not (self._alone and self._running):
            self._alone = bool(item.attempt) and self._is_suspect(item)
        return not (self._alone and self._running)

    def _is_suspect(self, item: Item) -> bool:
        message = item.value if find_fault(item.value) is None else {}
        job, ready = message.get("id", ""), self._tasks.get(message.get("task", ""))
        if ready is None or not self._suspects.read()[job]:
            return False
        most = ready.task.most_attempts(message.get("retries", ready.task.policy.limit))
        return 0 < item.attempt - self._excused.read()[job] < most  # beyond, it is buried and not begun

    def _run(self, ready: Ready, item: Item, run: Run) -> None:
        self.queue.start(item)
        desk = self._desks.pop()
        attempt = Attempt(self.queue, item, run, ready, desk, self._shared_loop)
        if ready.terms.soft_time_limit is not None and not ready.is_async:
            attempt.soft_deadline = time.monotonic() + ready.terms.soft_time_limit
            self._limited.add(attempt)
        self._running.add(attempt)
        run.begun = time.perf_counter()
        desk.running(run.job_id, ready.shown, run.attempt, ready.terms.hard_time_limit)
        self._crews[ready.is_async].begin(attempt)

    def _turn_to(self, queue: Queue) -> None:
        """What is settled from now on came from `queue`."""
        if queue is not self.queue:
            self.settle()
            self.queue = queue

    # -- the ends of jobs

    def _note_end(self, attempt: Attempt) -> None:
        """In the attempt's thread: that was its last act."""
        self._ended.append(attempt)
        self._bell.ring()

    def _settle_ended(self) -> None:
        fatal: BaseException | None = None
        while self._ended:
            attempt = self._ended.popleft()
            self._running.discard(attempt)
            self._limited.discard(attempt)
            self._crews[attempt.ready.is_async].busy -= 1
            self._desks.append(attempt.desk)
            self._turn_to(attempt.queue)
            if attempt.fatal is not None:
                fatal = attempt.fatal
            elif attempt.run.error is None:
                self.finish(attempt.item)
            else:
                self.end_failed(attempt.ready, attempt.item, attempt.run, attempt.run.error)
        self.settle()
        if fatal is not None:
            raise fatal

    def _sleep(self, seconds: float) -> None:
        """Until a job ends, a time limit is reached or, if there is a thread for it, a row may be there."""
        with self._bell:
            if self._ended:
                return
            nearest = min((attempt.soft_deadline for attempt in self._limited), default=math.inf)
            seconds = max(0.0, min(seconds, nearest - time.monotonic()))
            listening = not self.child.stop_requested() and not any(crew.waiting for crew in self._crews)
            if listening and any(crew.free for crew in self._needed):
                self.lanes.sleep(seconds, [self._bell.fd])
            else:
                self._bell.sleep(seconds)
        self._mind_limits()

    def _mind_limits(self) -> None:
        now = time.monotonic()
        for attempt in [attempt for attempt in self._limited if attempt.soft_deadline <= now]:
            self._limited.discard(attempt)
            attempt.interrupt(time_is_up(attempt.ready.terms.soft_time_limit or 0.0))

    def interrupted(self) -> None:
        called_off = self._called_off.read()
        for attempt in list(self._running):
            if attempt.run.job_id in called_off:
                attempt.interrupt(_CalledOff)


class _CalledOff(Cancel):
    """`Cancel` as it is raised from outside: a class, because Python makes the exception in the thread that meets it."""

    def __init__(self) -> None:
        super().__init__("called off while it ran")


_CalledOff.__name__ = _CalledOff.__qualname__ = Cancel.__name__


class _Crew:
    """Threads that make attempts of one kind, started as they are needed."""

    def __init__(self, size: int, note_end: Callable[[Attempt], None]) -> None:
        self._size = size
        self._note_end = note_end
        self._inbox: SimpleQueue[Attempt | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        #: Attempts that were begun and not yet settled.
        self.busy = 0
        #: Rows that were claimed and not begun, and where they came from.
        self.waiting: deque[tuple[Queue, Item]] = deque()

    @property
    def free(self) -> int:
        return self._size - self.busy

    def begin(self, attempt: Attempt) -> None:
        self.busy += 1
        if self.busy > len(self._threads):
            # Daemons: a job that hangs must not hold up an end that the supervisor forces.
            thread = threading.Thread(target=self._work, name=f"job-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._inbox.put(attempt)

    def _work(self) -> None:
        while (attempt := self._inbox.get()) is not None:
            attempt.make()
            self._note_end(attempt)

    def close(self) -> None:
        """Let the threads end. Those that still run a job are left to the end of the process."""
        for _ in self._threads:
            self._inbox.put(None)
        if not self.busy:
            for thread in self._threads:
                thread.join()


class _Bell:
    """Wakes the main thread when a job has ended; while it is awake, ringing is a look at a flag.

    It says that it sleeps, then looks for what has ended, then sleeps; others add what has ended, then look whether it sleeps.
    """

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)
        #: Can be read when it has been rung.
        self.fd = self._heard.fileno()
        self._asleep = False

    def ring(self) -> None:
        if self._asleep:
            self._asleep = False
            try:
                self._rung.send(b"!")
            except BlockingIOError:
                pass  # it has been rung often enough

    def sleep(self, seconds: float) -> None:
        sleeper = select.poll()
        sleeper.register(self.fd, select.POLLIN)
        sleeper.poll(seconds * 1000)

    def __enter__(self) -> None:
        self._asleep = True

    def __exit__(self, *exc_info: object) -> None:
        self._asleep = False
        try:
            self._heard.recv(4096)
        except BlockingIOError:
            pass  # something else woke it

    def close(self) -> None:
        self._heard.close()
        self._rung.close()
