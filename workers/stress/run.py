"""The stress run: the interleaved benchmark with many writers and readers at once, judged by an independent ledger.

`run_stress` is the whole of it. The parts: `plan` (the scenario as arithmetic), `rows` and `children` (what writers and
readers do), `crews` (who runs them), `ledger` (their evidence), `oracle` (the judge), `report` (what a run was), `plot`
(its pictures).
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from . import children, crews, oracle
from .ledger import CPU, FINISHED, PEAK, ROWS, Ledger, LedgerFile, load, path_of, read_header
from .plan import Scenario
from .report import Latency, Moment, Report, machine_facts

__all__ = ["Progress", "Report", "Scenario", "run_stress"]

#: How often the run is looked at, in seconds.
_TICK: Final = 0.05
#: Descriptors that a process may have open: enough for 364 threads with all their channels.
_OPEN_FILES: Final = 131_072


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, for whoever watches."""

    total: int
    put: int
    read: int
    #: Seconds since the start.
    elapsed: float
    kills: int


def run_stress(
    scenario: Scenario,
    *,
    folder: Path | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    stall: float = 60.0,
) -> Report:
    """Run `scenario` to its end and judge it.

    folder       where channels and ledgers go; it is made and kept, and must be empty. None: a temporary folder, which
                 is removed unless integrity failed (`Report.kept` says where it is then).
    on_progress  called about 20 times a second
    stall        seconds without any row put or read after which the run is ended and judged as it stands

    Raises FileExistsError for a folder that is not empty, TooManyOpenFiles if the system allows fewer files than
    needed. Losing rows raises nothing: see `Report.verdict`.
    """
    run = _prepare(folder)
    _allow_open_files()
    report: Report | None = None
    try:
        report = _Run(scenario, run, on_progress, stall).report()
    finally:
        if folder is None and (report is None or report.verdict.ok or report.interrupted):
            shutil.rmtree(run)
    return report


def _prepare(folder: Path | None) -> Path:
    run = folder or Path(tempfile.mkdtemp(prefix="pistributer-stress-"))
    run.mkdir(parents=True, exist_ok=True)
    if any(run.iterdir()):
        raise FileExistsError(f"{str(run)!r} is not empty; a stress run needs a folder of its own")
    children.channels_folder(run).mkdir()
    children.ledger_folder(run).mkdir()
    return run


def _allow_open_files() -> None:
    """Thousands of channels are open at once; the children inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


@dataclass(slots=True)
class _Watch:
    """Reads the header words of all ledgers while their owners write them."""

    scenario: Scenario
    folder: Path
    _files: dict[tuple[str, int], IO[bytes]] = field(default_factory=dict)

    def rows(self) -> tuple[int, int]:
        """Rows put and rows read so far."""
        return self._sum("writer", self.scenario.writers), self._sum("reader", self.scenario.readers)

    def _sum(self, role: str, count: int) -> int:
        return sum(self.rows_of(role, index) for index in range(count))

    def rows_of(self, role: str, index: int) -> int:
        """Rows that this child has put or read so far."""
        file = self._files.get((role, index))
        if file is None:
            path = path_of(self.folder, role, index)
            if not path.exists():
                return 0
            file = self._files[role, index] = path.open("rb", buffering=0)
        return read_header(file)[ROWS]

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class _Run:
    """One run, from start to report."""

    def __init__(
        self, scenario: Scenario, run: Path, on_progress: Callable[[Progress], object] | None, stall: float
    ) -> None:
        self._scenario, self._folder, self._stall = scenario, run, stall
        self._ledgers = children.ledger_folder(run)
        self._on_progress = on_progress
        self._control = Ledger(children.control_path(run))
        self._watch = _Watch(scenario, self._ledgers)
        self._crew = crews.crew_for(scenario, run)
        self._timeline: list[Moment] = []
        self._started = time.monotonic()
        self._moved = self._started
        #: Why the run was cut short by ourselves.
        self._ended: str | None = None
        self._cpu_before = time.process_time()
        self._killer = crews.Killer(self._crew, scenario.kill_every, scenario.seed, self._watch.rows_of)

    def report(self) -> Report:
        self._started = self._moved = time.monotonic()
        try:
            self._crew.start()
            while self._crew.step(_TICK):
                self._look()
        except KeyboardInterrupt:
            self._crew.interrupted = "SIGINT"
        finally:
            self._crew.close()
            self._watch.close()
            self._control.close()
        return self._judge()

    def _look(self) -> None:
        if not self._control.words[FINISHED] and self._crew.writers_done():
            self._control.words[FINISHED] = time.monotonic_ns()
        now = time.monotonic()
        put, read = self._watch.rows()
        # A row in flight at a kill may never come; if it were waited for, the run would be under fire for ever.
        if read < self._scenario.total - self._killer.kills.total():
            self._killer.kill_if_due()
        self._note_moment(now, put, read)
        if self._ended is None and (why := self._reason_to_end(now)):
            self._ended = why
            self._crew.stop()
        if self._on_progress is not None:
            kills = self._killer.kills.total()
            self._on_progress(Progress(self._scenario.total, put, read, now - self._started, kills))

    def _reason_to_end(self, now: float) -> str | None:
        if now - self._moved > self._stall:
            return f"no row was put or read for {self._stall:g} s, so the run was ended"
        if len(self._crew.troubles) >= crews.MOST_TROUBLES:
            return "writers or readers failed again and again, so the run was ended"
        return None

    def _note_moment(self, now: float, put: int, read: int) -> None:
        last = self._timeline[-1] if self._timeline else Moment(0.0, 0, 0)
        if (put, read) != (last.put, last.read):
            self._moved = now
        self._timeline.append(Moment(now - self._started, put, read))

    # -- afterwards

    def _judge(self) -> Report:
        scenario = self._scenario
        cpu_here = time.process_time() - self._cpu_before
        verdict = oracle.judge(scenario, self._ledgers, self._killer.kills)
        writers = [load(path_of(self._ledgers, "writer", n), extra=2 * scenario.files) for n in range(scenario.writers)]
        readers = [load(path_of(self._ledgers, "reader", n)) for n in range(scenario.readers)]
        cpu = (cpu_here, 0.0) if scenario.threads else (_cpu_seconds(writers), _cpu_seconds(readers))
        peaks = [found.header[PEAK] * 1024 for found in (*writers, *readers)]
        here = children.peak_memory()
        troubles = [*([self._ended] if self._ended else []), *self._crew.troubles]
        return Report(
            scenario=scenario,
            verdict=verdict,
            kills=self._killer.kills.total(),
            write_seconds=self._seconds_until(max(found.header[FINISHED] for found in writers)),
            total_seconds=self._seconds_until(max(found.header[FINISHED] for found in readers)),
            put=Latency.of(nanos for found in writers for nanos in found.nanos()),
            delivery=Latency.of(nanos for found in readers for nanos in found.nanos()),
            writers_cpu=cpu[0],
            readers_cpu=cpu[1],
            peak_memory=here if scenario.threads else max(here, *peaks),
            memory_together=here if scenario.threads else here + sum(peaks),
            machine=machine_facts(self._folder),
            timeline=self._timeline,
            troubles=troubles,
            interrupted=self._crew.interrupted,
            kept=None if verdict.ok else self._folder,
        )

    def _seconds_until(self, moment: int) -> float:
        """From the start to a moment in nanoseconds; to now for what never came to its end."""
        end = moment / 1e9 if moment else time.monotonic()
        return max(end - self._started, 1e-9)


def _cpu_seconds(ledgers: list[LedgerFile]) -> float:
    return sum(found.header[CPU] for found in ledgers) / 1e9
