"""`pistributer top`: the terminal, and what keys do. What is shown is in top_screen.py."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from . import exits, terminal
from .targets import addressed
from .top_screen import View, draw, help_page

if TYPE_CHECKING:
    from ..workers.inspection.watching import Picture, ProcessStatus, Watcher

_STYLES: Final = {"plain": curses.A_NORMAL, "bold": curses.A_BOLD, "reverse": curses.A_REVERSE}
_ENTER: Final = ("\n", "\r")
_ESCAPE: Final = "\x1b"


@click.command(epilog=exits.TABLE)
@click.argument("app")
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, metavar="SECONDS",
              help="How often to look.")  # fmt: skip
def top(app: str, interval: float) -> None:
    """Watch an app: its queues, its processes, what they run. The keys are on the last line; ? explains them.

    APP is the app's folder, or sqlite:FILE. The app's code is not imported. `pistributer ps` prints the same once.

    \b
    Examples:
      pistributer top jobs/
      pistributer top sqlite:jobs.db --interval 0.5
    """
    from ..workers.inspection.watching import Watcher

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = f"`pistributer ps {app}` prints the processes once, with --json for programs"
        exits.fail("top needs a terminal", hint=hint, code=exits.USAGE)
    watcher = Watcher(app)
    with addressed():
        watcher.look()  # what is wrong with APP is told before the screen is taken
    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "25")
    _require_screen()
    with _screen() as screen:
        _Top(screen, watcher, app, interval).run()


def _require_screen() -> None:
    """End the command if the terminal is one on which a cursor can not be moved: curses would end the process."""
    try:
        curses.setupterm()
        why = "" if curses.tigetstr("cup") else f"a {os.environ.get('TERM')!r} terminal can not move its cursor"
    except curses.error as error:
        why = str(error)
    if why:
        hint = "set TERM to what the terminal is, such as xterm-256color"
        exits.fail(f"this terminal can not show it: {why}", hint=hint, code=exits.USAGE)


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """The terminal as a screen; as it was on every way out: q, an error, Ctrl-C, and TERM, which arrives as an exception.

    Not curses.wrapper: that turns colours on, which are white on black, also where the terminal is black on white.
    """
    screen = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        screen.keypad(True)
        with contextlib.suppress(curses.error):  # a terminal whose cursor can not be hidden
            curses.curs_set(0)
        yield screen
    finally:
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        screen.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()


class _Top:
    def __init__(self, screen: Any, watcher: Watcher, app: str, interval: float) -> None:
        self._screen = screen
        self._watcher = watcher
        self._app = app
        self._interval = interval
        self._view = View()

    def run(self) -> None:
        """Until q."""
        picture, due = self._watcher.look(), time.monotonic() + self._interval
        while True:
            self._draw(picture)
            self._screen.timeout(max(0, int((due - time.monotonic()) * 1000)))
            try:
                key = self._screen.get_wch()
            except curses.error:
                key = ""  # nobody has pressed one
            if key == "q" and self._view.typing is None and not self._view.page:
                return
            if key and key != curses.KEY_RESIZE:
                self._press(key, picture)
            if not key or time.monotonic() >= due:
                picture, due = self._watcher.look(), time.monotonic() + self._interval

    def _draw(self, picture: Picture) -> None:
        rows, columns = self._screen.getmaxyx()
        self._screen.erase()
        for number, line in enumerate(draw(picture, self._view, columns, rows)):
            with contextlib.suppress(curses.error):  # the terminal has just become smaller
                self._screen.addstr(number, 0, line.text, _STYLES[line.style])
        self._screen.refresh()

    # -- keys

    def _press(self, key: str | int, picture: Picture) -> None:
        view = self._view
        if view.typing is not None:
            self._type(key, view.typing)
        elif view.page:
            view.page = []
        elif view.question:
            if key in ("y", "Y") and view.on_yes is not None:
                view.say(view.on_yes())
            view.question, view.on_yes = "", None
        else:
            self._choose(key, picture)

    def _type(self, key: str | int, text: str) -> None:
        view = self._view
        if key in _ENTER:
            view.filter, view.typing, view.selected = text, None, 0
        elif key == _ESCAPE:
            view.filter, view.typing = "", None
        elif key in (curses.KEY_BACKSPACE, "\x7f", "\b"):
            view.typing = text[:-1]
        elif isinstance(key, str) and key.isprintable():
            view.typing = text + key

    def _choose(self, key: str | int, picture: Picture) -> None:
        view, current = self._view, self._view.current(picture)
        if key in ("j", curses.KEY_DOWN):
            view.selected += 1
        elif key in ("k", curses.KEY_UP):
            view.selected -= 1
        elif key == "/":
            view.typing = view.filter
        elif key == "?":
            view.page = help_page()
        elif key in _ENTER and current is not None:
            view.page = self._details(current)
        elif key == "x" and current is not None:
            self._ask_cancel(current)
        elif key == "p" and current is not None:
            self._try(lambda: self._pause(current, picture))
        elif key in ("+", "-") and current is not None:
            self._try(lambda: self._scale(current, str(key)))

    def _ask_cancel(self, process: ProcessStatus) -> None:
        job = process.job
        if not job or not process.role.startswith("worker "):
            self._view.say("this process runs no job of a task")
            return
        self._view.question = f"call off {process.task} {job}?"
        self._view.on_yes = lambda: self._cancel(job)

    def _cancel(self, job: str) -> str:
        from ..workers.app import App

        App(self._app).job(job).cancel()
        return f"{job} is called off"

    def _try(self, act: Callable[[], str]) -> None:
        """Do it, and say on the last line what came of it."""
        from pistributer import errors

        try:
            self._view.say(act())
        except errors.PistributerError as error:
            self._view.say(str(error))

    def _pause(self, process: ProcessStatus, picture: Picture) -> str:
        from ..workers import control

        name = process.role.removeprefix("worker ")
        if name not in (queue.name for queue in picture.status.queues):
            return f"`pistributer pause {self._app} QUEUE` pauses what {process.role} takes from"
        if name in control.paused(self._app):  # the picture may be older
            control.resume(self._app, name)
            return f"{name} goes on"
        control.pause(self._app, name)
        return f"{name} is paused"

    def _scale(self, process: ProcessStatus, sign: str) -> str:
        from ..workers import control

        kind, _, name = process.role.partition(" ")
        if kind not in ("worker", "consumer"):
            return f"there is one {kind} only"
        answers = control.scale(self._app, name, f"{sign}1", pid=process.supervisor)
        return ", ".join(f"{it.fields['processes']} processes for {it.fields['role']}" for it in answers)

    def _details(self, process: ProcessStatus) -> list[str]:
        """Everything that the process runs: what `queue show` says of it, and for how long."""
        from .find_commands import details
        from .targets import find_rows, wanted

        lines = [f"{process.role}[{process.index}]  pid {process.pid}", ""]
        jobs = {it.job: it for it in process.running}
        found = (row for _, _, rows in find_rows(self._app, None, wanted(tuple(jobs)), "claimed") for row in rows)
        for row in found if jobs else ():
            job = jobs[row.job or row.id]
            lines += [f"{name:<9} {value}" for name, value in details(row).items()]
            lines += [f"{'for':<9} {terminal.human_time(max(0.0, time.time() - job.since))}"]
            lines += [f"{'progress':<9} {terminal.progress_text(job.progress)}"] if job.progress is not None else []
            lines += [""]
        if not lines[2:]:  # a batch of rows, or a job that has just ended
            lines += [f"{it.task} {it.job}" for it in process.running] or ["it runs nothing at this moment"]
        return [*lines, "", "any key goes back"]
