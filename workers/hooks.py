"""What happens before and after each run of a job. Retries and results are hooks too; there are no `if`s in the loop.

A hook's methods run in the worker, in the order in which hooks were added; the one for retries comes before them, the
one for results after them. Whatever `before_run`, `after_run` or the task itself raises fails the run. What
`on_failure`, `on_start` or `on_stop` raises ends the process, and the supervisor starts another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks import Task

#: A pause between two attempts is never longer, in seconds.
_LONGEST_DELAY = 3600.0


class Run:
    """One attempt at one job. Hooks may read everything and set `retry_in`."""

    __slots__ = ("args", "attempt", "error", "job_id", "kwargs", "retry_in", "task", "value")

    def __init__(
        self, job_id: str, task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], attempt: int
    ) -> None:
        self.job_id = job_id
        self.task = task
        self.args = args
        self.kwargs = kwargs
        #: 1 for the first.
        self.attempt = attempt
        #: What the task returned.
        self.value: Any = None
        #: What it raised.
        self.error: BaseException | None = None
        #: After a failure: seconds until the next attempt; None: there is none, and the job goes to the dead letters.
        self.retry_in: float | None = None

    def __repr__(self) -> str:
        return f"<Run {self.task.name} {self.job_id} attempt={self.attempt}>"


class Hook:
    """Override what you need and pass an instance to `App.add_hook`."""

    def on_start(self, role: str) -> None:
        """A process of `role` is about to take its first work: open connections here."""

    def on_stop(self, role: str) -> None:
        """A process of `role` leaves in good order. Not called when it is killed."""

    def before_run(self, run: Run) -> None:
        """An attempt is about to begin; it has been counted."""

    def after_run(self, run: Run) -> None:
        """The task returned `run.value`; the job is not acknowledged yet."""

    def on_failure(self, run: Run) -> None:
        """`run.error` was raised. Hooks that were added earlier may have set `run.retry_in`."""


class Retry(Hook):
    """Tries a failed job again, up to the task's `retries`, after a pause that doubles each time."""

    def on_failure(self, run: Run) -> None:
        task = run.task
        if run.attempt <= task.retries:
            pause = task.retry_delay * 2.0 ** min(run.attempt - 1, 32)
            # Jitter keeps jobs that failed together from coming back together.
            run.retry_in = min(pause, _LONGEST_DELAY) * random.uniform(0.75, 1.25)


Step = Callable[[Run], None]


def steps(hooks: Iterable[Hook], name: str) -> tuple[Step, ...]:
    """The methods `name` of those hooks that override it, so that the others cost nothing per job."""
    return tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hook, name))
