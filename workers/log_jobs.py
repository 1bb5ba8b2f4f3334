"""One structured log record for each step of a job's life."""

from __future__ import annotations

import logging
from typing import Any

from .hooks import Hook, Run, Sending

_log = logging.getLogger("pistributer.jobs")


class LogJobs(Hook):
    """Logs what happens to jobs and processes to the logger "pistributer.jobs": `app.add_hook(LogJobs())`.

    Each record has a readable message and, as attributes for a formatter that writes JSON, `event`, `job`, `task`, `queue`,
    `attempt`, `seconds`, `again_in` and `error`, as far as they apply; `role` for processes. Jobs are logged at `level`,
    retries as warnings, jobs that were given up as errors; of a level that nobody listens to, an event costs a look.
    """

    def __init__(self, level: int = logging.INFO) -> None:
        self._level = level

    def after_enqueue(self, sending: Sending) -> None:
        if _log.isEnabledFor(self._level):
            message = sending.message
            delay = f", to run in {sending.delay:g} s" if sending.delay else ""
            fields = {"event": "sent", "job": message["id"], "task": message["task"], "queue": sending.queue}
            _log.log(self._level, "%s %s sent%s", message["task"], message["id"], delay, extra=fields)

    def before_run(self, run: Run) -> None:
        if _log.isEnabledFor(self._level):
            _log.log(self._level, "%s %s begins, attempt %d", run.task.name, run.job_id, run.attempt,
                     extra=_fields(run, "begun"))  # fmt: skip

    def after_run(self, run: Run) -> None:
        if _log.isEnabledFor(self._level):
            seconds = run.seconds()
            _log.log(self._level, "%s %s done after %.3f s", run.task.name, run.job_id, seconds,
                     extra=_fields(run, "done", seconds=seconds))  # fmt: skip

    def on_failure(self, run: Run) -> None:
        if run.cancelled and _log.isEnabledFor(self._level):
            _log.log(self._level, "%s %s cancelled: %s", run.task.name, run.job_id, run.error,
                     extra=_fields(run, "cancelled", seconds=run.seconds(), error=repr(run.error)))  # fmt: skip

    def on_retry(self, run: Run) -> None:
        event, level = ("retried", logging.WARNING) if run.counted else ("snoozed", self._level)
        if _log.isEnabledFor(level):
            fields = _fields(run, event, seconds=run.seconds(), error=repr(run.error), again_in=run.retry_in)
            _log.log(level, "%s %s %s, attempt %d: %r; again in %.3g s", run.task.name, run.job_id, event, run.attempt,
                     run.error, run.retry_in, extra=fields)  # fmt: skip

    def on_dead(self, run: Run) -> None:
        _log.error("%s %s given up after attempt %d: %r", run.task.name, run.job_id, run.attempt, run.error,
                   extra=_fields(run, "dead", error=repr(run.error)))  # fmt: skip

    def on_start(self, role: str) -> None:
        _log.log(self._level, "%s starts", role, extra={"event": "process_started", "role": role})

    def on_stop(self, role: str) -> None:
        _log.log(self._level, "%s stops", role, extra={"event": "process_stopped", "role": role})

    def on_supervisor_start(self) -> None:
        _log.log(self._level, "supervisor starts", extra={"event": "supervisor_started"})

    def on_supervisor_stop(self) -> None:
        _log.log(self._level, "supervisor stops", extra={"event": "supervisor_stopped"})


def _fields(run: Run, event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event, "job": run.job_id, "task": run.task.name, "queue": run.task.queue, "attempt": run.attempt, **more,
    }  # fmt: skip
