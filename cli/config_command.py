"""`pistributer config show`."""

from __future__ import annotations

import dataclasses
import json

import click

from . import exits, settings, terminal
from .root import Group


@click.group(cls=Group, epilog=exits.TABLE)
def config() -> None:
    """Show where the defaults of options come from.

    An option's value is that of the command line, of the environment (PISTRIBUTER_RUN_PROCESSES=4), of pistributer.toml, of
    [tool.pistributer] in pyproject.toml, or the one that is built in: the first that there is.

    \b
    Examples:
      pistributer config show                  what is set
      pistributer config show --origin --all   everything, and by whom
    """


@config.command(epilog=exits.TABLE)
@click.option("--origin", is_flag=True, help="Say which file or variable each value is from.")
@click.option("--all", "everything", is_flag=True, help="Built-in defaults too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def show(context: click.Context, origin: bool, everything: bool, as_json: bool) -> None:
    """Print the settings that are in force here, as KEY = VALUE.

    \b
    Examples:
      pistributer config show
      pistributer --config staging.toml config show --origin
    """
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    found = [
        setting for setting in settings.show(root.command, root.params.get("config"))
        if everything or setting.origin != "default"
    ]  # fmt: skip
    if as_json:
        terminal.print_json([dataclasses.asdict(setting) for setting in found])
        return
    if not found:
        click.echo("nothing is set: every option has its built-in default (--all shows them)", err=True)
    rows = [{"setting": f"{it.key} = {json.dumps(it.value)}", "origin": it.origin if origin else ""} for it in found]
    terminal.print_table(rows)
