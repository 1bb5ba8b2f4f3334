"""What a producer's process does: put what its generator yields where it belongs.

Each row is put as it comes: holding some back to put them together would keep a row of a slow source waiting for the
next. A put waits while its queue is full (`max_rows`, `max_bytes`), so a fast source is held up and disk and memory
stay flat.

A producer that takes its checkpoint yields `(what, checkpoint)` pairs, and its rows are put with their checkpoints
(checkpoints.py). A call of a unique task goes by way of the tickets, which are another file: it is admitted under the name of
its place, so that it is known if it comes again because its checkpoint was not committed.

Of several supervisors, one runs a producer; the others wait for its turn (turns.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pistributer import errors

from ..app import App
from ..checkpoints import Checkpoints
from ..declarations import Producer
from ..home import split_lane
from ..messages import Call
from ..supervision.board import Desk
from ..supervision.child import Child
from ..tickets.gate import is_gated
from ..tickets.wishes import Answer
from .loop import leave
from .turns import its_turn
from .worker import load_checked

#: Seconds that a put waits for room before it looks whether to stop.
WAIT_FOR_ROOM = 0.2


def produce(child: Child, source: str, url: str, name: str, board: str, slot: int) -> None:
    """The role of a producer's process: to the end of its generator, or until told to stop."""
    app = load_checked(source, url)
    producer = app.producers[name]
    desk = Desk(board, slot + child.index)
    for hook in app.hooks:
        hook.on_start(child.role)
    child.ready()
    try:
        with its_turn(child, app.home.run, name, board) as turn:
            if turn is not None and pump(child, app, producer, desk):
                turn.is_done()
        for hook in app.hooks:
            hook.on_stop(child.role)
    finally:
        leave(app.close)


def pump(child: Child, app: App, producer: Producer, desk: Desk) -> bool:
    """Put what it yields. False if it was told to stop before the end."""
    checkpoints = Checkpoints(app, producer.name, child.wait_stop) if producer.resumes else None
    generator, put = _begin(child, app, producer, checkpoints)
    try:
        while not child.stop_requested():
            try:
                yielded = next(generator)
            except StopIteration:
                return True
            if put(yielded):
                desk.count(put=1)
        return False
    finally:
        close = getattr(generator, "close", None)
        if close is not None:
            close()
        if checkpoints is not None:
            checkpoints.close()


def _begin(
    child: Child, app: App, producer: Producer, checkpoints: Checkpoints | None
) -> tuple[Iterator[Any], Callable[[Any], bool]]:
    """The producer's generator, and what to do with what it yields: put it, or return False if nothing was put, because a stop
    was requested or an equal call is pending.
    """
    if checkpoints is None:
        return producer.function(), lambda yielded: _put(child, app, producer, yielded)

    def put(yielded: Any) -> bool:
        if not isinstance(yielded, tuple) or len(yielded) != 2:
            raise errors.BadCall(
                f"the producer {producer.name} takes a checkpoint, and yielded {yielded!r:.100} without one",
                hint="yield (what, checkpoint)",
            )
        queue, row = route(producer, yielded[0])
        if isinstance(yielded[0], Call) and yielded[0].wish is not None:
            call, place = yielded[0], checkpoints.place
            return bool(admit_once(child, app, call, place, lambda: checkpoints.commit(yielded[1], call.queue)))
        return _announced(
            app, yielded[0],
            lambda: wait_for_room(child, lambda: checkpoints.put(queue, row, yielded[1], timeout=WAIT_FOR_ROOM)),
        )  # fmt: skip

    return producer.function(checkpoints.checkpoint), put


def route(producer: Producer, yielded: Any) -> tuple[str, Any]:
    """The queue and the row that a producer means by what it yielded. Raises BadCall if that can not be told."""
    if isinstance(yielded, Call):
        return yielded.queue, yielded.message
    if producer.queue is not None:
        return producer.queue, yielded
    if isinstance(yielded, tuple) and len(yielded) == 2 and isinstance(yielded[0], str):
        return yielded
    raise errors.BadCall(
        f"the producer {producer.name} yielded {yielded!r:.100}, which names no queue",
        hint="yield task.call(…) or (queue, row), or declare it with @app.producer(queue=…)",
    )


def _put(child: Child, app: App, producer: Producer, yielded: Any) -> bool:
    queue, row = route(producer, yielded)
    if isinstance(yielded, Call) and is_gated(yielded, row):
        wish = app.gate.wish_of(row, yielded)
        return bool(admit(child, app, yielded, lambda: app.gate.send(queue, row, 0.0, wish, WAIT_FOR_ROOM)))
    return _announced(
        app, yielded, lambda: wait_for_room(child, lambda: app.queue(queue).put(row, timeout=WAIT_FOR_ROOM))
    )


def admit_once(child: Child, app: App, call: Call[Any], place: str, commit: Callable[[], object]) -> bool | None:
    """`admit` a call under the name of its place, then `commit()` its checkpoint, which is in another file.

    Killed in between, the next process asks for the same place, and is told that the call was admitted.
    """
    sent = admit(child, app, call, lambda: app.gate.send_next(call, place, WAIT_FOR_ROOM))
    if sent is not None:
        commit()
        app.gate.forget_id(call.message["task"], place)
    return sent


def admit(child: Child, app: App, call: Call[Any], send: Callable[[], Answer]) -> bool | None:
    """Send a call by way of the tickets. Whether it was to be sent, as they found; None if a stop was requested meanwhile."""
    sending = app.enqueue_steps.before(call.message, split_lane(call.queue)[0])
    answers: list[Answer] = []
    if not wait_for_room(child, lambda: answers.append(send())):
        return None
    is_sent = answers[0].job == call.id
    if is_sent:
        app.enqueue_steps.after(sending)
    return is_sent


def _announced(app: App, yielded: Any, put: Callable[[], bool]) -> bool:
    """Put, with the hooks' steps around it if what was yielded is a call."""
    if not (app.enqueue_steps and isinstance(yielded, Call)):
        return put()
    sending = app.enqueue_steps.before(yielded.message, split_lane(yielded.queue)[0])
    done = put()
    if done:
        app.enqueue_steps.after(sending)
    return done


def wait_for_room(child: Child, put: Callable[[], object]) -> bool:
    """Put, again while the queue is full. False if a stop was requested meanwhile, and nothing was put."""
    while True:
        try:
            put()
        except errors.QueueFull:
            if child.stop_requested():
                return False
        else:
            return True
