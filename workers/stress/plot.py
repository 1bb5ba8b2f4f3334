"""Pictures of a stress run: rows per second over time, and how long puts and deliveries took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .report import Latency, Moment, Report

#: Rates are averaged over this many seconds at least.
_WINDOW: Final = 0.25


def draw(report: Report, path: Path) -> None:
    """Write a picture of `report` to `path`; the suffix chooses the format. Needs matplotlib (extra `plot`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would look for a display, and keeps figures for ever.
    figure = Figure(figsize=(10, 8), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, latencies = figure.subplots(2, 1)
    _draw_rates(over_time, report.timeline)
    _draw_latencies(latencies, report)
    scenario = report.scenario
    figure.suptitle(
        f"{report.verdict.consumed:,} of {report.verdict.expected:,} rows read, {report.verdict.lost:,} lost: "
        f"{scenario.driver}, {scenario.api} API, {scenario.writers} writers, {scenario.readers} readers, "
        f"sync={scenario.sync}"
    )
    figure.savefig(path)


def _draw_rates(axes: Any, timeline: Sequence[Moment]) -> None:
    times, puts, reads = rates(timeline)
    axes.plot(times, puts, label="put")
    axes.plot(times, reads, label="read")
    axes.set(title="rows per second", xlabel="seconds", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)


def rates(timeline: Sequence[Moment]) -> tuple[list[float], list[float], list[float]]:
    """Times, and rows put and read per second up to each, over windows of at least `_WINDOW` seconds."""
    times: list[float] = []
    puts: list[float] = []
    reads: list[float] = []
    last = Moment(0.0, 0, 0)
    for moment in timeline:
        span = moment.at - last.at
        if span >= _WINDOW:
            times.append(moment.at)
            puts.append((moment.put - last.put) / span)
            reads.append((moment.read - last.read) / span)
            last = moment
    return times, puts, reads


def _draw_latencies(axes: Any, report: Report) -> None:
    for name, latency in (("put", report.put), ("put to delivery", report.delivery)):
        if latency.nanos:
            axes.hist([nanos / 1e6 for nanos in latency.nanos], bins=_bins(latency), histtype="step", label=name)
    axes.set(title="latency of a sample of rows", xlabel="milliseconds", ylabel="rows", xscale="log", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)


def _bins(latency: Latency) -> list[float]:
    """Sixty bins of equal width on a logarithmic axis, in milliseconds."""
    low, high = max(latency.nanos[0], 1) / 1e6, max(latency.nanos[-1], 2) / 1e6
    step = (high / low) ** (1 / 60) if high > low else 1.1
    return [low * step**number for number in range(61)]
