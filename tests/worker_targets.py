"""What children of the supervisor's tests do. A module of its own, because children import it: it must be cheap."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from pistributer import errors
from pistributer.workers.supervision.child import Child
from pistributer.workers.supervision.roles import Role
from pistributer.workers.supervision.supervisor import StartMethod, Supervisor


def stay(child: Child) -> None:
    """Until told to stop."""
    child.ready()
    child.wait_stop()


def end(child: Child) -> None:
    """At once."""
    child.ready()


def note_and_end(child: Child, folder: str) -> None:
    (Path(folder) / f"{child.role}-{child.index}").write_text(str(os.getpid()))
    child.ready()


def finish_slowly(child: Child, folder: str) -> None:
    """A piece of work that is longer than the stop request."""
    child.ready()
    (Path(folder) / "working").touch()
    while not child.stop_requested():
        time.sleep(0.005)
    time.sleep(0.2)
    (Path(folder) / f"finished-{child.index}").touch()


def never_leave(child: Child) -> None:
    child.ready()
    while True:
        time.sleep(60)


def fail_before_ready(child: Child) -> None:
    os._exit(7)


def raise_after_ready(child: Child) -> None:
    child.ready()
    raise RuntimeError("the source is gone")


def refuse_to_boot(child: Child) -> None:
    raise errors.BootError("there is no app", hint="write one")


def boot_or_stay(child: Child) -> None:
    if child.index == 1:
        raise errors.BootError("only the second can not boot")
    stay(child)


def leave_too_early(child: Child) -> None:
    child.ready()


def die_once(child: Child, folder: str) -> None:
    """Killed the first time, well the second."""
    child.ready()
    marker = Path(folder) / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    child.wait_stop()


def fork_and_stay(child: Child, folder: str) -> None:
    """A grandchild inherits every descriptor and outlives the child."""
    grandchild = os.fork()
    if grandchild == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(120)
        os._exit(0)
    (Path(folder) / f"grandchild-{os.getpid()}").write_text(str(grandchild))
    child.ready()
    child.wait_stop()


def supervise_until_killed(start_method: StartMethod, folder: str) -> None:
    """A supervisor of two children that stay; writes down their pids."""
    with Supervisor([Role("w", stay, count=2)], start_method=start_method) as supervisor:
        path = Path(folder) / "pids"
        path.with_suffix(".part").write_text(" ".join(map(str, supervisor.pids().values())))
        path.with_suffix(".part").rename(path)
        while supervisor.step():
            pass


if __name__ == "__main__":
    supervise_until_killed(sys.argv[1], sys.argv[2])  # type: ignore[arg-type]
