"""Notes about jobs, in the app's folder `run`: a file of job ids, one a line, that any process may add to.

Readers look at the file's size first, so that nothing new costs one `stat`. The supervisor forgets ids of jobs that have ended
when it starts. Killed while it does: the file is replaced as a whole, so the old one or the new one stands; a line that was
added meanwhile is not lost, because both hold the lock.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from pistributer.storage.appending import append_once
from pistributer.storage.locks import Flock
from pistributer.storage.replacing import replace_file


class JobNotes:
    """The ids in the file `name`, as far as this object has read them, and how often each stands there."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, name)
        self._seen: tuple[int, int] | None = None
        self._jobs: Counter[str] = Counter()

    def add(self, *jobs: str) -> None:
        with self._lock():
            append_once(self._path, "".join(f"{job}\n" for job in jobs).encode())

    def read(self) -> Counter[str]:
        """All of them."""
        try:
            state = os.stat(self._path)
        except FileNotFoundError:
            return self._jobs
        if self._seen != (state.st_ino, state.st_size):
            self._seen = state.st_ino, state.st_size
            self._jobs = Counter(self._whole_lines().decode().split())
        return self._jobs

    def forget_all_but(self, jobs: Iterable[str]) -> None:
        """Keep only the notes about these jobs."""
        if not os.path.exists(self._path):
            return
        with self._lock():
            noted = self._whole_lines().decode().split()
            if noted:  # only then is it worth finding out which jobs there are
                living = set(jobs)
                kept = sorted(job for job in noted if job in living)
                replace_file(self._path, "".join(f"{job}\n" for job in kept).encode(), durable=False)

    def _whole_lines(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _lock(self) -> Flock:
        return Flock(f"{self._path}.lock")
