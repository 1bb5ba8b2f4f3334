"""The chaos run: a whole app at work, and at random one of its processes after the other killed, the supervisor included.

Beside what users do themselves (a supervisor that is killed is started again) nothing helps: no pause, no repair. After the
storm the producers come to an end, what is left is done, and a ledger that the queue knows nothing of is judged.

`run_chaos` is the whole of it; app.py is what runs, oracle.py the judge.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil

from pistributer.storage.locks import is_held

from ..inspection.status import read_status
from .app import enough, ledger_folder
from .oracle import Verdict, judge

#: Seconds without a new line in the ledger after which the run is given up, and that the last processes may take to leave.
_STALL = 60.0
#: So many troubles are enough: the run is ended and judged as it stands.
_MOST_TROUBLES = 5
#: How often is looked whether it is over, in seconds.
_LOOK = 0.05

_APP = """from pathlib import Path

from pistributer.workers.chaos.app import make_app

app = make_app(Path(__file__).parent, {url!r}, {producers})
"""


@dataclass(frozen=True, slots=True)
class Storm:
    """What to run, and how it is treated. Raises ValueError for what makes no sense."""

    driver: str = "jsonl"
    #: How long processes are killed, and the pause between two kills.
    seconds: float = 10.0
    every: float = 0.05
    producers: int = 4
    workers: int = 4
    #: Of the choice of victims.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.driver not in ("jsonl", "txt", "sqlite"):
            raise ValueError(f"an app keeps its queues in jsonl, txt or sqlite, not in {self.driver!r}")
        if min(self.producers, self.workers) < 1 or self.seconds < 0 or self.every <= 0:
            raise ValueError("a chaos run needs a producer, a worker, and a pause between kills")


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left when all is over; all of it should be nothing."""

    processes: int
    held_locks: int
    claimed: int
    #: Ready or delayed.
    waiting: int
    dead: int
    quarantined: int

    @property
    def ok(self) -> bool:
        return not any(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Report:
    storm: Storm
    verdict: Verdict
    remains: Remains
    #: How many of each kind were killed.
    kills: dict[str, int]
    #: From the start to the end of the storm, and to the end of all work.
    storm_seconds: float
    seconds: float
    #: What went wrong beside: how a supervisor ended by itself, that the run stalled.
    troubles: list[str]
    #: Where everything lies, if it is kept.
    folder: str | None

    @property
    def ok(self) -> bool:
        return self.verdict.ok and self.remains.ok and not self.troubles

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """For people."""
        storm, verdict, remains = self.storm, self.verdict, self.remains
        killed = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items(), key=lambda it: -it[1]))
        return [
            f"{storm.driver}: {storm.producers} producers and {storm.workers} workers for {self.storm_seconds:.0f} s, "
            f"a process killed every {storm.every * 1000:.0f} ms, unless all are starting",
            f"killed     {sum(self.kills.values())}: {killed or 'nobody'}",
            f"rows       {verdict.put:,} put, {verdict.lost:,} lost, {verdict.doubled:,} doubled, "
            f"{verdict.repeated:,} done again because a killed worker held them",
            f"attempts   {verdict.attempts:,} begun, and {verdict.unseen:,} counted whose worker was killed before its first "
            f"line; {verdict.killed_workers:,} workers did not leave in good order",
            f"left over  {remains.processes} processes, {remains.held_locks} held locks, {remains.claimed} claimed, "
            f"{remains.waiting} waiting, {remains.dead} dead letters, {remains.quarantined} quarantined",
            *(f"trouble    {text}" for text in self.troubles),
            *([f"kept       {self.folder}"] if self.folder else []),
            f"{'every row accounted for' if self.ok else 'FAILED'}, after {self.seconds:.1f} s",
        ]


def run_chaos(
    storm: Storm, *, folder: Path | None = None, on_progress: Callable[[float, int], object] | None = None
) -> Report:
    """Run `storm` and judge it.

    folder       where the app and the ledger go; it is made and kept, and must be empty. None: a temporary folder, which
                 is removed unless something failed (`Report.folder` says where it is then).
    on_progress  called about 20 times a second with the seconds since the start and the number of kills

    Raises FileExistsError for a folder that is not empty. Losing rows raises nothing: see `Report.ok`.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="pistributer-chaos-"))
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise FileExistsError(f"{str(place)!r} is not empty; a chaos run needs a folder of its own")
    report: Report | None = None
    try:
        report = _Run(storm, place.absolute(), on_progress, keep=folder is not None).report()
    finally:
        if folder is None and (report is None or report.ok):
            shutil.rmtree(place)
    return report


class _Run:
    _supervisor: subprocess.Popen[bytes]
    _log: IO[bytes]

    def __init__(
        self, storm: Storm, folder: Path, on_progress: Callable[[float, int], object] | None, *, keep: bool
    ) -> None:
        self._storm, self._folder, self._keep = storm, folder, keep
        self._on_progress = on_progress
        self._ledger = ledger_folder(folder)
        self._ledger.mkdir()
        self._url = f"{storm.driver}:{folder / ('app.db' if storm.driver == 'sqlite' else 'app')}"
        (folder / "app.py").write_text(_APP.format(url=self._url, producers=storm.producers))
        self._chance = random.Random(storm.seed)
        self._kills: Counter[str] = Counter()
        self._troubles: list[str] = []
        #: The supervisors; all that ever runs is in their sessions.
        self._sessions: set[int] = set()
        self._started = time.monotonic()

    def report(self) -> Report:
        with (self._folder / "log").open("ab") as self._log:
            try:
                self._supervisor = self._start()
                self._kill_until(self._started + self._storm.seconds)
                stormed = time.monotonic() - self._started
                self._finish()
                left = self._wait_for_all_to_leave()
            finally:
                self._end_all()
        remains = _remains(self._url, self._folder, left)
        report = Report(
            self._storm, judge(self._ledger), remains, dict(self._kills), stormed, time.monotonic() - self._started,
            self._troubles, str(self._folder),
        )  # fmt: skip
        return report if self._keep or not report.ok else replace(report, folder=None)

    # -- the supervisor, again and again

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pistributer", "run", str(self._folder / "app.py"), "--until-empty"]
        process = subprocess.Popen(
            [*command, "--processes", str(self._storm.workers)], stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=self._log, cwd=self._folder, start_new_session=True,
        )  # fmt: skip
        self._sessions.add(process.pid)
        return process

    def _start_again_if_dead(self) -> None:
        """As whatever watches over a supervisor does."""
        code = self._supervisor.poll()
        if code is not None:
            self._note_end(code)
            self._supervisor = self._start()

    def _note_end(self, code: int) -> None:
        if code not in (0, -signal.SIGKILL):
            self._troubles.append(f"the supervisor ended by itself with exit code {code}")

    # -- killing

    def _kill_until(self, end: float) -> None:
        due = self._started + self._storm.every
        while time.monotonic() < end:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self._storm.every, time.monotonic())
            self._start_again_if_dead()
            self._kill_one()
            self._show()

    def _kill_one(self) -> None:
        victims = self._victims()
        if not victims:
            return
        pid = self._chance.choice(sorted(victims))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._kills[victims[pid]] += 1
        if pid == self._supervisor.pid:
            self._supervisor.wait()

    def _victims(self) -> dict[int, str]:
        """Whom to kill, and what they are: those who have begun to work, and those whom such depend on.

        Whoever is about to start is spared: kills come faster than a start, and would end all work.
        """
        at_work = {int(name.split("-")[-2]): name.partition("_")[0] for name in self._names_in_ledger()}
        victims = {pid: at_work.get(pid, "other") for pid in self._living()}
        victims[self._supervisor.pid] = "supervisor"
        busy = [pid for pid, kind in victims.items() if pid in at_work]
        if not any(_session(pid) == self._supervisor.pid for pid in busy):
            return {pid: victims[pid] for pid in busy}  # those of a supervisor that was killed
        return {pid: kind for pid, kind in victims.items() if kind != "other" or _is_helper(pid)}

    def _names_in_ledger(self) -> list[str]:
        return [path.name for path in self._ledger.iterdir() if path.stat().st_size]

    def _living(self) -> list[int]:
        """Our processes that are alive, whoever their parents were."""
        return [pid for pid in psutil.pids() if _session(pid) in self._sessions and not _is_zombie(pid)]

    # -- the end

    def _finish(self) -> None:
        """Have the producers end, and the supervisor do what is left."""
        enough(self._folder).touch()
        moved, size = time.monotonic(), -1
        while self._supervisor.poll() != 0 and len(self._troubles) < _MOST_TROUBLES:
            self._start_again_if_dead()
            if (now := self._size()) != size:
                moved, size = time.monotonic(), now
            elif time.monotonic() - moved > _STALL:
                self._troubles.append(f"nothing was done for {_STALL:g} s although something is left")
                return
            time.sleep(_LOOK)
            self._show()

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self._ledger.iterdir())

    def _wait_for_all_to_leave(self) -> int:
        deadline = time.monotonic() + _STALL
        while (left := self._living()) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return len(left)

    def _end_all(self) -> None:
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._supervisor.wait()

    def _show(self) -> None:
        if self._on_progress is not None:
            self._on_progress(time.monotonic() - self._started, sum(self._kills.values()))


def _remains(url: str, folder: Path, processes: int) -> Remains:
    held = sum(is_held(str(path)) for path in folder.rglob("*") if path.is_file())
    stats = [queue.stats for queue in read_status(url).queues]
    return Remains(
        processes, held, sum(it.claimed for it in stats), sum(it.ready + it.delayed for it in stats),
        sum(it.dead for it in stats), sum(it.quarantined for it in stats),
    )  # fmt: skip


def _is_helper(pid: int) -> bool:
    """Whether it is what multiprocessing starts for itself, the fork server or the resource tracker; no child of the former."""
    try:
        parent = psutil.Process(pid).parent()
        return parent is None or "forkserver" not in " ".join(parent.cmdline())
    except psutil.Error:
        return False


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
