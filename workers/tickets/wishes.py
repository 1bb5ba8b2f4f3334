"""What a sender asks of the tickets, beside that its job is run, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pistributer import errors

Unique = Literal["skip", "replace", "join"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a sender asks for, beside that its job is run."""

    key: str | None = None
    key_limit: int = 1
    unique: Unique | None = None
    #: What makes a job equal to another one.
    equal: str | None = None
    idempotency_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The job that the sender's job is: its own, or another one. `skipped`: that other one is why nothing was sent."""

    job: str
    queue: str
    skipped: bool = False


def ticket_key(task: str, key: str | None) -> str | None:
    """A task's key as the tickets have it: different tasks never share one, unless their names hold newlines."""
    return None if key is None else f"{task}\n{key}"


def equality(task: str, arguments: dict[str, Any]) -> str:
    """What two calls of a task with the same arguments have in common, as text."""
    import hashlib

    try:
        text = orjson.dumps([task, arguments], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise errors.RowTypeError(f"these arguments can not be compared: {error}") from error
    return hashlib.sha256(text).hexdigest()
