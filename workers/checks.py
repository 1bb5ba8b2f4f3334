"""Checks of options that several modules make."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

N = TypeVar("N", int, float)


def at_least(least: N, name: str, value: N) -> N:
    """`value`, or ValueError if it is less than `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least:g}, not {value!r}")
    return value


def check_limit(seconds: float | None) -> float | None:
    """A time limit, or None for none; ValueError for what is neither."""
    if seconds is not None and not _is_length(seconds):
        raise ValueError(f"a time limit must be positive, a number of seconds, or None for none, not {seconds!r}")
    return seconds


def check_retention(results: bool | float) -> bool | float:
    """Whether results are kept, or how many seconds; ValueError for what is neither."""
    if not isinstance(results, bool) and not _is_length(results):
        raise ValueError(f"results is True, False or a positive number of seconds, not {results!r}")
    return results


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """`tags` as a tuple. TypeError for what is no collection of texts."""
    found = tuple(tags)
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in found):
        raise TypeError(f"tags are texts, such as ('import', 'eu'), not {tags!r}")
    return found


def _is_length(seconds: object) -> bool:
    # JSON has no infinity, and a NaN is less than nothing.
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < math.inf
