"""`pistributer queue archive|replay`."""

from __future__ import annotations

import os
from typing import Any

import click

from . import exits, terminal
from .find_commands import put_back
from .targets import EXPLAINED, is_moment, open_target, queue_argument, target_argument, wanted

_STATES = ("dead", "retained")


@click.command(epilog=exits.TABLE, help=f"""Move the rows that are over from a queue to a record file, which grows.

Dead rows are dropped from the queue once the file is on the disk; rows that are done and retained are copied. A row that
the file holds already is not added again.

{EXPLAINED} In an app, QUEUE is the queue's name; without it the default queue is meant.

\b
Examples:
  pistributer queue archive jobs/ --to over.records
  pistributer queue archive jobs/ emails --to over.records --state dead --state retained
  pistributer records cat over.records | jq .error
""")  # fmt: skip
@target_argument
@queue_argument
@click.option("--to", "path", required=True, metavar="FILE", help="The record file to append to.")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, default=("dead",), show_default=True,
              help="Which rows; may be given several times.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave dead rows in the queue too.")
@click.option(
    "--compression", type=click.Choice(("none", "zstd")), default="none", show_default=True, help="Of what is added."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def archive(
    target: str, queue: str | None, path: str, states: tuple[Any, ...], keep: bool, compression: str, as_json: bool
) -> None:
    from ..workers.inspection.archive import archive

    name, opened = open_target(target, queue)
    with opened, terminal.progress("rows") as bar:
        done = archive(
            opened, path, states=states, keep=keep, compression=compression, progress=lambda n: bar.update(n, None)
        )
    if as_json:
        terminal.print_json(
            {"queue": name, "file": path, "added": done.added, "known": done.known, "dropped": done.dropped}
        )
        return
    known = f" ({done.known:,} were there already)" if done.known else ""
    terminal.print_line(
        f"archived {done.added:,} rows of {name} in {path}{known}, dropped {done.dropped:,} from the queue"
    )


@click.command(epilog=exits.TABLE, help=f"""Put rows that are over into a queue again, as new ones.

{EXPLAINED} In an app, QUEUE is the queue's name; without it the default queue is meant.

--from is a file that `queue archive` wrote, which stays as it is; or a time, and then the rows are meant that are done since
and that the queue retains (App(retention=…)): 14:00, 2026-11-21T14:00, 2h, 3d.

\b
Examples:
  pistributer replay jobs/ --from 14:00 --task resize --dry-run
  pistributer replay jobs/ --from 14:00 --task resize
  pistributer queue replay jobs/ emails --from over.records --state dead
""")  # fmt: skip
@target_argument
@queue_argument
@click.option("--from", "source", required=True, metavar="FILE|TIME", help="An archive, or since when.")
@click.option("--task", metavar="NAME", help="Only calls of this task.")
@click.option("--tag", metavar="NAME", help="Only calls with this tag.")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True,
              help="Only these rows.  [default: all of an archive, retained ones of a queue]")  # fmt: skip
@click.option("--undated", is_flag=True, help="Also rows of which the driver does not know the time.")
@click.option("--dry-run", is_flag=True, help="Put nothing; say how many they are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def replay(
    target: str, queue: str | None, source: str, states: tuple[Any, ...], undated: bool, dry_run: bool, as_json: bool,
    **filters: Any,
) -> None:  # fmt: skip
    from ..workers.inspection.archive import replay

    if not os.path.exists(source) and is_moment(source):
        name, opened = open_target(target, queue)
        opened.close()
        chosen = wanted(since=source, undated=undated, **filters)
        put_back(target, name, chosen, states or ("retained",), dry_run=dry_run, as_json=as_json)
        return
    name, opened = open_target(target, queue)
    with opened, terminal.progress("rows") as bar:
        done = replay(
            source, opened, states=states or None, wanted=wanted(**filters), dry_run=dry_run,
            progress=lambda n: bar.update(n, None),
        )  # fmt: skip
    if as_json:
        terminal.print_json({"queue": name, "file": source, "put": done, "dry_run": dry_run})
    else:
        terminal.print_line(f"{'would put' if dry_run else 'put'} {done:,} rows of {source} into {name}")
