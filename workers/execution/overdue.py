"""Jobs that have reached their hard time limit: their processes are asked where they are, and killed.

Those of this supervisor here; what those of a dead one need besides is in orphans.py.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from ..job_notes import JobNotes
from ..supervision.board import Slot
from ..supervision.last_words import STACK
from ..supervision.roles import Key
from ..supervision.supervisor import Supervisor


class Overdue:
    """For one supervisor. `excused` takes the jobs that die beside one that is to blame.

    ask_before  seconds before its limit that a process is asked where it is: when that has come, it is killed
    """

    def __init__(self, excused: JobNotes, *, ask_before: float) -> None:
        self._excused = excused
        self._ask_before = ask_before
        #: Whether a job runs that has a limit, its task's or its sender's.
        self.expected = False
        #: Children that are about to die of it, and what to say of each.
        self.reasons: dict[Key, str] = {}
        #: Jobs whose process was asked, by their start.
        self._asked: set[tuple[int, float]] = set()

    def end(self, supervisor: Supervisor, slots_of: Callable[[Key], list[Slot]]) -> None:
        """Have children killed whose job has reached its limit. `slots_of(key)` is what a child shows on the board."""
        now, self.expected = time.monotonic(), False
        for key, pid in supervisor.pids().items():
            slots = slots_of(key)
            for slot in slots:
                if slot.deadline == 0.0 or pid != slot.pid:
                    continue
                self.expected = True
                if slot.deadline < now + self._ask_before:
                    self.ask(slot)
                if slot.deadline < now and key not in self.reasons:
                    self.reasons[key] = why(slot)
                    self.excuse_others(slots, slot)
                    supervisor.end_overdue(key, self.reasons[key])

    def ask(self, slot: Slot) -> bool:
        """Have a process that is about to be killed write down where it is, once. Whether it was asked now."""
        if STACK is None or (slot.pid, slot.since) in self._asked:
            return False
        self._asked.add((slot.pid, slot.since))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(slot.pid, STACK)
        return True

    def excuse_others(self, slots: list[Slot], slot: Slot) -> None:
        """Who runs beside `slot` in its process is not to blame. Called before it is killed."""
        neighbours = [one.job for one in slots if one.since and one.job != slot.job and one.pid == slot.pid]
        if neighbours:
            self._excused.add(*neighbours)


def why(slot: Slot) -> str:
    """What to say of the process of `slot`."""
    return f"was killed because {slot.task} reached its hard time limit"
