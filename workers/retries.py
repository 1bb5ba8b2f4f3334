"""When something that failed is tried again. A pure function decides; the worker loops carry it out.

A task, or a consumer's function, says what is to become of its job by raising `Retry`, `Snooze` or `Cancel`. Any other
exception is a failure, and its policy says whether there is another attempt, and when.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts, in seconds: `first`, then `factor` times as long each time, up to `longest`.

    factor  1.0 gives pauses that do not grow
    jitter  each pause is drawn between nothing and its full length ("full jitter"), so that what failed together does
            not come back together. False: exactly those lengths.

    Why full jitter: of the usual kinds it makes those who compete for something do the least work in all (M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    first: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.first < 0 or self.longest < 0:
            raise ValueError(f"pauses can not be negative: first={self.first!r}, longest={self.longest!r}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor!r}")

    def pause(self, failures: int, chance: random.Random) -> float:
        """The pause after so many failures, 1 or more."""
        # A float overflows beyond 2.0 ** 1023, and `longest` has long been reached by then.
        full = min(self.first * self.factor ** min(failures - 1, 64), self.longest)
        return chance.uniform(0.0, full) if self.jitter else full


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures are tried again.

    limit     how often, at most
    retry_on  exceptions that are
    stop_on   exceptions that are not, even if they are among those
    """

    limit: int
    backoff: Backoff
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    stop_on: tuple[type[BaseException], ...] = ()

    def allows(self, error: BaseException) -> bool:
        return isinstance(error, self.retry_on) and not isinstance(error, self.stop_on)


class Retry(Exception):
    """Raise it in a task to be tried again after `after` seconds (None: as the policy says). It counts as a failure.

    It is obeyed whatever `retry_on` and `stop_on` say, as long as the limit allows.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Snooze(Exception):
    """Raise it in a task that can not do its work yet: it comes again after so many seconds. Not a failure: not counted."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds


class Cancel(Exception):
    """Raise it in a task whose work is not wanted any more: neither tried again nor put with the dead letters."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a job that raised. With neither `again_in` nor `cancelled`, it goes to the dead letters."""

    #: Seconds until the next attempt.
    again_in: float | None = None
    #: Whether the attempt that was just made counts.
    counted: bool = True
    cancelled: bool = False


def judge(error: BaseException, failures: int, policy: RetryPolicy, chance: random.Random) -> Verdict:
    """What becomes of a job after `error`, its `failures`-th failure."""
    if isinstance(error, Snooze):
        return Verdict(again_in=max(0.0, error.seconds), counted=False)
    if isinstance(error, Cancel):
        return Verdict(cancelled=True)
    asked = isinstance(error, Retry)
    if failures > policy.limit or not (asked or policy.allows(error)):
        return Verdict()
    if isinstance(error, Retry) and error.after is not None:
        return Verdict(again_in=max(0.0, error.after))
    return Verdict(again_in=policy.backoff.pause(failures, chance))
