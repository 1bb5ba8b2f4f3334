"""What people see: tables, a progress bar, numbers in words. Data goes to stdout, all else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import click

from .exits import USAGE, broken_pipe, color, fail

if TYPE_CHECKING:
    from ..workers.supervision.pages import JobProgress

#: A bar is redrawn at most this often, and a plain line printed this often where there is no terminal, in seconds.
_REDRAW: Final = 0.1
_PLAIN_LINE: Final = 10.0
_BAR_WIDTH: Final = 24


# -- asking


def confirm(what: str) -> None:
    """Go on only if somebody says yes to "delete 5 rows of emails"; click.Abort otherwise."""
    if not is_interactive():
        fail(
            f"this would {what}, and there is nobody to ask",
            hint="give --yes to go ahead, --dry-run to only count",
            code=USAGE,
        )
    click.confirm(f"{what[0].upper()}{what[1:]}?", abort=True, err=True)


def is_interactive() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


# -- numbers and times


def ago(moment: float) -> str:
    """`5 s ago`, `in 2 h`, of seconds since the epoch."""
    seconds = moment - time.time()
    return f"in {human_time(seconds)}" if seconds > 0 else f"{human_time(-seconds)} ago"


def human_count(count: float) -> str:
    return f"{count:,.0f}"


def human_size(size: float) -> str:
    """Bytes in decimal units, as `ls --si` and disks have them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_time(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3m 05s`, `2h 10m`, `4d 3h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def progress_text(progress: JobProgress) -> str:
    """`3/10 30%  page 3`, of what a job says."""
    if progress.total:
        return f"{progress.done:g}/{progress.total:g} {progress.done / progress.total:.0%}  {progress.text}".rstrip()
    return f"{progress.done:g}  {progress.text}".rstrip()


def progress_cell(progress: JobProgress | None) -> str:
    """The same for a table, where it is short."""
    return clip(progress_text(progress), 40) if progress is not None else ""


# -- data


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print_line(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_line(text: str = "") -> None:
    """A line on stdout. If nobody reads it any more, the command ends in silence."""
    try:
        click.echo(text, color=color(sys.stdout))
    except BrokenPipeError:
        # click would end with 1, as if something had failed.
        raise SystemExit(broken_pipe()) from None


def print_table(rows: Iterable[Mapping[str, str]], *, right: Sequence[str] = ()) -> None:
    """A table with a header line on stdout. A column in which no row has anything is left out."""
    for number, line in enumerate(table_lines(rows, right=right)):
        print_line(click.style(line, bold=True) if number == 0 else line)


def table_lines(rows: Iterable[Mapping[str, str]], *, right: Sequence[str] = ()) -> list[str]:
    """The lines of a table, the header first; none if there are no rows."""
    shown = list(rows)
    if not shown:
        return []
    columns = [name for name in shown[0] if any(row[name] for row in shown)]
    widths = {name: max(width(name), *(width(row[name]) for row in shown)) for name in columns}
    header = {name: name for name in columns}
    return [
        "  ".join(_pad(row[name], widths[name], name in right) for name in columns).rstrip() for row in (header, *shown)
    ]


def _pad(text: str, size: int, right: bool) -> str:
    space = " " * (size - width(text))
    return space + text if right else text + space


def width(text: str) -> int:
    """Columns that `text` takes on a terminal: two for wide East Asian characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def clip(text: str, columns: int) -> str:
    """`text` without control characters and cut to so many columns, with an ellipsis where it was cut."""
    clean = "".join(char if char.isprintable() else "�" for char in text)
    if width(clean) <= columns:
        return clean
    while clean and width(clean) > columns - 1:
        clean = clean[:-1]
    return clean + "…"


def columns() -> int:
    """How wide stdout is; without limit if it is no terminal, because a program then reads it."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000_000


# -- progress


class ProgressBar:
    """Progress on stderr: a bar that is redrawn on a terminal, else one plain line every ten seconds."""

    def __init__(self, unit: str, *, stream: IO[str] | None = None) -> None:
        self._unit = unit
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and color(self._stream)
        self._started = time.monotonic()
        self._next = 0.0 if self._live else self._started + _PLAIN_LINE
        self._drawn = False
        self._shown: tuple[int, int | None] | None = None

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` (None: nobody knows) are done."""
        now = time.monotonic()
        if now < self._next or (not self._live and (done, total) == self._shown):
            return
        self._shown = (done, total)
        self._next = now + (_REDRAW if self._live else _PLAIN_LINE)
        line = self._line(done, total, now - self._started, note)
        if self._live:
            line = clip(line, max(20, shutil.get_terminal_size().columns - 1))
            self._stream.write(f"\r\x1b[K{line}")
            self._drawn = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, done: int, total: int | None, elapsed: float, note: str) -> str:
        rate = done / elapsed if elapsed > 0 else 0.0
        parts = [f"{human_count(done)} {self._unit}"]
        if total:
            share = min(1.0, done / total)
            bar = f"{_bar(share)} " if self._live else ""
            parts = [f"{bar}{share:4.0%}", f"{human_count(done)}/{human_count(total)} {self._unit}"]
        parts += [f"{human_count(rate)}/s", human_time(elapsed)]
        if total and rate and done < total:
            parts.append(f"eta {human_time((total - done) / rate)}")
        return "  ".join([*parts, *([note] if note else [])])

    def note(self, text: str) -> None:
        """A line that stays, above the bar."""
        self.close()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Take the bar away, so that the report stands alone."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


@contextmanager
def progress(unit: str) -> Iterator[ProgressBar]:
    """A bar that is taken away at the end, well or not."""
    bar = ProgressBar(unit)
    try:
        yield bar
    finally:
        bar.close()


def _bar(share: float) -> str:
    full, half = ("█", "░") if "utf" in (sys.stderr.encoding or "").lower() else ("#", ".")
    filled = round(share * _BAR_WIDTH)
    return full * filled + half * (_BAR_WIDTH - filled)
