"""The life of one job, as its app's folder tells it. Needs neither the app's code nor a running worker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from pistributer import errors
from pistributer.queues.contract import Row
from pistributer.queues.opening import open_queue

from ..app import App
from ..cancelling import CalledOff
from ..history import Attempt, read_attempts, read_progress, row_id
from ..home import Home
from ..results import Finished, ResultReader
from ..supervision.pages import JobProgress
from ..tickets.gate import Held
from .status import WorkerStatus, read_workers

State = Literal["queued", "delayed", "held", "running", "dead", "done", "failed", "cancelled", "ended"]


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of one job, or of a row that is no job.

    state  where it is now. "held": it waits for others of its key, or that it follows from. "failed": for good, and its dead
           letter is gone; "ended": so much is known, but not how
    """

    id: str
    #: Its queue, and its row there while it has one.
    queue: str | None
    row: Row | None
    task: str | None
    state: State
    #: What it was called with: the message of its row.
    message: Any
    attempts: list[Attempt]
    progress: JobProgress | None
    result: Finished | None
    #: Who runs it at this moment.
    worker: WorkerStatus | None
    #: Whether a supervisor is running.
    served: bool


def open_home(url: str | os.PathLike[str] | None = None) -> Home:
    """The app at `url`; without one, the working directory or the only app in it. FolderMissing if there is none."""
    if url is not None:
        home = Home(url)
        if home.exists():
            return home
        raise errors.FolderMissing(
            f"there is no app at {home.url!r}", hint="give the folder of an app", path=home.folder
        )
    here = Home(".")
    if here.exists():
        return here
    found = [app for name in sorted(os.listdir(".")) if os.path.isdir(name) and (app := _app_in(name)) is not None]
    if len(found) == 1:
        return found[0]
    names = ", ".join(os.path.relpath(app.url) for app in found)
    hint = f"say which: {names}" if found else "give the folder of an app"
    raise errors.FolderMissing(f"the working directory holds {len(found) or 'no'} apps", hint=hint, path=here.folder)


def _app_in(folder: str) -> Home | None:
    database = folder.removesuffix(".app")
    if folder != database and os.path.exists(database):
        return Home(f"sqlite:{database}")
    home = Home(folder)
    return home if home.exists() else None


def find_lives(home: Home, id: str) -> list[Life]:
    """All that goes by `id`: one job, or the rows of that id in several queues. Reads the queues and the history."""
    found: list[tuple[str | None, Row | None]] = [*find_rows(home, id)]
    lives = [_life(home, id, queue, row) for queue, row in found or [(None, None)]]
    return [life for life in lives if life is not None]


def find_rows(home: Home, id: str) -> list[tuple[str, Row]]:
    """The rows of that id, or of the job of that id, in all queues."""
    found: dict[tuple[str, str], Row] = {}
    for name in home.queue_names():
        for lane in home.lanes_of(name):
            with open_queue(home.queue_url(lane), create=False) as queue:
                for row in queue.scan("ready", "claimed", "delayed", "dead", "retained"):
                    # In files, rows of all states stay for a while where they were put, and are "retained" there.
                    if (row.id == id or _job_of(row) == id) and (
                        row.state != "retained" or (lane, row.id) not in found
                    ):
                        found[lane, row.id] = row
    return [(lane, row) for (lane, _), row in found.items()]


def _job_of(row: Row) -> str | None:
    """The id of the job whose message the row is."""
    is_message = isinstance(row.value, dict) and isinstance(row.value.get("task"), str)
    return str(row.value.get("id")) if is_message else None


def _life(home: Home, id: str, queue: str | None, row: Row | None) -> Life | None:
    job = id if row is None else _job_of(row)
    message = None if row is None else row.value
    result = None if job is None else ResultReader(home.results).find(job)
    called = job if job is not None else row_id(str(queue), id)
    attempts = read_attempts(home.history, called, result)
    progress = read_progress(home, called)
    held = None if job is None or result is not None else _find_held(home, job)
    if row is None and not attempts and result is None and progress is None and held is None:
        return None
    supervisors, workers = read_workers(home)
    worker = next((it for it in workers if it.alive and any(run.job == (job or id) for run in it.running)), None)
    state = _state(home, job, row, attempts, result, worker, held)
    task = message.get("task") if isinstance(message, dict) else None
    return Life(job or id, queue, row, task, state, message, attempts, progress, result, worker, bool(supervisors))


def _find_held(home: Home, job: str) -> Held | None:
    app = App(home.url)
    try:
        return app.gate.find(job)
    finally:
        app.gate.close()


def _state(
    home: Home, job: str | None, row: Row | None, attempts: list[Attempt], result: Finished | None,
    worker: WorkerStatus | None, held: Held | None,
) -> State:  # fmt: skip
    if worker is not None:
        return "running"
    if row is not None and row.state == "dead":
        return "dead"
    if row is not None and row.state != "retained" and result is None:
        if job is not None and row.state != "claimed" and job in CalledOff(home.run).read():
            return "cancelled"
        return "delayed" if row.state == "delayed" else "queued"
    if result is not None:
        return "done" if result.ok else "cancelled" if result.kind == "Cancel" else "failed"
    if held is not None:
        return "held" if held.off is None else "cancelled"
    last = attempts[-1].what if attempts else None
    return "cancelled" if last == "cancelled" else "failed" if last == "failed" else "ended"


def next_step(life: Life) -> str:
    """What will happen to it, or what can be done."""
    match life.state:
        case "queued":
            return "a worker takes it" if life.served else "none, until the app is run: `pistributer run` with its file"
        case "held":
            return "those that it waits for end"
        case "delayed":
            return "it falls due" if life.served else "it falls due, and nobody runs the app: `pistributer run`"
        case "dead":
            return f"`pistributer dead retry` puts it back, `pistributer rerun {life.id}` runs it here and now"
        case "running":
            return "it ends"
        case _:
            return "none: it is over"
