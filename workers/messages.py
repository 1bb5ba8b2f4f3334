"""What a call looks like on its way: one JSON object, readable by people and by `jq`.

::

    {"id": "5f0c…", "task": "resize", "args": ["a.png"], "kwargs": {"width": 80}}

`args` and `kwargs` are left out when they are empty; `"retries": 5` is there if the sender chose a number. Readers ignore
fields that they do not know.
"""

from __future__ import annotations

import os
import random
from typing import Any

#: Bits of a job id. Ids of one process come from a generator seeded by the system: unique, but no secret.
_ID_BITS = 96
_ids = random.Random()
os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """A fresh job id: 24 hexadecimal digits."""
    return f"{_ids.getrandbits(_ID_BITS):024x}"


class Call:
    """One call of a task, not sent yet. A producer yields these; `id` will be its job's."""

    __slots__ = ("message", "queue")

    def __init__(self, queue: str, message: dict[str, Any]) -> None:
        #: Name of the queue that it goes to.
        self.queue = queue
        self.message = message

    @property
    def id(self) -> str:
        """The id that its job will have."""
        return str(self.message["id"])

    def __repr__(self) -> str:
        return f"<Call {self.message['task']} {self.id}>"


def compose(task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The message of a call, with a fresh id."""
    message: dict[str, Any] = {"id": new_id(), "task": task}
    if args:
        message["args"] = args
    if kwargs:
        message["kwargs"] = kwargs
    return message


def find_fault(message: Any) -> str | None:
    """Why `message` is not one of ours; None if it is. Anybody can put rows into a queue."""
    if not isinstance(message, dict):
        return f"a task message is a JSON object, not {type(message).__name__}"
    if not isinstance(message.get("id"), str) or not isinstance(message.get("task"), str):
        return 'a task message has the texts "id" and "task"'
    if not isinstance(message.get("args", []), list) or not isinstance(message.get("kwargs", {}), dict):
        return '"args" is a list and "kwargs" an object'
    if "retries" in message and not (type(message["retries"]) is int and message["retries"] >= 0):
        return '"retries" is a number, not negative'
    return None
