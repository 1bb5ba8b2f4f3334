"""`pistributer dead ls|show|retry|drop`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from . import exits, terminal
from .root import Group
from .targets import EXPLAINED, find_deaths, find_rows, open_existing, row_filters, target_argument, wanted

if TYPE_CHECKING:
    from pistributer.queues.contract import Queue

    from ..workers.inspection.dead import DeadLetter
    from ..workers.inspection.finding import Wanted


@click.group(cls=Group, epilog=exits.TABLE)
def dead() -> None:
    """Look at jobs and rows that were given up, try them again, or drop them.

    \b
    Examples:
      pistributer dead ls jobs/                          all of them, with the reason
      pistributer dead show jobs/ 5f0c2a…                one, with its arguments and the traceback
      pistributer dead retry jobs/ --error Timeout       try again what failed for this reason
      pistributer dead drop jobs/ --task resize --yes
    """


@dead.command(epilog=exits.TABLE, help=f"""List dead letters: task, attempts, and what was raised or how the worker died.

{EXPLAINED}

\b
Examples:
  pistributer dead ls jobs/
  pistributer dead ls jobs/ --task resize --error "out of memory|SIGKILL"
  pistributer dead ls jobs/ --since 2h
  pistributer dead ls sqlite:jobs.db --json | jq '.[].cause'
""")  # fmt: skip
@target_argument
@row_filters
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def ls(target: str, queue: str | None, as_json: bool, **filters: Any) -> None:
    found = [letter for _, letters in _find(target, queue, wanted(**filters)) for letter in letters]
    if as_json:
        terminal.print_json([dataclasses.asdict(letter) for letter in found])
        return
    if not found:
        click.echo("no dead letter", err=True)
    terminal.print_table([_cells(letter) for letter in found], right=("attempts",))


@dead.command(epilog=exits.TABLE, help=f"""Show one dead letter in full. ID is that of the job or of the row.

{EXPLAINED}

\b
Examples:
  pistributer dead show jobs/ 5f0c2a9be1d34c7788aa0012
  pistributer dead show jobs/ 0001-17 --json
""")  # fmt: skip
@target_argument
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(target: str, id: str, as_json: bool) -> None:
    found = [letter for _, letters in _find(target, None, wanted((id,))) for letter in letters]
    if not found:
        exits.fail(f"{target!r} has no dead letter {id!r}", hint=f"`pistributer dead ls {target}` lists them")
    for letter in found:
        if as_json:
            terminal.print_json(dataclasses.asdict(letter))
            continue
        for name, value in _details(letter).items():
            terminal.print_line(f"{name:<9} {value}")
        terminal.print_line(f"\n{letter.error.rstrip()}")


@dead.command(epilog=exits.TABLE, help=f"""Put dead letters back into their queue, with no attempts.

{EXPLAINED} Say which: IDs of jobs or rows, filters, or --all.

\b
Examples:
  pistributer dead retry jobs/ 5f0c2a9be1d34c7788aa0012
  pistributer dead retry jobs/ --task resize --dry-run
  pistributer dead retry jobs/ --all
""")  # fmt: skip
@target_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@row_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say how many they are.")
def retry(
    target: str, ids: tuple[str, ...], queue: str | None, everything: bool, dry_run: bool, **filters: Any
) -> None:
    chosen = _selected(ids, queue, everything, filters)
    count = _settle(target, queue, chosen, None if dry_run else lambda opened, rows: opened.requeue_dead(rows))
    terminal.print_line(f"{'would retry' if dry_run else 'retried'} {count:,}")


@dead.command(epilog=exits.TABLE, help=f"""Delete dead letters for good.

{EXPLAINED} Say which: IDs of jobs or rows, filters, or --all.

\b
Examples:
  pistributer dead drop jobs/ --error "no such page" --dry-run
  pistributer dead drop jobs/ --all --yes                        in a script
""")  # fmt: skip
@target_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@row_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Delete nothing; say how many they are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    target: str, ids: tuple[str, ...], queue: str | None, everything: bool, dry_run: bool, yes: bool, **filters: Any
) -> None:
    chosen = _selected(ids, queue, everything, filters)
    count = _settle(target, queue, chosen, None)
    if dry_run:
        terminal.print_line(f"would drop {count:,}")
        return
    if count and not yes:
        terminal.confirm(f"delete {count:,} dead letters of {target}")
    terminal.print_line(f"dropped {_settle(target, queue, chosen, lambda opened, rows: opened.drop_dead(rows)):,}")


# -- finding them


def _selected(ids: tuple[str, ...], queue: str | None, everything: bool, filters: dict[str, Any]) -> Wanted:
    """What was asked for; a usage error if that is nothing in particular."""
    chosen = wanted(ids, **filters)
    if chosen.is_everything and not (queue or everything):
        hint = "give IDs, --task, --error, --since or --queue, or --all"
        exits.fail("say which dead letters", hint=hint, code=exits.USAGE)
    return chosen


def _find(target: str, queue: str | None, chosen: Wanted) -> list[tuple[str, list[DeadLetter]]]:
    """For each queue of `target` its URL and the dead letters in it that are wanted."""
    from ..workers.inspection.dead import letter_of

    deaths = find_deaths(target)
    return [
        (opened.url, [letter_of(row, deaths) for row in rows])
        for _, opened, rows in find_rows(target, queue, chosen, "dead")
    ]


def _settle(target: str, queue: str | None, chosen: Wanted, settle: Callable[[Queue, list[str]], int] | None) -> int:
    """Have each queue settle its wanted dead letters; how many there were (only counted, if `settle` is None)."""
    count = 0
    for url, letters in _find(target, queue, chosen):
        if settle is None or not letters:
            count += len(letters)
        else:
            with open_existing(url) as opened:
                count += settle(opened, [letter.id for letter in letters])
    return count


# -- showing them


def _cells(letter: DeadLetter) -> dict[str, str]:
    return {
        "queue": letter.queue,
        "id": letter.job or letter.id,
        "task": letter.task or "",
        "attempts": str(letter.attempts),
        "since": terminal.ago(letter.at) if letter.at else "",
        "reason": terminal.clip(letter.reason, max(20, terminal.columns() - 80)),
    }


def _details(letter: DeadLetter) -> dict[str, str]:
    import json

    details = {
        "id": letter.job or letter.id,
        "queue": letter.queue,
        "task": letter.task or "",
        "attempts": str(letter.attempts),
        "since": terminal.ago(letter.at) if letter.at else "",
        "value": json.dumps(letter.value, ensure_ascii=False),
    }
    return {name: value for name, value in details.items() if value}
