"""The run that this code is part of, and how far it says that it is.

What a task reports goes into the page of its process (supervision/pages.py), where anybody can read it: two stores, no
system call. When a row is settled, the last word of each job that reported is noted in the history, to be read after the
job ended.

The run is a context variable: right in each thread of a pool and each coroutine of an event loop. A thread that the task
starts by itself begins without one; hand it the `Run`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .supervision.pages import ENTRIES, Page, whole

if TYPE_CHECKING:
    from .history import HistoryLog
    from .hooks import Run

#: Set by the worker before it calls a task.
CURRENT: ContextVar[Run | None] = ContextVar("pistributer_run", default=None)


def current_run() -> Run | None:
    """The run that the calling code is part of: its job's id, its attempt, its task. None outside of a worker."""
    return CURRENT.get()


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Say how far the current job is: `done` of `total` (None: nobody knows), and what it is at.

    `Job.progress()` shows it from any process, at once and after the job ended; `pistributer status`, `ps` and `top` while it
    runs. It costs about a microsecond, so call it as often as you like. Outside of a worker it does nothing, so a task can
    be called anywhere.
    Of `text`, the first 200 bytes or so are shown.
    """
    run = CURRENT.get()
    if run is not None:
        run.progress(done, total, text)


class Reports:
    """Who reports progress in this process. `flush` when rows are about to be settled."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._free = list(range(ENTRIES))
        self._open: deque[tuple[Run, Report]] = deque()

    def open(self, run: Run) -> Report:
        """A report for `run`; it is seen while it runs if one of the page's entries is free."""
        try:
            number = self._free.pop()
        except IndexError:  # and not a look before: another thread may come between
            number = None
        if number is not None:
            self.page.open_entry(number, run.job_id)
        report = Report(self.page, number, run)
        self._open.append((run, report))
        return report

    def flush(self, history: HistoryLog, running: Collection[Run] = ()) -> None:
        """Note the last word of each run that is not among those still `running`. From one thread."""
        for _ in range(len(self._open)):
            run, report = self._open.popleft()
            if run in running:
                self._open.append((run, report))
                continue
            report.closed = True
            if report.number is not None:
                self._free.append(report.number)
            history.note(
                report.job, "progress", task=report.task, done=whole(report.done),
                total=None if report.total is None else whole(report.total), text=report.text, at=time.time(),
            )  # fmt: skip


class Report:
    """What one run says of itself."""

    __slots__ = ("_page", "closed", "done", "job", "number", "task", "text", "total")

    def __init__(self, page: Page, number: int | None, run: Run) -> None:
        self._page = page
        self.number = number
        self.job = run.job_id
        self.task = run.task.name
        self.closed = False
        self.done: float = 0
        self.total: float | None = None
        self.text = ""

    def say(self, done: float, total: float | None, text: str) -> None:
        try:
            self.done, self.total = float(done), None if total is None else float(total)
        except (TypeError, ValueError):
            raise TypeError(f"progress takes numbers, not {done!r} of {total!r}") from None
        if self.number is not None:
            data = None if text is self.text else text.encode(errors="replace")
            self._page.say(self.number, self.done, self.total, data)
        self.text = text


_reports: Reports | None = None


def use_page(page: Page) -> Reports:
    """Have this process's runs report on `page`."""
    global _reports
    _reports = Reports(page)
    return _reports


def use_none() -> None:
    """Have this process's runs report nowhere from now on."""
    global _reports
    _reports = None


def open_report(run: Run) -> Report | None:
    """A report for `run`; None outside of a worker, where nobody would read it."""
    return None if _reports is None else _reports.open(run)
