"""Which queues an argument means: a queue URL, a queue's folder or database, or an app's folder and a queue's name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from . import exits

if TYPE_CHECKING:
    from pistributer.queues.contract import Queue

    from ..workers.gate_tickets import Tickets

#: What the arguments TARGET and QUEUE say in each help page.
EXPLAINED = """TARGET is an app (its folder, or sqlite:FILE) or a single queue: its folder, or a URL such as txt:jobs/
or sqlite:jobs.db."""


def target_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("target")(command)


def queue_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("queue", required=False)(command)


def find_queues(target: str) -> list[tuple[str, str]]:
    """`(name, URL)` of each queue that `target` holds: those of an app, or the one that it is."""
    from ..workers.home import Home

    single = _single_queue(target)
    if single is not None:
        return [(os.path.basename(target.rstrip("/")) or target, single)]
    home = _home(target)
    if home is None or not home.exists():
        exits.fail(
            f"there is no queue and no app at {target!r}",
            hint="give the folder of an app or of a queue, or a URL such as sqlite:jobs.db",
            code=exits.UNAVAILABLE,
        )
    assert isinstance(home, Home)
    return [(name, home.queue_url(name)) for name in home.queue_names()]


def open_target(target: str, name: str | None) -> tuple[str, Queue]:
    """The one queue that is meant, opened. In an app it is the queue `name`, or the default one."""
    from ..workers.home import DEFAULT_QUEUE

    found = dict(find_queues(target))
    if _single_queue(target) is not None:
        if name is not None:
            exits.fail(f"{target!r} is a single queue, so {name!r} names nothing in it", code=exits.USAGE)
        name = next(iter(found))
    name = name or DEFAULT_QUEUE
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(sorted(found)) or 'no queue yet'}"
        exits.fail(f"{target!r} has no queue {name!r}", hint=known, code=exits.USAGE)
    return name, open_existing(found[name])


def open_existing(url: str) -> Queue:
    """Open a queue that is there, with the driver that made it and all lanes that an app keeps beside it."""
    from pistributer import errors
    from pistributer.queues.opening import open_queue, split_url

    from ..workers.whole_queue import with_lanes

    try:
        return with_lanes(open_queue(url, create=False))
    except errors.DriverMismatch as error:
        if url != split_url(url)[1]:
            raise  # the driver was asked for by name
        return open_queue(f"{error.found}:{url}", create=False)  # type: ignore[attr-defined]


def open_tickets(target: str) -> Tickets | None:
    """The tickets of the app that `target` is; None if it is a single queue, or has none."""
    from ..workers.gate_tickets import Tickets

    home = _home(target)
    if _single_queue(target) is not None or home is None:
        return None
    tickets = Tickets(home.folder)
    return tickets if tickets.exists() else None


def _single_queue(target: str) -> str | None:
    """The URL of the queue that `target` is; None if it is an app, or nothing."""
    from pistributer.queues.opening import split_url

    home = _home(target)
    if home is not None and home.exists():
        return None
    _, path = split_url(target)
    if target != path:
        return target
    if os.path.isfile(path):
        return f"sqlite:{path}"
    return target if os.path.exists(os.path.join(path, "pistributer.json")) else None


def _home(target: str) -> Any:
    from ..workers.home import Home

    try:
        return Home(target)
    except ValueError:
        return None  # a driver that no app has
