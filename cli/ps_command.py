"""`pistributer ps`."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import click

from . import exits, terminal
from .targets import addressed

if TYPE_CHECKING:
    from ..workers.inspection.watching import ProcessStatus

#: Columns of numbers.
NUMBERS = ("pid", "up", "done", "failed", "retried", "put", "cpu", "memory", "for")


@click.command(epilog=exits.TABLE)
@click.argument("app")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def ps(app: str, as_json: bool) -> None:
    """List every process of an app: its role, what it runs, for how long and how far, what it has done, what it uses.

    APP is the app's folder, or sqlite:FILE. The app's code is not imported. CPU is the share of one processor since the
    process started, memory what is resident, shared pages included.

    \b
    Examples:
      pistributer ps jobs/
      pistributer ps sqlite:jobs.db --json | jq '.[] | select(.state == "busy")'
    """
    from ..workers.inspection.watching import Watcher

    with addressed():
        found = Watcher(app).look()
    if as_json:
        terminal.print_json([dataclasses.asdict(process) for process in found.processes])
        return
    if not found.processes:
        click.echo("no supervisor is running", err=True)
    terminal.print_table([cells(process) for process in found.processes], right=NUMBERS)


def cells(process: ProcessStatus) -> dict[str, str]:
    """One process as a row of a table."""
    now = time.time()
    is_boss = process.role == "supervisor"
    counts = {name: getattr(process, name) for name in ("done", "failed", "retried", "put")}
    return {
        "process": process.role if is_boss else f"{process.role}[{process.index}]",
        "pid": str(process.pid) if process.pid else "",
        "state": "up" if is_boss and process.state == "busy" else process.state,
        "up": terminal.human_time(max(0.0, now - process.started)) if process.state != "gone" else "",
        "cpu": f"{process.cpu:.0%}" if process.cpu is not None else "",
        "memory": terminal.human_size(process.memory) if process.memory is not None else "",
        # The first says something when it is 0, too.
        "done": "" if is_boss else f"{counts['done']:,}",
        **{name: f"{counts[name]:,}" if counts[name] else "" for name in ("put", "failed", "retried")},
        "job": f"{process.task} {process.job}{_others(process)}".strip() if process.since else "",
        "for": terminal.human_time(max(0.0, now - process.since)) if process.since else "",
        "progress": terminal.progress_cell(process.progress),
    }


def _others(process: ProcessStatus) -> str:
    return f" and {len(process.running) - 1} more" if len(process.running) > 1 else ""
