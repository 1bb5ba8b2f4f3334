"""`pistributer status`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from . import exits, terminal
from .targets import addressed

if TYPE_CHECKING:
    from ..workers.inspection.status import AppStatus, QueueStatus, WorkerStatus

#: Columns of numbers.
NUMBERS = (
    "ready",
    "running",
    "delayed",
    "held",
    "dead",
    "quarantined",
    "pid",
    "done",
    "failed",
    "retried",
    "put",
    "up",
)


@click.command(epilog=exits.TABLE)
@click.argument("app")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--metrics", is_flag=True, help="Print what Prometheus reads.")
def status(app: str, as_json: bool, metrics: bool) -> None:
    """Show the queues of an app and what its workers are doing.

    APP is the app's folder, or sqlite:FILE, as given to App(). The app's code is not imported, and nothing has to run.

    \b
    Examples:
      pistributer status jobs/
      pistributer status sqlite:jobs.db --json
      pistributer status jobs/ --metrics >jobs.prom      for the textfile collector of Prometheus
    """
    from ..workers.inspection.status import read_status

    with addressed():
        found = read_status(app)
    if metrics:
        from ..workers.inspection.metrics import read_metrics, to_prometheus

        terminal.print_line(to_prometheus(found, read_metrics(app)).rstrip())
        return
    if as_json:
        shown = {"running": found.running, "pid": found.pid, "started": found.started, "app": found.app}
        terminal.print_json({"url": found.url} | shown | asdict(found) | {"dead": found.dead})
        return
    _print(found)


def _print(found: AppStatus) -> None:
    for line in headlines(found):
        terminal.print_line(line)
    if found.queues:
        terminal.print_line()
        terminal.print_table([queue_cells(queue) for queue in found.queues], right=(*NUMBERS, "size"))
    if found.workers:
        terminal.print_line()
        several = len(found.supervisors) > 1
        terminal.print_table([_worker_cells(worker, several) for worker in found.workers], right=NUMBERS)
    if found.dead:
        queue = next(queue.name for queue in found.queues if queue.stats.dead)
        click.echo(f"hint:   pistributer queue peek {found.url} {queue} --state dead", err=True)


def headlines(found: AppStatus) -> list[str]:
    """Which app, and who runs it."""
    if not found.running:
        return [f"{found.url}: no supervisor is running"]
    return [
        f"{found.url}: supervisor {it.pid} runs {it.app}, up {terminal.human_time(max(0.0, time.time() - it.started))}"
        for it in found.supervisors
    ]


def queue_cells(queue: QueueStatus) -> dict[str, str]:
    """A queue as a row of a table."""
    stats = queue.stats
    return {
        "queue": queue.name,
        "ready": f"{stats.ready:,}",
        "running": f"{stats.claimed:,}",
        "delayed": _unless_zero(stats.delayed),
        "held": _unless_zero(queue.held),
        "dead": _unless_zero(stats.dead),
        "quarantined": _unless_zero(stats.quarantined),
        "urgent": ", ".join(f"{level}: {one.ready:,}" for level, one in queue.priorities.items() if one.ready),
        "state": "paused" if queue.paused else "",
        "size": terminal.human_size(stats.ready_bytes),
    }


def _worker_cells(worker: WorkerStatus, several: bool) -> dict[str, str]:
    now = time.time()
    busy = worker.task and worker.since
    others = f" and {len(worker.running) - 1} more" if len(worker.running) > 1 else ""
    return {
        "worker": f"{worker.role}[{worker.index}]",
        "pid": str(worker.pid) if worker.pid else "",
        "supervisor": str(worker.supervisor) if several else "",
        "state": ("busy" if busy else "idle") if worker.alive else "gone",
        "done": f"{worker.done:,}",
        "put": _unless_zero(worker.put),
        "failed": _unless_zero(worker.failed),
        "retried": _unless_zero(worker.retried),
        "up": terminal.human_time(max(0.0, now - worker.started)) if worker.alive else "",
        "job": f"{worker.task} {worker.job}".strip() + others if busy else "",
        "for": terminal.human_time(max(0.0, now - worker.since)) if busy and worker.since else "",
        "progress": terminal.progress_cell(worker.running[0].progress if worker.running else None),
    }


def _unless_zero(count: int) -> str:
    return f"{count:,}" if count else ""
