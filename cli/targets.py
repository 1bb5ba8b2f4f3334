"""Which queues an argument means: a queue URL, a queue's folder or database, or an app's folder and a queue's name."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from . import exits

if TYPE_CHECKING:
    from pistributer.queues.contract import Queue, State

    from ..workers.history import Death
    from ..workers.inspection.finding import Found, Undated, Wanted
    from ..workers.tickets.store import Tickets

#: What the arguments TARGET and QUEUE say in each help page.
EXPLAINED = """TARGET is an app (its folder, or sqlite:FILE) or a single queue: its folder, or a URL such as txt:jobs/
or sqlite:jobs.db."""


@contextmanager
def addressed() -> Iterator[None]:
    """What is no app's address is a mistake in the command."""
    from pistributer import errors

    try:
        yield
    except ValueError as error:
        if isinstance(error, errors.PistributerError):
            raise
        raise click.UsageError(str(error)) from error


def target_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("target")(command)


def queue_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("queue", required=False, shell_complete=complete_queue)(command)


def queue_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--queue", metavar="NAME", help=help, shell_complete=complete_queue)


def complete_queue(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the queues of the app that the line names before."""
    # Behind `--queue`, whose value is still missing, the words before have not been given their names.
    home = _home(str(ctx.params.get("target") or ctx.params.get("app") or next(iter(ctx.args), "")))
    names = home.queue_names() if home is not None else []
    return [name for name in names if name.startswith(incomplete)]


def row_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `wanted`."""
    for option in (
        click.option("--since", metavar="TIME", help="Only what is over since then: 2h, 14:00, 2026-11-21T14:00."),
        click.option("--error", metavar="REGEX", help="Only those in whose error this is found."),
        click.option("--tag", metavar="NAME", help="Only calls with this tag."),
        click.option("--task", metavar="NAME", help="Only calls of this task."),
        queue_option("Only rows of this queue of the app."),
    ):
        command = option(command)
    return command


def wanted(
    ids: tuple[str, ...] = (),
    *,
    task: str | None = None,
    tag: str | None = None,
    error: str | None = None,
    since: str | None = None,
    pattern: str | None = None,
    ignore_case: bool = False,
    undated: bool = False,
) -> Wanted:
    """Which rows these options mean. Ends the command if one of them makes no sense."""
    from ..workers.inspection.finding import Wanted

    return Wanted(
        ids,
        task,
        tag,
        _regex(error, False),
        _regex(pattern, ignore_case),
        None if since is None else moment(since),
        undated,
    )


def moment(text: str) -> float:
    """Seconds since the epoch."""
    from ..workers.inspection.moments import parse_moment

    try:
        return parse_moment(text, time.time())
    except ValueError as error:
        exits.fail(str(error), code=exits.USAGE)


def is_moment(text: str) -> bool:
    """Whether `moment` knows what is meant."""
    from ..workers.inspection.moments import parse_moment

    try:
        parse_moment(text, time.time())
    except ValueError:
        return False
    return True


def _regex(text: str | None, ignore_case: bool) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        exits.fail(f"{text!r} is no regular expression: {error}", hint=f"say {re.escape(text)!r}", code=exits.USAGE)


def find_rows(
    target: str, queue: str | None, wanted: Wanted | Undated, *states: State | Literal["held"]
) -> Iterator[tuple[str, Queue, Iterator[Found]]]:
    """For each queue of `target`, or the one that is named: its name, itself, open, and the rows in it that are wanted."""
    from ..workers.app import App
    from ..workers.inspection.finding import find, find_held

    queues = find_queues(target)
    if queue is not None and queue not in dict(queues):
        exits.fail(f"{target!r} has no queue {queue!r}", hint=f"it has: {', '.join(dict(queues))}", code=exits.USAGE)
    app = App(target) if "held" in states and _single_queue(target) is None else None
    stored = [state for state in states if state != "held"]
    try:
        for name, url in queues:
            if queue in (None, name):
                with open_existing(url) as opened:
                    rows = find(opened, name, wanted, *stored) if stored else ()
                    held = find_held(app, name, wanted) if app is not None else ()
                    yield name, opened, itertools.chain(rows, held)
    finally:
        if app is not None:
            app.close()


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


def find_deaths(target: str) -> dict[str, Death]:
    """How the workers of an app died, by job; nothing of a single queue, which has no history."""
    from ..workers.history import last_deaths

    home = _home(target)
    return last_deaths(home.history) if home is not None and home.exists() else {}


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

    from ..workers.inspection.whole_queue import with_lanes

    try:
        return with_lanes(open_queue(url, create=False))
    except errors.DriverMismatch as error:
        if url != split_url(url)[1]:
            raise  # the driver was asked for by name
        return with_lanes(open_queue(f"{error.found}:{url}", create=False))  # type: ignore[attr-defined]


def open_tickets(target: str) -> Tickets | None:
    """The tickets of the app that `target` is; None if it is a single queue, or has none."""
    from ..workers.tickets.store import Tickets

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
