"""Controlling a running app from elsewhere, without its code: `pause("jobs", "emails")`, `scale("jobs", "default", "+2")`.

Each function takes the app's folder or URL, as given to `App`. What is asked of a supervisor goes through its socket
(supervision/control_server.py), so only its owner and root may; several supervisors of one app are all asked, or the one
with `pid`. Pausing needs no supervisor: it is written down first (supervision/run_state.py), and whoever runs the app then
or later keeps to it.
"""

from __future__ import annotations

import difflib
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import orjson

from pistributer import errors
from pistributer.storage.locks import is_held

from .home import Home
from .supervision import run_state, runs
from .supervision.control_server import NAME, VERSION
from .supervision.sockets import connect

Url = str | os.PathLike[str]

#: Seconds that a supervisor may take to answer. It does so between two events, which take it microseconds.
PATIENCE = 10.0
#: Seconds between a supervisor's lock and its socket, at most.
_COMING_OR_GOING = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one supervisor said."""

    pid: int
    #: The fields of its answer (supervision/run_control.py).
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Paused:
    """What came of `pause` or `resume`."""

    queue: str
    #: False: it was so already.
    changed: bool
    #: The supervisors that have seen it; none: it holds for the next one.
    seen_by: tuple[int, ...]


def status(url: Url, *, pid: int | None = None) -> list[Answer]:
    """What each supervisor says about itself: `up`, `stopping`, `paused`, `roles`, `done`, `failed`, `retried`."""
    return _ask_all(url, pid, "status")


def pause(url: Url, queue: str) -> Paused:
    """Have nobody take from `queue`: what runs ends, what was claimed and not begun goes back. Holds until `resume`.

    When this returns, every running supervisor's workers have been told. ControlError if the app has no such queue.
    """
    return _set_paused(url, queue, True)


def resume(url: Url, queue: str) -> Paused:
    """Have its workers take from `queue` again, at once."""
    return _set_paused(url, queue, False)


def paused(url: Url) -> list[str]:
    """The queues that are paused, sorted."""
    return sorted(run_state.read_wishes(_home(url).run).paused)


def scale(url: Url, what: str, to: int | str, *, pid: int | None = None) -> list[Answer]:
    """Have `to` processes for a queue of tasks or a consumer: 8, "+2", "-1", or "reset" for as many as `run` asks for.

    It holds for the next run too; for one of several supervisors, only until it ends. Those that are too many finish what
    they run. Answers have `role`, `processes` and `asked`, which is how many `run` asks for.
    """
    asked = _supervisors(url, pid)
    alone = pid is not None and len(_supervisors(url, None)) > 1
    wanted = [str(to)] * len(asked)
    if len(asked) > 1 and str(to).startswith(("+", "-")):
        wanted = _absolute(asked, what, int(to))
    return [
        _ask(folder, record.pid, "scale", {"what": what, "to": size, "alone": alone})
        for (folder, record), size in zip(asked, wanted, strict=True)
    ]


def restart(url: Url, what: str | None = None, *, pid: int | None = None) -> list[Answer]:
    """New processes, with the code as it is now, for one queue, consumer or producer; for all but producers without `what`.

    Returns at once; each process finishes what it runs first. Answers have `roles`.
    """
    return _ask_all(url, pid, "restart", what=what)


def stop(url: Url, *, now: bool = False, pid: int | None = None, wait: float | None = None) -> list[Answer]:
    """Stop the run: what runs finishes, the rest stays in the queues; with `now`, what runs is killed and goes back.

    wait  seconds to wait until the supervisors have ended; None: do not wait. ControlError if one has not by then
    """
    asked = _supervisors(url, pid)
    answers = [_ask_to_stop(folder, record.pid, now) for folder, record in asked]
    if wait is not None:
        deadline = time.monotonic() + wait
        for folder, record in asked:
            _wait_for_end(folder, record.pid, deadline)
    return answers


# -- below


def _home(url: Url) -> Home:
    home = Home(url)
    if not home.exists():
        hint = "an app's folder is made when it first sends or runs"
        raise errors.FolderMissing(f"there is no app at {home.url!r}", hint=hint, path=home.folder)
    return home


def _supervisors(url: Url, pid: int | None) -> list[tuple[str, runs.Record]]:
    home = _home(url)
    running = runs.running(home.run)
    found = [pair for pair in running if pid in (None, pair[1].pid)]
    if not found:
        others = ", ".join(str(record.pid) for _, record in running)
        who = "no supervisor" if pid is None else f"no supervisor with process id {pid}"
        raise errors.NoSupervisor(
            f"{who} is running the app {home.url!r}",
            hint=f"there is {others}" if others else "start one with `pistributer run`",
            url=home.url,
            pid=pid,
        )
    return found


def _ask_all(url: Url, pid: int | None, do: str, **fields: Any) -> list[Answer]:
    return [_ask(folder, record.pid, do, fields) for folder, record in _supervisors(url, pid)]


def _absolute(asked: list[tuple[str, runs.Record]], what: str, more: int) -> list[str]:
    """What "+2" means for each of several supervisors. Those that were started alike follow each other (run_state.py)."""
    sizes: dict[tuple[str, int], int] = {}
    wanted = []
    for folder, record in asked:
        fields = _ask(folder, record.pid, "size", {"what": what}).fields
        now = sizes.setdefault((fields["role"], fields["asked"]), fields["processes"])
        wanted.append(str(now + more))
    return wanted


def _set_paused(url: Url, queue: str, wanted: bool) -> Paused:
    home = _home(url)
    running = runs.running(home.run)
    # One that was never used exists for those who run its tasks only.
    known = set(home.queue_names()).union(*(record.queues for _, record in running))
    known |= run_state.read_wishes(home.run).paused
    if queue not in known:
        near = difflib.get_close_matches(queue, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(sorted(known)) or 'no queue yet'}"
        raise errors.ControlError(f"the app {home.url!r} has no queue {queue!r}", hint=hint)
    changed = run_state.set_paused(home.run, queue, wanted)
    seen = []
    for folder, record in running:
        try:
            seen.append(_ask(folder, record.pid, "look", {}).pid)
        except errors.NoSupervisor:
            pass  # it has just ended
    return Paused(queue, changed, tuple(seen))


def _ask_to_stop(folder: str, pid: int, now: bool) -> Answer:
    try:
        return _ask(folder, pid, "stop", {"now": now})
    except errors.NoSupervisor:
        return Answer(pid, {})  # that was quick


def _ask(folder: str, pid: int, do: str, fields: dict[str, Any]) -> Answer:
    """One question and its answer. NoSupervisor if it has just ended, ControlError if it refuses or is silent."""
    request = orjson.dumps({"v": VERSION, "do": do, **fields}) + b"\n"
    try:
        with _connect(folder) as connection:
            connection.sendall(request)
            line = _read_line(connection)
    except TimeoutError as error:
        hint = f"it may be stopped or hang: look at process {pid}"
        raise errors.ControlError(
            f"supervisor {pid} did not answer within {PATIENCE:g} s", hint=hint, pid=pid
        ) from error
    except OSError as error:
        raise _unreachable(folder, pid, error) from error
    answer = orjson.loads(line)
    if not answer.pop("ok"):
        raise errors.ControlError(str(answer["error"]), hint=answer.get("hint"), pid=pid)
    return Answer(pid, {name: value for name, value in answer.items() if name not in ("v", "pid")})


def _connect(folder: str) -> socket.socket:
    """One that is just starting, or ending, lives and has no socket; that takes milliseconds."""
    deadline = time.monotonic() + _COMING_OR_GOING
    while True:
        try:
            return connect(runs.control_folder(folder), NAME, PATIENCE)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline or not _lives(folder):
                raise
        time.sleep(0.02)


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data


def _unreachable(folder: str, pid: int, error: OSError) -> errors.WorkError:
    hung_up = isinstance(error, ConnectionResetError | BrokenPipeError)
    if _has_ended(folder, _COMING_OR_GOING if hung_up else 0.0):
        return errors.NoSupervisor(
            f"supervisor {pid} has just ended", hint="nothing is left to do", url=folder, pid=pid
        )
    if isinstance(error, PermissionError):
        return errors.ControlError(
            f"only the owner of supervisor {pid} may control it", hint="run this as that user", pid=pid
        )
    return errors.ControlError(
        f"supervisor {pid} can not be reached: {error}", hint="its log says why; signals reach it", pid=pid
    )


def _has_ended(folder: str, patience: float) -> bool:
    """Whether it ends within so many seconds: its socket goes milliseconds before its lock."""
    deadline = time.monotonic() + patience
    while _lives(folder):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(folder: str) -> bool:
    return is_held(os.path.join(folder, "lock"))


def _wait_for_end(folder: str, pid: int, deadline: float) -> None:
    if not _has_ended(folder, deadline - time.monotonic()):
        raise errors.ControlError(
            f"supervisor {pid} is still finishing what runs", hint="wait longer, or stop it with --now", pid=pid
        )
