"""A run whose processes are sent signals while a job of some kind runs, and what must hold when it is over.

The jobs wait for the file `calm`, so each signal meets them in the middle; what they do is in the notes that they leave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from pistributer.storage.locks import is_held
from pistributer.workers.inspection.status import AppStatus, WorkerStatus, read_status
from pistributer.workers.loading import load_app
from pistributer.workers.run import run
from tests.worker_tools import RunningApp, app_url, marked, notes, wait_for, write_app

Victim = Literal["supervisor", "worker", "producer", "fork server"]
Kind = Literal["waits", "exits", "forks", "eats"]

ROWS = 20
QUICK = 6

APP = """
import resource

def wait_for_calm():
    for _ in range(12_000):
        if (HERE / "calm").exists():
            return
        time.sleep(0.005)

def begin(n):
    note("begun", f"{n} {os.getpid()}")

class Up(Hook):
    def on_start(self, role):
        note("up", role)

app.add_hook(Up())

@app.task
def quick(n):
    note("ended", n)

@app.task
def waits(n):
    begin(n)
    wait_for_calm()
    note("ended", n)

@app.task
def exits(n):
    begin(n)
    os._exit(3)

@app.task
def forks(n):
    if os.fork() == 0:
        note("grandchildren", os.getpid())
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        over = time.monotonic() + 300
        while time.monotonic() < over and not (HERE / "over").exists():
            time.sleep(0.05)
        os._exit(0)
    begin(n)
    wait_for_calm()
    note("ended", n)

@app.task
def eats(n):
    begin(n)
    page = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (page + 64_000_000, limits[1]))
    try:
        eaten = []
        while True:
            eaten.append(bytearray(1_000_000))
    finally:
        eaten.clear()
        resource.setrlimit(resource.RLIMIT_AS, limits)

@app.producer(queue="rows")
def rows(checkpoint):
    for n in range(checkpoint or 0, 20):
        if n == 10:
            note("halfway", os.getpid())
            wait_for_calm()
        yield str(n), n + 1

@app.consumer("rows")
def collect(row):
    note("collected", row)
"""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Scene:
    """An app, its jobs, and one run after the other. At the end of `with` nothing of it lives any more."""

    def __init__(self, folder: Path, driver: str, *, grace: float) -> None:
        self.folder = folder
        self.url = app_url(folder, driver)
        self.path = write_app(folder, APP, self.url)
        self.home = load_app(str(self.path)).home
        self.mark = uuid.uuid4().hex
        self.grace = grace
        self.sent: set[int] = set()
        self._running: list[RunningApp] = []

    def start(self, start_method: str = "forkserver") -> RunningApp:
        self._running.append(RunningApp(self.path, self.mark, processes=2, grace=self.grace, start_method=start_method))
        return self._running[-1]

    @property
    def supervisor(self) -> RunningApp:
        return self._running[-1]

    def send(self, kind: Kind) -> int:
        """A job of this kind between quick ones; its number, once it has begun."""
        app = load_app(str(self.path))
        number = QUICK
        self.sent = set(range(number + 1))
        app.tasks["quick"].send_many((n,) for n in range(number // 2))
        app.tasks[kind].send(number)
        app.tasks["quick"].send_many((n,) for n in range(number // 2, number))
        app.close()
        wait_for(lambda: self.begun(number))
        return number

    def begun(self, number: int) -> list[int]:
        """The processes in which this job began, one after the other."""
        lines = [line.split() for line in notes(self.folder, "begun")]
        return [int(pid) for n, pid in lines if int(n) == number]

    def calm(self) -> None:
        """Let everything that waits go on."""
        (self.folder / "calm").touch()

    # -- signals

    def strike(self, victim: Victim, number: int) -> int:
        """Send the signal; to whom it went."""
        pid = self.pid_of(victim)
        os.kill(pid, number)
        return pid

    def pid_of(self, victim: Victim) -> int:
        """The process of that kind; among the workers, the one that runs the job if there is one."""
        if victim == "supervisor":
            return self.supervisor.process.pid
        if victim == "fork server":
            return parent_of(self.pid_of("worker"))
        return wait_for(lambda: self._living(victim))[0]

    def _living(self, role: str) -> list[int]:
        found = [it for it in self.workers() if it.role.startswith(role) and it.alive]
        return [it.pid for it in sorted(found, key=lambda it: it.task not in get_args(Kind))]

    def workers(self) -> list[WorkerStatus]:
        return self.status().workers

    def status(self) -> AppStatus:
        return read_status(self.url)

    def wait_until_up(self) -> None:
        """All processes are there, and the producer is in the middle of its rows."""
        # The status is not asked before, because it takes the supervisor's lock for an instant if nobody holds it.
        wait_for(lambda: notes(self.folder, "up").count("worker default") == 2 * len(self._running))
        wait_for(lambda: notes(self.folder, "halfway"))
        wait_for(lambda: len(self._living("worker")) == 2)

    # -- the end

    def assert_settled(self) -> None:
        """No process is left, no lock is held, nothing is claimed, and each job is done, dead or waiting."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self._left_over())
        left = self._left_over()
        assert not left, f"processes left behind: {left}"
        files = [str(path) for path in self.folder.rglob("*") if path.is_file()]
        held = [path for path in files if is_held(path)]
        assert not held, f"locks still held: {held}"
        status = self.status()
        assert (status.running, status.workers) == (False, [])
        assert [queue.stats.claimed for queue in status.queues] == [0] * len(status.queues)
        assert [queue.stats.quarantined for queue in status.queues] == [0] * len(status.queues)
        assert self.ended().keys() | self.numbers("ready", "delayed") | self.numbers("dead") == self.sent

    def _left_over(self) -> dict[int, str]:
        """What still runs, but for what jobs have forked off."""
        own = {int(pid) for pid in notes(self.folder, "grandchildren")}
        return {pid: command for pid, command in marked(self.mark).items() if pid not in own}

    def assert_drains(self) -> None:
        """What was given back comes again: every job ends or is buried, every row arrives."""
        self.calm()
        outcome = run(str(self.path), processes=2, until_empty=True, on_event=lambda said: None)
        assert outcome.reason == "drained"
        assert self.ended().keys() | self.numbers("dead") == self.sent
        assert not self.ended().keys() & self.numbers("dead")
        assert {int(row) for row in notes(self.folder, "collected")} == set(range(ROWS))

    def ended(self) -> Counter[int]:
        """How often each job came to its end."""
        return Counter(map(int, notes(self.folder, "ended")))

    def collected(self) -> Counter[int]:
        return Counter(map(int, notes(self.folder, "collected")))

    def numbers(self, *states: Any) -> set[int]:
        """The jobs in these states."""
        app = load_app(str(self.path))
        try:
            return {row.value["args"][0] for row in app.queue().scan(*states)}
        finally:
            app.close()

    def why_dead(self) -> list[str]:
        app = load_app(str(self.path))
        try:
            return [row.error or "" for row in app.queue().scan("dead")]
        finally:
            app.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.__exit__()
            if error is not None:
                print(running.output())
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self.folder / "over").touch()  # for what jobs forked off under a supervisor of our own, which has no mark
