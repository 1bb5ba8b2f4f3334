"""`pistributer completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from . import exits, terminal

_SHELLS = ("bash", "zsh", "fish")


@click.command(epilog=exits.TABLE)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, and the names of queues.

    \b
    Examples:
      eval "$(pistributer completion bash)"                                      in ~/.bashrc
      eval "$(pistributer completion zsh)"                                       in ~/.zshrc
      pistributer completion fish > ~/.config/fish/completions/pistributer.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root()
    # Not source(), which for bash asks the bash that is in PATH for its version first; 4.4 is of 2016.
    made = kind(root.command, {}, "pistributer", "_PISTRIBUTER_COMPLETE")
    terminal.print_line(made.source_template % made.source_vars())
