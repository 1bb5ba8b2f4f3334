"""`pistributer stress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import exits, terminal

if TYPE_CHECKING:
    from ..workers.stress.run import Progress, Report

#: The seed's benchmark: 2,700,000 rows over 6,010 channels.
_FULL = {"writers": 300, "readers": 64, "files": 30, "shared": 10, "rows": 300}

#: Rows for about ten seconds on two cores.
_ROWS = {"jsonl": 1500, "sqlite": 300}


@click.command(epilog=exits.TABLE)
@click.option("--driver", type=click.Choice(["jsonl", "txt", "sqlite"]), default="jsonl", show_default=True)
@click.option(
    "--api",
    type=click.Choice(["queue", "classic"]),
    default="queue",
    show_default=True,
    help="queue: claim and ack, at least once. classic: put and next, at most once.",
)
@click.option("--writers", type=click.IntRange(1), default=20, show_default=True)
@click.option("--readers", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--files", type=click.IntRange(1), default=30, show_default=True, help="Channels that each writer writes to."
)
@click.option(
    "--shared",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many of them all writers have in common.",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Rows that each writer puts into each of its channels.  [default: 1500; sqlite: 300]",
)
@click.option(
    "--full", is_flag=True, help="300 writers, 64 readers, 30 files, 10 shared, 300 rows, unless given: 2,700,000 rows."
)
@click.option("--threads", is_flag=True, help="Threads of one process instead of processes.")
@click.option(
    "--sync",
    type=click.Choice(["none", "group", "each"]),
    default="none",
    show_default=True,
    help="When a row is forced to the disk (queue API).",
)
@click.option(
    "--kill-every",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Kill -9 a random writer or reader so often.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the row values and of the choice of victims.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work here, and keep the files. Default: a temporary folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw rows per second and the latencies (needs the extra 'plot').",
)
def stress(as_json: bool, plot: Path | None, folder: Path | None, full: bool, **options: Any) -> None:
    """Write and read at once with many processes, and let an independent ledger judge.

    Exit code 4 if any row was lost, torn, doubled or out of order.

    \b
    Examples:
      pistributer stress                                 about ten seconds
      pistributer stress --kill-every 0.2                … under fire
      pistributer stress --full --driver sqlite --json   the whole benchmark
    """
    options["rows"] = options["rows"] or _ROWS.get(options["driver"], _ROWS["jsonl"])
    if full:
        options |= {name: size for name, size in _FULL.items() if not _is_given(name)}
    report = _run(folder, plot, options)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        for line in report.lines():
            terminal.print_line(line)
    if plot is not None:
        _draw(report, plot)
    raise SystemExit(_code_of(report))


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def _run(folder: Path | None, plot: Path | None, options: dict[str, Any]) -> Report:
    from ..workers.stress.run import Scenario, run_stress

    if plot is not None:
        _require_plot(plot)
    options["kill_every"] = options["kill_every"] or 0.0
    try:
        scenario = Scenario(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    bar = terminal.ProgressBar("rows")

    def show(progress: Progress) -> None:
        note = f"{progress.kills} killed" if progress.kills else ""
        bar.update(progress.read, progress.total, note)

    try:
        return run_stress(scenario, folder=folder, on_progress=show)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    finally:
        bar.close()


def _require_plot(path: Path) -> None:
    """Before the run, not after it."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        exits.fail("--plot needs matplotlib", hint="pip install 'pistributer[plot]'")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--plot: there is no folder {str(path.absolute().parent)!r}")


def _draw(report: Report, path: Path) -> None:
    from ..workers.stress.plot import draw

    draw(report, path)
    click.echo(f"drawn: {path}", err=True)


def _code_of(report: Report) -> int:
    if report.interrupted:
        return exits.TERMINATED if report.interrupted == "SIGTERM" else exits.INTERRUPTED
    return exits.OK if report.ok else exits.INTEGRITY
