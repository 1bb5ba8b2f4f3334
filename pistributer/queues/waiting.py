"""Waiting for rows of several queues at once: one sleeper, woken by any of them (storage/doorbell.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from ..storage.doorbell import Doorbell, sleep_on


class Belled(Protocol):
    """What the drivers with a doorbell offer to this module."""

    def arm(self) -> Doorbell:
        """Say that this object is about to sleep, and return its bell. Look for rows once more after this."""

    def may_have_rows(self) -> bool:
        """Whether a claim is worth a try. True may turn out to be wrong. Raises QueueClosed."""

    def due_in(self) -> float:
        """Seconds until a delayed row falls due, as far as this object knows."""

    def ring(self) -> None:
        """Wake one of those who wait."""

    def show_unbegun(self, held: bool) -> None:
        """Say whether this object, which has claimed rows, holds some that it has not begun."""

    def unbegun_elsewhere(self) -> list[int]:
        """The processes that hold such rows."""

    def is_awaited(self) -> bool:
        """Whether somebody sleeps until there are rows: what is given back now is taken at once."""


Q = TypeVar("Q", bound=Belled)


def sleep_for_any(queues: Sequence[Q], seconds: float, also: Iterable[int] = ()) -> list[Q]:
    """Sleep until one of `queues` may have a row or a descriptor of `also` can be read, `seconds` at most.

    Returns the queues that rang: not all that have rows, and perhaps one that has none any more. Whoever takes nothing
    from one of these rings it again, because a ring wakes one waiter only.
    """
    try:
        bells = [queue.arm() for queue in queues]
        if any(queue.may_have_rows() for queue in queues):
            rung = [bell for bell in bells if bell.disarm()]
        else:
            due_in = min(queue.due_in() for queue in queues)
            rung = sleep_on(bells, max(0.0, min(seconds, due_in)), also)
    except (ValueError, OSError):
        for queue in queues:
            queue.may_have_rows()  # closed by another thread meanwhile, with the bell
        raise
    return [queue for queue, bell in zip(queues, bells, strict=True) if bell in rung]
