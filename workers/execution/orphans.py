"""Ends what a dead supervisor can not: its workers whose job has reached its hard time limit.

A worker whose supervisor was killed finishes what it runs and leaves. If its job hangs, perhaps in C, where nothing in the
process gets a turn, somebody else has to end it: any supervisor that runs the app, or the next one that comes.

Refused: a watchdog in the worker. A Python thread needs the interpreter's lock, which the loop in C holds; SIGALRM belongs to
soft limits, and to tasks; faulthandler's thread in C knows one limit at a time, where a process may run several jobs, and would
be made anew for each job.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pistributer import errors

from ..supervision import runs
from ..supervision.board import Board, Slot
from ..supervision.roles import Cause
from .deaths import Deaths
from .overdue import Overdue, why


@dataclass(frozen=True, slots=True)
class _Orphan:
    """A child of the dead supervisor whose folder is `folder`; `number` is its first slot."""

    folder: str
    name: str
    number: int
    slots: list[Slot]

    def overdue(self, now: float) -> Slot | None:
        """The job that has reached its limit."""
        own = (slot for slot in self.slots if slot.pid == self.slots[0].pid)
        return next((slot for slot in own if 0.0 < slot.deadline < now), None)


class Orphans:
    """Those of all dead supervisors of the app whose folder `run` is given."""

    def __init__(self, run_folder: str, deaths: Deaths, overdue: Overdue) -> None:
        self._run = run_folder
        self._deaths = deaths
        self._overdue = overdue
        #: Process ids and starts of those that have nothing to wait for any more.
        self._over: set[tuple[int, float]] = set()

    def look(self) -> Iterator[str]:
        """End those that are overdue; what to tell of each. Each is asked where it is first, and ended at the next look."""
        now = time.monotonic()
        for orphan in self._all():
            slot = orphan.overdue(now)
            if slot is None or (slot.pid, slot.started) in self._over:
                continue
            if not runs.is_at(orphan.folder, slot.pid, slot.started):
                self._over.add((slot.pid, slot.started))
            elif not self._overdue.ask(slot) and self._end(orphan, slot):
                yield f"{orphan.name} of a supervisor that is dead {why(slot)}"

    def _all(self) -> Iterator[_Orphan]:
        for folder in runs.left_behind(self._run):
            with contextlib.suppress(errors.FolderMissing):  # removed meanwhile
                record = runs.read_record(folder)
                page = Board(runs.board_path(folder))
                with contextlib.closing(page):
                    for role, seats in record.seats.items() if record else ():
                        for index in range(seats.taken):
                            slots = page.of(seats, index)
                            yield _Orphan(folder, f"{role}[{index}]", seats.of(index)[0], slots)

    def _end(self, orphan: _Orphan, slot: Slot) -> bool:
        """Kill it, and note the death once. False if another supervisor was faster."""
        with runs.changing(self._run):
            if not runs.is_at(orphan.folder, slot.pid, slot.started):
                return False
            self._overdue.excuse_others(orphan.slots, slot)
            if not runs.kill(orphan.folder, slot.pid, slot.started):
                return False
            self._over.add((slot.pid, slot.started))
        board = runs.board_path(orphan.folder)
        cause = Cause("signal", 9, why(slot))
        for one in orphan.slots:
            if one.pid == slot.pid:
                self._deaths.note(orphan.number, orphan.name, one, cause, board=board)
        return True
