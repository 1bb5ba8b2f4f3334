"""What the scheduler's process does: put scheduled calls into their queues when they are due.

Each schedule is a source (`Queue.source`): the moment is committed in one step with the call. So each moment is run once,
however often this process is killed and however many supervisors there are, and what was missed meanwhile is known.
"""

from __future__ import annotations

import time
from typing import Any

from pistributer import errors
from pistributer.queues.contract import Source

from ..app import App
from ..home import split_lane
from ..messages import Call
from ..schedules import Schedule
from ..supervision.board import Desk
from ..supervision.child import Child
from .loop import leave
from .producers import WAIT_FOR_ROOM, admit_once, wait_for_room
from .worker import load_checked

#: Longest sleep, in seconds: somebody may set the clock.
_LONGEST_SLEEP = 10.0
#: Seconds between two tries to get a schedule that another supervisor's process has, or its last one is about to let go.
_TRY_AGAIN = 0.25


def run_schedules(child: Child, source: str, url: str, board: str, slot: int) -> None:
    """The role of the scheduler's process, until told to stop."""
    app = load_checked(source, url)
    desk = Desk(board, slot + child.index)
    for hook in app.hooks:
        hook.on_start(child.role)
    child.ready()
    try:
        entries = [Entry(child, app, schedule, desk) for schedule in app.schedules.values()]
        while not child.stop_requested():
            wake_at = min(entry.run(time.time()) for entry in entries)
            child.wait_stop(min(max(0.0, wake_at - time.time()), _LONGEST_SLEEP))
        for hook in app.hooks:
            hook.on_stop(child.role)
    finally:
        leave(app.close)


class Entry:
    """One schedule, and how far it has come."""

    def __init__(self, child: Child, app: App, schedule: Schedule, desk: Desk) -> None:
        self._child, self._app, self._schedule, self._desk = child, app, schedule, desk
        self._steps = app.enqueue_steps
        self._source: Source | None = None
        self._next = 0.0

    def run(self, now: float) -> float:
        """Put what is due, and say when to come again."""
        source = self._source or self._take()
        if source is None:
            return now + _TRY_AGAIN
        if now >= self._next:
            for moment in self._schedule.due(source.checkpoint, now):
                if not self._put(source, moment):
                    return now
            self._next = next(self._schedule.following(max(now, source.checkpoint)), now + _LONGEST_SLEEP)
        return self._next

    def _take(self) -> Source | None:
        """Each schedule by itself: another supervisor may have some of them and not others."""
        try:
            self._source = self._app.queue(self._schedule.queue).source(f"schedule.{self._schedule.name}")
        except errors.SourceBusy:
            return None
        if self._source.checkpoint is None:
            self._source.commit(self._app.now())  # a new schedule has missed nothing
        return self._source

    def _put(self, source: Source, moment: float) -> bool:
        """False if a stop was requested while the queue was full."""
        call = self._call()
        if call.wish is not None:
            return self._admit(source, call, moment)
        sending = self._steps.before(call.message, split_lane(call.queue)[0])
        put = wait_for_room(self._child, lambda: source.put(call.message, checkpoint=moment, timeout=WAIT_FOR_ROOM))
        if put:
            self._steps.after(sending)
            self._desk.count(put=1)
        return put

    def _call(self) -> Call[Any]:
        task = self._app.tasks[self._schedule.task]
        return task.call(*self._schedule.args, **self._schedule.kwargs)

    def _admit(self, source: Source, call: Call[Any], moment: float) -> bool:
        """The same for a unique call, which goes by way of the tickets."""
        place = f"schedule\n{self._schedule.name}\n{moment}"
        sent = admit_once(self._child, self._app, call, place, lambda: source.commit(moment))
        if sent is None:
            return False
        self._desk.count(put=sent)
        return True
