"""Exit codes, and how an error becomes one with two lines on stderr: what went wrong, and what to do."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from typing import IO, TYPE_CHECKING, Final, NoReturn

import click

if TYPE_CHECKING:
    from pistributer import errors

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
ITEMS_FAILED: Final = 3
INTEGRITY: Final = 4
UNAVAILABLE: Final = 69
LOCKED: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130
QUIT: Final = 131
PIPE_CLOSED: Final = 141
TERMINATED: Final = 143

#: For the end of every help page. Numbers from 64 on are those of sysexits.h and of the shell.
TABLE: Final = (
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 items failed, 4 integrity, 69 storage unavailable, 75 locked by another, "
    "78 app can not boot, 130 Ctrl-C, 131 QUIT, 143 TERM."
)

_DEBUG: Final = "PISTRIBUTER_DEBUG"


class Terminated(BaseException):
    """SIGTERM, as an exception, so that `finally` blocks run."""


def is_debug() -> bool:
    """Whether tracebacks are wanted: --debug or PISTRIBUTER_DEBUG=1."""
    return os.environ.get(_DEBUG, "") not in ("", "0")


def set_debug() -> None:
    os.environ[_DEBUG] = "1"


def fail(message: str, *, hint: str | None = None, code: int = FAILURE) -> NoReturn:
    """Print the error and its hint, and exit with `code`."""
    complain(message, hint)
    raise SystemExit(code)


def complain(message: str, hint: str | None = None) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=color(sys.stderr))
    if hint:
        click.echo(f"{click.style('hint: ', fg='cyan')} {hint}", err=True, color=color(sys.stderr))


def color(stream: IO[str]) -> bool:
    """Whether `stream` gets colour: --color decides, then variables, then whether it is a terminal that has any.

    NO_COLOR (no-color.org), FORCE_COLOR and CLICOLOR_FORCE, CLICOLOR=0 (bixense.com/clicolors), TERM=dumb.
    """
    wanted = _color
    if wanted != "auto":
        return wanted == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0") or os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("CLICOLOR") != "0" and os.environ.get("TERM") != "dumb"


#: What --color said.
_color = "auto"


def set_color(wanted: str) -> None:
    global _color
    _color = wanted


def exit_for(error: BaseException) -> NoReturn:
    """Tell what happened and leave with the code that says it. Unknown exceptions are our fault: exit 1."""
    if isinstance(error, SystemExit):
        raise error
    if is_debug() and not isinstance(error, click.exceptions.Exit | click.ClickException | BrokenPipeError):
        traceback.print_exception(error)
    raise SystemExit(_told(error))


def _told(error: BaseException) -> int:
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return USAGE
        case click.UsageError():
            return _usage(error)
        case click.ClickException():
            complain(error.format_message())
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            complain("interrupted")
            return INTERRUPTED
        case Terminated():
            complain("terminated")
            return TERMINATED
        case BrokenPipeError():
            return broken_pipe()
        case _:
            return _library_error(error)


def _usage(error: click.UsageError) -> int:
    hint = f"try '{error.ctx.command_path} --help'" if error.ctx is not None else None
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        near = difflib.get_close_matches(error.option_name, error.possibilities, n=1, cutoff=0)
        hint = f"did you mean {near[0]}?"
        complain(f"no such option: {error.option_name}", hint)
    else:
        complain(error.format_message(), hint)
    return USAGE


def broken_pipe() -> int:
    """Whoever read our output has gone (`| head`), which is no error. Python would complain of it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _library_error(error: BaseException) -> int:
    from pistributer import errors

    if isinstance(error, errors.PistributerError):
        complain(error.message, error.hint)
        return code_of(error)
    if isinstance(error, TimeoutError) and hasattr(error, "lock_file"):
        complain(f"{error.lock_file} is held by another process", "wait until it is done, or stop it")
        return LOCKED
    complain(f"{type(error).__name__}: {error}", "this is a bug if the message makes no sense; --debug shows where")
    return FAILURE


def code_of(error: errors.PistributerError) -> int:
    """The exit code of an error of the library."""
    from pistributer import errors

    if isinstance(error, errors.BootError):
        return CONFIG
    if isinstance(error, errors.NoSupervisor):
        return UNAVAILABLE
    if isinstance(error, errors.FileInUse):
        return LOCKED
    if isinstance(error, errors.DamagedRecords | errors.UnsupportedChunk):
        return INTEGRITY
    if isinstance(error, errors.StorageError | errors.RecordsMissing):
        return UNAVAILABLE
    return FAILURE
