"""What happens before and after each run of a job. Retries and results are hooks too; there are no `if`s in the loop.

A hook's methods run in the worker, in the order in which hooks were added; the one for retries comes before them, the
one for results after them. Whatever `before_run`, `after_run` or the task itself raises fails the run. What
`on_failure`, `on_start` or `on_stop` raises ends the process, and the supervisor starts another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .retries import RetryPolicy, judge

if TYPE_CHECKING:
    from .tasks import Task


_chance = random.Random()


class Run:
    """One attempt at one job. Hooks may read everything and set `retry_in`, `counted` and `cancelled`."""

    __slots__ = (
        "args", "attempt", "cancelled", "counted", "error", "job_id", "kwargs", "policy", "retry_in", "task", "value",
    )  # fmt: skip

    def __init__(
        self,
        job_id: str,
        task: Task[Any, Any],
        args: list[Any],
        kwargs: dict[str, Any],
        attempt: int,
        policy: RetryPolicy,
    ) -> None:
        self.job_id = job_id
        self.task = task
        self.args = args
        self.kwargs = kwargs
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


class Retries(Hook):
    """Decides what becomes of a job that failed; see retries.py."""

    def on_failure(self, run: Run) -> None:
        assert run.error is not None
        verdict = judge(run.error, run.attempt, run.policy, _chance)
        run.retry_in, run.counted, run.cancelled = verdict.again_in, verdict.counted, verdict.cancelled


Step = Callable[[Run], None]


def steps(hooks: Iterable[Hook], name: str) -> tuple[Step, ...]:
    """The methods `name` of those hooks that override it, so that the others cost nothing per job."""
    return tuple(getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not getattr(Hook, name))
