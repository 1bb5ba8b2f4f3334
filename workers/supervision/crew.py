"""The roles of a run, and bringing them into line with what operators wish for (run_state.py)."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pistributer import errors

from . import run_state
from .autoscaling import Autoscaler, Bounds, Load
from .board import Board, Seats, assign
from .paused import PausePage, beside
from .recycling import NEVER, Recycle, work_until_old
from .roles import NEWS, Role
from .runs import Premises
from .supervisor import Supervisor


@dataclass(frozen=True)
class Part:
    """One role of a run before it runs.

    target, args  what its processes call, as `Role` has it; the board and the number of its first seat come behind `args`
    bounds        how many processes `run` asks for; between the two, what waits decides
    queues        what they take from, if they do: then there may be more or fewer of them one day
    width         how many jobs one process may run at once
    """

    name: str
    target: Callable[..., object]
    args: tuple[Any, ...]
    bounds: Bounds = Bounds(1, 1)  # noqa: RUF009 (frozen)
    queues: tuple[str, ...] = ()
    width: int = 1
    ends: bool = False
    recycle: Recycle = NEVER

    @property
    def asked(self) -> int:
        """How many there are at first, unless an operator wished for another number."""
        return self.bounds.least

    @property
    def most(self) -> int:
        """How many there will ever be; 0: that is open."""
        return 0 if self.queues else self.bounds.most

    def names(self) -> set[str]:
        """What an operator may call it."""
        _, _, short = self.name.partition(" ")
        return {self.name, short or self.name, *self.queues}


class Crew:
    """The parts of one supervisor. First `roles()`, then, with the supervisor that runs them, `begin`."""

    def __init__(self, parts: Iterable[Part], run_folder: str, premises: Premises) -> None:
        self.parts = {part.name: part for part in parts}
        self.queues_of = {part.name: part.queues for part in self.parts.values() if part.queues}
        self._run_folder = run_folder
        self._premises = premises
        self._state = run_state.RunState(run_folder)
        self._state.look()
        #: Sizes that operators set for this supervisor only.
        self._own_sizes: dict[str, int] = {}
        self.seats: dict[str, Seats] = assign(
            {name: (self._wanted(part), part.most, part.width) for name, part in self.parts.items()}
        )
        self._scalers = {name: Autoscaler(part.bounds) for name, part in self.parts.items() if _moves(part)}

    def _wanted(self, part: Part) -> int:
        return self._wish(part) or part.asked

    def _wish(self, part: Part) -> int | None:
        return self._own_sizes.get(part.name) or self._state.wishes.size(part.name, part.asked)

    def roles(self) -> list[Role]:
        return [self._role(part, self.seats[name]) for name, part in self.parts.items()]

    def _role(self, part: Part, seats: Seats) -> Role:
        args = (*part.args, self._premises.board, seats.first)
        if part.recycle:
            return Role(part.name, work_until_old, (part.recycle, part.target, *args), seats.taken, part.ends)
        return Role(part.name, part.target, args, seats.taken, part.ends)

    def begin(self, supervisor: Supervisor) -> None:
        """The supervisor's children are about to be started."""
        self._supervisor = supervisor
        self._page = PausePage(beside(self._premises.board), write=True)
        self._page.show(self.paused)

    def close(self) -> None:
        self._page.close()

    # -- what is wished for

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are."""
        return self._state.wishes.paused

    @property
    def settled(self) -> bool:
        """Whether every process is set up, or done."""
        return self._supervisor.settled

    def look(self) -> None:
        """See whether something else is wished for, and do it. Raises StateError if an edit of the file went wrong."""
        if self._state.look():
            self._show_paused()
            self._resize()

    def _resize(self) -> None:
        for part in self.parts.values():
            if part.queues and part.name not in self._moving():
                self._set_size(part.name, self._wanted(part))

    def _show_paused(self) -> None:
        """Those who sleep because their queue was paused wake at once. The page first: they look at it then."""
        resumed = self._page.show(self.paused)
        pids = self._supervisor.pids()
        for (role, _), pid in pids.items():
            if resumed.intersection(self.queues_of.get(role, ())):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, NEWS)

    def _set_size(self, role: str, count: int) -> None:
        seats = self.seats[role]
        count = min(count, seats.room)
        if count == self._supervisor.size(role):
            return
        self.seats[role] = seats.resized(count)
        with contextlib.suppress(errors.StorageError):  # a full disk, say: `status` shows the size from before
            self._premises.describe(self.seats)
        self._supervisor.scale(role, count)

    # -- commands

    def find(self, what: str) -> Part:
        """The part that an operator means by the name of a role, a queue or a consumer. ControlError if none or many."""
        found = [part for part in self.parts.values() if what in part.names()]
        exact = [part for part in found if part.name == what]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise errors.ControlError(
                f"{what!r} may be any of {', '.join(part.name for part in found)}", hint="give the whole name"
            )
        known = sorted(set().union(*(part.names() for part in self.parts.values())))
        near = difflib.get_close_matches(what, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"
        raise errors.ControlError(f"this run has nothing called {what!r}", hint=hint)

    def scale(self, what: str, to: str, *, alone: bool = False) -> Part:
        """Have "8", "+2" or "-1" processes, or as many as `run` asks for ("reset"). Returns what was meant.

        Noted in the state first, then done: killed between the two, the next supervisor does it. With `alone` it is not noted.
        """
        part = self.find(what)
        seats = self.seats[part.name]
        if not part.queues:
            raise errors.ControlError(f"{part.name} is one process, and can not be more or fewer")
        count = None if to == "reset" else _size(to, self._supervisor.size(part.name))
        if count is not None and not 1 <= count <= seats.room:
            raise errors.ControlError(
                f"{part.name} can have 1 to {seats.room} processes, not {count}",
                hint="pause the queue to have none" if count < 1 else "start the run with more, which makes room",
            )
        self._own_sizes.pop(part.name, None)
        if not alone:
            run_state.set_size(self._run_folder, part.name, part.asked, count)
        elif count is not None:
            self._own_sizes[part.name] = count
        self.look()
        self._resize()
        return part

    # -- autoscaling

    def _moving(self) -> set[str]:
        """The roles whose size follows the load: those with bounds for which no operator has set a size."""
        return {name for name in self._scalers if self._wish(self.parts[name]) is None}

    @property
    def autoscales(self) -> bool:
        return bool(self._scalers)

    def follow_load(self, ready: dict[str, int], board: Board, now: float) -> None:
        """Let what waits decide how many processes there are. `ready`: rows by queue."""
        busy = self._busy(board)
        for role in self._moving():
            waiting = sum(ready.get(queue, 0) for queue in self.queues_of[role] if queue not in self.paused)
            self._set_size(role, self._scalers[role].feed(Load(waiting, busy.get(role, 0), now)))

    def _busy(self, board: Board) -> dict[str, int]:
        busy: dict[str, int] = {}
        for role, index in self._supervisor.pids():
            if any(slot.since for slot in board.of(self.seats[role], index)):
                busy[role] = busy.get(role, 0) + 1
        return busy


def _moves(part: Part) -> bool:
    return bool(part.queues) and part.bounds.least < part.bounds.most


def _size(to: str, now: int) -> int:
    try:
        number = int(to)
    except ValueError:
        raise errors.ControlError(f"{to!r} is no number of processes", hint="say 8, +2, -1 or reset") from None
    return now + number if to.startswith(("+", "-")) else number
