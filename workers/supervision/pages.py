"""A page of memory per child, beside its slot on the board: how far its jobs are, and the last lines that it logged.

The child stores into it without a system call. The page is a file, `board.N`, so it outlives a killed child; the next one in
that slot begins with an empty page, after the supervisor has noted the death.

Layout, little endian::

    0      16 entries of 256 bytes, one per job that reports its progress:
             0   24s  the job's id, all zero while the entry is free or being changed from one job to the next
             24  f64  how much is done
             32  f64  of how much in all; not a number: nobody knows
             40  f64  when it was said, seconds since the epoch
             48  208s what was said, UTF-8, cut off
    4096   u64  bytes that were ever logged
    4104   4088 bytes: the last of them, a ring. Each line: seconds since the epoch, then what `last_words.py` puts there.

The numbers of an entry are stored one by one: a reader may see one that is a call older than the other.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pistributer import errors
from pistributer.storage.mapping import map_file
from pistributer.storage.replacing import replace_file

ENTRIES, _ENTRY = 16, 256
_SIZE, _RING_AT, _RING = 8192, 4104, 4088
_JOB, _NUMBERS, _TEXT, _COUNT = struct.Struct("24s"), struct.Struct("<ddd"), struct.Struct("208s"), struct.Struct("<Q")
_NOBODY = bytes(24)
_NAME = re.compile(r"board\.\d+")


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is, as it says itself: `done` of `total`, if that is known."""

    done: float
    total: float | None
    text: str
    #: When it said so, seconds since the epoch.
    at: float


def page_path(board: str, number: int) -> str:
    """Where the page of child `number` of the board at `board` lies."""
    return f"{board}.{number}"


def stack_path(board: str, number: int) -> str:
    """Where child `number` writes down how it crashed (last_words.py)."""
    return f"{page_path(board, number)}.stack"


class Page:
    """The page at `path`, mapped. Its owner asks for `fresh`: an empty one, made if there is none."""

    def __init__(self, path: str, *, fresh: bool = False) -> None:
        with errors.typed_os_errors("map", path):
            if fresh and not (os.path.exists(path) and os.path.getsize(path) == _SIZE):
                replace_file(path, bytes(_SIZE), durable=False)
        self._map = map_file(path, _SIZE, write=fresh)
        if fresh:
            self._map[:] = bytes(_SIZE)
        self._logged = 0

    # -- progress

    def open_entry(self, number: int, job: str) -> None:
        """Give the entry to a job."""
        base = number * _ENTRY
        _JOB.pack_into(self._map, base, _NOBODY)
        _NUMBERS.pack_into(self._map, base + 24, 0.0, math.nan, 0.0)
        _TEXT.pack_into(self._map, base + 48, b"")
        _JOB.pack_into(self._map, base, job.encode())

    def say(self, number: int, done: float, total: float | None, text: bytes | None) -> None:
        """Store how far the entry's job is; with `text=None` the text stays."""
        base = number * _ENTRY
        _NUMBERS.pack_into(self._map, base + 24, done, math.nan if total is None else total, time.time())
        if text is not None:
            _TEXT.pack_into(self._map, base + 48, text)

    def progress(self) -> dict[str, JobProgress]:
        """What each job said that reported any, by its id; some of them may be over."""
        found = {}
        for base in range(0, ENTRIES * _ENTRY, _ENTRY):
            job = self._map[base : base + 24]
            done, total, at = _NUMBERS.unpack_from(self._map, base + 24)
            text = self._map[base + 48 : base + _ENTRY].rstrip(b"\0").decode(errors="ignore")
            if at and job != _NOBODY and job == self._map[base : base + 24]:
                found[job.rstrip(b"\0").decode(errors="ignore")] = JobProgress(
                    whole(done), None if math.isnan(total) else whole(total), text, at
                )
        return found

    # -- last words

    def log(self, line: bytes) -> None:
        """Add a line to the ring, without its newline. Killed in the middle, the oldest line is spoilt."""
        data = line[: _RING // 2] + b"\n"
        at = self._logged % _RING
        first = data[: _RING - at]
        self._map[_RING_AT + at : _RING_AT + at + len(first)] = first
        if len(first) < len(data):
            self._map[_RING_AT : _RING_AT + len(data) - len(first)] = data[len(first) :]
        self._logged += len(data)
        _COUNT.pack_into(self._map, _RING_AT - 8, self._logged)

    def logged(self) -> list[bytes]:
        """The last lines, oldest first."""
        (count,) = _COUNT.unpack_from(self._map, _RING_AT - 8)
        ring, at = self._map[_RING_AT:_SIZE], count % _RING
        if count <= _RING:
            return ring[:count].split(b"\n")[:-1]
        return (ring[at:] + ring[:at]).split(b"\n")[1:-1]

    def close(self) -> None:
        self._map.close()


def find_progress(folder: str, job: str) -> JobProgress | None:
    """What the job says in a page of a supervisor, whose folders are in `folder` (runs.py), while it runs or a moment after."""
    parent = os.path.join(folder, "running")
    names = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    pages = [page for name in names for page in all_progress(os.path.join(parent, name))]
    found = [page[job] for page in pages if job in page]
    return max(found, key=lambda progress: progress.at, default=None)


def all_progress(folder: str) -> Iterator[dict[str, JobProgress]]:
    """What each page in `folder` says."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if _NAME.fullmatch(name):
            with contextlib.suppress(errors.FolderMissing):  # it has just left
                page = Page(os.path.join(folder, name))
                yield page.progress()
                page.close()


def whole(number: float) -> float:
    """An int where it is one, as its sender most likely wrote it; 0 for what is no number, which JSON could not hold."""
    if not math.isfinite(number):
        return 0
    return int(number) if number.is_integer() else number
