"""Which job killed which worker, and how: `run/deaths.jsonl`.

The supervisor sees a child die and what it was running (board.py), and notes both here. The worker that meets the job
once too often looks the cause up, so that the dead letter says "killed by SIGKILL", not "unexpectedly".
"""

from __future__ import annotations

import os
import time
from typing import Any

import orjson

from pistributer.storage.appending import append_once
from pistributer.storage.locks import Flock
from pistributer.storage.replacing import replace_file

#: The file is cut to its last half when it is longer than this, in bytes.
_LONGEST = 1024 * 1024
#: The note may come a moment after the job, in seconds: the kernel tells the supervisor and frees the claim at once.
_PATIENCE, _PAUSE = 0.25, 0.01


def note(folder: str, *, worker: str, pid: int, job: str, task: str, cause: str) -> None:
    """Add a death. The caller holds the `lock`."""
    record = {"at": time.time(), "worker": worker, "pid": pid, "job": job, "task": task, "cause": cause}
    append_once(_path(folder), orjson.dumps(record) + b"\n")


def shorten(folder: str) -> None:
    """Keep the file small. The caller holds the `lock`."""
    data = _read(folder)
    if len(data) > _LONGEST:
        tail = data[-_LONGEST // 2 :]
        replace_file(_path(folder), tail[tail.find(b"\n") + 1 :], durable=False)


def lock(folder: str) -> Flock:
    """Between supervisors, which all note deaths here."""
    return Flock(os.path.join(folder, "deaths.lock"))


def last_cause(folder: str, job: str) -> str | None:
    """How the last worker that ran `job` died, if the supervisor noted it."""
    deadline = time.monotonic() + _PATIENCE
    while (found := _find(folder, job)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return None if found is None else str(found["cause"])


def _find(folder: str, job: str) -> dict[str, Any] | None:
    found = None
    for line in _read(folder).split(b"\n"):
        if job.encode() in line:
            record = orjson.loads(line)
            found = record if record["job"] == job else found
    return found


def _read(folder: str) -> bytes:
    try:
        with open(_path(folder), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def _path(folder: str) -> str:
    return os.path.join(folder, "deaths.jsonl")
