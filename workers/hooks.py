"""What happens around a job: when it is sent, claimed, run, tried again and given up, and when processes come and go.

Retries, time limits and results are hooks too; there are no `if`s in the loop. A hook that does not override a method
costs nothing there.

Order: the built-in hooks for time limits and retries come first, then the user's in the order in which they were added, then
the one for results. Of wrappers, the first hook's is the outermost.

Threads: in a process that runs several jobs at once, `before_run`, `after_run`, `on_failure` and wrappers are called in the
threads of the jobs, several at once; everything else in the main thread (execution/concurrency.py).

Errors: whatever `before_enqueue` raises refuses the job. Whatever `before_run`, `after_run`, a wrapper or the task itself
raises fails the attempt. What the other methods raise reaches the caller: a sender, who must know that after an error in
`after_enqueue` the job has been sent, or a process, which ends and is started again.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .progress import open_report
from .retries import RetryPolicy, judge

if TYPE_CHECKING:
    from .progress import Report
    from .tasks import Task


#: A traceback in the dead letters, results and histories is cut to its last so many characters.
_MOST_TEXT = 8000

_chance = random.Random()


class Sending:
    """A job on its way into a queue."""

    __slots__ = ("delay", "message", "queue")

    def __init__(self, message: dict[str, Any], queue: str, delay: float) -> None:
        #: What the queue will hold (messages.py); `before_enqueue` may change it, but not its id and task.
        self.message = message
        #: The name of the queue that it goes to, and the seconds before which it does not run.
        self.queue = queue
        self.delay = delay

    def __repr__(self) -> str:
        return f"<Sending {self.message['task']} {self.message['id']} to {self.queue}>"


class Run:
    """One attempt at one job.

    Hooks may read everything. `on_claim` may call `postpone` or `drop`; `on_failure` may set `retry_in`, `counted` and
    `cancelled`.
    """

    __slots__ = (
        "_traceback", "args", "attempt", "begun", "cancelled", "counted", "dropped", "error", "job_id", "kwargs",
        "message", "policy", "postponed", "report", "retry_in", "task", "value",
    )  # fmt: skip

    def __init__(
        self, job_id: str, task: Task[Any, Any], message: dict[str, Any], attempt: int, policy: RetryPolicy
    ) -> None:
        self.job_id = job_id
        self.task = task
        #: As it stood in the queue.
        self.message = message
        self.args: list[Any] = message.get("args", [])
        self.kwargs: dict[str, Any] = message.get("kwargs", {})
        #: When a failure is tried again: the task's, or what its sender chose.
        self.policy = policy
        #: 1 for the first.
        self.attempt = attempt
        #: What the task returned.
        self.value: Any = None
        #: What it raised.
        self.error: BaseException | None = None
        #: After a failure: seconds until the next attempt; None: there is none, and the job goes to the dead letters.
        self.retry_in: float | None = None
        #: Whether this attempt counts, if there is another.
        self.counted = True
        #: After a failure without another attempt: the job is done with, and no dead letter.
        self.cancelled = False
        #: What `on_claim` decided: to come again after so many seconds, or never to run.
        self.postponed: float | None = None
        self.dropped = False
        #: When it began, by `time.perf_counter`.
        self.begun = 0.0
        self._traceback: str | None = None
        #: What it said of its progress (progress.py); None: nothing.
        self.report: Report | None = None

    def postpone(self, seconds: float) -> None:
        """Give the job back for so long; no attempt is counted. From `on_claim`."""
        self.postponed = max(0.0, seconds)

    def drop(self) -> None:
        """End the job without running it. From `on_claim`."""
        self.dropped = True

    @property
    def traceback(self) -> str:
        """`error` with its traceback, as text; of a long one, the end."""
        if self.error is None:
            return ""
        if self._traceback is None:
            self._traceback = _describe(self.error)
        return self._traceback

    def seconds(self) -> float:
        """How long it has run, in seconds."""
        return time.perf_counter() - self.begun

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """As `pistributer.progress`, for threads that the task started by itself."""
        report = self.report
        if report is None or report.closed:
            report = self.report = open_report(self)
        if report is not None:
            report.say(done, total, text)

    def __repr__(self) -> str:
        return f"<Run {self.task.name} {self.job_id} attempt={self.attempt}>"


def _describe(error: BaseException) -> str:
    """The traceback without the frame of our own that called the task, which would say the same in every failure."""
    tail = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(error), error, tail or error.__traceback__))
    return text if len(text) <= _MOST_TEXT else f"…{text[-_MOST_TEXT:]}"


class Hook:
    """Override what you need and pass an instance to `App.add_hook`."""

    # -- in the process that sends

    def before_enqueue(self, sending: Sending) -> None:
        """A job is about to be put into its queue: change `sending.message`, or raise to refuse it."""

    def after_enqueue(self, sending: Sending) -> None:
        """The job is in its queue. Not called when the process is killed in between."""

    # -- in the workers

    def on_start(self, role: str) -> None:
        """A process of `role` is about to take its first work: open connections here."""

    def on_stop(self, role: str) -> None:
        """A process of `role` leaves in good order. Not called when it is killed."""

    def wrap(self, task: Task[Any, Any], function: Callable[..., Any]) -> Callable[..., Any]:
        """Once per task and process: what to call instead of `function`, which for an `async def` is a coroutine function."""
        return function

    def on_claim(self, run: Run) -> None:
        """A job was claimed and its attempt not yet counted: the moment to `run.postpone(…)` or `run.drop()` it."""

    def before_run(self, run: Run) -> None:
        """An attempt is about to begin; it has been counted."""

    def after_run(self, run: Run) -> None:
        """The task returned `run.value`; the job is not acknowledged yet."""

    def on_failure(self, run: Run) -> None:
        """`run.error` was raised. Hooks that were added earlier may have set `run.retry_in`."""

    def on_retry(self, run: Run) -> None:
        """After a failure: the job is about to go back to its queue, to run again in `run.retry_in` seconds."""

    def on_dead(self, run: Run) -> None:
        """The job is about to go to the dead letters, because of `run.error`."""

    # -- in the supervisor

    def on_supervisor_start(self) -> None:
        """A supervisor of the app is about to start its processes."""

    def on_supervisor_stop(self) -> None:
        """It has ended, and so have its processes. Not called when it is killed."""


class Retries(Hook):
    """Decides what becomes of a job that failed; see retries.py."""

    def on_failure(self, run: Run) -> None:
        assert run.error is not None
        verdict = judge(run.error, run.attempt, run.policy, _chance)
        run.retry_in, run.counted, run.cancelled = verdict.again_in, verdict.counted, verdict.cancelled


Step = Callable[[Any], None]


def steps(hooks: Iterable[Hook], name: str) -> tuple[Step, ...]:
    """The methods `name` of those hooks that override it, so that the others cost nothing per job."""
    return tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hook, name))


class EnqueueSteps:
    """What is called around each job that is sent. `if steps:` says whether there is anything to call."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        hooks = tuple(hooks)
        self._before = steps(hooks, "before_enqueue")
        self._after = steps(hooks, "after_enqueue")

    def __bool__(self) -> bool:
        return bool(self._before or self._after)

    def before(self, message: dict[str, Any], queue: str, delay: float = 0.0) -> Sending:
        sending = Sending(message, queue, delay)
        for step in self._before:
            step(sending)
        return sending

    def after(self, sending: Sending) -> None:
        for step in self._after:
            step(sending)
