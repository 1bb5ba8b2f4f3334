"""What `top` shows: from a picture of the app and what the user has chosen to lines of text. No terminal here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import terminal
from .ps_command import NUMBERS, cells
from .status_command import NUMBERS as QUEUE_NUMBERS
from .status_command import headlines, queue_cells

if TYPE_CHECKING:
    from ..workers.inspection.watching import Picture, ProcessStatus

_HELP = """\
q          quit
j k ↓ ↑    move
enter      the job of the process: its arguments, attempts, since when
x          call the job of the process off
p          pause the queue of the worker, or let it go on
+ -        a process more, or less, for the queue or consumer of the process
/          show only processes in whose line a text stands; an empty one shows all
?          this page

any key goes back
"""


@dataclass
class View:
    """What the user has chosen."""

    selected: int = 0
    filter: str = ""
    #: A page that covers the screen: help, or the details of a job.
    page: list[str] = field(default_factory=list)
    #: The text that is being typed behind `/`; None if none is.
    typing: str | None = None
    #: What is asked on the last line, and what is done if the answer is y.
    question: str = ""
    on_yes: Callable[[], str] | None = None
    #: What happened, on the last line, and until when it stands there.
    message: str = ""
    message_until: float = 0.0

    def say(self, text: str, *, seconds: float = 4.0) -> None:
        self.message, self.message_until = text, time.monotonic() + seconds

    def shown(self, picture: Picture) -> list[ProcessStatus]:
        """The processes that the filter lets through."""
        words = self.filter.casefold()
        return [it for it in picture.processes if words in " ".join(cells(it).values()).casefold()]

    def current(self, picture: Picture) -> ProcessStatus | None:
        """The process on which the cursor is."""
        shown = self.shown(picture)
        self.selected = max(0, min(self.selected, len(shown) - 1))
        return shown[self.selected] if shown else None


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    style: str = "plain"  # "bold", "reverse"


def draw(picture: Picture, view: View, columns: int, rows: int) -> list[Line]:
    """The screen: at most `rows` lines of at most `columns` columns, the last one with the keys."""
    body = [Line(text) for text in view.page] if view.page else _tables(picture, view, rows - 1)
    body = body[: rows - 1] + [Line("")] * (rows - 1 - len(body))
    # The last column of the last line stays free: writing there scrolls some terminals.
    return [Line(terminal.clip(it.text, columns - 1), it.style) for it in (*body, Line(_last_line(view), "reverse"))]


def help_page() -> list[str]:
    return _HELP.splitlines()


def _tables(picture: Picture, view: View, rows: int) -> list[Line]:
    status = picture.status
    lines = [*(Line(text, "bold") for text in headlines(status)), Line("")]
    queues = terminal.table_lines([queue_cells(queue) for queue in status.queues], right=(*QUEUE_NUMBERS, "size"))
    # Where there is no room for both, the processes are what the keys are about.
    lines = lines[:1] if len(lines) + len(queues) + 4 > rows else lines + _with_header(queues)
    view.current(picture)
    table = terminal.table_lines([cells(it) for it in view.shown(picture)], right=NUMBERS)
    if not table:
        why = f"no process has {view.filter!r} in its line" if view.filter else "no process runs"
        return [*lines, Line(""), Line(why)]
    processes = _with_header(table)
    processes[view.selected + 1] = Line(processes[view.selected + 1].text, "reverse")
    room = max(1, rows - len(lines) - 2)
    # The table scrolls so that the cursor stays on the screen.
    first = max(0, view.selected - room + 1)
    return [*lines, Line(""), processes[0], *processes[1 + first : 1 + first + room]]


def _with_header(table: list[str]) -> list[Line]:
    return [Line(text, "plain" if number else "bold") for number, text in enumerate(table)]


def _last_line(view: View) -> str:
    if view.typing is not None:
        return f"/{view.typing}█  enter: show only these  esc: all"
    if view.question:
        return f"{view.question}  y/n"
    if view.message and time.monotonic() < view.message_until:
        return view.message
    return "q quit  j/k move  enter details  x cancel job  p pause  +/- workers  / filter  ? help"
