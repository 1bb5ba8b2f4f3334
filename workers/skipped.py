"""The handle on a call that was not sent, because an equal one is pending."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pistributer import errors

from .jobs import Job, JobStatus, Results
from .results import Finished

if TYPE_CHECKING:
    from .app import App

T = TypeVar("T")


class SkippedJob(Job[T]):
    """A job that does not exist, and so has no id.

    `status()` is "skipped", and `result()` raises JobSkipped, which names the other one.
    """

    __slots__ = ("other",)

    def __init__(self, app: App, task: str, queue: str, other: str) -> None:
        super().__init__(app, "", task, queue)
        #: The id of the pending job.
        self.other = other

    def done(self) -> bool:
        """Yes: nothing will come of it."""
        return True

    def status(self) -> JobStatus:
        """ "skipped"."""
        return "skipped"

    def cancel(self) -> None:
        """There is nothing to call off; the other job goes on."""

    def _ids(self) -> tuple[str, ...]:
        return ()

    def _looks(self, results: Results, timeout: float | None) -> Iterator[float | Finished]:
        raise errors.JobSkipped(
            f"this call of {self.task} was not sent, because job {self.other} is pending and equal",
            hint=f"wait for that one: app.job({self.other!r}, task={self.task!r}, queue={self.queue!r})",
            job_id=self.other,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        url, _, task, queue, results, _ = super().__reduce__()[1]
        return (_same_skipped, (url, task, queue, results, self.other))


def _same_skipped(url: str, task: str, queue: str, results: Any, other: str) -> SkippedJob[Any]:
    from .app import App

    return SkippedJob(App(url, results=results), task, queue, other)
