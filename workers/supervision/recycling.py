"""Replacing processes that grow old: after so many jobs, or when they have so much memory.

A worker leaves by itself between two jobs and says so; the supervisor puts another in its place at once and holds nothing
against it. What it had claimed and not begun goes back in the place where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..checks import at_least
from .child import Child


@dataclass(frozen=True)
class Recycle:
    """When a process is replaced: after so many jobs or rows, or when it has so many bytes of memory. None: never."""

    jobs: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "memory"):
            if (limit := getattr(self, name)) is not None:
                at_least(1, f"recycle_{name}", limit)

    def __bool__(self) -> bool:
        return self.jobs is not None or self.memory is not None


NEVER = Recycle()


def work_until_old(child: Child, recycle: Recycle, target: Callable[..., object], *args: Any) -> None:
    """The role `target` of a process that is to be replaced."""
    child.wear_out(jobs=recycle.jobs, memory=recycle.memory)
    target(child, *args)
