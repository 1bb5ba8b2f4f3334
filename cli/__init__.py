"""The command line. Commands parse, call one library function and print; there is no queue or process logic here."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on `args` (default: those of the process) and exit with its code."""
    from .root import pistributer

    pistributer.main(args=None if args is None else list(args), prog_name="pistributer")
