"""`pistributer queue archive|replay`."""

from __future__ import annotations

from typing import Any

import click

from . import exits, terminal
from .targets import EXPLAINED, open_target, queue_argument, target_argument

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
    from ..workers.archive import archive

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


@click.command(epilog=exits.TABLE, help=f"""Put archived rows into a queue again, as new ones. The archive stays as it is.

{EXPLAINED} In an app, QUEUE is the queue's name; without it the default queue is meant.

\b
Examples:
  pistributer queue replay jobs/ --from over.records
  pistributer queue replay jobs/ emails --from over.records --state dead
""")  # fmt: skip
@target_argument
@queue_argument
@click.option("--from", "path", required=True, metavar="FILE", help="What `queue archive` wrote.")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only these rows; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def replay(target: str, queue: str | None, path: str, states: tuple[Any, ...], as_json: bool) -> None:
    from ..workers.archive import replay

    name, opened = open_target(target, queue)
    with opened, terminal.progress("rows") as bar:
        done = replay(path, opened, states=states or None, progress=lambda n: bar.update(n, None))
    if as_json:
        terminal.print_json({"queue": name, "file": path, "put": done})
    else:
        terminal.print_line(f"put {done:,} rows of {path} into {name}")
