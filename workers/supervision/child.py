"""What runs in a child process of the supervisor.

Signals: TERM asks it to leave after what it is doing. INT is ignored, because Ctrl-C reaches the whole process group
and only the supervisor decides. QUIT writes the stack of every thread to stderr, even out of a loop in C, and changes
nothing: sent to a child, it shows where it hangs; as Ctrl-\\ it reaches the supervisor too, which then kills. All are
blocked by the supervisor around the start, so that none is lost or kills a child that has no handler yet. URG
says that there is news: a queue was resumed, or the running job was called off.

The lifeline is a pipe whose write end only the supervisor holds: its end of file says that the supervisor is dead,
however it died. Refused: comparing `os.getppid()` and PR_SET_PDEATHSIG, because under "forkserver" the parent is the
fork server, not the supervisor; a watching thread, because threads and user code that forks do not
mix.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from pistributer import errors

from .roles import BOOT_EXIT, NEWS

#: The signals that the supervisor keeps from a child until `_take_signals` has set its handlers.
HELD_BACK = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

#: How often a busy child looks whether its supervisor is alive, in seconds.
_LOOK_AT_LIFELINE = 0.05

#: A report must be one atomic write to a pipe that all children share: at most PIPE_BUF (4096) bytes with its header.
_MAX_REPORT = 4000


class Child:
    """This process, as its role's target sees it."""

    def __init__(self, role: str, index: int, reports: Connection, lifeline: Connection) -> None:
        self.role = role
        self.index = index
        self._reports = reports
        self._lifeline = select.poll()
        self._lifeline.register(lifeline.fileno(), select.POLLIN)
        self._kept = lifeline
        self._look_at = 0.0
        self._stop = False
        #: Why this process wants to be replaced, once it does.
        self._worn_out = ""
        #: After so many jobs it does; None: never.
        self.jobs_left: int | None = None
        #: … and when it has more resident memory than this, in bytes.
        self._most_memory: int | None = None
        self._awake, self._waker = socket.socketpair()

    def ready(self) -> None:
        """Say that this child is set up. A death before this counts as a failed start.

        BootError if it has more memory already than it may have before it is replaced, which would go on for ever.
        """
        if self._most_memory is not None and (used := resident_memory()) > self._most_memory:
            raise errors.BootError(
                f"a fresh process has {used / 1e6:.0f} MB of memory, and is to be replaced at {self._most_memory / 1e6:.0f}",
                hint="raise recycle_memory",
            )
        self._report("ready")

    def stop_requested(self) -> bool:
        """Whether to leave after the current piece of work: told by the supervisor, or it is dead. About 0.1 µs."""
        if not self._stop and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK_AT_LIFELINE
            self._stop = bool(self._lifeline.poll(0))
            if self._most_memory is not None and (used := resident_memory()) > self._most_memory:
                self.recycle(f"{used / 1e6:.0f} MB of memory")
        return self._stop

    def recycle(self, why: str) -> None:
        """Leave after the current piece of work, as if told to, and have a fresh process take this one's place at once."""
        if not self._stop:
            self._worn_out, self._stop = why, True

    def wear_out(self, *, jobs: int | None, memory: int | None) -> None:
        """Recycle after so many jobs or rows, or when more than `memory` bytes are resident (looked at 20 times a second)."""
        self.jobs_left, self._most_memory = jobs, memory

    def did(self, jobs: int) -> None:
        """So many jobs or rows were handled."""
        if self.jobs_left is not None:
            self.jobs_left -= jobs
            if self.jobs_left <= 0:
                self.recycle("it has done its jobs")

    def wait_stop(self, timeout: float | None = None) -> bool:
        """Sleep until a stop is requested (True) or `timeout` seconds are over (False). Uses no CPU meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stop:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.wait_news(left)
        return True

    @property
    def news(self) -> int:
        """A descriptor that can be read when a signal came, until `hear` is called."""
        return self._awake.fileno()

    def hear(self) -> None:
        """Whatever the signals said, handlers have noted; a sleep that looks at `news` may go on."""
        try:
            self._awake.recv(4096)
        except BlockingIOError:
            pass  # it was something else that ended the sleep

    def wait_news(self, timeout: float | None = None, also: Iterable[int] = ()) -> None:
        """Sleep until a signal comes, the supervisor is dead, a descriptor of `also` can be read, or `timeout` seconds are over.

        Uses no CPU meanwhile.
        """
        if self._stop:
            return
        sleeper = select.poll()
        sleeper.register(self._kept.fileno(), select.POLLIN)
        for fd in (self._awake.fileno(), *also):
            sleeper.register(fd, select.POLLIN)
        for fd, _ in sleeper.poll(None if timeout is None else timeout * 1000):
            self._stop |= fd == self._kept.fileno()
        self.hear()

    # -- for `child_main`

    def take_signals(self) -> None:
        """Set the handlers, then let in what the supervisor's mask has held back since the start."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._note_stop)
        _show_stacks_on(signal.SIGQUIT)
        signal.signal(NEWS, _do_nothing)  # it writes to the wake-up socket, which ends a sleep
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)

    def _note_stop(self, number: int, frame: object) -> None:
        self._stop = True

    def run(self, target: Callable[..., object], args: tuple[Any, ...]) -> int:
        """Call the target, report how it ended, and return the exit code."""
        try:
            target(self, *args)
        except errors.BootError as error:
            self._report("boot", str(error))
            return BOOT_EXIT
        except Exception as error:  # noqa: BLE001 (told to the supervisor, which decides)
            traceback.print_exc()
            self._report("failed", f"{type(error).__name__}: {error}")
            return 1
        if self._worn_out:
            self._report("recycled", self._worn_out)
        else:
            self._report("stopped" if self.stop_requested() else "finished")
        return 0

    def _report(self, what: str, text: str = "") -> None:
        # On Linux ru_maxrss is in KiB, on macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        while len(report := json.dumps([self.role, self.index, what, text, peak]).encode()) > _MAX_REPORT:
            text = text[: len(text) * 2 // 3]
        try:
            self._reports.send_bytes(report)
        except BrokenPipeError:
            self._stop = True  # the supervisor is dead: nobody to tell, and time to leave


def resident_memory() -> int:
    """Of this process, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux
        import psutil

        return int(psutil.Process().memory_info().rss)


def _do_nothing(number: int, frame: object) -> None:
    """Its presence makes Python note the signal in the wake-up socket."""


def _show_stacks_on(number: int) -> None:
    # A child that ignores it is the lesser evil where stderr is closed or no file: its default action is a core dump.
    signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.register(number, all_threads=True)


def _let_go_of_helpers() -> None:
    """Close what holds up multiprocessing's fork server and resource tracker, which every child is given.

    Else a process that a task has forked off would keep both alive for as long as it lives, long after the run. A task that
    uses multiprocessing itself gets a tracker of its own then.
    """
    for helper, name in ((forkserver._forkserver, "_forkserver_alive_fd"), (resource_tracker._resource_tracker, "_fd")):
        held: int | None = getattr(helper, name, None)
        if held is not None:
            setattr(helper, name, None)
            os.close(held)


def child_main(
    role: str,
    index: int,
    target: Callable[..., object],
    args: tuple[Any, ...],
    reports: Connection,
    lifeline: Connection,
    inherited: tuple[Connection, ...] = (),
) -> None:
    """Where a child begins. `inherited` are the supervisor's own ends, which a forked child must not keep open."""
    for connection in inherited:
        connection.close()
    _let_go_of_helpers()
    child = Child(role, index, reports, lifeline)
    child.take_signals()
    sys.exit(child.run(target, args))
