"""`pistributer run`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

import click

from . import exits, settings, terminal

if TYPE_CHECKING:
    from ..workers.pools import Pool
    from ..workers.run import Progress
    from ..workers.supervision.decisions import Say
    from ..workers.supervision.supervisor import Outcome

#: What goes as planned needs no line.
_QUIET: Final = frozenset({"done", "drained"})
#: A run that `pistributer stop` has stopped did as it was told.
_BY: Final = {"SIGINT": exits.INTERRUPTED, "SIGTERM": exits.TERMINATED, "SIGQUIT": exits.QUIT, "stop": exits.OK}
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def _processes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    if value is None:
        return None
    least, colon, most = value.partition(":")
    try:
        bounds = int(least), int(most if colon else least)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor MIN:MAX") from None
    if not 1 <= bounds[0] <= bounds[1]:
        raise click.BadParameter(f"{value!r}: there is at least one process, and MAX is no less than MIN")
    return bounds if colon else bounds[0]


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+) ?([KMG]?)B?", value, re.I)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is no size; say 500M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


@click.command(epilog=exits.TABLE)
@click.argument("app", metavar="FILE_OR_MODULE")
@click.option("--processes", callback=_processes, metavar="N|MIN:MAX",
              help="Workers of each pool; between two numbers, what waits decides.  "
                   "[default: as many as processors]")  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="Plain functions at once in a process.  [default: 1]"
)
@click.option("--concurrency", type=click.IntRange(1), metavar="N",
              help="`async def` tasks at once in a process.  [default: 1]")  # fmt: skip
@click.option("--queues", metavar="NAMES", help="Only these queues, in this order, or by weight: high=3,low=1.")
@click.option("--pool", "pools", multiple=True, metavar="NAME=QUEUES[:FIELD=N]...",
              help="A pool of its own for these queues; may be given several times.")  # fmt: skip
@click.option("--until-empty", is_flag=True, help="Stop when the producers are done and nothing is left to do.")
@click.option("--grace", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS",
              help="How long a first TERM or Ctrl-C lets running work have.")  # fmt: skip
@click.option("--recycle-jobs", type=click.IntRange(1), metavar="N", help="Replace a worker after N jobs.")
@click.option(
    "--recycle-memory", callback=_size, metavar="SIZE", help="… or when it has this much memory, such as 500M."
)
@click.option("--preload", multiple=True, metavar="MODULE", help="Import this once for all workers; may be repeated.")
@click.option("--reload", is_flag=True, help="For development: begin anew when the code changes.")
@click.option("--config", metavar="FILE", is_eager=True, expose_value=False, callback=settings.take,
              help="Take defaults from FILE, not from pistributer.toml.")  # fmt: skip
def run(
    app: str, processes: int | tuple[int, int] | None, threads: int | None, concurrency: int | None,
    queues: str | None, pools: tuple[str, ...], until_empty: bool, grace: float, recycle_jobs: int | None,
    recycle_memory: int | None, preload: tuple[str, ...], reload: bool,
) -> None:  # fmt: skip
    """Run an app: its producers, the workers of its tasks, its consumers.

    FILE_OR_MODULE is app.py, package.module, or either with :NAME if it holds several apps. Ctrl-C or TERM lets what
    runs finish and leaves the rest in the queues; a second one, or QUIT (Ctrl-\\), stops at once, and what was running
    goes back. HUP starts every worker afresh. A worker that is sent QUIT shows where it is.
    `pistributer pause`, `scale`, `restart` and `stop` control it from elsewhere; a second run of the same app shares its
    queues.

    \b
    Examples:
      pistributer run app.py                                run until told to stop
      pistributer run package.jobs:app --processes 8
      pistributer run app.py --processes 2:16 --recycle-memory 500M
      pistributer run app.py --queues high,low              high first, low when it is empty
      pistributer run app.py --pool web=high=3,low=1:processes=4 --pool mail=emails:threads=8
      pistributer run examples/census.py --until-empty      … until all is done
    """
    from ..workers.run import run as run_app

    watch = _Watch()
    try:
        outcome = run_app(
            app, processes=processes, threads=threads, concurrency=concurrency, pools=_pools(queues, pools),
            until_empty=until_empty, grace=grace, recycle_jobs=recycle_jobs, recycle_memory=recycle_memory,
            preload=preload, reload=reload, on_event=watch.event, on_progress=watch.progress,
        )  # fmt: skip
    finally:
        watch.bar.close()
    watch.sum_up(outcome)
    raise SystemExit(watch.exit_code(outcome))


def _pools(queues: str | None, pools: tuple[str, ...]) -> list[Pool] | None:
    from ..workers.pools import parse_pool, pool_of

    try:
        found = [pool_of(queues)] if queues is not None else []
        found += map(parse_pool, pools)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return found or None


class _Watch:
    """Shows a run on stderr; stdout belongs to the tasks."""

    def __init__(self) -> None:
        self.bar = terminal.ProgressBar("done")
        self._last: Progress | None = None
        self._started = time.monotonic()
        self._stopped_by: str | None = None

    def progress(self, progress: Progress) -> None:
        self._last = progress
        note = f"{progress.failed:,} failed" if progress.failed else ""
        self.bar.update(progress.done, progress.total, note)

    def event(self, said: Say) -> None:
        if said.action in ("stopping", "killing"):
            self._stopped_by = said.text.partition(":")[0]
        if said.action not in _QUIET:
            self.bar.note(said.text)

    def sum_up(self, outcome: Outcome) -> None:
        """One line that says what was done."""
        seconds = time.monotonic() - self._started
        parts = [f"{outcome.reason} after {terminal.human_time(seconds)}"]
        if self._last is not None:
            parts = [f"{self._last.done:,} done", *parts, f"{self._last.done / seconds:,.0f}/s"]
            parts[1:1] = [f"{self._last.failed:,} failed"] if self._last.failed else []
            parts += [f"{self._last.left:,} left"] if self._last.left else []
        if outcome.restarts:
            parts.append(f"{outcome.restarts:,} restarts")
        click.echo(", ".join(parts), err=True)
        if outcome.error is not None:
            exits.complain(outcome.error)

    def exit_code(self, outcome: Outcome) -> int:
        if outcome.reason in ("stopped", "killed"):
            return _BY.get(self._stopped_by or "", exits.INTERRUPTED)
        if outcome.exit_code == exits.OK and self._last is not None and self._last.failed:
            return exits.ITEMS_FAILED
        return outcome.exit_code
