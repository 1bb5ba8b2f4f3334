"""`pistributer queue show|grep|requeue`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import exits, terminal
from .targets import EXPLAINED, find_rows, queue_option, row_filters, target_argument, wanted

if TYPE_CHECKING:
    from ..workers.inspection.finding import Found, Wanted

_STATES = ("ready", "delayed", "held", "claimed", "dead", "retained")
_OVER = ("dead", "retained")


@click.command(epilog=exits.TABLE, help=f"""Show one row in full, wherever it is. ID is that of the job or of the row.

{EXPLAINED} Exit code 1: there is none.

\b
Examples:
  pistributer queue show jobs/ 5f0c2a9be1d34c7788aa0012
  pistributer queue show jobs/ 0001-17 --queue emails --json
""")  # fmt: skip
@target_argument
@click.argument("id")
@queue_option("Only in this queue of the app.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(target: str, id: str, queue: str | None, as_json: bool) -> None:
    # A row that moves from state to state while it is looked for may be seen twice; where it was seen first is enough.
    found = next(_matches(target, queue, wanted((id,)), _STATES), None)
    if found is None:
        exits.fail(f"{target!r} has no row {id!r}", hint=f"`pistributer queue grep {target} {id}` looks into the rows")
    if as_json:
        terminal.print_json(dataclasses.asdict(found))
        return
    for name, value in details(found).items():
        terminal.print_line(f"{name:<9} {value}")
    if found.error:
        terminal.print_line(f"\n{found.error.rstrip()}")


@click.command(epilog=exits.TABLE, help=f"""Print the rows in which PATTERN, a regular expression, is found.

{EXPLAINED} PATTERN is looked for in the row as it lies on disk: text, or JSON without spaces. All rows are searched but
those that are done: ready, delayed, held for their key, claimed, and dead ones. Exit code 1: nothing was found.

\b
Examples:
  pistributer queue grep jobs/ user-42
  pistributer queue grep jobs/ '"width":(80|90)' --task resize --state ready
  pistributer queue grep jobs/ . --tag import --count
""")  # fmt: skip
@target_argument
@click.argument("pattern")
@row_filters
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, default=_STATES[:-1], show_default=True,
              help="Which rows; may be given several times.")  # fmt: skip
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-c", "--count", is_flag=True, help="Print only how many there are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
def grep(
    target: str, pattern: str, queue: str | None, states: tuple[Any, ...], ignore_case: bool, count: bool, as_json: bool,
    **filters: Any,
) -> None:  # fmt: skip
    number = 0
    for found in _matches(target, queue, wanted(pattern=pattern, ignore_case=ignore_case, **filters), states):
        number += 1
        if as_json:
            terminal.print_line(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
        elif not count:
            where = f"{found.queue}:{found.state}:{found.job or found.id}: "
            terminal.print_line(where + terminal.clip(found.raw, max(20, terminal.columns() - len(where))))
    if count and not as_json:
        terminal.print_line(str(number))
    if not number:
        raise SystemExit(exits.FAILURE)


@click.command(epilog=exits.TABLE, help=f"""Put rows that are over back into their queue, with no attempts.

{EXPLAINED} Dead ones leave the dead letters; those that are done and retained are put as new ones, and stay where they are.
Say which: IDs of jobs or rows, filters, or --all.

\b
Examples:
  pistributer queue requeue jobs/ 5f0c2a9be1d34c7788aa0012
  pistributer queue requeue jobs/ --error 'Connection(Refused|Reset)' --dry-run
  pistributer queue requeue jobs/ --state retained --task resize --since 2h
""")  # fmt: skip
@target_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@row_filters
@click.option("--state", "states", type=click.Choice(_OVER), multiple=True, default=("dead",), show_default=True,
              help="Which rows; may be given several times.")  # fmt: skip
@click.option("--undated", is_flag=True, help="With --since: also rows of which the driver does not know the time.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say how many they are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def requeue(
    target: str, ids: tuple[str, ...], queue: str | None, states: tuple[Any, ...], undated: bool, everything: bool,
    dry_run: bool, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    chosen = wanted(ids, undated=undated, **filters)
    if chosen.is_everything and not (queue or everything):
        exits.fail("say which rows", hint="give IDs, --task, --error, --since or --queue, or --all", code=exits.USAGE)
    put_back(target, queue, chosen, states, dry_run=dry_run, as_json=as_json)


def put_back(
    target: str, queue: str | None, chosen: Wanted, states: tuple[Any, ...], *, dry_run: bool, as_json: bool
) -> None:
    """Requeue what was chosen, or count it, and say so."""
    from ..workers.inspection.finding import Undated, requeue

    counts, undated = {}, Undated(chosen)
    for name, opened, rows in find_rows(target, queue, undated, *states):
        # Found first, put back after: a scan that sees what it has put would not end.
        found = list(rows)
        counts[name] = len(found) if dry_run else requeue(opened, found)
    if as_json:
        terminal.print_json({"dry_run": dry_run, "requeued": counts, "undated": undated.count})
        return
    if undated.count:
        click.echo(f"{undated.count:,} rows are left out: this driver does not know when they were done", err=True)
        click.echo("hint:   --undated takes them too", err=True)
    terminal.print_line(f"{'would requeue' if dry_run else 'requeued'} {sum(counts.values()):,}")


def _matches(target: str, queue: str | None, chosen: Wanted, states: tuple[Any, ...]) -> Iterator[Found]:
    for _, _, rows in find_rows(target, queue, chosen, *states):
        yield from rows


def details(found: Found) -> dict[str, str]:
    """What there is to say of a row, by name."""
    details = {
        "id": found.id,
        "job": found.job or "",
        "queue": found.queue,
        "state": found.state,
        "task": found.task or "",
        "tags": ", ".join(found.tags),
        "attempts": str(found.attempts),
        "due": terminal.ago(found.due) if found.due else "",
        "since": terminal.ago(found.at) if found.at else "",
        "value": found.value if isinstance(found.value, str) else json.dumps(found.value, ensure_ascii=False),
    }
    return {name: value for name, value in details.items() if value}
