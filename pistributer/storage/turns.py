"""Taking turns between the threads of one process, for paths where a microsecond counts.

flock does not exclude threads that share a descriptor, so something must stand in front of it. `with threading.Lock()` costs
0.16 µs beside system calls of 0.9 µs; taking the one token out of a list and putting it back costs 0.04 µs. Taking it with
`del` has a second reason: CPython runs signal handlers after calls, and `del list[0]` is no call, so that a Ctrl-C can not
strike between having the turn and entering the `try` that gives it back. With `lock.acquire()` it can, and the next
`acquire` would then wait for ever.
"""

from __future__ import annotations

import threading


class Turn:
    """A mutex between threads. Not reentrant, not fair.

    Hot paths write the two calls out: `take_turn` as ``try: del self._turn[0]`` / ``except IndexError:
    self._wait_for_turn()``, and `give_turn` as ``self._turn.append(None)`` / ``if self._waiters: self.wake_waiter()``.
    """

    __slots__ = ("_turn", "_waiters", "_wake")

    def __init__(self) -> None:
        self.reset_turn()

    def reset_turn(self) -> None:
        """Nobody has the turn and nobody waits: for a new object, and in a forked child."""
        #: Holds one token while it is nobody's turn.
        self._turn: list[None] = [None]
        #: Threads that found the list empty. Changed under `_wake`, read without it.
        self._waiters = 0
        self._wake = threading.Condition(threading.Lock())

    def take_turn(self) -> None:
        try:
            del self._turn[0]
        except IndexError:
            self._wait_for_turn()

    def try_turn(self) -> bool:
        """Take the turn if it is nobody's."""
        try:
            del self._turn[0]
        except IndexError:
            return False
        return True

    def give_turn(self) -> None:
        self._turn.append(None)
        # A waiter counts itself before it looks once more, so either it finds the token or it is seen here.
        if self._waiters:
            self.wake_waiter()

    def wake_waiter(self) -> None:
        with self._wake:
            self._wake.notify()

    def _wait_for_turn(self) -> None:
        with self._wake:
            self._waiters += 1
            try:
                while not self.try_turn():
                    self._wake.wait()
            finally:
                self._waiters -= 1
