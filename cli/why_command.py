"""`pistributer why`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from . import exits, terminal

if TYPE_CHECKING:
    from ..workers.history import Attempt
    from ..workers.inspection.life import Life


@click.command(epilog=exits.TABLE)
@click.argument("id")
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def why(id: str, app: str | None, as_json: bool) -> None:
    """Tell the life of one job: where it is, each attempt with its error or cause of death, and what comes next.

    ID is that of the job, or of a row. APP is the app's folder, or sqlite:FILE; without it, the working directory or the
    only app in it. The app's code is not imported, and nothing has to run.

    \b
    Examples:
      pistributer why 5f0c2a9be1d34c7788aa0012
      pistributer why 5f0c2a9be1d34c7788aa0012 jobs/ --json
    """
    from ..workers.inspection.life import find_lives, open_home

    home = open_home(app)
    lives = find_lives(home, id)
    if not lives:
        exits.fail(f"nothing is known of {id!r} in {home.url}", hint="it went well without a result, or it has expired")
    if as_json:
        terminal.print_json([_document(life) for life in lives] if len(lives) > 1 else _document(lives[0]))
        return
    for life in lives:
        _print(life)


def _document(life: Life) -> dict[str, object]:
    from ..workers.inspection.life import next_step

    return asdict(life) | {"next": next_step(life)}


def _print(life: Life) -> None:
    from ..workers.inspection.life import next_step

    details = {
        "id": life.id,
        "task": life.task or "",
        "queue": life.queue or "",
        "message": json.dumps(life.message, ensure_ascii=False) if life.message is not None else "",
        "now": _now(life),
        "progress": terminal.progress_text(life.progress) if life.progress else "",
        "result": _result(life),
        "next": next_step(life),
    }
    for name, value in details.items():
        if value:
            terminal.print_line(f"{name:<9} {terminal.clip(value, max(20, terminal.columns() - 10))}")
    for attempt in life.attempts:
        _print_attempt(attempt)


def _now(life: Life) -> str:
    if life.worker is not None:
        since = f" for {terminal.human_time(time.time() - life.worker.since)}" if life.worker.since else ""
        return f"running in {life.worker.role}[{life.worker.index}], process {life.worker.pid}{since}"
    if life.row is not None and life.row.due is not None and life.state == "delayed":
        return f"delayed, due {terminal.ago(life.row.due)}"
    moment = life.result.at if life.result is not None else life.row.at if life.row is not None else None
    return f"{life.state}, {terminal.ago(moment)}" if moment else life.state


def _result(life: Life) -> str:
    if life.result is None:
        return ""
    if life.result.ok:
        return json.dumps(life.result.value, ensure_ascii=False)
    return f"{life.result.kind}: {life.result.text}".rstrip(": ")


def _print_attempt(attempt: Attempt) -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.at)) if attempt.at else ""
    ran = f"after {terminal.human_time(attempt.seconds)}" if attempt.seconds is not None else ""
    process = f"process {attempt.pid}" if attempt.pid else ""
    head = "  ".join(part for part in (f"attempt {attempt.number}", attempt.what, when, ran, process) if part)
    terminal.print_line(f"\n{head}")
    again = f"; again in {terminal.human_time(attempt.again_in)}" if attempt.again_in is not None else ""
    error = f"{attempt.kind}: {attempt.text}".strip(": ") + again
    death = attempt.death
    for title, text in (
        ("", f"the worker {error}" if attempt.what == "died" else error),
        ("logged", death.log if death else ""),
        ("was at", death.stack if death else ""),
        ("", attempt.traceback),
    ):
        for number, line in enumerate(text.rstrip().splitlines()):
            terminal.print_line(f"  {title if number == 0 else '':<{len(title)}} {line}" if title else f"  {line}")
