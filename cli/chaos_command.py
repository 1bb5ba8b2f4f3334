"""`pistributer chaos`."""

from __future__ import annotations

from pathlib import Path

import click

from . import exits, terminal


@click.command(epilog=exits.TABLE)
@click.option("--driver", type=click.Choice(["jsonl", "txt", "sqlite"]), default="jsonl", show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="How long processes are killed."
)
@click.option("--every", type=click.FloatRange(0, min_open=True), default=0.05, show_default=True, metavar="SECONDS",
              help="Pause between two kills.")  # fmt: skip
@click.option("--producers", type=click.IntRange(1), default=4, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=4, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of victims.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False),
              help="Work here, and keep the files. Default: a temporary folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def chaos(
    driver: str,
    seconds: float,
    every: float,
    producers: int,
    workers: int,
    seed: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Kill -9 the processes of a running app at random, the supervisor too, and account for every row.

    Producers, workers and supervisor of an app of its own are killed and come back; then what is left is done, and an
    independent ledger is judged. Exit code 4 if a row was lost, or done twice although nobody who held it was killed,
    or if a process, a claim or a lock is left.

    \b
    Examples:
      pistributer chaos                               ten seconds
      pistributer chaos --seconds 60 --driver sqlite
      pistributer chaos --folder /mnt/disk/chaos      … on another disk
    """
    from ..workers.chaos.run import Storm, run_chaos

    bar = terminal.ProgressBar("s")

    def show(elapsed: float, kills: int) -> None:
        bar.update(min(int(elapsed), int(seconds)), int(seconds), f"{kills:,} killed")

    storm = Storm(driver, seconds, every, producers, workers, seed)
    try:
        report = run_chaos(storm, folder=folder, on_progress=show)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    finally:
        bar.close()
    if as_json:
        terminal.print_json(report.to_json())
    else:
        for line in report.lines():
            terminal.print_line(line)
    raise SystemExit(exits.OK if report.ok else exits.INTEGRITY)
