"""The `pistributer` command: its subcommands are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import click

from . import exits, settings

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

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name)
        return command and _with_variables(command, ctx)

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
        "completion": ("completion_command", "Print a script for the completion of a shell."),
        "config": ("config_command", "Show where the defaults of options come from."),
        "dead": ("dead_commands", "Look at what was given up, try it again, or drop it."),
        "dict": ("dict_commands", "Look into persistent dictionaries and change them."),
        "pause": ("control_commands", "Have nobody take from a queue, until `resume`."),
        "ps": ("ps_command", "List the processes of an app: what they run, and what they use."),
        "queue": ("queue_commands", "Look into queues and tidy them."),
        "records": ("records_commands", "Look into record files, check, repair and convert them."),
        "replay": ("archive_commands", "Put rows that are over into their queue again."),
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
        "top": ("top_command", "Watch an app live: its queues, its processes, their jobs."),
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
        return _with_variables(command, ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands_at[name][1]) for name in self.list_commands(ctx)])


def _with_variables(command: click.Command, ctx: click.Context) -> click.Command:
    """Options that Python calls otherwise (`--json` is as_json) are set by a variable named as the option is."""
    for option in command.params if ctx.auto_envvar_prefix else ():
        shown = settings.shown(option)
        if isinstance(option, click.Option) and option.envvar is None and shown.replace("-", "_") != option.name:
            option.envvar = "_".join((str(ctx.auto_envvar_prefix), str(command.name), shown)).replace("-", "_").upper()
    return command


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


def _set_color(ctx: click.Context, option: click.Parameter, wanted: str) -> None:
    exits.set_color(wanted)


@click.group(cls=LazyGroup, context_settings={**_SETTINGS, "auto_envvar_prefix": settings.PREFIX}, epilog=exits.TABLE)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, allow_from_autoenv=False,
    help="Show the version.",
)  # fmt: skip
@click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, allow_from_autoenv=False,
    help="Show tracebacks.  [env: PISTRIBUTER_DEBUG]",
)  # fmt: skip
@click.option(
    "--config", metavar="FILE", help="Take defaults from FILE, not from pistributer.toml.  [env: PISTRIBUTER_CONFIG]"
)
@click.option(
    "--color", type=click.Choice(("auto", "always", "never")), default="auto", expose_value=False, callback=_set_color,
    help="Whether to print in colour.  [env: PISTRIBUTER_COLOR]",
)  # fmt: skip
@click.pass_context
def pistributer(ctx: click.Context, config: str | None) -> None:
    """Tasks, supervised workers and queues in plain files.

    \b
    Examples:
      pistributer run app.py --until-empty     run an app until nothing is left to do
      pistributer status jobs/                 what its queues and workers are doing
      pistributer queue peek jobs/ -n 3        the next rows of a queue
      pistributer stress                       prove it on this disk, in ten seconds
    """
    assert isinstance(ctx.command, click.Group)
    ctx.default_map = settings.load(ctx.command, config)
