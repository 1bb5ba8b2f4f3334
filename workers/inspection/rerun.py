"""Running one recorded job again, in this process: for a person with a debugger. The queue and the results stay as they are."""

from __future__ import annotations

import os
import sys
from typing import Any

from pistributer import errors

from ..app import App
from ..execution.calling import Caller
from ..home import Home
from ..hooks import Run
from ..loading import load_app
from ..messages import find_fault
from ..progress import CURRENT
from ..tasks import Task
from .life import find_rows
from .status import read_last_run


class Rerun:
    """The job `id` of the app at `home`, ready to be called again with what it was called with.

    source  where the app's code is, as for `run`; None: where the last supervisor found it

    Raises ResultLost if no row has the job any more, TaskNotFound, and BootError.
    """

    def __init__(self, home: Home, id: str, source: str | None = None) -> None:
        found = [(queue, row) for queue, row in find_rows(home, id) if find_fault(row.value) is None]
        if not found:
            raise errors.ResultLost(
                f"no queue of {home.url} has the job {id!r}",
                hint="jobs that are done are gone, unless their queue retains rows",
                job_id=id,
            )
        self.queue, self.row = found[0]
        self.app = _load(home, source)
        name = self.row.value["task"]
        if name not in self.app.tasks:
            raise errors.TaskNotFound(f"the app has no task {name!r}", hint="name the right file with --app", task=name)
        self.task: Task[..., Any] = self.app.tasks[name]

    @property
    def args(self) -> list[Any]:
        return list(self.row.value.get("args", []))

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.row.value.get("kwargs", {}))

    def call(self) -> Any:
        """What the task returns, or raises. No retries and no time limits; hooks are not called."""
        run = Run(self.row.value["id"], self.task, self.row.value, self.row.attempt + 1, self.task.policy)
        caller = Caller()
        before = CURRENT.set(run)
        try:
            return caller.plain(self.task.function)(*self.args, **self.kwargs)
        finally:
            CURRENT.reset(before)
            caller.close()

    def settle(self, value: Any) -> None:
        """Keep `value` as the job's result, and drop its dead letter: in this order, so that a kill between loses neither.

        ValueError if the job is no dead letter: a worker may be about to run it.
        """
        if self.row.state != "dead":
            raise ValueError(f"the job is {self.row.state}, and only a dead letter can be settled from here")
        log = self.app.open_result_log()
        try:
            log.add(self.row.value["id"], value, task=self.task.name, attempts=self.row.attempt + 1)
            log.flush()
            self.app.queue(self.queue).drop_dead([self.row.id])
        finally:
            log.close()


def _load(home: Home, source: str | None) -> App:
    if source is None:
        run = read_last_run(home.run)
        if run is None:
            raise errors.BootError(
                f"nobody has run the app of {home.url!r} yet", hint="say where its code is: --app app.py"
            )
        source = _as_it_was(str(run["app"]), str(run["cwd"]))
    app = load_app(source)
    if app.url != home.url:
        raise errors.BootError(
            f"{source!r} is the app of {app.url!r}, not of {home.url!r}", hint="name the right file with --app"
        )
    return app


def _as_it_was(source: str, folder: str) -> str:
    """What `source` meant in the working directory `folder`."""
    place, _, _ = source.rpartition(":")
    if (place or source).endswith(".py") or os.sep in source:
        return os.path.join(folder, source)
    sys.path.insert(0, folder)
    return source
