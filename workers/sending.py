"""Sending a call by the task's name, for those who have the app's folder but not its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .app import App
from .checks import at_least
from .home import check_priority, lane_name, split_lane
from .jobs import Job
from .messages import compose
from .terms import AS_TASK, AsTask, chosen, results_wanted
from .tickets.rates import RateLimit
from .tickets.wishes import Wish, ticket_key


def send_by_name(
    app: App,
    task: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    queue: str,
    delay: float = 0.0,
    priority: int = 0,
    key: str | None = None,
    idempotency_id: str | None = None,
    tags: Sequence[str] = (),
    retries: int | None = None,
    soft_time_limit: float | AsTask | None = AS_TASK,
    hard_time_limit: float | AsTask | None = AS_TASK,
    results: bool | float | None = None,
    rate_limit: RateLimit | str | AsTask | None = AS_TASK,
) -> Job[Any]:
    """Put a call into `queue`, which must exist: another name would be one that no worker looks at.

    Whether there is such a task and whether it takes these arguments is seen by the worker; if not, the call ends in the
    dead letters. A key that is given here lets one of its jobs run at once, whatever the task's `key_limit`; one that is not
    is found by the worker, if the task says how. `retries` and what follows are as for
    `Task.options`. Raises ValueError, RowError, and what `Queue.put` raises.
    """
    if queue not in app.queue_names():
        raise ValueError(f"the app has no queue {queue!r}; it has: {', '.join(app.queue_names()) or 'none yet'}")
    message = compose(task, args, kwargs)
    if tags:
        message["tags"] = list(tags)
    if retries is not None:
        message["retries"] = at_least(0, "retries", retries)
    if options := chosen(soft_time_limit, hard_time_limit, results, rate_limit):
        message["options"] = options
    kept = results_wanted(message)
    sending = app.enqueue_steps.before(message, queue, delay)
    lane, id = lane_name(queue, check_priority(priority)), message["id"]
    if key is None and idempotency_id is None:
        app.queue(lane).put(message, delay=delay)
    else:
        message |= {} if key is None else {"key": key, "ticket": 0}
        answer = app.gate.send(lane, message, delay, Wish(ticket_key(task, key), idempotency_id=idempotency_id))
        id, queue = answer.job, split_lane(answer.queue)[0]
    if id == message["id"]:
        app.enqueue_steps.after(sending)
    return Job(app, id, task, queue, kept)
