"""`pistributer queue ls|peek|purge`; the others are in archive_commands.py, copy_command.py and find_commands.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import archive_commands, copy_command, exits, find_commands, terminal
from .root import Group
from .targets import EXPLAINED, find_queues, open_existing, open_target, open_tickets, queue_argument, target_argument

if TYPE_CHECKING:
    from pistributer.queues.contract import Queue, Row, Stats

_STATES = ("ready", "claimed", "delayed", "dead", "retained")
_COUNTS = ("ready", "claimed", "delayed", "dead", "quarantined")


@click.group(cls=Group, epilog=exits.TABLE)
def queue() -> None:
    """Look into queues and tidy them. No app has to be imported, and no worker has to run.

    \b
    Examples:
      pistributer queue ls jobs/               the queues of an app, with counts
      pistributer queue peek jobs/ emails      the next rows of one
      pistributer queue grep jobs/ user-42     the rows in which something stands
      pistributer queue copy jobs/queues/emails sqlite:emails.db
      pistributer queue purge txt:outbox/      empty one
      pistributer queue archive jobs/ --to over.records
    """


for _command in (
    archive_commands.archive, archive_commands.replay, copy_command.copy,
    find_commands.show, find_commands.grep, find_commands.requeue,
):  # fmt: skip
    queue.add_command(_command)


@queue.command(epilog=exits.TABLE, help=f"""Count the rows of a queue, or of all queues of an app.

{EXPLAINED}

\b
Examples:
  pistributer queue ls jobs/
  pistributer queue ls sqlite:jobs.db --json
""")  # fmt: skip
@target_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def ls(target: str, as_json: bool) -> None:
    counted = [(name, *_look_at(url)) for name, url in find_queues(target)]
    if as_json:
        terminal.print_json([_stats_document(*one) for one in counted])
        return
    if not counted:
        click.echo("no queue yet", err=True)
    rows = [_stats_row(name, stats) for name, _, stats in counted]
    terminal.print_table(rows, right=(*_COUNTS, "size"))


def _look_at(url: str) -> tuple[str, Stats]:
    with open_existing(url) as opened:
        return opened.url, opened.stats()


def _stats_document(name: str, url: str, stats: Stats) -> dict[str, Any]:
    counts = {count: getattr(stats, count) for count in _COUNTS}
    return {"queue": name, "url": url, **counts, "ready_bytes": stats.ready_bytes}


def _stats_row(name: str, stats: Stats) -> dict[str, str]:
    # The first three are what a queue is about; a column of the others shows when it says something.
    counts = {count: terminal.human_count(getattr(stats, count)) for count in _COUNTS}
    rare = {count: counts[count] if getattr(stats, count) else "" for count in _COUNTS[2:]}
    return {"queue": name, **counts, **rare, "size": terminal.human_size(stats.ready_bytes)}


@queue.command(epilog=exits.TABLE, help=f"""Show rows of a queue, the next ones first, without claiming any.

{EXPLAINED} In an app, QUEUE is the queue's name; without it the default queue is shown.

\b
Examples:
  pistributer queue peek jobs/ -n 3
  pistributer queue peek jobs/ emails --state dead
  pistributer queue peek txt:outbox/ --json
""")  # fmt: skip
@target_argument
@queue_argument
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="How many rows.")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, default=("ready",), show_default=True,
              help="Which rows; may be given several times.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def peek(target: str, queue: str | None, count: int, states: tuple[Any, ...], as_json: bool) -> None:
    _, opened = open_target(target, queue)
    with opened:
        rows = _first(opened, states, count)
    if as_json:
        terminal.print_json([_row_document(row) for row in rows])
        return
    if not rows:
        click.echo(f"no row is {' or '.join(states)}", err=True)
    terminal.print_table([_row_cells(row) for row in rows], right=("attempt",))


def _first(opened: Queue, states: tuple[Any, ...], count: int) -> list[Row]:
    found: list[Row] = []
    for row in opened.scan(*states):
        found.append(row)
        if len(found) == count:
            break
    return found


def _row_document(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("id", "state", "attempt", "value", "due", "error", "at")}


def _row_cells(row: Row) -> dict[str, str]:
    import json

    value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
    return {
        "id": row.id,
        "state": row.state,
        "attempt": str(row.attempt) if row.attempt else "",
        "due": terminal.ago(row.due) if row.due else "",
        "since": terminal.ago(row.at) if row.at else "",
        # Of a traceback, the line that says what was raised.
        "error": terminal.clip((row.error or "").strip().rpartition("\n")[2], 60),
        "value": terminal.clip(value, max(20, terminal.columns() - 60)),
    }


@queue.command(epilog=exits.TABLE, help=f"""Delete every ready, delayed and held row of a queue. Claimed and dead rows stay.

{EXPLAINED} In an app, QUEUE is the queue's name; without it the default queue is purged.

\b
Examples:
  pistributer queue purge jobs/ emails --dry-run     how many rows would go
  pistributer queue purge jobs/ emails --yes         in a script
""")  # fmt: skip
@target_argument
@queue_argument
@click.option("--dry-run", is_flag=True, help="Delete nothing; say how many rows would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(target: str, queue: str | None, dry_run: bool, yes: bool) -> None:
    from ..workers.tickets.store import count_held, forget

    name, opened = open_target(target, queue)
    tickets = open_tickets(target)
    with opened:
        stats = opened.stats()
        count = stats.ready + stats.delayed + (count_held(tickets).get(name, 0) if tickets else 0)
        if dry_run:
            terminal.print_line(f"would purge {count:,} rows of {name}")
            return
        if not yes:
            terminal.confirm(f"delete {count:,} rows of {name}")
        held = forget(tickets, name) if tickets else 0
        terminal.print_line(f"purged {held + opened.purge():,} rows of {name}")
