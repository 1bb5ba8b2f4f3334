"""`pistributer run`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from . import exits, terminal

if TYPE_CHECKING:
    from ..workers.decisions import Say
    from ..workers.run import Progress
    from ..workers.supervisor import Outcome

#: What goes as planned needs no line.
_QUIET: Final = frozenset({"done", "drained"})
_BY_SIGNAL: Final = {"SIGINT": exits.INTERRUPTED, "SIGTERM": exits.TERMINATED}


@click.command(epilog=exits.TABLE)
@click.argument("app", metavar="FILE_OR_MODULE")
@click.option("--processes", type=click.IntRange(1), metavar="N",
              help="Workers for each queue of tasks.  [default: as many as processors]")  # fmt: skip
@click.option("--until-empty", is_flag=True, help="Stop when the producers are done and nothing is left to do.")
def run(app: str, processes: int | None, until_empty: bool) -> None:
    """Run an app: its producers, the workers of its tasks, its consumers.

    FILE_OR_MODULE is app.py, package.module, or either with :NAME if it holds several apps. Ctrl-C or TERM lets what
    runs finish and leaves the rest in the queues; a second one stops at once, and what was running goes back. HUP
    starts every worker afresh.

    \b
    Examples:
      pistributer run app.py                                run until told to stop
      pistributer run package.jobs:app --processes 8
      pistributer run examples/census.py --until-empty      … until all is done
    """
    from ..workers.run import run as run_app

    watch = _Watch()
    try:
        outcome = run_app(
            app, processes=processes, until_empty=until_empty, on_event=watch.event, on_progress=watch.progress
        )
    finally:
        watch.bar.close()
    watch.sum_up(outcome)
    raise SystemExit(watch.exit_code(outcome))


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
            return _BY_SIGNAL.get(self._stopped_by or "", exits.INTERRUPTED)
        if outcome.exit_code == exits.OK and self._last is not None and self._last.failed:
            return exits.ITEMS_FAILED
        return outcome.exit_code
