"""`pistributer rerun`."""

from __future__ import annotations

import json
import sys
import traceback

import click

from . import exits, terminal


@click.command(epilog=exits.TABLE)
@click.argument("id")
@click.argument("app", required=False)
@click.option("--app", "source", metavar="FILE_OR_MODULE", help="Where its code is.  [default: what was run last]")
@click.option("--pdb", is_flag=True, help="If it raises, start the debugger where it did.")
@click.option("--settle", is_flag=True, help="If it goes well: keep its result, and drop its dead letter.")
def rerun(id: str, app: str | None, source: str | None, pdb: bool, settle: bool) -> None:
    """Run one job here and now, in this process, with its recorded arguments.

    They come from its dead letter, its place in a queue, or a row that is retained. Neither the queue nor the results
    are touched, unless --settle is given; there are no retries and no time limits. What the task returns is printed as
    JSON. APP is the app's folder, or sqlite:FILE; without it, the working directory or the only app in it.

    \b
    Examples:
      pistributer rerun 5f0c2a9be1d34c7788aa0012 --pdb
      pistributer rerun 5f0c2a9be1d34c7788aa0012 jobs/ --app app.py
      pistributer rerun 5f0c2a9be1d34c7788aa0012 --settle
    """
    from ..workers.inspection.life import open_home
    from ..workers.inspection.rerun import Rerun

    again = Rerun(open_home(app), id, source)
    if settle and again.row.state != "dead":
        exits.fail(f"the job is {again.row.state}, not a dead letter", hint="leave out --settle", code=exits.USAGE)
    call = ", ".join([*map(repr, again.args), *(f"{name}={value!r}" for name, value in again.kwargs.items())])
    click.echo(f"{again.task.name}({call})", err=True)
    try:
        value = again.call()
    except Exception as error:  # noqa: BLE001 (shown, and debugged if asked)
        _show(error)
        if pdb:
            _debug(error)
        raise SystemExit(exits.ITEMS_FAILED) from None
    try:
        terminal.print_line(json.dumps(value, ensure_ascii=False, default=repr))
        if settle:
            again.settle(value)
    finally:
        again.app.close()


def _show(error: Exception) -> None:
    """Its traceback, from the task on: the frames before are ours."""
    ours = error.__traceback__
    task = ours.tb_next.tb_next if ours is not None and ours.tb_next is not None else None
    traceback.print_exception(type(error), error, task or ours)


def _debug(error: Exception) -> None:
    import pdb

    if not terminal.is_interactive():
        click.echo("hint:   --pdb needs a terminal", err=True)
        return
    pdb.post_mortem(error.__traceback__)
    sys.stdout.flush()
