"""A clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """The time by which delays, pauses between attempts, rate limits and schedules go, in eager and memory mode.

    It stands still until it is moved. It does not move `time.time()`, `datetime.now()` and sleeps inside tasks, nor time
    limits, which watch the real run, nor the age of results.
    """

    def __init__(self, start: float, move: Callable[[float], object]) -> None:
        self._now = start
        self._move = move

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def datetime(self) -> datetime:
        """The same, in UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    def advance(self, seconds: float | timedelta) -> None:
        """Let so much time pass, moment by moment: what falls due meanwhile happens at its time and in order."""
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if length < 0:
            raise ValueError(f"time does not go back, as {seconds!r} would")
        self._move(self._now + length)

    def set(self, moment: float) -> None:
        """Be at `moment`, without anything happening. For the stage."""
        self._now = max(self._now, moment)

    def __repr__(self) -> str:
        return f"<Clock {self.datetime():%Y-%m-%d %H:%M:%S} UTC>"
