"""What a call looks like on its way: one JSON object, readable by people and by `jq`.

::

    {"id": "5f0c…", "task": "resize", "args": ["a.png"], "kwargs": {"width": 80}}

`args` and `kwargs` are left out when they are empty; `"retries": 5` is there if the sender chose a number, `"tags": ["eu"]` if
there are any, `"options": {…}` if the sender chose other limits than the task's (terms.py). Readers ignore fields that they do
not know.

A job with a ticket (tickets/store.py) has `"ticket": 1`, the number of its copy, or 0 if the ticket is still to be made; with
it may come `"key": "customer-17"`, `"then": […]`, the messages of the calls that follow in its chain, each with the name of its
`"queue"`, and `"chord": [id, place]`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pistributer import errors

from .terms import find_fault_of_options

if TYPE_CHECKING:
    from .app import App
    from .jobs import Job
    from .tickets.wishes import Answer, Wish

#: What a call returns; what it takes as its first argument.
T = TypeVar("T")
First = TypeVar("First", contravariant=True)

#: Bits of a job id. Ids of one process come from a generator seeded by the system: unique, but no secret.
_ID_BITS = 96
_ids = random.Random()
os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """A fresh job id: 24 hexadecimal digits."""
    return f"{_ids.getrandbits(_ID_BITS):024x}"


class Call(Generic[T]):
    """One call of a task, or a chain of them, not sent yet. A producer yields these; `id` will be its job's."""

    __slots__ = ("app", "message", "queue", "wish")

    def __init__(self, queue: str, message: dict[str, Any], app: App | None = None, wish: Wish | None = None) -> None:
        #: Name of the queue that it goes to.
        self.queue = queue
        self.message = message
        self.app = app
        #: What its sender asks the tickets for, if that is more than its key.
        self.wish = wish

    @property
    def id(self) -> str:
        """The id that its job will have."""
        return str(self.message["id"])

    def send(self) -> Job[T]:
        """Send it; the job that ends with its value, in a chain that of the last call. Raises as `Task.send`.

        If an equal one is pending and the task is unique, that is what `unique` says, as for `Task.send`.
        """
        if self.app is None:
            raise errors.BadCall("this call was made without an app", hint="make it by task.call(…)")
        [answer] = self.app.gate.send_calls([self])
        return self.job(answer)

    def job(self, answer: Answer) -> Job[T]:
        """The handle that `send` gives: on its own job, or on the one that it turned out to be."""
        from .composition import handle

        return handle(self, answer)

    def __repr__(self) -> str:
        return f"<Call {self.message['task']} {self.id}>"


class Follower(Generic[First, T]):
    """A call whose first argument is what another call returned: made by `task.then(…)`, for `chain` and `chord`."""

    __slots__ = ("app", "message", "queue")

    def __init__(self, app: App, queue: str, message: dict[str, Any]) -> None:
        self.app = app
        self.queue = queue
        self.message = message

    def __repr__(self) -> str:
        return f"<Follower {self.message['task']} {self.message['id']}>"


def compose(task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The message of a call, with a fresh id."""
    message: dict[str, Any] = {"id": new_id(), "task": task}
    if args:
        message["args"] = args
    if kwargs:
        message["kwargs"] = kwargs
    return message


def jobs_of(message: dict[str, Any]) -> Iterator[str]:
    """The ids of the job that a message calls, and of those that follow it in its chain."""
    for one in (message, *message.get("then", ())):
        yield one["id"]


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
    if "options" in message and (fault := find_fault_of_options(message["options"])) is not None:
        return fault
    if "ticket" in message or "tags" in message:
        return _find_fault_of_ticket(message)
    return None


def _find_fault_of_ticket(message: dict[str, Any]) -> str | None:
    if not all(isinstance(tag, str) for tag in _list(message.get("tags", []))):
        return '"tags" is a list of texts'
    if not _is_count(message.get("ticket", 0)):
        return '"ticket" is a number, not negative'
    if not isinstance(message.get("key", ""), str):
        return '"key" is a text'
    if "chord" in message and not _is_member(message["chord"]):
        return '"chord" is a list of an id and a number'
    return _find_fault_of_followers(message.get("then", []))


def _find_fault_of_followers(followers: Any) -> str | None:
    for follower in _list(followers):
        fault = find_fault(follower)
        if fault is None and not (isinstance(follower.get("queue"), str) and "then" not in follower):
            fault = 'it has the name of its "queue", and no "then" of its own'
        if fault is not None:
            return f'"then" is a list of task messages: {fault}'
    return None


def _list(value: Any) -> list[Any]:
    """A list as it is; for anything else, a list with a fault."""
    return value if isinstance(value, list) else [None]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_member(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_count(value[1])
