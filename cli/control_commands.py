"""`pistributer pause`, `resume`, `scale`, `restart`, `stop`: a running app, controlled from outside, without its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from . import exits, terminal
from .targets import addressed, complete_queue

if TYPE_CHECKING:
    from ..workers.control import Answer, Paused

_Command = Callable[..., Any]


def _app_argument(command: _Command) -> _Command:
    return click.argument("app")(command)


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def _pid_option(command: _Command) -> _Command:
    return click.option("--pid", type=int, metavar="PID", help="Only this supervisor.  [default: all]")(command)


@click.command(epilog=exits.TABLE)
@_app_argument
@click.argument("queue", shell_complete=complete_queue)
@_json_option
def pause(app: str, queue: str, as_json: bool) -> None:
    """Have nobody take from QUEUE, until `resume`.

    What runs ends; what a worker has claimed and not begun goes back; what is sent waits. It holds across restarts, and works
    when nothing runs.

    \b
    Examples:
      pistributer pause jobs/ emails
      pistributer pause sqlite:jobs.db default --json
    """
    from ..workers import control

    with addressed():
        done = control.pause(app, queue)
    _tell_paused(done, "paused", as_json)


@click.command(epilog=exits.TABLE)
@_app_argument
@click.argument("queue", shell_complete=complete_queue)
@_json_option
def resume(app: str, queue: str, as_json: bool) -> None:
    """Have a paused QUEUE worked on again, at once.

    \b
    Examples:
      pistributer resume jobs/ emails
    """
    from ..workers import control

    with addressed():
        done = control.resume(app, queue)
    _tell_paused(done, "resumed", as_json)


@click.command(epilog=exits.TABLE, context_settings={"ignore_unknown_options": True})
@_app_argument
@click.argument("what", metavar="QUEUE", shell_complete=complete_queue)
@click.argument("to", metavar="N|+N|-N|reset")
@_pid_option
@_json_option
def scale(app: str, what: str, to: str, pid: int | None, as_json: bool) -> None:
    """Have N processes for QUEUE, N more, or N less; `reset`: as many as `run` asks for.

    QUEUE is a queue of tasks, or a consumer. Those that are too many finish what they run. The number holds for the next run
    too, until one asks for another number with --processes.

    \b
    Examples:
      pistributer scale jobs/ default 8
      pistributer scale jobs/ default -2
      pistributer scale jobs/ default reset
    """
    from ..workers import control

    with addressed():
        answers = control.scale(app, what, to, pid=pid)
    _tell(answers, as_json, lambda it: f"has {_counted(it.fields['processes'])} for {it.fields['role']}")


@click.command(epilog=exits.TABLE)
@_app_argument
@click.argument("what", metavar="[QUEUE]", required=False, shell_complete=complete_queue)
@_pid_option
@_json_option
def restart(app: str, what: str | None, pid: int | None, as_json: bool) -> None:
    """Have processes replaced by fresh ones, with the code as it is now.

    QUEUE is a queue of tasks, a consumer or a producer; without it, all are replaced but producers. Each finishes what it
    runs first.

    \b
    Examples:
      pistributer restart jobs/
      pistributer restart jobs/ emails
    """
    from ..workers import control

    with addressed():
        answers = control.restart(app, what, pid=pid)
    _tell(answers, as_json, lambda it: f"replaces {', '.join(it.fields['roles'])}")


@click.command(epilog=exits.TABLE)
@_app_argument
@click.option("--now", is_flag=True, help="Kill what runs; it goes back to its queue.")
@click.option("--timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
              help="Wait so long until it has stopped.")  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Only ask it to stop.")
@_pid_option
@_json_option
def stop(app: str, now: bool, timeout: float, no_wait: bool, pid: int | None, as_json: bool) -> None:
    """Stop a running app: what runs finishes, the rest stays in the queues.

    \b
    Examples:
      pistributer stop jobs/
      pistributer stop jobs/ --now
    """
    from ..workers import control

    with addressed():
        answers = control.stop(app, now=now, pid=pid, wait=None if no_wait else timeout)
    _tell(answers, as_json, lambda it: "is stopping" if no_wait else "has stopped")


def _counted(processes: int) -> str:
    return f"{processes} process" if processes == 1 else f"{processes} processes"


def _tell_paused(done: Paused, word: str, as_json: bool) -> None:
    if as_json:
        terminal.print_json(asdict(done))
        return
    terminal.print_line(f"{word} {done.queue}" if done.changed else f"{done.queue} was {word} already")
    if not done.seen_by:
        click.echo("no supervisor is running; the next one will know", err=True)


def _tell(answers: list[Answer], as_json: bool, words: Callable[[Answer], str]) -> None:
    if as_json:
        terminal.print_json([{"pid": it.pid, **it.fields} for it in answers])
        return
    for it in answers:
        terminal.print_line(f"supervisor {it.pid} {words(it)}")
