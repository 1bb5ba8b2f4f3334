"""What the jobs of peers.py do, the same for every peer, and how they tell: through files, with no help from a library.

Environment: PEERS_FOLDER (where everything of one measurement lies), PEERS_RESULTS ("1": results are kept).
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(os.environ.get("PEERS_FOLDER", "."))
#: Whether results are kept.
RESULTS = os.environ.get("PEERS_RESULTS") == "1"
#: The Redis of this measurement, for those that use one.
REDIS_SOCKET = FOLDER / "redis.sock"
#: Processor time that a short job takes, in seconds.
SHORT = 0.001
#: Longer than anybody waits for the rerun of a job whose worker was killed, in seconds.
HELD = 60.0

_TALLY = struct.Struct("<QQQ")


class Tally:
    """How many jobs this process has run, when the first began and when the last one ended: a page, stored to, no call."""

    def __init__(self) -> None:
        (FOLDER / "tallies").mkdir(exist_ok=True)
        with open(FOLDER / "tallies" / str(os.getpid()), "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._lock = threading.Lock()  # some peers run jobs in threads
        self._count = self._first = 0

    def add(self, begun: int) -> None:
        with self._lock:
            self._first = self._first or begun
            self._count += 1
            _TALLY.pack_into(self._page, 0, self._count, self._first, time.monotonic_ns())


_tally: Tally | None = None
_opening = threading.Lock()


def _forget() -> None:
    global _tally
    _tally = None


os.register_at_fork(after_in_child=_forget)


def tally() -> Tally:
    global _tally
    if _tally is None:
        with _opening:
            _tally = _tally or Tally()
    return _tally


def read_tallies(folder: Path) -> tuple[int, float]:
    """Jobs that have run, and the seconds from the start of the first to the end of the last."""
    pages = [path.read_bytes() for path in (folder / "tallies").glob("*")]
    begun = [_TALLY.unpack_from(page) for page in pages if any(page)]
    if not begun:
        return 0, 0.0
    seconds = (max(last for *_, last in begun) - min(first for _, first, _ in begun)) / 1e9
    return sum(count for count, *_ in begun), seconds


# -- the jobs


def nothing(number: int) -> int:
    """A no-op."""
    tally().add(time.monotonic_ns())
    return number


def short(number: int) -> int:
    """A millisecond of processor time."""
    begun = time.monotonic_ns()
    end = time.thread_time() + SHORT
    while time.thread_time() < end:
        pass
    tally().add(begun)
    return number


def stamp(sent: int) -> int:
    """Tell how long after `sent` (monotonic nanoseconds) this begins."""
    late = time.monotonic_ns() - sent
    with open(FOLDER / "stamps", "a") as file:
        file.write(f"{late}\n")
    return late


def hold(number: int) -> int:
    """Tell that this begins; the first time, hang."""
    first = not (FOLDER / "holds").exists()
    with open(FOLDER / "holds", "a") as file:
        file.write(f"{os.getpid()} {time.monotonic_ns()}\n")
    if first:
        time.sleep(HELD)
    return number


# -- sending, as each app's `python app_NAME.py WHAT …` does it


def main(send: object, send_many: object | None) -> None:
    """`nothing 1000 one`: send a thousand, one by one or `bulk`, and print the seconds. `stamps 100`: one after the other."""
    what, count = sys.argv[1], int(sys.argv[2])
    assert callable(send)
    if what == "stamps":
        _send_stamps(send, count)
        return
    started = time.perf_counter()
    if sys.argv[3] == "bulk":
        assert callable(send_many)
        send_many(what, range(count))
    else:
        for number in range(count):
            send(what, number)
    print(time.perf_counter() - started)


def _send_stamps(send: object, count: int) -> None:
    """Each is sent when the one before has run and the worker is asleep again."""
    assert callable(send)
    path = FOLDER / "stamps"
    for seen in _stamps(path, count):
        time.sleep(0.01)
        send("stamp", time.monotonic_ns())
        deadline = time.monotonic() + HELD
        while _lines(path) <= seen:
            if time.monotonic() > deadline:
                raise SystemExit("a job did not begin within a minute")
            time.sleep(0.0005)


def _stamps(path: Path, count: int) -> Iterator[int]:
    for _ in range(count):
        yield _lines(path)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
