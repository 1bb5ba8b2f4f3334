"""One attempt at a job in a thread of its own, and how it is interrupted from the main thread.

Python can raise an exception in another thread (PyThreadState_SetAsyncExc): the thread meets it between two of its
instructions, so a call that waits in C (a socket, `time.sleep`) goes on until it returns. The exception must not be met
outside the task, where it would break the thread. So the two sides shake hands, without a lock that an exception could leave
locked:

    main thread                           the attempt's thread
    sending = True                        active = False
    if active: interrupted, raise there   wait while sending
    sending = False                       if interrupted: take back what was not met yet

Each reads what the other has written before: either the main thread sees that the task is over, or the thread waits for it.
An attempt is interrupted once at most.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from pistributer.queues.contract import Item, Queue

from ..hooks import Run
from ..progress import CURRENT
from ..supervision.board import Desk
from .calling import SharedLoop

if TYPE_CHECKING:
    from .ready import Ready


class Attempt:
    """A job that was begun; the main thread makes it and settles it, another one runs it."""

    __slots__ = (
        "_active", "_early", "_interrupted", "_is_async", "_loop", "_sending", "_thread", "desk", "fatal", "item", "queue",
        "ready", "run", "soft_deadline",
    )  # fmt: skip

    def __init__(self, queue: Queue, item: Item, run: Run, ready: Ready, desk: Desk, loop: SharedLoop) -> None:
        self.queue = queue
        self.item = item
        self.run = run
        self.ready = ready
        self.desk = desk
        self._loop = loop
        self._is_async = ready.is_async
        #: When its soft time limit is reached, by the monotonic clock, if the main thread minds that.
        self.soft_deadline = math.inf
        #: What a hook raised after the task had failed. The process can not go on.
        self.fatal: BaseException | None = None
        self._thread = 0
        self._active = self._sending = self._interrupted = False
        #: What it was interrupted with before the task began.
        self._early: type[BaseException] | None = None

    def make(self) -> None:
        """Run the task with its hooks. Raises nothing: `run.error` and `fatal` say how it went."""
        run, ready = self.run, self.ready
        try:
            for step in ready.before:
                step(run)
            CURRENT.set(run)
            self._enter()
            run.value = ready.call(*run.args, **run.kwargs)
            self._leave()
            for step in ready.after:
                step(run)
        except BaseException as error:  # noqa: BLE001 (a task that calls sys.exit fails; it does not take the worker along)
            run.error = self._leave_failing(error)
            self._judge()
        self.desk.idle()

    def _judge(self) -> None:
        try:
            for step in self.ready.failed:
                step(self.run)
        except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
            self.fatal = error

    def _enter(self) -> None:
        self._thread = threading.get_ident()
        self._active = True
        if self._early is not None:
            raise self._early

    def _leave(self) -> None:
        self._active = False
        while self._sending:
            time.sleep(0)
        if self._interrupted and self._is_async:
            self._loop.forget_interrupt(self._thread)
        elif self._interrupted:
            _raise_in(self._thread, None)

    def _leave_failing(self, error: BaseException) -> BaseException:
        """The same after the task raised. An interrupt that it just escaped may still be met in here, and ends here."""
        try:
            self._leave()
        except BaseException as late:  # noqa: BLE001 (it was meant for the task)
            self._leave()  # there is no second one
            return late
        return error

    def interrupt(self, error: type[BaseException]) -> None:
        """End the task with `error`, which is made without arguments. From the main thread; in vain if the task is over."""
        if self._interrupted:
            return
        self._interrupted = True  # before anything else: a signal handler may call this in the middle of this
        self._sending = True
        if not self._active:
            self._early = error
        elif self._is_async:
            self._loop.interrupt(self._thread, error)
        else:
            _raise_in(self._thread, error)
        self._sending = False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have `error` raised in a thread; None takes back what it has not met yet."""
    import ctypes  # here, because few workers ever interrupt anything

    given = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)
