"""The `pistributer` command: its subcommands are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import click

from . import exits

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Group(click.Group):
    """A group whose errors end in `exits`, and which names the nearest command for one that does not exist."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        # TERM unwinds as Ctrl-C does, so that temporary folders go and children are not left behind.
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - this is where every error gets its exit code
            exits.exit_for(error)
        finally:
            signal.signal(signal.SIGTERM, before)
        raise SystemExit(code if isinstance(code, int) else exits.OK)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            known = f"did you mean '{ctx.command_path} {near[0]}'?" if near else f"try '{ctx.command_path} --help'"
            exits.fail(f"no such command: {args[0]!r}", hint=known, code=exits.USAGE)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """Knows the names and one-line helps of its commands, and imports a command when it is used."""

    commands_at: ClassVar[Mapping[str, tuple[str, str]]] = {
        "chaos": ("chaos_command", "Kill the processes of an app at random, and account for every row."),
        "dead": ("dead_commands", "Look at what was given up, try it again, or drop it."),
        "dict": ("dict_commands", "Look into persistent dictionaries and change them."),
        "pause": ("control_commands", "Have nobody take from a queue, until `resume`."),
        "queue": ("queue_commands", "Look into queues and tidy them."),
        "records": ("records_commands", "Look into record files, check, repair and convert them."),
        "rerun": ("rerun_command", "Run one job here and now, with its recorded arguments."),
        "restart": ("control_commands", "Have a running app's processes replaced by fresh ones."),
        "resume": ("control_commands", "Have a paused queue worked on again."),
        "run": ("run_command", "Run an app: its producers, consumers and tasks."),
        "scale": ("control_commands", "Have more or fewer processes in a running app."),
        "send": ("send_command", "Send a call of a task to an app."),
        "status": ("status_command", "Show the queues and workers of an app."),
        "stop": ("control_commands", "Stop a running app: finish what runs, keep the rest."),
        "stress": ("stress_command", "Prove on this disk that no row is lost, and measure how fast."),
        "tail": ("tail_command", "Follow what ends, and what fails on the way."),
        "why": ("why_command", "Tell the life of one job: its attempts, errors and causes of death."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands_at)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.commands_at:
            return None
        module = importlib.import_module(f".{self.commands_at[name][0]}", __package__)
        # `dict` is a builtin, so its group has another name there.
        command: click.Command = getattr(module, {"dict": "dicts"}.get(name, name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands_at[name][1]) for name in self.list_commands(ctx)])


def _terminate(number: int, frame: object) -> None:
    raise exits.Terminated


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from pistributer import __version__

        click.echo(f"pistributer {__version__}")
        ctx.exit()


def _set_debug(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        exits.set_debug()


@click.group(cls=LazyGroup, context_settings=_SETTINGS, epilog=exits.TABLE)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks  [env: PISTRIBUTER_DEBUG]"
)
def pistributer() -> None:
    """Tasks, supervised workers and queues in plain files.

    \b
    Examples:
      pistributer run app.py --until-empty     run an app until nothing is left to do
      pistributer status jobs/                 what its queues and workers are doing
      pistributer queue peek jobs/ -n 3        the next rows of a queue
      pistributer stress                       prove it on this disk, in ten seconds
    """
