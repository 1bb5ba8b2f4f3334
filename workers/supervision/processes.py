"""The supervisor's hands: descriptors, signals, and how processes are made, watched and reaped."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import selectors
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from .child import HELD_BACK
from .roles import Cause, Key, Role

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

#: Descriptors per child in the supervisor (end of life, the start method's pipe, one while it starts) and for all else.
_FDS_PER_CHILD, _FDS_BESIDE = 4, 128


class HasFileno(Protocol):
    def fileno(self) -> int: ...


@dataclass(slots=True)
class Running:
    process: BaseProcess
    pid: int
    #: What becomes readable when the process ends; `owned` if it is ours to close.
    watch: int
    owned: bool
    #: What it reported about its own end.
    farewell: Cause | None = None


class Rim:
    """The descriptors of a running supervisor: pipes, the selector, the signal handlers that were there before."""

    def __init__(self, context: Any) -> None:
        self._selector = selectors.DefaultSelector()
        self._report, self.report_end = context.Pipe(duplex=False)
        self.lifeline_end, self._lifeline = context.Pipe(duplex=False)
        #: What only the supervisor may hold.
        self.own_ends: tuple[Connection, ...] = (self._report, self._lifeline)
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._report.fileno(), selectors.EVENT_READ, "report")
        self._selector.register(self._awake.fileno(), selectors.EVENT_READ, "signal")
        self._handlers: dict[int, Any] = {}
        self._wakeup_before = -1
        if threading.current_thread() is threading.main_thread():
            self._take_signals()
        self._closed = False

    def _take_signals(self) -> None:
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _do_nothing)

    def note(self, number: int) -> None:
        """As if signal `number` had come."""
        with contextlib.suppress(BlockingIOError):
            self._waker.send(bytes([number]))

    def wait(self, timeout: float | None) -> Iterator[tuple[Any, bytes]]:
        """What happened: ("signal", numbers), ("report", b""), (what to call, b"") or (key of a child that ended, b"")."""
        for chosen, _ in self._selector.select(timeout):
            yield chosen.data, (self._awake.recv(4096) if chosen.data == "signal" else b"")

    def reports(self) -> Iterator[list[Any]]:
        """What children have reported. Their writes are atomic, so a message that has begun is there as a whole."""
        while self._report.poll():
            yield json.loads(self._report.recv_bytes())

    def watch(self, key: Key, process: BaseProcess, start_method: str) -> Running:
        pid = process.pid
        assert pid is not None
        watch, owned = end_of_life(process, pid, start_method)
        self._selector.register(watch, selectors.EVENT_READ, key)
        return Running(process, pid, watch, owned)

    def attach(self, thing: HasFileno, call: Callable[[], object], *, write: bool) -> None:
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        if thing.fileno() in self._selector.get_map():
            self._selector.modify(thing.fileno(), events, call)
        else:
            self._selector.register(thing.fileno(), events, call)

    def detach(self, thing: HasFileno) -> None:
        if not self._closed and thing.fileno() in self._selector.get_map():
            self._selector.unregister(thing.fileno())

    def unwatch(self, running: Running) -> None:
        self._selector.unregister(running.watch)
        if running.owned:
            os.close(running.watch)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._handlers:
            signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        for end in (*self.own_ends, self.report_end, self.lifeline_end, self._awake, self._waker):
            end.close()


def end_of_life(process: BaseProcess, pid: int, start_method: str) -> tuple[int, bool]:
    """A descriptor that becomes readable when the process ends, and whether it is ours to close.

    The sentinel of "fork" and "spawn" is a pipe that grandchildren inherit: it stays silent while one of them lives. A
    pidfd does not. The fork server's sentinel is right, and it is the server, not we, who is the parent.
    """
    if start_method != "forkserver" and hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid), True
    return process.sentinel, False


def reap(process: BaseProcess) -> int:
    """Wait for a process that has ended; its exit code, negative for a signal."""
    process.join()
    code, pid = process.exitcode, process.pid
    if code == 255 and pid is not None:
        # So it looks when the fork server itself was killed and can not tell: the child may still be there.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.close()
    return 0 if code is None else code


def cause_of(code: int) -> Cause:
    return Cause("signal", -code) if code < 0 else Cause("exit", code)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """A child starts with these blocked and lets them in once it has handlers; ours wait for the moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def needs_main(role: Role) -> bool:
    """Whether the role's target or arguments may come from the `__main__` module; when in doubt, yes."""
    try:
        return b"__main__" in pickle.dumps((role.target, role.args))
    except Exception:  # noqa: BLE001 (anything may refuse; locks and pipes are pickled only while a process starts)
        return True


@contextlib.contextmanager
def main_module_hidden(hide: bool) -> Iterator[None]:
    """Keep "spawn" and "forkserver" from running the main script again in each child that needs nothing from it.

    For the command line, that would be 20 ms and several MB for each of hundreds of children.
    """
    main = sys.modules["__main__"]
    if hide:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def allow_descriptors(children: int) -> None:
    """Raise the soft limit on open files as far as so many children need."""
    need = children * _FDS_PER_CHILD + _FDS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (need if hard == resource.RLIM_INFINITY else min(need, hard), hard))


def _do_nothing(number: int, frame: object) -> None:
    """Its presence makes Python note the signal in the wake-up socket."""
