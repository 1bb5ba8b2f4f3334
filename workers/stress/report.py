"""What a stress run was: figures, one JSON document, and the lines that people read. Integrity comes first."""

from __future__ import annotations

import os
import platform
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .oracle import Verdict
from .plan import Scenario


@dataclass(frozen=True, slots=True)
class Moment:
    """Rows put and read at one time, in seconds since the start."""

    at: float
    put: int
    read: int


@dataclass(frozen=True, slots=True)
class Latency:
    """A sample of times in nanoseconds, sorted."""

    nanos: array[int]

    @classmethod
    def of(cls, nanos: Iterable[int]) -> Latency:
        return cls(array("Q", sorted(nanos)))

    def percentile(self, percent: float) -> float:
        """The nearest-rank percentile in seconds; 0.0 of an empty sample."""
        if not self.nanos:
            return 0.0
        rank = max(0, min(len(self.nanos) - 1, -(-len(self.nanos) * percent // 100) - 1))
        return self.nanos[int(rank)] / 1e9

    def to_json(self) -> dict[str, float | int]:
        named = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        return {**named, "max": self.percentile(100), "samples": len(self.nanos)}


@dataclass(frozen=True, slots=True)
class Report:
    """One run. Times are seconds, memory is bytes."""

    scenario: Scenario
    verdict: Verdict
    #: SIGKILLs sent.
    kills: int
    #: From the start of the first process to the last put.
    write_seconds: float
    #: … to the last row read.
    total_seconds: float
    put: Latency
    #: From put to delivery.
    delivery: Latency
    #: Processor time; of threads all together. A killed child's is not known.
    writers_cpu: float
    readers_cpu: float
    #: Largest resident size of one process, and of all together (pages that processes share are counted in each).
    peak_memory: int
    memory_together: int
    machine: dict[str, str | int]
    timeline: list[Moment] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    #: The signal that ended the run early.
    interrupted: str | None = None
    #: Where channels and ledgers were left because integrity failed.
    kept: Path | None = None

    @property
    def ok(self) -> bool:
        return self.verdict.ok

    @property
    def rows_per_second(self) -> float:
        return self.verdict.consumed / self.total_seconds

    def to_json(self) -> dict[str, Any]:
        """The document of `pistributer stress --json`."""
        scenario, verdict = self.scenario, asdict(self.verdict)
        examples = verdict.pop("examples")
        return {
            "ok": self.ok,
            "driver": scenario.driver,
            "api": scenario.api,
            "sync": scenario.sync,
            "workers": "threads" if scenario.threads else "processes",
            "writers": scenario.writers,
            "readers": scenario.readers,
            "files": scenario.files,
            "shared": scenario.shared,
            "rows": scenario.rows,
            "channels": scenario.channels,
            "seed": scenario.seed,
            "planned": scenario.total,
            **verdict,
            "kills": self.kills,
            "kill_every": scenario.kill_every,
            "write_seconds": self.write_seconds,
            "total_seconds": self.total_seconds,
            "rows_per_second": self.rows_per_second,
            "put_seconds": self.put.to_json(),
            "delivery_seconds": self.delivery.to_json(),
            "writers_cpu_seconds": self.writers_cpu,
            "readers_cpu_seconds": self.readers_cpu,
            "peak_memory": self.peak_memory,
            "memory_together": self.memory_together,
            "machine": self.machine,
            "examples": examples,
            "troubles": self.troubles,
            "interrupted": self.interrupted,
            "kept": str(self.kept) if self.kept else None,
        }

    def lines(self) -> list[str]:
        """The report for people, integrity first."""
        return [self._integrity(), *self._remarks(), *self._figures(), *self._bad_news()]

    def _integrity(self) -> str:
        found = self.verdict
        doubled = f"{found.duplicated:,} doubled"
        if found.duplicated:
            doubled += f" ({found.duplicated_after_kill:,} of them held by a killed reader)"
        counts = (
            f"{found.expected:,} put, {found.consumed:,} read, {found.lost:,} lost, {found.malformed:,} torn, "
            f"{doubled}, {found.out_of_order:,} out of order"
        )
        return f"{'INTEGRITY ok    ' if self.ok else 'INTEGRITY FAILED'}  {counts}"

    def _remarks(self) -> list[str]:
        """What the integrity line leaves out because it is nothing most of the time."""
        found = self.verdict
        told = {
            "lost rows were being returned by a classic next() when its reader was killed (at most once: one row per "
            "killed reader may go so)": found.lost_in_flight,
            f"puts were running when their writer was killed; {found.puts_in_flight_stored:,} of them had been stored, "
            "and none came twice": found.puts_in_flight,
            "rows in quarantine": found.quarantined,
            "sums per writer and channel are wrong": found.wrong_sums,
            f"of {self.scenario.total:,} rows were not put": found.not_put,
            "writers or readers died by themselves": found.crashes,
        }
        return [f"                  {count:,} {text}" for text, count in told.items() if count]

    def _figures(self) -> list[str]:
        scenario = self.scenario
        workers = "threads" if scenario.threads else "processes"
        kills = f"{self.kills:,}, one every {scenario.kill_every:g} s" if scenario.kill_every else "none"
        memory, together = _megabytes(self.peak_memory), _megabytes(self.memory_together)
        rows = {
            "rate": f"{self.rows_per_second:,.0f} rows/s, {self.write_seconds:.2f} s to write, "
            f"{self.total_seconds:.2f} s in all",
            "put": _percentiles(self.put),
            "delivery": _percentiles(self.delivery),
            "driver": f"{scenario.driver}, {scenario.api} API, sync={scenario.sync}",
            "scenario": f"{scenario.writers} writers and {scenario.readers} readers ({workers}), {scenario.channels:,} "
            f"channels, {scenario.rows:,} rows into each from each writer",
            "kills": kills,
            "CPU": self._cpu(),
            "memory": f"{memory} in the largest process, {together} in all processes together",
            "machine": ", ".join(f"{name} {value}" for name, value in self.machine.items()),
        }
        return [f"  {name:<12}{text}" for name, text in rows.items()]

    def _cpu(self) -> str:
        whole = self.writers_cpu + self.readers_cpu
        each = f"{whole / max(1, self.verdict.consumed) * 1e6:.1f} µs a row"
        if self.scenario.threads:
            return f"{whole:.1f} s, {each}"
        return f"writers {self.writers_cpu:.1f} s, readers {self.readers_cpu:.1f} s, {each}"

    def _bad_news(self) -> list[str]:
        lines = [f"  {kind}: {text}" for kind, texts in self.verdict.examples.items() for text in texts]
        lines += [f"  trouble: {text.rstrip()}" for text in self.troubles[:5]]
        if self.interrupted:
            lines.append(f"  interrupted by {self.interrupted}")
        elif self.kept:
            lines.append(f"  channels and ledgers are left in {self.kept}")
        return lines


def _percentiles(latency: Latency) -> str:
    if not latency.nanos:
        return "not sampled"
    named = [(f"p{percent}", latency.percentile(percent)) for percent in (50, 95, 99)]
    return "  ".join(f"{name} {_duration(value)}" for name, value in [*named, ("max", latency.percentile(100))])


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def machine_facts(folder: Path) -> dict[str, str | int]:
    """What figures of this machine have to be read with. `folder` lies on the disk that was measured."""
    return {
        "CPUs": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem_of(folder),
        "Python": platform.python_version(),
    }


def _filesystem_of(folder: Path) -> str:
    """Type of the filesystem that `folder` lies on: that of the longest mount point above it."""
    import psutil  # only a report needs it

    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    mounted = [part for part in psutil.disk_partitions(all=True) if part.mountpoint in above]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else "unknown"
