"""`pistributer tail`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from . import exits, terminal

_FAILED = frozenset({"failed", "died", "retried"})
_COLORS = {"done": "green", "failed": "red", "died": "red", "retried": "yellow"}


@click.command(epilog=exits.TABLE)
@click.argument("app", required=False)
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option("--failed", is_flag=True, help="Only attempts that failed, or whose worker died.")
@click.option(
    "-n", "--last", type=click.IntRange(0), default=0, metavar="N", help="Begin with the last N that are there."
)
@click.option("--no-follow", is_flag=True, help="End after those.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def tail(app: str | None, task: str | None, failed: bool, last: int, no_follow: bool, as_json: bool) -> None:
    """Follow what ends: one line per job that is done and per attempt that failed, as they come.

    APP is the app's folder, or sqlite:FILE; without it, the working directory or the only app in it. Jobs that went well
    are seen if their task keeps results, in the app's own logs.

    \b
    Examples:
      pistributer tail jobs/
      pistributer tail jobs/ --failed --task resize
      pistributer tail jobs/ -n 100 --no-follow --json
    """
    from ..workers.inspection.life import open_home
    from ..workers.inspection.tail import follow

    def wanted(event: dict[str, Any]) -> bool:
        return task in (None, event.get("task")) and (not failed or event["what"] in _FAILED)

    for event in follow(open_home(app), wanted=wanted, last=last, stop=lambda: no_follow):
        terminal.print_line(json.dumps(event, ensure_ascii=False) if as_json else _line(event))


def _line(event: dict[str, Any]) -> str:
    what = event["what"]
    ran = terminal.human_time(event["seconds"]) if event.get("seconds") else ""
    if what == "done":
        said = json.dumps(event["value"], ensure_ascii=False)
    else:
        said = f"{event.get('kind') or ''}: {event.get('text') or ''}".strip(": ")
    clock = time.strftime("%H:%M:%S", time.localtime(event["at"])) if event.get("at") else ""
    colored = click.style(f"{what:<9}", fg=_COLORS.get(what))
    head = f"{clock}  {colored}  {event.get('task') or '':<12}  {event['id']}  {ran:>7}  "
    return head + terminal.clip(said, max(20, terminal.columns() - 65))
