"""Checks of options that several modules make."""

from __future__ import annotations

from typing import TypeVar

N = TypeVar("N", int, float)


def at_least(least: N, name: str, value: N) -> N:
    """`value`, or ValueError if it is less than `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least:g}, not {value!r}")
    return value
