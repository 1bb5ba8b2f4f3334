"""Sending a call by the task's name, for those who have the app's folder but not its code."""

from __future__ import annotations

from typing import Any

from .app import App
from .home import check_priority, lane_name
from .jobs import Job
from .messages import compose


def send_by_name(
    app: App,
    task: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    queue: str,
    delay: float = 0.0,
    priority: int = 0,
) -> Job[Any]:
    """Put a call into `queue`, which must exist: another name would be one that no worker looks at.

    Whether there is such a task and whether it takes these arguments is seen by the worker; if not, the call ends in the
    dead letters. Raises ValueError, RowError, and what `Queue.put` raises.
    """
    if queue not in app.queue_names():
        raise ValueError(f"the app has no queue {queue!r}; it has: {', '.join(app.queue_names()) or 'none yet'}")
    message = compose(task, args, kwargs)
    sending = app.enqueue_steps.before(message, queue, delay)
    app.queue(lane_name(queue, check_priority(priority))).put(message, delay=delay)
    app.enqueue_steps.after(sending)
    return Job(app, message["id"], task, queue)
