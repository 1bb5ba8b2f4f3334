"""`pistributer send`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from . import exits, terminal


def _seconds(**words: bool) -> Callable[[str], float | bool]:
    """A number of seconds, or one of some words, each with its value."""

    def read(text: str) -> float | bool:
        if text in words:
            return words[text]
        try:
            return float(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is neither a number nor one of: {', '.join(words)}") from None

    return read


@click.command(epilog=exits.TABLE)
@click.argument("app")
@click.argument("task")
@click.argument("args", metavar="[ARG]...", nargs=-1)
@click.option("--queue", metavar="NAME", help="The task's queue.  [default: default]")
@click.option("--priority", type=click.IntRange(0, 9), default=0, metavar="0-9", help="Higher ones are begun first.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Run it no earlier than then.")
@click.option("--key", metavar="TEXT", help="Run it after what was sent with the same key before.")
@click.option("--idempotency-id", metavar="TEXT", help="Sent again with the same id, it is not sent again.")
@click.option("--tag", "tags", metavar="TEXT", multiple=True, help="Goes with the message; may be given several times.")
@click.option("--retries", type=click.IntRange(0), metavar="N", help="Instead of the task's, as what follows.")
@click.option("--soft-time-limit", type=_seconds(none=False), metavar="SECONDS|none", help="When it is told to end.")
@click.option(
    "--hard-time-limit", type=_seconds(none=False), metavar="SECONDS|none", help="When its process is killed."
)
@click.option(
    "--results", type=_seconds(yes=True, no=False), metavar="SECONDS|yes|no", help="How long to keep the result."
)
@click.option("--rate-limit", metavar="RATE|none", help="How many that are sent with it may begin: 5/s, 100/m, 1000/h.")
@click.option("--wait", type=click.FloatRange(0), metavar="SECONDS", help="Wait for the result, and print it as JSON.")
def send(
    app: str, task: str, args: tuple[str, ...], queue: str | None, priority: int, delay: float, wait: float | None,
    **options: Any,
) -> None:  # fmt: skip
    """Send a call of TASK to the app whose folder (or sqlite:FILE) is APP, and print the job's id.

    An ARG that is JSON is sent as that, NAME=ARG by its name, and anything else as text. The app's code is not imported,
    so arguments are checked by the worker.

    \b
    Examples:
      pistributer send jobs/ resize a.png 80
      pistributer send jobs/ resize a.png width=80 --delay 60
      pistributer send jobs/ report '"2026"' --wait 30
      pistributer send jobs/ charge 7 995 --idempotency-id order-17
    """
    from ..workers.app import App
    from ..workers.home import DEFAULT_QUEUE
    from ..workers.sending import send_by_name

    opened = App(app)
    if not opened.home.exists():
        exits.fail(f"there is no app at {app!r}", hint="give the folder that it was made with", code=exits.UNAVAILABLE)
    positional, named = _arguments(args)
    job = send_by_name(opened, task, positional, named, queue=queue or DEFAULT_QUEUE, delay=delay,
                       priority=priority, **_given(options))  # fmt: skip
    try:
        if wait is None:
            terminal.print_line(job.id)
        else:
            terminal.print_json(job.result(wait))
    finally:
        opened.close()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given: to the library, None is a limit that is none."""
    found = {name: value for name, value in options.items() if value is not None}
    for limit in ("soft_time_limit", "hard_time_limit", "rate_limit"):
        if found.get(limit) is False or found.get(limit) == "none":
            found[limit] = None
    return found


def _arguments(args: tuple[str, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for arg in args:
        name, equals, value = arg.partition("=")
        if equals and name.isidentifier():
            named[name] = _value(value)
        elif named:
            exits.fail(f"{arg!r} comes behind an argument with a name", hint="put it first", code=exits.USAGE)
        else:
            positional.append(_value(arg))
    return tuple(positional), named


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
