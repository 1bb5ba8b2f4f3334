"""The app's tasks as a worker process runs them, with everything looked up that does not change from job to job."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pistributer import errors

from ..app import App
from ..history import HistoryLog, KeepHistory
from ..hooks import Hook, Retries, Run, Step, steps
from ..result_dict import DictResults
from ..results import ResultLog
from ..tasks import Task
from ..terms import Terms, terms_of
from ..tickets.rates import RateLimits
from .calling import Caller, SharedLoop
from .time_limits import SoftTimeLimits

#: So many sets of terms are remembered, beside those of the tasks: a sender may choose another limit for each job.
_MOST_TERMS = 256


class KeepResults(Hook):
    """Notes how each job ended in this process's log.

    kept  for so many seconds; True: as long as the app says
    """

    def __init__(self, log: ResultLog | DictResults, kept: bool | float) -> None:
        self.log = log
        self._kept = kept

    def after_run(self, run: Run) -> None:
        try:
            self.log.add(
                run.job_id,
                run.value,
                until(self._kept),
                task=run.task.name,
                seconds=run.seconds(),
                attempts=run.attempt,
            )
        except errors.RowError as error:
            raise errors.RowError(
                f"what {run.task.name} returned can not be kept as a result: {error.message}",
                hint="return what JSON can hold, or declare the task with results=False",
            ) from error

    def on_failure(self, run: Run) -> None:
        if run.retry_in is None and run.error is not None:
            kind, text = type(run.error).__name__, str(run.error)
            self.log.add_failure(
                run.job_id, kind, text, run.traceback, run.attempt, until(self._kept), task=run.task.name,
                seconds=run.seconds(),
            )  # fmt: skip


def until(kept: bool | float) -> float:
    """When a result that is kept now is over; 0: the app says."""
    return 0.0 if isinstance(kept, bool) else time.time() + kept


@dataclass(slots=True)
class Ready:
    """A task that can be run, on certain terms."""

    task: Task[..., Any]
    terms: Terms
    #: With the wrappers of all hooks but the time limit, and with that too.
    wrapped: Callable[..., Any]
    call: Callable[..., Any]
    shown: bytes
    is_async: bool
    #: Whether each of its jobs has a ticket, whoever sent it.
    keyed: bool
    claimed: tuple[Step, ...]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    failed: tuple[Step, ...]
    retried: tuple[Step, ...]
    dead: tuple[Step, ...]
    #: The same for jobs that others may follow from, so that it costs nothing where there are none.
    followed: Ready | None = None
    #: It took long the last time, so what is finished must not wait for it.
    slow: bool = False


class Preparing:
    """Makes tasks ready, on their own terms and on others.

    hand_on  the step after each job that others may follow from
    """

    def __init__(
        self,
        app: App,
        caller: Caller | SharedLoop,
        results: ResultLog | DictResults,
        history: HistoryLog,
        limits: type[SoftTimeLimits],
        hand_on: Step,
    ) -> None:
        self._app = app
        self._caller = caller
        self._results = results
        self._history = KeepHistory(history)
        self._limits = limits
        self._hand_on = hand_on
        self._others: dict[tuple[str, Terms], Ready] = {}

    def all(self) -> dict[str, Ready]:
        """The app's tasks by name, each on its own terms."""
        return {name: self._make(task, terms_of(task), self._wrap(task)) for name, task in self._app.tasks.items()}

    def on_terms(self, ready: Ready, options: dict[str, Any]) -> Ready:
        """The same task on the terms that these options of a message make. Made once, as long as not too many are in use."""
        terms = ready.terms.changed(options)
        key = ready.task.name, terms
        found = self._others.get(key)
        if found is None:
            if len(self._others) >= _MOST_TERMS:
                self._others.clear()
            found = self._others[key] = self._make(ready.task, terms, ready.wrapped)
        return found

    def _wrap(self, task: Task[..., Any]) -> Callable[..., Any]:
        function = task.function
        for hook in reversed(self._app.hooks):
            function = hook.wrap(task, function)
        return function

    def _make(self, task: Task[..., Any], terms: Terms, wrapped: Callable[..., Any]) -> Ready:
        limits = self._limits(terms.soft_time_limit)
        hooks: list[Hook] = [limits, Retries(), *self._app.hooks]
        if terms.results is not False:
            hooks.append(KeepResults(self._results, terms.results))
        hooks.append(self._history)
        if terms.rate_limit is not None:
            hooks.append(RateLimits(self._app, terms.rate_limit, terms.rated))
        call = limits.wrap(task, wrapped)
        ready = Ready(
            task, terms, wrapped, self._caller.plain(call), task.name.encode(), inspect.iscoroutinefunction(call),
            task.key is not None, steps(hooks, "on_claim"), steps(hooks, "before_run"), steps(hooks, "after_run"),
            steps(hooks, "on_failure"), steps(hooks, "on_retry"), steps(hooks, "on_dead"),
        )  # fmt: skip
        ready.followed = replace(ready, after=(self._hand_on, *ready.after))
        return ready
