"""How many processes a role is to have, by what waits for it. Pure: loads go in, sizes come out.

Rows that wait at every look for `patience` seconds mean that the processes do not keep up: twice as many, up to the most
that are allowed. If nothing waits and some processes are idle at every look for `calm` seconds, those that were not
needed meanwhile go, at most half of them at a time. The two times are far apart, so that a load that comes and goes does not
have processes come and go with it.

Refused: a size in proportion to the backlog, because nobody knows beforehand how long jobs take; a million no-op jobs
are done before a second process has started.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What a role's queue and processes look like at one moment."""

    #: Rows that wait and could be taken.
    ready: int
    #: Processes that are running something.
    busy: int
    #: Any clock that only goes forward, in seconds.
    now: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """At least and at most so many processes."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"processes are at least 1 and at most the second number, not {self.least}:{self.most}")


class Autoscaler:
    """The size of one role, which begins with the least."""

    def __init__(self, bounds: Bounds, *, patience: float = 1.5, calm: float = 30.0) -> None:
        self._bounds = bounds
        self._patience = patience
        self._calm = calm
        self.size = bounds.least
        #: Since when rows have been waiting at every look; since when none have.
        self._waiting_since: float | None = None
        self._calm_since: float | None = None
        #: Most processes that were busy at once since then.
        self._needed = 0

    def feed(self, load: Load) -> int:
        """The size from now on."""
        if load.ready:
            self._calm_since = None
            if self._waiting_since is None:
                self._waiting_since = load.now
            elif load.now - self._waiting_since >= self._patience:
                self._waiting_since = load.now
                self.size = min(self._bounds.most, 2 * self.size)
        else:
            self._waiting_since = None
            self._feed_calm(load)
        return self.size

    def _feed_calm(self, load: Load) -> None:
        if self._calm_since is None:
            self._calm_since, self._needed = load.now, 0
        self._needed = max(self._needed, load.busy)
        if load.now - self._calm_since >= self._calm:
            self.size = max(self._bounds.least, min(self.size, max(self._needed, self.size // 2)))
            self._calm_since = None
