"""When scheduled calls are due: cron expressions and intervals, time zones, and what happens to moments that were missed.

Functions of the clock's value, not of the clock. Moments are seconds since the epoch.

An interval's moments are the multiples of its length since the epoch, so they stay where they are over restarts. A cron
expression is read by cronsim, by the rules of Debian's cron: five fields, or six with seconds first. In its time zone, a
moment that falls into the hour that spring leaves out comes right after it; of the two that autumn has, the first counts;
expressions that run every hour or minute run at each real one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import takewhile
from types import ModuleType
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pistributer import errors

Misfire = Literal["skip", "once", "all"]

#: A moment that passed longer ago than this was missed, in seconds: nobody was there, or the machine slept.
LATE = 60.0


@dataclass(frozen=True)
class Schedule:
    """A call of a task that comes again and again."""

    name: str
    #: Of the task.
    task: str
    queue: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: One of the two is given: a cron expression, or seconds.
    cron: str | None
    every: float | None
    zone: tzinfo
    #: What to do about missed moments: nothing, run once for all of them, run once for each.
    misfire: Misfire

    def following(self, after: float) -> Iterator[float]:
        """The moments later than `after`, in order."""
        if self.every is not None:
            number = math.floor(after / self.every)
            while True:
                number += 1
                yield number * self.every
        else:
            for moment in self._cronsim(after):
                yield moment.timestamp()

    def preceding(self, at: float) -> float | None:
        """The last moment not later than `at`; None if there was none for 50 years."""
        if self.every is not None:
            return math.floor(at / self.every) * self.every
        found = next(self._cronsim(math.floor(at) + 1, reverse=True), None)  # the last before the next whole second
        return None if found is None else found.timestamp()

    def _cronsim(self, start: float, *, reverse: bool = False) -> Iterator[datetime]:
        # Moments are whole seconds; cronsim takes a fraction for a moment that it has passed.
        begin = datetime.fromtimestamp(math.floor(start), self.zone)
        found: Iterator[datetime] = cronsim().CronSim(self.cron, begin, reverse)
        return found

    def due(self, last: float, now: float) -> Iterator[float]:
        """The moments between `last`, the one that was run last, and `now` that are to be run, in order."""
        late = now - LATE
        yield from self._missed(last, late)
        yield from takewhile(lambda moment: moment <= now, self.following(max(last, late)))

    def _missed(self, last: float, late: float) -> Iterator[float]:
        if self.misfire == "all":
            yield from takewhile(lambda moment: moment <= late, self.following(last))
        elif self.misfire == "once":
            newest = self.preceding(late)
            if newest is not None and newest > last:
                yield newest


def cronsim() -> ModuleType:
    """The package that reads cron expressions. Raises PackageMissing."""
    try:
        import cronsim
    except ImportError as error:
        raise errors.PackageMissing(
            "cron expressions need the package cronsim", hint="pip install 'pistributer[cron]', or say every=…"
        ) from error
    return cronsim


def check_cron(expression: str) -> str:
    """`expression`, or ValueError if it is none."""
    found = cronsim()
    try:
        if next(found.CronSim(expression, datetime(2001, 1, 1)), None) is not None:
            return expression
    except found.CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error
    raise ValueError(f"{expression!r} names no moment in 50 years")


def find_zone(name: str) -> ZoneInfo:
    """The time zone of that name, or ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"there is no time zone {name!r} (on a system without a database of them, pip install tzdata)"
        ) from error
