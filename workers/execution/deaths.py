"""What the supervisor finds out about a child that died, and notes in the history of the job that it ran.

The cause goes three ways: into what the supervisor says, into the job's history, and from there, by the worker that meets
the job once too often, into its dead letter.

How much memory a child used can not be asked after its death, and its parent, who would be told, is most often the fork
server. So while a job runs for long the supervisor looks about once a second. Where the supervisor is the parent, the
kernel's own figure is taken, if it is the largest of any child so far: the kernel keeps no others.
"""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from pistributer import errors

from ..history import Death, HistoryLog, last_death, row_id
from ..supervision.board import Slot
from ..supervision.last_words import logged_since, stack_since
from ..supervision.oom import OomWatch, peak_memory
from ..supervision.pages import Page, page_path, stack_path
from ..supervision.roles import Cause, signal_name

#: How often memory is looked at, and how long a job has run before it is, in seconds.
_LOOK = 1.0
_SIGKILL = 9


class Deaths:
    """For the supervisor of the board at `board`; it notes deaths in `history`."""

    def __init__(self, board: str, history: HistoryLog) -> None:
        self._board = board
        self._history = history
        self._oom = OomWatch()
        self._peaks: dict[int, int] = {}
        self._next_look = 0.0
        self._largest = _largest_child()

    def look(self, slots: Iterable[Slot]) -> None:
        """See how much memory those use whose job runs for long. Does nothing most of the time."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        horizon = time.time() - _LOOK
        for slot in slots:
            if 0.0 < slot.since < horizon and (peak := peak_memory(slot.pid)) is not None:
                self._peaks[slot.pid] = peak

    def examine(self, number: int, slots: list[Slot], cause: Cause, pid: int, killed_for: str | None = None) -> Cause:
        """All that can be known of how child `number` ended, which was process `pid`. Called for each that ends.

        slots       what it shows on the board
        killed_for  why we killed it, if we did
        """
        largest, before = _largest_child(), self._largest
        self._largest = largest
        seen = [self._peaks.pop(pid, 0), cause.peak_rss or 0, largest if largest > before else 0]
        if cause.normal:
            return cause
        killed = cause.kind == "signal" and cause.code == _SIGKILL and killed_for is None
        return replace(
            cause, peak_rss=max(seen) or None, oom=self._oom.verdict(pid) if killed else "no",
            text=killed_for or cause.text, log=_log_of(self._board, number, _since(slots, pid)),
        )  # fmt: skip

    def note(
        self, number: int, worker: str, slot: Slot, cause: Cause, rows_of: str | None = None, board: str | None = None
    ) -> None:
        """Add to the history of the job that child `number` was running, if it ran one, or of a row of the queue `rows_of`.

        `board` is that of another supervisor, if it was his child.
        """
        if not slot.since:
            return
        board = board or self._board
        with _page(board, number) as page:
            progress = None if page is None else page.progress().get(slot.job)
        death = Death(
            worker, signal_name(cause.code) if cause.kind == "signal" else None,
            cause.code if cause.kind == "exit" else None, cause.peak_rss, cause.oom, _log_of(board, number, slot.since),
            stack_since(stack_path(board, number), slot.since),
        )  # fmt: skip
        now, id = time.time(), slot.job if rows_of is None else row_id(rows_of, slot.job)
        self._history.note(
            id, "died", task=slot.task, attempt=slot.attempt, at=now, seconds=now - slot.since, pid=slot.pid,
            text=str(cause), death=asdict(death), progress=None if progress is None else asdict(progress),
        )  # fmt: skip
        # A full disk, say, costs the note, not the pool; what could not be written is tried again with the next one.
        with contextlib.suppress(errors.StorageError):
            self._history.flush()

    def close(self) -> None:
        self._oom.close()
        self._history.close()


def _log_of(board: str, number: int, moment: float) -> str:
    with _page(board, number) as page:
        return "" if page is None else logged_since(page, moment)


@contextlib.contextmanager
def _page(board: str, number: int) -> Iterator[Page | None]:
    """The child's page; None if it died before it made one, or makes none."""
    try:
        page = Page(page_path(board, number))
    except errors.StorageError:
        yield None
        return
    try:
        yield page
    finally:
        page.close()


def _since(slots: list[Slot], pid: int) -> float:
    """When the child's longest job began, or the child itself; for one that never took its seat: never."""
    own = [slot for slot in slots if slot.pid == pid]
    return min((slot.since for slot in own if slot.since), default=own[0].started if own else math.inf)


def describe(death: Death) -> str:
    """What a dead letter says besides the cause itself: several lines, or nothing."""
    parts = [("last lines that it logged", death.log), ("where it was", death.stack)]
    return "".join(f"{title}:\n{_indented(text)}\n" for title, text in parts if text)


def explain(folder: str, id: str) -> tuple[str, str]:
    """Of a job or row whose worker died: what to say of the cause, after the verdict and before it. Empty if nobody knows."""
    last = last_death(folder, id)
    if last is None:
        return "", ""
    return f"; the last time the worker {last.text}", "" if last.death is None else describe(last.death)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _largest_child() -> int:
    """The largest resident size of any child that this process has waited for, in bytes."""
    # On Linux ru_maxrss is in KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
