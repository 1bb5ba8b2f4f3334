"""The terms under which one job runs: those of its task, or what its sender chose instead.

A sender's choice stands in the message, as `"options"` (messages.py), and so holds for every attempt, whichever process makes
it, and for a dead letter that is tried again::

    {"id": "5f0c…", "task": "resize", "options": {"hard_time_limit": 60.0, "soft_time_limit": null, "results": false}}

What is not there is as the task says; null is none. One field for all of them, because workers look for it in each message.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .checks import check_limit, check_retention
from .tickets.rates import RateLimit, read_rate

if TYPE_CHECKING:
    from .tasks import Task


class AsTask(enum.Enum):
    """Not chosen, where None says none."""

    AS_TASK = "as the task says"

    def __repr__(self) -> str:
        return self.name


AS_TASK: Final = AsTask.AS_TASK


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a job. Those that are equal share what is made for them."""

    soft_time_limit: float | None
    hard_time_limit: float | None
    results: bool | float
    rate_limit: RateLimit | None
    #: Whose begins the rate limit counts (tickets/rates.py).
    rated: str

    def changed(self, options: Mapping[str, Any]) -> Terms:
        """With what a message says instead. Raises ValueError for what makes no sense; unknown options are passed over."""
        known = {name: read(options[name]) for name, read in _READ.items() if name in options}
        if known.get("rate_limit") is not None:
            known["rated"] = rated_apart(self.rated, known["rate_limit"])
        return replace(self, **known)


def terms_of(task: Task[..., Any]) -> Terms:
    """What holds for the jobs of a task."""
    return Terms(task.soft_time_limit, task.hard_time_limit, task.results, task.rate_limit, task.name)


def rated_apart(task: str, limit: RateLimit) -> str:
    """Those jobs of a task that were sent with this limit: they are counted by themselves."""
    return f"{task}\n{limit.count}/{limit.per!r}/{limit.burst}"


def chosen(
    soft_time_limit: float | AsTask | None,
    hard_time_limit: float | AsTask | None,
    results: bool | float | None,
    rate_limit: RateLimit | str | AsTask | None,
) -> dict[str, Any]:
    """What a sender chose, as a message has it. Raises ValueError for what makes no sense."""
    found: dict[str, Any] = {}
    if soft_time_limit is not AS_TASK:
        found["soft_time_limit"] = check_limit(soft_time_limit)
    if hard_time_limit is not AS_TASK:
        found["hard_time_limit"] = check_limit(hard_time_limit)
    if results is not None:
        found["results"] = check_retention(results)
    if rate_limit is not AS_TASK:
        rate = read_rate(rate_limit)
        found["rate_limit"] = rate and [rate.count, rate.per, rate.burst]
    return found


def results_wanted(message: Any) -> bool | None:
    """Whether the sender of this message wants its result kept; None: that is for the task to say."""
    options = message.get("options") if isinstance(message, dict) else None
    kept = options.get("results") if isinstance(options, dict) else None
    return None if kept is None else kept is not False


def find_fault_of_options(options: Any) -> str | None:
    """Why a message can not have these; None if it can."""
    if not isinstance(options, dict):
        return '"options" is an object'
    try:
        _NOTHING.changed(options)
    except ValueError as error:
        return f'"options": {error}'
    return None


def _read_rate(shown: Any) -> RateLimit | None:
    if shown is None:
        return None
    if not (isinstance(shown, list) and len(shown) == 3 and _is_number(shown[1])):
        raise ValueError(f"a rate limit is a list of count, seconds and burst, not {shown!r}")
    if type(shown[0]) is not int or (shown[2] is not None and type(shown[2]) is not int):
        raise ValueError(f"the count and the burst of a rate limit are whole numbers, not {shown!r}")
    return RateLimit(*shown)


def _is_number(shown: Any) -> bool:
    return type(shown) in (int, float)


_READ: Final[dict[str, Any]] = {
    "soft_time_limit": check_limit,
    "hard_time_limit": check_limit,
    "results": check_retention,
    "rate_limit": _read_rate,
}
_NOTHING: Final = Terms(None, None, True, None, "")
