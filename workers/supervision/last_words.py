"""The last lines that a worker logged, and where it was when it crashed: kept where its death can not take them.

Log records are noted by the record factory of `logging`. Refused: a handler on the root logger, because `basicConfig` does
nothing and warnings are not shown any more once there is one; so the user's output would change. What no logger lets through
(below its level) is not noted, and costs nothing.

A crash is written by `faulthandler` into a file beside the page: the Python line in which a C library crashed, or which a
loop in C was called from when its hard time limit came (`STACK` asks for it). Left alone if the user has it on already.

Standard error is not kept: it would have to go through a pipe and a reader, which may be late, or die with the worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import time
from typing import Any

from .pages import Page, page_path, stack_path

#: Has a worker write down where it is. A real-time signal, because the others may be the task's own; None where there is none.
STACK: int | None = getattr(signal, "SIGRTMIN", 0) + 5 if hasattr(signal, "SIGRTMIN") else None
#: A stack is cut to its last so many characters.
_LONGEST_STACK = 4000
#: Where frames of ours come from: the folder of all the rooms.
_WORKERS = os.path.dirname(os.path.dirname(__file__))

#: File times are taken from a clock that ticks a few hundred times a second.
_COARSE = 0.05

#: Kept open as long as the process lives: faulthandler writes to its descriptor.
_crash_files: list[Any] = []


def open_page(board: str, number: int) -> Page:
    """The page of child `number` of the board at `board`, which this process is; it gets the last words from now on."""
    page = Page(page_path(board, number), fresh=True)
    _keep(page, stack_path(board, number))
    return page


def _keep(page: Page, path: str) -> None:
    logging.setLogRecordFactory(_noting(logging.getLogRecordFactory(), page))
    crashes = open(path, "wb", buffering=0)  # noqa: SIM115 (kept open)
    _crash_files.append(crashes)
    if not faulthandler.is_enabled():
        faulthandler.enable(crashes)
    if STACK is not None:
        faulthandler.register(STACK, crashes, all_threads=True, chain=False)


def _noting(make: Any, page: Page) -> Any:
    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made: logging.LogRecord = make(*args, **kwargs)
        # A record that is only being rebuilt (logging.makeLogRecord) has no name yet.
        if made.name:
            with contextlib.suppress(Exception):  # arguments that do not fit the format: logging itself says so
                page.log(_line(made))
        return made

    return record


def _line(record: logging.LogRecord) -> bytes:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" [{type(record.exc_info[1]).__name__}: {record.exc_info[1]}]"
    shown = text.replace("\n", " ⏎ ")
    return f"{record.created:.6f} {record.levelname} {record.name}: {shown}".encode(errors="backslashreplace")


def logged_since(page: Page, moment: float) -> str:
    """What was logged after `moment`, seconds since the epoch, one line each with its local time of day."""
    lines = []
    for line in page.logged():
        at, _, rest = line.decode(errors="replace").partition(" ")
        with contextlib.suppress(ValueError):
            if float(at) >= moment:
                clock = time.strftime("%H:%M:%S", time.localtime(float(at)))
                lines.append(f"{clock}.{at.rpartition('.')[2][:3]} {rest}")
    return "\n".join(lines)


def stack_since(path: str, moment: float) -> str:
    """Where the process was when it last crashed or was asked, after `moment`; empty if neither happened."""
    try:
        if os.stat(path).st_mtime < moment - _COARSE:
            return ""
        with open(path, "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return ""  # it never started, or its folder is gone; there is nothing to tell then
    return _without_ours(text)[-_LONGEST_STACK:].strip()


def _without_ours(text: str) -> str:
    """Of each thread's frames, innermost first, those up to the first one of ours: the rest is the same in every worker."""
    ours, blocks = f'  File "{_WORKERS}', []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        frames = [number for number, line in enumerate(lines) if line.startswith(ours)]
        blocks.append("\n".join(lines[: frames[0]] if frames else lines))
    return "\n\n".join(blocks)
