"""What happened to each job on its way: every attempt that did not end well, in logs that outlive the job.

`history/` in the app's folder holds logs as segment_log.py keeps them: one of each worker that met a failure, and one of the
supervisor, which notes the workers that died. Nothing is written for an attempt that ends well; its result says so. ::

    {"id": "5f0c…", "what": "retried", "task": "resize", "queue": "default", "attempt": 1, "at": 1763715600.5,
     "seconds": 0.2, "pid": 4711, "kind": "OSError", "text": "busy", "traceback": "…", "again_in": 3.2}
    {"id": "…", "what": "died", "task": "resize", "attempt": 2, "at": …, "seconds": 1.5, "pid": 4712,
     "text": "was killed by SIGSEGV", "death": {"worker": "worker default[0]", "signal": "SIGSEGV", …}}
    {"id": "…", "what": "progress", "done": 3, "total": 10, "text": "", "at": …}

An attempt is in the history before its row is settled: killed between the two, the row runs again, and its history shows
both. A death is noted when the supervisor sees it; if it was killed too, the numbers of the attempts show the gap.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from .home import Home
from .hooks import Hook, Run
from .results import Finished
from .retries import Snooze
from .segment_log import Follower, SegmentLog, clean
from .supervision.pages import JobProgress, find_progress

#: Histories are kept for a week, or as long as they fit, unless the app says otherwise.
MAX_AGE, MAX_BYTES = 7 * 86400.0, 64 * 1024 * 1024
#: The note of a death may come a moment after the job: the kernel tells the supervisor and frees the claim at once.
_PATIENCE, _PAUSE = 0.25, 0.01

What = Literal["done", "retried", "failed", "snoozed", "cancelled", "died", "unknown"]
_ATTEMPTS = frozenset({"retried", "failed", "snoozed", "cancelled", "died"})
_NO_LINE = "nothing is known of it: its worker and the supervisor were killed together, or its line has expired"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker died, as far as can be known."""

    #: Its role and number, such as "worker default[0]".
    worker: str = ""
    #: The signal that killed it, such as "SIGSEGV", or the exit code that it left with.
    signal: str | None = None
    exit_code: int | None = None
    #: The largest memory that it was seen to use, in bytes; None if it died before anybody looked.
    peak_bytes: int | None = None
    #: Whether the kernel's out-of-memory killer did it: "yes", "no", or "perhaps" where the system does not tell.
    oom: str = "no"
    #: The last lines that it logged while it ran the job.
    log: str = ""
    #: Where in the Python code it was, if it crashed or was stuck.
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a job.

    what  "done", "retried" (it failed and will be tried again), "failed" (for good), "snoozed", "cancelled", "died": its
          worker did, or "unknown": that there was one is all that is known
    """

    #: 1 for the first. A snoozed attempt is not counted, so the next one has the same number.
    number: int
    what: What
    #: When it ended, seconds since the epoch, and how many seconds it had run, where that is known.
    at: float | None = None
    seconds: float | None = None
    pid: int | None = None
    #: The exception's class, words and traceback, or in `text` how the worker died.
    kind: str = ""
    text: str = ""
    traceback: str = ""
    #: Seconds until the next attempt, as decided then.
    again_in: float | None = None
    death: Death | None = None


class HistoryLog:
    """This process's part of the history. `flush` before a row is settled, from one thread."""

    def __init__(self, folder: str, *, max_age: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> None:
        self._log = SegmentLog(folder, max_age=max_age, max_bytes=max_bytes)
        self.flush = self._log.flush
        self.close = self._log.close

    def note(self, id: str, what: str, **fields: Any) -> None:
        """Note one event. Whatever the fields' texts hold, it is made to fit."""
        self._log.note({"id": id, "what": what, **{name: clean(value) for name, value in fields.items()}})


class KeepHistory(Hook):
    """Notes each attempt that raised, once the hook for retries has decided what becomes of the job."""

    def __init__(self, log: HistoryLog) -> None:
        self._log = log
        self._pid = os.getpid()

    def on_failure(self, run: Run) -> None:
        error = run.error
        self._log.note(
            run.job_id, _what_became(run), task=run.task.name, queue=run.task.queue, attempt=run.attempt, at=time.time(),
            seconds=run.seconds(), pid=self._pid, kind=type(error).__name__, text=str(error),
            traceback="" if isinstance(error, Snooze) else run.traceback, again_in=run.retry_in,
        )  # fmt: skip


def _what_became(run: Run) -> What:
    if run.cancelled:
        return "cancelled"
    if run.retry_in is None:
        return "failed"
    return "retried" if run.counted else "snoozed"


def row_id(queue: str, row: str) -> str:
    """What a row that is no job goes by here: the ids of rows are unique within their queue only."""
    return f"{queue}:{row}"


# -- reading


def read_attempts(folder: str, id: str, finished: Finished | None = None) -> list[Attempt]:
    """All attempts at the job or row `id` that are known of, in order; `finished` is its result, if there is one."""
    found = [line for line in Follower(folder).lines_of(id) if line["what"] in _ATTEMPTS]
    found.sort(key=lambda line: float(line["at"]))
    if finished is not None and _adds(finished, found):
        found.append(_line(finished))
    return list(_number(found))


def last_death(folder: str, id: str) -> Attempt | None:
    """How the last worker that ran `id` died, if the supervisor noted it; waits a moment for that."""
    deadline = time.monotonic() + _PATIENCE
    follower = Follower(folder)
    while True:
        deaths = [line for line in follower.lines_of(id) if line["what"] == "died"]
        if deaths:
            return _attempt(max(deaths, key=lambda line: line["at"]), 0)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE)


def last_deaths(folder: str) -> dict[str, Death]:
    """For each job whose worker ever died, how that was the last time. Reads the whole history."""
    found: dict[str, dict[str, Any]] = {}
    for line in _lines(folder, b'"what":"died"'):
        if line["at"] >= found.get(line["id"], line)["at"]:
            found[line["id"]] = line
    return {id: death for id, line in found.items() if (death := _attempt(line, 0).death) is not None}


def read_progress(home: Home, id: str) -> JobProgress | None:
    """What the job or row `id` last said of its progress, now or before it ended."""
    # The page of a killed supervisor may still lie there, so that a page is no proof of being the latest.
    said = [find_progress(home.run, id), last_progress(home.history, id)]
    return max((one for one in said if one is not None), key=lambda one: one.at, default=None)


def last_progress(folder: str, id: str) -> JobProgress | None:
    """What the job last said of its progress, in an attempt that is over."""
    said = [
        found for line in Follower(folder).lines_of(id) if (found := line if "done" in line else line.get("progress"))
    ]
    last = max(said, key=lambda found: float(found["at"]), default=None)
    return None if last is None else JobProgress(last["done"], last["total"], last["text"], last["at"])


def _lines(folder: str, having: bytes) -> Iterator[dict[str, Any]]:
    import orjson

    for _, _, block in Follower(folder).blocks():
        if having in block:
            yield from (orjson.loads(line) for line in block.splitlines() if having in line)


def _number(lines: Iterable[dict[str, Any]]) -> Iterator[Attempt]:
    """Give each attempt its number, and name those that left no line."""
    last, ended = 0, False
    noted_by: int | None = -1
    for line in lines:
        number = line.get("attempt") or last + 1
        if line["what"] == "died" and number == last and noted_by == line.get("pid"):
            ended = False  # the attempt had ended and was noted; its worker died before it could settle the row
            continue
        noted_by = -1 if line["what"] == "died" else line.get("pid")
        # A dead letter that was put back begins with 1 again. A number that comes twice otherwise was not counted.
        start = 1 if number < last or (ended and number == last) else last + 1
        for missing in range(start, number):
            yield Attempt(missing, "unknown", text=_NO_LINE)
        yield _attempt(line, number)
        last, ended = (number - 1 if line["what"] == "snoozed" else number), line["what"] in ("failed", "cancelled")


_PLAIN = tuple(field.name for field in fields(Attempt) if field.name not in ("number", "what", "death"))


def _attempt(line: dict[str, Any], number: int) -> Attempt:
    death = line.get("death")
    known = {field.name for field in fields(Death)}
    return Attempt(
        number, line["what"], **{name: line[name] for name in _PLAIN if name in line},
        death=None if death is None else Death(**{name: value for name, value in death.items() if name in known}),
    )  # fmt: skip


def _adds(finished: Finished, lines: list[dict[str, Any]]) -> bool:
    """Whether the result tells of an attempt that the history has not."""
    if finished.ok:
        return True
    # A job whose worker died each time ends without an attempt, and one that was called off may end before the first.
    return not lines and finished.attempts > 0 and finished.kind not in ("Cancel", "WorkerDied")


def _line(finished: Finished) -> dict[str, Any]:
    return {
        "what": "done" if finished.ok else "failed", "attempt": finished.attempts or None, "at": finished.at,
        "seconds": finished.seconds, "kind": finished.kind, "text": finished.text, "traceback": finished.traceback,
    }  # fmt: skip
