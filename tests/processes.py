"""Children for tests: started by fork, spawn or forkserver, talked to through a pipe, and always reaped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

Method = Literal["fork", "spawn", "forkserver"]
METHODS: tuple[Method, ...] = ("fork", "spawn", "forkserver")

#: Seconds after which a child that says nothing, or a condition that does not come true, fails the test.
PATIENCE = 30.0


class Child:
    """`function(pipe, *args)` in a child process. Use it in `with`: at the end the child is dead and reaped.

    The function may `pipe.send(value)`, which `hear` returns, and `pipe.recv()` what `say` sends. What it returns is the
    `result`; what it raises is raised again here, as AssertionError with the child's traceback.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, method: Method = "fork") -> None:
        context = multiprocessing.get_context(method)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, function, args))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.exitcode is None

    def say(self, value: Any) -> None:
        self._pipe.send(value)

    def hear(self) -> Any:
        """The next thing that the child sends; EOFError if it was killed and has sent nothing more."""
        kind, value = self._receive()
        assert kind == "said", f"the child ended: {kind} {value}"
        return value

    def result(self) -> Any:
        """What the function returned; what it sent before and nobody heard is skipped."""
        kind, value = self._receive()
        while kind == "said":
            kind, value = self._receive()
        self._process.join(PATIENCE)
        return value

    def _receive(self) -> tuple[str, Any]:
        assert self._pipe.poll(PATIENCE), f"nothing from the child for {PATIENCE} seconds"
        kind, value = self._pipe.recv()
        assert kind != "raised", f"in the child:\n{value}"
        return kind, value

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end that it brings."""
        os.kill(self.pid, number)
        # Not join(): that waits for the end of a pipe which the child's own children hold open.
        wait_for(lambda: self._process.exitcode is not None, "the child's end")

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive() and error is None:
            self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process.close()


class _Pipe:
    """The child's end: marks what it sends, so that it differs from the result."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def send(self, value: Any) -> None:
        self._connection.send(("said", value))

    def recv(self) -> Any:
        return self._connection.recv()


def _run(connection: Connection[Any, Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = function(_Pipe(connection), *args)
    except BaseException:  # noqa: BLE001 -- raised again in the parent
        connection.send(("raised", traceback.format_exc()))
        raise SystemExit(1) from None
    connection.send(("returned", result))


def run(function: Callable[..., Any], *args: Any, method: Method = "fork") -> Any:
    """What `function(pipe, *args)` returns in a child."""
    with Child(function, *args, method=method) as child:
        return child.result()


def wait_for(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Call `condition` until it is true, and return what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"in vain for {PATIENCE} seconds: {what}"
        time.sleep(0.002)
    return found
