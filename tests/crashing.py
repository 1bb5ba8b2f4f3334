"""Killing a child at its N-th change to the disk, for every N, until it gets through.

Every system call by which the package changes a disk is wrapped in the child: before the N-th one the child kills itself
with SIGKILL; a write may also be torn, with half of its bytes on disk. What the child had said by then comes through a
pipe, so the parent knows what was promised.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pistributer.queues import appender
from pistributer.storage import quick_append

_CALLS = (
    "write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate", "truncate", "replace", "rename", "link", "unlink",
    "mkdir", "mkfifo", "open", "rmdir", "utime",
)  # fmt: skip
_DEADLINE = 60


@dataclass
class Told:
    """What the child said before it died, in order: (event, value) pairs."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    finished: bool = False

    def of(self, event: str) -> list[Any]:
        return [value for name, value in self.events if name == event]


Act = Callable[[Callable[[str, Any], None]], None]


def run_killed(act: Act, at: int, *, torn: bool) -> Told:
    """Run `act(tell)` in a forked child that dies at its `at`-th change to the disk; what it told until then."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(act, at, torn, writing)
    os.close(writing)
    told = Told()
    with open(reading, "rb") as pipe:
        while True:
            try:
                told.events.append(pickle.load(pipe))
            except EOFError:
                break
    _, status = os.waitpid(pid, 0)
    told.finished = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    errors = told.of("error")
    assert not errors, errors
    assert told.finished or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
    return told


def _child(act: Act, at: int, torn: bool, writing: int) -> None:
    signal.alarm(_DEADLINE)
    write = os.write

    def tell(event: str, value: Any = None) -> None:
        data = pickle.dumps((event, value))
        assert write(writing, data) == len(data)  # at most PIPE_BUF bytes, so whole

    try:
        _arm(at, torn)
        act(tell)
    except BaseException as error:  # noqa: BLE001 - told to the parent, which fails on it
        tell("error", repr(error))
        os._exit(1)
    os._exit(0)


def _arm(at: int, torn: bool) -> None:
    done = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if name == "open" and not args[1] & (os.O_CREAT | os.O_TRUNC):
                return real(*args, **kwargs)
            done += 1
            if done == at:
                if torn and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                elif torn and name == "pwritev":
                    whole = b"".join(args[1])
                    real(args[0], [whole[: len(whole) // 2]], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    appender.QuickAppend = quick_append.PlainQuickAppend  # type: ignore[misc] # what C writes, nobody could count
    for name in _CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def every_kill(prepare: Callable[[int], Act], *, torn: bool = False) -> Iterator[tuple[int, Told]]:
    """`(N, told)` for a child killed at its first, second, … change, and last for one that got through.

    `prepare(N)` sets up fresh state and returns what the child is to do with it.
    """
    at = 0
    while True:
        at += 1
        told = run_killed(prepare(at), at, torn=torn)
        yield at, told
        if told.finished:
            return
