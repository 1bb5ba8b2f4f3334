"""`pistributer queue copy`."""

from __future__ import annotations

from typing import Any

import click

from . import exits, terminal

_STATES = ("ready", "delayed", "dead", "retained")


@click.command(epilog=exits.TABLE)
@click.argument("source", metavar="FROM")
@click.argument("to", metavar="TO")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, default=("ready", "delayed"), show_default=True,
              help="Which rows; may be given several times. Dead and retained ones are to be done again.")  # fmt: skip
@click.option("--live", is_flag=True, help="Copy although rows are being worked on: those are left out.")
@click.option("--again", is_flag=True, help="Copy although the same rows were copied before.")
@click.option("--dry-run", is_flag=True, help="Copy nothing; say how many rows would be.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def copy(source: str, to: str, states: tuple[Any, ...], live: bool, again: bool, dry_run: bool, as_json: bool) -> None:
    """Copy the rows of the queue FROM into the queue TO, of any driver; TO is made if it is not there.

    FROM stays as it is, and has to be still: stop what works on it. A copy that was interrupted, by Ctrl-C, a full disk or a
    power cut, goes on where it was when it is started again: no row is missing, none comes twice.

    \b
    Examples:
      pistributer queue copy jobs/queues/emails sqlite:emails.db
      pistributer queue copy txt:lines/ jsonl:rows/ --dry-run
      pistributer queue copy old/ new/ --state ready --state dead
    """
    from pistributer.queues.opening import open_queue

    from ..workers.inspection.copying import copy_queue, is_under_way
    from .targets import open_target

    _, opened = open_target(source, None)
    with opened:
        stats = opened.stats()
        if dry_run:
            count = sum(1 for _ in opened.scan(*states))
            terminal.print_line(f"would copy {count:,} rows of {source}")
            return
        with open_queue(to) as target, terminal.progress("rows") as bar:
            if target.url == opened.url:
                exits.fail("FROM and TO are the same queue", code=exits.USAGE)
            if stats.claimed and not live and not is_under_way(target):
                exits.fail(
                    f"{stats.claimed:,} rows of {source} are being worked on",
                    hint="stop what works on it, or copy the others with --live",
                    code=exits.LOCKED,
                )
            total = stats.ready + stats.delayed
            done = copy_queue(
                opened, target, states=states, again=again, progress=lambda count: bar.update(count, total)
            )
    if as_json:
        terminal.print_json({"from": source, "to": to, "rows": done.rows, "before": done.before})
        return
    before = f", {done.before:,} of them the last time" if done.before else ""
    terminal.print_line(f"copied {done.rows:,} rows of {source} to {to}{before}")
    if done.before == done.rows > 0:
        click.echo("hint:   these rows were copied before; --again copies them once more", err=True)
