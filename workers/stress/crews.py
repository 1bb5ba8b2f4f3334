"""Who runs the writers and readers of a stress run: the supervisor with processes, or threads of this process."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from ..supervision.decisions import Policy, Say, State
from ..supervision.roles import Key, Role
from ..supervision.supervisor import Supervisor
from . import children, rows
from .plan import Scenario

#: A killed child comes back after a short pause however often it is killed, even while it starts; see MOST_TROUBLES.
_UNDER_FIRE: Final = Policy(pause=0.02, longest=0.2, tries=1000, grace=5.0)
_CALM: Final = Policy(pause=0.02, longest=0.2, tries=3, grace=5.0)

#: A run in which children raised this often is ended.
MOST_TROUBLES: Final = 20


class Crew(Protocol):
    """Runs all children of a scenario."""

    #: What went wrong, one line or traceback each.
    troubles: list[str]
    #: The signal that asked for an early end, if one did.
    interrupted: str | None

    def start(self) -> None: ...
    def step(self, timeout: float) -> bool:
        """Let at most `timeout` seconds pass. False when everybody is gone."""
        ...

    def writers_done(self) -> bool: ...
    def stop(self) -> None:
        """Ask everybody to leave early."""
        ...

    def close(self) -> None:
        """Nobody is left when this returns."""
        ...

    def pids(self) -> dict[Key, int]: ...


def crew_for(scenario: Scenario, run: Path) -> Crew:
    return ThreadCrew(scenario, run) if scenario.threads else ProcessCrew(scenario, run)


class ProcessCrew:
    def __init__(self, scenario: Scenario, run: Path) -> None:
        self.troubles: list[str] = []
        self.interrupted: str | None = None
        self._stopped = False
        roles = [
            Role("writer", children.write, (scenario, run), scenario.writers, ends=True),
            Role("reader", children.read, (scenario, run), scenario.readers, ends=True),
        ]
        self._writers = [("writer", index) for index in range(scenario.writers)]
        self._supervisor = Supervisor(
            roles,
            preload=["pistributer.workers.stress.children", *rows.modules_of(scenario)],
            policy=_UNDER_FIRE if scenario.kill_every else _CALM,
            seed=scenario.seed,
            on_event=self._note,
        )

    def _note(self, said: Say) -> None:
        if said.action == "stopping" and not self._stopped:
            self.interrupted = said.text.partition(":")[0]
        elif said.action in ("failed", "boot") or (said.action == "restart" and "raised" in said.text):
            self.troubles.append(said.text)

    def start(self) -> None:
        self._supervisor.start()

    def step(self, timeout: float) -> bool:
        return self._supervisor.step(timeout)

    def writers_done(self) -> bool:
        states = self._supervisor.states()
        return all(states[key] is State.DONE for key in self._writers)

    def stop(self) -> None:
        self._stopped = True
        self._supervisor.request_stop()

    def close(self) -> None:
        self._stopped = True
        self._supervisor.close()

    def pids(self) -> dict[Key, int]:
        return self._supervisor.pids()


class ThreadCrew:
    """All in one process, as the seed's benchmark did it."""

    def __init__(self, scenario: Scenario, run: Path) -> None:
        self.troubles: list[str] = []
        self.interrupted: str | None = None
        self._leave = threading.Event()
        self._writers = [self._thread(children.write, index, scenario, run) for index in range(scenario.writers)]
        self._readers = [self._thread(children.read, index, scenario, run) for index in range(scenario.readers)]

    def _thread(self, target: children.Target, index: int, scenario: Scenario, run: Path) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(target, index, scenario, run), daemon=True)

    def _guarded(self, target: children.Target, index: int, scenario: Scenario, run: Path) -> None:
        try:
            target(_ThreadSeat(index, self._leave), scenario, run)
        except Exception:  # noqa: BLE001 - a thread's failure belongs in the report, whatever it is
            self.troubles.append(traceback.format_exc())

    def start(self) -> None:
        for thread in (*self._writers, *self._readers):
            thread.start()

    def step(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        for thread in (*self._writers, *self._readers):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return True
        return False

    def writers_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._writers)

    def stop(self) -> None:
        self._leave.set()

    def close(self) -> None:
        self._leave.set()
        for thread in (*self._writers, *self._readers):
            if thread.ident is not None:
                thread.join()

    def pids(self) -> dict[Key, int]:
        return {}


class _ThreadSeat:
    def __init__(self, index: int, leave: threading.Event) -> None:
        self.index = index
        self._leave = leave

    def ready(self) -> None:
        """Nobody waits for it."""

    def stop_requested(self) -> bool:
        return self._leave.is_set()

    def wait_stop(self, timeout: float | None = None) -> bool:
        return self._leave.wait(timeout)


class Killer:
    """Kills a random writer or reader every so often, and remembers whom."""

    def __init__(self, crew: Crew, every: float, seed: int, rows_of: Callable[[str, int], int]) -> None:
        self._crew, self._every, self._rows_of = crew, every, rows_of
        self._chance = random.Random(seed)
        self._next = time.monotonic() + every
        self.kills: Counter[Key] = Counter()
        #: Rows that each victim had put or read when it was last killed. Until it has more it is spared, or kills that are
        #: faster than a start would end all work.
        self._rows_at_kill: dict[Key, int] = {}

    def kill_if_due(self) -> None:
        now = time.monotonic()
        if not self._every or now < self._next:
            return
        self._next = max(self._next + self._every, now)
        pids = self._crew.pids()
        victims = sorted(key for key in pids if self._rows_of(*key) != self._rows_at_kill.get(key))
        if victims:
            # Writers and readers in turn by chance, however many there are of each.
            role = self._chance.choice(sorted({role for role, _ in victims}))
            key = self._chance.choice([key for key in victims if key[0] == role])
            self._rows_at_kill[key] = self._rows_of(*key)
            self._kill(key, pids[key])

    def _kill(self, key: Key, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills[key] += 1
