"""Following what ends: the results and histories of an app, as their lines come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ..home import Home
from ..segment_log import Follower

#: Between two looks, in seconds. Polled, because to ring a bell would cost each worker for a reader who is hardly ever there.
_PAUSE = 0.2


def follow(
    home: Home, *, wanted: Callable[[dict[str, Any]], bool], last: int = 0, stop: Callable[[], bool] = lambda: False
) -> Iterator[dict[str, Any]]:
    """Events that are `wanted` as they come, until `stop()`; first the `last` ones that are there.

    Each is a dict with `id`, `what` ("done", "retried", "failed", "snoozed", "cancelled", "died"), `task`, `at`, and what a
    result or an attempt has besides. A job that failed for good is told once, by its history.
    """
    followers = [Follower(home.results), Follower(home.history)]
    if last:
        yield from _new(followers, wanted)[-last:]
    else:
        for follower in followers:
            follower.skip()
    while not stop():
        yield from _new(followers, wanted)
        time.sleep(_PAUSE)


def _new(followers: list[Follower], wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    found = (_event(orjson.loads(line)) for follower in followers for _, _, _, line in follower.lines())
    return sorted(
        (event for event in found if event is not None and wanted(event)), key=lambda event: float(event["at"] or 0.0)
    )


def _event(line: dict[str, Any]) -> dict[str, Any] | None:
    if "what" in line:
        return None if line["what"] == "progress" else line
    event = {"id": line["id"], "what": "done", "task": line.get("task"), "at": line.get("at")} | line
    if line["ok"]:
        return event
    # Its history tells of it, unless no attempt did it: the worker died once too often, or it was called off before.
    told = line["kind"] not in ("WorkerDied", "TaskNotFound") and line.get("traceback")
    return None if told else event | {"what": "cancelled" if line["kind"] == "Cancel" else "failed"}
