"""Pools: which processes take from which queues, in which order, and how many jobs each runs at once.

On the command line a pool is one word: `NAME=QUEUES[:FIELD=NUMBER…]`, as in `web=high,low:processes=2:threads=4`, and
its queues are `high,low` (in that order) or `high=3,low=1` (by weight).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from .checks import at_least
from .home import check_queue_name

Order = Literal["strict", "weighted"]


@dataclass(frozen=True, slots=True)
class Pool:
    """Worker processes that are alike: `Pool("web", queues=["high", "low"], processes=2)`.

    name         what `status` calls its workers, unique within a run
    queues       the queues of tasks that they take from; without any, the one called like the pool. A mapping gives each
                 a weight: `{"high": 3, "low": 1}`. One queue may be in several pools.
    order        "strict": the first of the queues that has jobs, always, so that a later one may wait for ever.
                 "weighted": of those that have jobs, each in turn, as often as its weight says; a list means weights of 1.
                 Each turn is one claim, which short jobs fill with as many as take 20 ms. Levels of priority within a
                 queue are strict either way. A mapping is weighted.
    processes    how many; None: what `run` was told, else as many as there are processors
    most         more than `processes`: what waits decides how many there are, between the two (supervision/autoscaling.py)
    recycle_jobs, recycle_memory
                 a process is replaced after so many jobs, or when it has so many bytes of resident memory; None: what
                 `run` was told, else never
    threads      plain functions that run at once in each process; None: what `run` was told, else 1
    concurrency  `async def` tasks that run at once in each process, on one event loop; None: what `run` was told, else 1

    With one thread and one coroutine, a process runs one job at a time, whichever it is. With more of either, it runs up
    to `threads` plain functions and, beside them, up to `concurrency` coroutines.

    Raises ValueError for names, orders and numbers that make no sense.
    """

    name: str
    queues: Sequence[str] | Mapping[str, int] = ()
    order: Order | None = None
    processes: int | None = None
    threads: int | None = None
    concurrency: int | None = None
    most: int | None = None
    recycle_jobs: int | None = None
    recycle_memory: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a pool needs a name")
        if isinstance(self.queues, str):
            raise ValueError(f"queues is a list or a mapping; for one queue say [{self.queues!r}]")
        if self.order not in (None, *get_args(Order)):
            raise ValueError(f"order is one of {', '.join(get_args(Order))}, not {self.order!r}")
        if self.order == "strict" and isinstance(self.queues, Mapping):
            raise ValueError("weights and a strict order exclude each other")
        # A plain copy: it travels to the workers by pickle, and nobody is to change it here.
        given = self.queues or (self.name,)
        copied = dict(given) if isinstance(given, Mapping) else tuple(given)
        object.__setattr__(self, "queues", copied)
        object.__setattr__(self, "order", self.order or ("weighted" if isinstance(copied, dict) else "strict"))
        self._check()

    def _check(self) -> None:
        if len(set(self.queues)) < len(self.queues):
            raise ValueError(f"the pool {self.name!r} names a queue twice: {', '.join(self.queues)}")
        for queue in self.queues:
            check_queue_name(queue)
        for queue, weight in self.weights.items():
            at_least(1, f"the weight of {queue}", weight)
        for number in ("processes", "threads", "concurrency", "most", "recycle_jobs", "recycle_memory"):
            if getattr(self, number) is not None:
                at_least(1, number, getattr(self, number))

    @property
    def weights(self) -> dict[str, int]:
        """The weight of each queue; 1 where none was given."""
        return dict(self.queues) if isinstance(self.queues, Mapping) else dict.fromkeys(self.queues, 1)

    @property
    def role(self) -> str:
        """What the supervisor and `status` call its processes."""
        return f"worker {self.name}"

    @property
    def width(self) -> int:
        """How many jobs one process may run at once."""
        threads, concurrency = self.threads or 1, self.concurrency or 1
        return 1 if threads == concurrency == 1 else threads + concurrency


#: What may stand behind a pool's queues on the command line.
_NUMBERS = frozenset({field.name for field in fields(Pool)} - {"name", "queues", "order"})


def parse_queues(text: str) -> list[str] | dict[str, int]:
    """`"high,low"` is a list, `"high=3,low=1"` a mapping. ValueError for anything else."""
    parts = [part.partition("=") for part in text.split(",")]
    names = [name.strip() for name, _, _ in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a queue twice")
    if not any(equals for _, equals, _ in parts):
        return names
    return {name.strip(): _number(f"the weight of {name.strip()}", weight) for name, _, weight in parts}


def parse_pool(text: str) -> Pool:
    """`"NAME=QUEUES[:FIELD=NUMBER…]"`; see above. ValueError for anything else."""
    name, equals, rest = text.partition("=")
    queues, *options = rest.split(":")
    if not equals or not queues:
        raise ValueError(f"a pool is NAME=QUEUES[:FIELD=NUMBER…], as in web=high,low:processes=2; not {text!r}")
    numbers: dict[str, Any] = {}
    for option in options:
        field, _, value = option.partition("=")
        if field not in _NUMBERS:
            raise ValueError(f"a pool has {', '.join(sorted(_NUMBERS))}, and no {field!r}")
        numbers[field] = _number(field, value)
    return Pool(name.strip(), parse_queues(queues), **numbers)


def pool_of(queues: str) -> Pool:
    """The one pool that takes from all of `queues`, which are written as on the command line."""
    parsed = parse_queues(queues)
    return Pool("+".join(parsed), parsed)


def require_different(pools: Iterable[Pool]) -> list[Pool]:
    """The pools; ValueError if two have the same name."""
    found: dict[str, Pool] = {}
    for pool in pools:
        if found.setdefault(pool.name, pool) is not pool:
            raise ValueError(f"two pools are called {pool.name!r}")
    return list(found.values())


def _number(what: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{what} is a whole number, not {text.strip()!r}") from None
