"""What the supervisor's decisions and its rim say to each other: events go in, instructions come out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from .roles import Cause, Key

Reason = Literal["finished", "drained", "stopped", "killed", "changed", "failed", "boot"]


class State(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    DONE = "done"
    FATAL = "fatal"


# -- events. `now` is any clock that only goes forward, in seconds.


@dataclass(frozen=True, slots=True)
class Begin:
    now: float


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process of a Spawn exists."""

    key: Key
    now: float


@dataclass(frozen=True, slots=True)
class Ready:
    key: Key
    now: float


@dataclass(frozen=True, slots=True)
class Exited:
    key: Key
    cause: Cause
    now: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """What the child runs has reached its hard time limit."""

    key: Key
    text: str
    now: float


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the run to stop: a signal's name, or a caller's word. `at_once`: without letting work finish."""

    by: str
    now: float
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    now: float


@dataclass(frozen=True, slots=True)
class CodeChanged:
    """The run is to end in good order, as at a first stop request, and to begin anew with other code."""

    now: float


@dataclass(frozen=True, slots=True)
class Restart:
    """Somebody wants new processes for one role; None: for all that do not end by themselves."""

    role: str | None
    now: float


@dataclass(frozen=True, slots=True)
class Scale:
    """The role is to have so many children from now on."""

    role: str
    count: int
    now: float


@dataclass(frozen=True, slots=True)
class Drained:
    """The answer to AskDrained, if it is yes."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    now: float


Event = (
    Begin
    | Spawned
    | Ready
    | Exited
    | Overdue
    | StopRequested
    | ReloadRequested
    | CodeChanged
    | Restart
    | Scale
    | Drained
    | Tick
)


# -- instructions


@dataclass(frozen=True, slots=True)
class Spawn:
    key: Key


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the child to finish what it is doing and leave."""

    key: Key


@dataclass(frozen=True, slots=True)
class Kill:
    key: Key


@dataclass(frozen=True, slots=True)
class AskDrained:
    """Find out whether anything is left to do, and feed Drained if not."""


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the operator. `action` is for programs, `text` for people."""

    action: str
    text: str
    key: Key | None = None
    #: How the child that this is about ended, if it did.
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class End:
    """No child is left and none will come."""

    exit_code: int
    reason: Reason
    error: str | None = None


Instruction = Spawn | Terminate | Kill | AskDrained | Say | End


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers behind the rules, in seconds where they are times."""

    #: First pause before a restart; doubles with each failure, up to `longest`.
    pause: float = 0.1
    longest: float = 10.0
    #: A child that was ready for this long has proved itself.
    settle: float = 5.0
    #: Faults of its own in a row after which a child is FATAL.
    tries: int = 5
    #: How long children may finish after the first stop request. None: as long as they like.
    grace: float | None = 10.0
    #: Pause between two AskDrained.
    ask: float = 0.1
