"""What a run of an app is made of: its pools, and from them and the rest of the app its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pistributer import errors

from .app import App
from .execution.consumers import consume
from .execution.producers import produce
from .execution.scheduler import run_schedules
from .execution.worker import work
from .pools import Pool, require_different
from .supervision.autoscaling import Bounds
from .supervision.crew import Part
from .supervision.recycling import Recycle


def plan_pools(app: App, pools: Iterable[Pool] | None, **told: int | None) -> list[Pool]:
    """The pools of a run; `told` are numbers for those that do not say. BootError if one takes from a consumer's queue."""
    given = require_different(_own_pools(app) if pools is None else pools)
    for queue in {queue for pool in given for queue in pool.queues}:
        try:
            app.require_tasks_queue(queue)
        except ValueError as error:
            raise errors.BootError(str(error), hint="leave it out of the pools: its consumer has processes") from None
    return [_complete(pool, told) for pool in given]


def _own_pools(app: App) -> list[Pool]:
    """One for each queue of tasks."""
    return [Pool(queue) for queue in sorted({task.queue for task in app.tasks.values()})]


def _complete(pool: Pool, told: dict[str, int | None]) -> Pool:
    missing = {name: number for name, number in told.items() if getattr(pool, name) is None}
    if pool.processes is not None:
        missing.pop("most", None)  # it has a number of its own, which was not meant to move
    complete = replace(pool, **missing)  # type: ignore[arg-type]
    return complete if complete.processes else replace(complete, processes=_processors())


def parts_of(app: App, source: str, pools: list[Pool], recycle: Recycle) -> list[Part]:
    """The roles of a run. `recycle` is for consumers; pools say it themselves. BootError if there is nothing to run."""

    def part(name: str, target: Callable[..., object], *what: Any, **more: Any) -> Part:
        return Part(name, target, (source, app.url, *what), **more)

    parts = [part(f"producer {name}", produce, name, ends=True) for name in app.producers]
    parts += [
        part(
            pool.role, work, pool, bounds=_bounds(pool), queues=tuple(pool.queues), width=pool.width,
            recycle=Recycle(pool.recycle_jobs, pool.recycle_memory),
        ) for pool in pools
    ]  # fmt: skip
    parts += [
        part(
            f"consumer {it.name}", consume, it.name, bounds=Bounds(it.processes, it.processes), queues=(it.queue,),
            recycle=recycle,
        ) for it in app.consumers.values()
    ]  # fmt: skip
    if app.schedules:
        parts.append(part("scheduler", run_schedules))
    if not parts:
        raise errors.BootError(f"{source!r} has nothing to run", hint="add a task, a producer or a consumer")
    return parts


def _bounds(pool: Pool) -> Bounds:
    least = pool.processes or 1
    return Bounds(least, max(least, pool.most or 0))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
