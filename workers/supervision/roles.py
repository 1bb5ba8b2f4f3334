"""What a supervisor runs, and how its children end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

#: Names one child: its role and its number within it.
Key = tuple[str, int]

#: The signal that says to a child that there is news. It does nothing to a process without a handler.
NEWS = signal.SIGURG

#: A child that could not boot leaves with this code (EX_CONFIG of sysexits.h): trying again would not help.
BOOT_EXIT = 78


@dataclass(frozen=True)
class Role:
    """One kind of child.

    name    unique within a supervisor
    target  a module-level callable, called in the child as `target(child, *args)`. It calls `child.ready()` once it is
            set up: a child that dies before that could not start, and after a few of those in a row the run stops.
    args    passed on; under "forkserver" and "spawn" they are pickled
    count   how many children
    ends    True: a normal return means that the work is done (a producer). False: it runs until
            `child.stop_requested()`, and a return before that is a fault (a consumer).
    """

    name: str
    target: Callable[..., object]
    args: tuple[Any, ...] = ()
    count: int = 1
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """How a child ended.

    finished  the target returned by itself
    stopped   the target returned after it had been told to stop
    recycled  it left by itself to be replaced by a fresh process; `text` says why
    failed    the target raised; `text` says what
    boot      the target raised BootError; `text` is its message
    exit      it left by `os._exit`, or `sys.exit`, with `code`
    signal    it was killed by signal number `code`; `text` says what for, if it was the supervisor
    spawn     the operating system could not make the process; `text` says why
    """

    kind: Literal["finished", "stopped", "recycled", "failed", "boot", "exit", "signal", "spawn"]
    code: int = 0
    text: str = ""
    #: Largest resident size in bytes, where known: a child that was killed from outside can not tell.
    peak_rss: int | None = None
    #: Whether the kernel's out-of-memory killer did it: "yes", "no", or "perhaps" where the system does not tell.
    oom: Literal["yes", "no", "perhaps"] = "no"
    #: The last lines that it logged, since its longest job began or, without one, since its start.
    log: str = ""

    @property
    def normal(self) -> bool:
        return self.kind in ("finished", "stopped", "recycled")

    def __str__(self) -> str:
        if self.peak_rss is None or self.kind not in ("failed", "exit", "signal"):
            return self._what()
        return f"{self._what()}, peak memory {self.peak_rss / 1e6:.0f} MB"

    def _what(self) -> str:
        match self.kind:
            case "finished":
                return "returned"
            case "stopped":
                return "stopped as told"
            case "recycled":
                return f"left to be replaced: {self.text}"
            case "failed":
                return f"raised {self.text}"
            case "boot":
                return f"could not boot: {self.text}"
            case "exit":
                return f"left with exit code {self.code}"
            case "signal":
                return self.text or f"was killed by {signal_name(self.code)}{_BY_KERNEL[self.oom]}"
            case "spawn":
                return f"could not be started: {self.text}"


_BY_KERNEL = {
    "yes": " of the kernel, which was out of memory",
    "perhaps": ", perhaps of the kernel for want of memory",
    "no": "",
}


def signal_name(number: int) -> str:
    """`"SIGKILL"` for 9; `"signal 77"` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
