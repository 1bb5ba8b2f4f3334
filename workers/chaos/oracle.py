"""The judge of a chaos run. It reads the ledger (app.py) and nothing else; the queue is not asked.

What must hold, and how each line of the ledger is accounted for:

* Rows of a producer are numbered without a gap, because its checkpoint is committed with the row. So every number up to the
  highest that anybody saw was put, whether or not its producer lived to say so; one that never ended is lost.
* The attempts of a row are counted upwards. The same attempt twice: the row was put, or handed out, twice.
* A row begins again only if the process that had it was killed, and there the rows that begin again are the last ones
  that it began: those that it held. Anything else was done twice for no reason.
* A number that is skipped is an attempt whose process was killed between the counting and the first line of the job; a
  killed worker can have had one of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: Producer and number.
Row = tuple[int, int]


@dataclass(slots=True)
class Process:
    """What one process has written."""

    name: str
    put: list[Row] = field(default_factory=list)
    #: Rows and attempts, in the order in which they began.
    begun: list[tuple[Row, int]] = field(default_factory=list)
    ended: set[tuple[Row, int]] = field(default_factory=set)
    left: bool = False

    @property
    def is_worker(self) -> bool:
        return self.name.startswith("worker")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of rows, but for `attempts`, `unseen` and `killed_workers`."""

    #: Rows that were put, by their numbers.
    put: int
    #: Of these, never done.
    lost: int
    #: Done more than once, each because a killed process held it.
    repeated: int
    #: Put or handed out twice, or begun again although nobody who held them was killed.
    doubled: int
    #: Attempts that began.
    attempts: int
    #: Attempts that were counted and not begun.
    unseen: int
    #: Worker processes that did not leave in good order.
    killed_workers: int

    @property
    def ok(self) -> bool:
        return not self.lost and not self.doubled and self.unseen <= self.killed_workers


def judge(folder: Path) -> Verdict:
    """The verdict on the ledger in `folder`."""
    return judge_processes([read_process(path) for path in sorted(folder.iterdir())])


def read_process(path: Path) -> Process:
    process = Process(path.name)
    for line in path.read_text().splitlines():
        what, *numbers = line.split()
        producer, number, attempt, *_ = (*map(int, numbers), 0, 0, 0)
        match what:
            case "put":
                process.put.append((producer, number))
            case "begin":
                process.begun.append(((producer, number), attempt))
            case "end":
                process.ended.add(((producer, number), attempt))
            case "left":
                process.left = True
    return process


def judge_processes(processes: Iterable[Process]) -> Verdict:
    them = list(processes)
    workers = [process for process in them if process.is_worker]
    said = Counter(row for process in them for row in process.put)
    attempts: dict[Row, list[int]] = defaultdict(list)
    for process in workers:
        for row, attempt in process.begun:
            attempts[row].append(attempt)
    ends = Counter(row for process in workers for row, _ in process.ended)
    put = set(all_rows([*said, *attempts]))
    doubled = {row for row, times in said.items() if times > 1}
    doubled |= {row for row, seen in attempts.items() if len(set(seen)) < len(seen)}
    last = {row: max(seen) for row, seen in attempts.items()}
    for process in workers:
        doubled |= unexcused(process, last)
    return Verdict(
        put=len(put),
        lost=len(put - ends.keys()),
        repeated=len({row for row, times in ends.items() if times > 1} - doubled),
        doubled=len(doubled),
        attempts=sum(map(len, attempts.values())),
        unseen=sum(last[row] - len(set(seen)) for row, seen in attempts.items()),
        killed_workers=sum(not process.left for process in workers),
    )


def all_rows(seen: Iterable[Row]) -> Iterable[Row]:
    """Every row up to the highest number of each producer."""
    highest: dict[int, int] = {}
    for producer, number in seen:
        highest[producer] = max(number, highest.get(producer, -1))
    return ((producer, number) for producer, top in highest.items() for number in range(top + 1))


def unexcused(process: Process, last: dict[Row, int]) -> set[Row]:
    """Rows that began again elsewhere although this process was not killed, or no longer held them."""
    again = [attempt < last[row] for row, attempt in process.begun]
    if process.left:
        held = len(again)
    else:
        held = len(again) - next((n for n, it in enumerate(reversed(again)) if not it), len(again))
    return {row for (row, _), it in list(zip(process.begun, again, strict=True))[:held] if it}
