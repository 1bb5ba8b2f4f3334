"""A handle on a call that was sent."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pistributer import errors
from pistributer.queues.contract import Row

from .cancelling import CALLED_OFF, CalledOff, call_off
from .history import Attempt, read_attempts, read_progress
from .result_dict import DictResults
from .results import Finished, ResultReader, to_error
from .supervision.pages import JobProgress
from .terms import results_wanted

if TYPE_CHECKING:
    from .app import App
    from .stand_in import StandIn

T = TypeVar("T")
Results = ResultReader | DictResults

JobStatus = Literal["queued", "delayed", "held", "running", "done", "failed", "cancelled", "skipped", "lost"]

#: Pauses between two looks for a result, in seconds: short at first, for tasks that take milliseconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
#: After so many seconds without a result, look whether the job still exists; that reads the whole queue.
_LOOK_FOR_JOB = 1.0


class Job(Generic[T]):
    """One call of a task, by `id`. It can be waited for in any process that has the same app."""

    __slots__ = ("_app", "_kept", "id", "queue", "task")

    def __init__(self, app: App, id: str, task: str, queue: str, kept: bool | None = None) -> None:
        self._app = app
        #: Whether its result is kept; None: as the task says, unless its message is found to say otherwise.
        self._kept = kept
        self.id = id
        #: Names of its task and of the queue that it was sent to.
        self.task = task
        self.queue = queue

    def result(self, timeout: float | None = None) -> T:
        """What the task returned, as JSON holds it; wait for it at most `timeout` seconds (None: without limit).

        Raises JobFailed if the task raised on its last attempt, or its worker died on each, or it raised Cancel;
        ResultTimeout; ResultLost if no result will come: the task keeps none, the job was purged, or the result is too
        old. A lost job is noticed after about a second.
        """
        return self.result_from(self._app.results, timeout)

    def result_from(self, results: Results, timeout: float | None) -> T:
        """`result`, looked for in `results`."""
        looks = self._looks(results, timeout)
        while isinstance(found := next(looks), float):
            time.sleep(found)
        return self._value(found)

    async def wait(self, timeout: float | None = None) -> T:
        """`result` for asyncio: other tasks run meanwhile. `await job` is the same without a limit."""
        import asyncio  # here, because most programs that send jobs never load it

        looks = self._looks(self._app.results, timeout)
        while isinstance(found := await asyncio.to_thread(next, looks), float):
            await asyncio.sleep(found)
        return self._value(found)

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait().__await__()

    def _value(self, finished: Finished) -> T:
        if not finished.ok:
            raise to_error(self.id, finished)
        value: T = finished.value
        return value

    def done(self) -> bool:
        """Whether the job has ended, well or not. False for ever if its task keeps no results."""
        return self._app.results.find(self.id) is not None

    def status(self) -> JobStatus:
        """Where the job is now. Reads its whole queue unless there is a result.

        "running" includes a job that was tried before and has been claimed again. "held" is one that was sent and waits for
        others: of its key, or those that it follows from. "lost" is what a finished job of a task without results looks
        like.
        """
        finished = self._app.results.find(self.id)
        row = self._find_row() if finished is None else None
        if finished is None and row is None:
            if self._is_held():
                return "cancelled" if self._is_called_off() else "held"
            finished = self._app.results.find(self.id)  # it may have ended while the queue was read
        if finished is not None:
            return "done" if finished.ok else "cancelled" if finished.kind == "Cancel" else "failed"
        if row is None:
            return "lost"
        if row.state in ("ready", "delayed") and self._is_called_off():
            return "cancelled"
        if row.state == "claimed":
            return "running" if row.attempt else "queued"
        return {"ready": "queued", "delayed": "delayed", "dead": "failed"}[row.state]  # type: ignore[return-value]

    def attempts(self) -> list[Attempt]:
        """Each attempt at the job so far, in order, with what was raised or how its worker died; empty at first.

        Readable from any process, and for a week after the job ended (`App(history_age=…)`). Not promised: the last
        attempt of a job that went well, if its task keeps no results; and one whose worker and supervisor were killed
        together is "unknown". Reads the whole history of the app.
        """
        return read_attempts(self._app.home.history, self.id, self._app.results.find(self.id))

    def progress(self) -> JobProgress | None:
        """How far the job says that it is, by `pistributer.progress`: while it runs, and after it ended; None: never said.

        Readable from any process.
        """
        return read_progress(self._app.home, self.id)

    def cancel(self) -> None:
        """Call the job off. Returns at once; what came of it, `status` and `result` say.

        Of a chain or chord, all its jobs are called off, in one step. If one has not begun, it will not: whoever claims it
        ends it. If it runs, `Cancel` is raised inside it within about half a second, in an `async def` as a cancellation; a
        loop in C goes on, and so does a task that catches it. If it has ended, nothing changes. Its `result` raises
        JobFailed, with `kind` "Cancel".
        """
        call_off_jobs(self._app, *self._ids())

    def _ids(self) -> tuple[str, ...]:
        """The jobs that it is made of."""
        return (self.id,)

    def _is_called_off(self) -> bool:
        held = self._app.gate.find(self.id)
        return self.id in CalledOff(self._app.home.run).read() or (held is not None and held.off is not None)

    def _is_held(self) -> bool:
        return self._app.gate.find(self.id) is not None or self._find_predecessor()

    def _find_predecessor(self) -> bool:
        """Whether a job is there that this one follows from: its message names this one."""
        for lane in self._app.home.lane_names():
            for row in self._app.queue(lane).scan("ready", "claimed", "delayed"):
                then = row.value.get("then", ()) if isinstance(row.value, dict) else ()
                if any(follower.get("id") == self.id for follower in then):
                    return True
        return False

    def _looks(self, results: Results, timeout: float | None) -> Iterator[float | Finished]:
        """Look for the result once a step: yields how long to wait before the next look, in seconds, at last the result."""
        if self._app.stand_in is not None:
            self._play(results, self._app.stand_in, timeout)
        begun = now = time.monotonic()
        deadline = None if timeout is None else begun + timeout
        pause, look_at = _FIRST_PAUSE, begun + _LOOK_FOR_JOB
        while (finished := results.find(self.id)) is None:
            left = _LONGEST_PAUSE if deadline is None else deadline - now
            if left <= 0:
                raise self._timeout(timeout)
            if now >= look_at or not self._keeps_result():
                self._require_existence(results)
                # A scan of a long queue takes time; spend at most a tenth of the wait on it.
                look_at = time.monotonic() + max(_LOOK_FOR_JOB, 10 * (time.monotonic() - now))
            yield min(pause, left)
            pause, now = min(pause * 1.5, _LONGEST_PAUSE), time.monotonic()
        yield finished

    def _play(self, results: Results, stand_in: StandIn, timeout: float | None) -> None:
        """In a test nobody else works while this process waits."""
        if results.find(self.id) is not None:
            return
        self._require_existence(results)
        why_not = stand_in.wait_for(self.id, timeout)
        if why_not is not None:
            self._require_existence(results)
            raise errors.ResultTimeout(
                f"no result of {self.task}: {why_not}", hint="see docs/testing.md", job_id=self.id, timeout=timeout
            )

    def _require_existence(self, results: Results) -> None:
        """ResultLost if there is neither a job nor a result, or if there is a job but will be no result."""
        if not self._keeps_result():
            if self._kept is None:
                raise self._lost(f"the task {self.task!r} keeps no results", "remove results=False from the task")
            raise self._lost(f"this call of {self.task!r} keeps no result", "send it without results=False")
        # A row that moves while a scan runs may be missed, so one scan is no proof.
        for _ in range(2):
            row = self._find_row()
            if row is not None and row.state in ("ready", "delayed") and self._is_called_off():
                raise to_error(self.id, Finished(False, kind="Cancel", text=CALLED_OFF))
            if row is not None and row.state != "dead":
                return
        if row is None and self._is_held():
            if self._is_called_off():
                raise to_error(self.id, Finished(False, kind="Cancel", text=CALLED_OFF))
            return
        if results.find(self.id) is not None:
            return
        if row is not None:
            raise to_error(self.id, Finished(False, kind="Buried", text=row.error or "", attempts=row.attempt))
        raise self._lost(f"there is neither a job {self.id} nor its result", "it was purged, or the result has expired")

    def _keeps_result(self) -> bool:
        if self._kept is None and not self._app.keeps_results(self.task):
            row = self._find_row()
            held = self._app.gate.find(self.id) if row is None else None
            message = held.message if held is not None else None if row is None else row.value
            self._kept = results_wanted(message)
        return self._app.keeps_results(self.task) if self._kept is None else self._kept

    def _find_row(self) -> Row | None:
        for lane in self._app.home.lanes_of(self.queue):
            for row in self._app.queue(lane).scan():
                if isinstance(row.value, dict) and row.value.get("id") == self.id:
                    return row
        return None

    def _timeout(self, timeout: float | None) -> errors.ResultTimeout:
        return errors.ResultTimeout(
            f"no result of {self.task} after {timeout:g} s",
            hint=f"is a worker running? `pistributer status {self._app.url}` tells",
            job_id=self.id,
            timeout=timeout,
        )

    def _lost(self, message: str, hint: str) -> errors.ResultLost:
        return errors.ResultLost(message, hint=hint, job_id=self.id)

    def __repr__(self) -> str:
        return f"<Job {self.task} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_same_job, (self._app.url, self.id, self.task, self.queue, self._app.result_store, self._kept))


def call_off_jobs(app: App, *ids: str) -> None:
    """Note that nobody wants these jobs any more: all of them or, killed before, none."""
    if ids:
        app.home.create()
        call_off(app.home.run, *ids)


def _same_job(url: str, id: str, task: str, queue: str, results: Any = None, kept: bool | None = None) -> Job[Any]:
    from .app import App

    return Job(App(url, results=results), id, task, queue, kept)
