"""Who runs an app: one folder per supervisor, so that several may share the app's queues.

::

    run/
      run.lock            held for a moment by a supervisor that comes
      state.yaml          what operators asked for (run_state.py)
      last_run.json       where the app's code was found the last time (inspection/status.py)
      cancelled, excused  notes about jobs (job_notes.py)
      producers/NAME      a lock per producer, held while it runs (execution/producers.py)
      running/
        4711-9f3c2a/      a supervisor: its process id, and chance
          lock            held as long as it lives
          run.json        what it runs
          board           what its children do (board.py)
          paused          which queues they leave alone (paused.py)
          control/        its socket (control_server.py), for its owner only

A name is never used twice, so a child that is slow to start can not write into the board of its supervisor's successor. A
supervisor removes its folder when it ends. One that is killed leaves it behind; whoever comes next removes it, once the
children in it have left: until then, what they settle is on its board.

Killed while a folder is made: its lock is free, so it is removed too. All of that happens under `run.lock`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import orjson

from pistributer import errors
from pistributer.storage.locks import Flock, is_held
from pistributer.storage.replacing import replace_file

from . import paused
from .board import Board, Seats, create

if TYPE_CHECKING:
    import filelock

#: Clocks of the board and of the kernel may differ by so much, in seconds.
_TOLERANCE = 2.0
#: A process that was killed is gone within so many seconds, unless it is deep in the kernel.
_GONE = 1.0


@dataclass(frozen=True)
class Record:
    """What a supervisor says about itself."""

    pid: int
    started: float
    #: Where its app was loaded from.
    app: str
    #: Names a time during which there was always a supervisor: producers run once in it.
    period: str
    seats: dict[str, Seats]
    #: The queues that it knows of.
    queues: list[str]


class Premises:
    """The folder of this supervisor, from `take` to `leave`."""

    def __init__(self, run_folder: str) -> None:
        self._run = run_folder
        self.folder = os.path.join(run_folder, "running", f"{os.getpid()}-{os.urandom(3).hex()}")
        self._lock = Flock(os.path.join(self.folder, "lock"))
        self._record = Record(0, 0.0, "", "", {}, [])
        #: Whether no other supervisor was there when this one came.
        self.alone = True

    @property
    def board(self) -> str:
        return board_path(self.folder)

    def take(self, app: str, seats: dict[str, Seats], queues: list[str]) -> None:
        """Make the folder, and remove those of the dead. Raises StorageErrors."""
        with changing(self._run):
            others = running(self._run)
            self.alone = not others
            period = others[0][1].period if others else os.urandom(6).hex()
            with errors.typed_os_errors("make the folder", self.folder):
                _remove_left_behind(self._run)
                os.makedirs(self.folder)
            # Whoever asks whether a lock is held takes it for an instant, so this may have to wait for that long.
            self._lock.acquire()
            create(self.board, max(role.end for role in seats.values()) if seats else 1)
            paused.create(paused.beside(self.board), queues)
            self._record = Record(os.getpid(), time.time(), app, period, seats, queues)
            self._write()

    def describe(self, seats: dict[str, Seats]) -> None:
        """Say how many there are now."""
        self._record = replace(self._record, seats=seats)
        self._write()

    def _write(self) -> None:
        replace_file(os.path.join(self.folder, "run.json"), orjson.dumps(asdict(self._record)) + b"\n", durable=False)

    def leave(self) -> None:
        """Remove the folder. No child is left."""
        with contextlib.suppress(OSError):  # the next one removes it
            shutil.rmtree(self.folder)
        self._lock.close()


def board_path(folder: str) -> str:
    return os.path.join(folder, "board")


def control_folder(folder: str) -> str:
    return os.path.join(folder, "control")


def running(run_folder: str) -> list[tuple[str, Record]]:
    """The folders of the supervisors that live, and what they say, the oldest first."""
    found = [
        (folder, record)
        for folder in folders(run_folder)
        if is_held(os.path.join(folder, "lock")) and (record := read_record(folder)) is not None
    ]
    return sorted(found, key=lambda pair: pair[1].started)


def folders(run_folder: str) -> list[str]:
    """The folders of all supervisors, dead ones too."""
    parent = os.path.join(run_folder, "running")
    try:
        return [os.path.join(parent, name) for name in sorted(os.listdir(parent))]
    except FileNotFoundError:
        return []


def read_record(folder: str) -> Record | None:
    """What the supervisor of `folder` says; None if it has not said anything yet, or has just left."""
    try:
        with open(os.path.join(folder, "run.json"), "rb") as file:
            found = orjson.loads(file.read())
    except FileNotFoundError:
        return None
    seats = {role: Seats(**_known(seat, Seats)) for role, seat in found["seats"].items()}
    return Record(**{**_known(found, Record), "seats": seats})


def _known(found: dict[str, Any], kind: type) -> dict[str, Any]:
    """Without what a newer release may have added."""
    return {field.name: found[field.name] for field in fields(kind)}


@contextlib.contextmanager
def boards(run_folder: str, *, but: str) -> Iterator[list[tuple[str, Board]]]:
    """The boards of all other supervisors, and of the dead whose children may still be at work, mapped."""
    with contextlib.ExitStack() as stack:
        found = []
        for folder in folders(run_folder):
            with contextlib.suppress(errors.FolderMissing):  # it has just left
                if folder != but:
                    found.append((folder, page := Board(board_path(folder))))
                    stack.callback(page.close)
        yield found


def changing(run_folder: str) -> filelock.BaseFileLock:
    """Held while folders come and go. A supervisor takes it once, so its care is worth more than microseconds."""
    import filelock  # those who only look need it not

    return filelock.FileLock(os.path.join(run_folder, "run.lock"))


def left_behind(run_folder: str) -> list[str]:
    """The folders of dead supervisors. The children of some are at work."""
    return [folder for folder in folders(run_folder) if not is_held(os.path.join(folder, "lock"))]


def _remove_left_behind(run_folder: str) -> None:
    for folder in left_behind(run_folder):
        if not _has_children(folder):
            shutil.rmtree(folder)


def _has_children(folder: str) -> bool:
    try:
        page = Board(board_path(folder))
    except errors.FolderMissing:
        return False  # it was killed before it had any
    try:
        return any(_is_child(pid, started) for pid, started in page.pids())
    finally:
        page.close()


def _is_child(pid: int, started: float) -> bool:
    """Whether the process that took this seat still lives; another one may have got its number since."""
    import psutil  # 20 ms that only those pay whose predecessor was killed

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and bool(process.create_time() <= started + _TOLERANCE)
    except psutil.Error:
        return False


def is_at(folder: str, pid: int, started: float) -> bool:
    """Whether the process that took a seat on the board of `folder` lives, and is the one that has this number here.

    In another container the number may mean another process, perhaps an older one. So where the system tells, what counts is
    that it has this very board mapped.
    """
    if not _is_child(pid, started):
        return False
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return os.path.join(os.path.basename(folder), "board\n") in file.read()
    except OSError:
        return not os.path.isdir("/proc/self")  # else it has ended, or is somebody else's


def kill(folder: str, pid: int, started: float) -> bool:
    """Kill the process of which `is_at` is true, and wait a moment for its end. False if it is gone, or not ours to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    # Not for its number to be free: nobody may ever reap it.
    deadline = time.monotonic() + _GONE
    while is_at(folder, pid, started) and time.monotonic() < deadline:
        time.sleep(0.001)
    return True
