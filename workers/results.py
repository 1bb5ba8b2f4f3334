"""Where results are kept: plain logs in the app's folder, one per worker process, read by whoever waits.

`results/SSSS-NNNNNN.jsonl`: slot SSSS belongs to the process that holds `results/SSSS.lock`; NNNNNN counts its
segments. One JSON line per finished job::

    {"id": "5f0c…", "ok": true, "value": 42}
    {"id": "…", "ok": false, "kind": "ValueError", "text": "bad", "traceback": "…", "attempts": 3}

`"until": 1763750000.0` is there for a task that says how long its results are kept: readers pass over it after that moment.

A result is in the log before its job is acknowledged, so a job that is gone from its queue has one. A worker killed
between the two runs the job again, and the later line stands for the same job.

Old segments are deleted by age and by total size; a result that went with them is lost (`ResultLost`). The last segment
of each slot stays, because its owner may be appending to it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json
from pistributer.storage.appending import AppendFile
from pistributer.storage.locks import Flock

#: Results are kept for a day, or as long as they fit, unless the app says otherwise.
MAX_AGE, MAX_BYTES = 86400.0, 256 * 1024 * 1024
#: A log of this size is followed by the next, in bytes.
SEGMENT_BYTES = 4 * 1024 * 1024

_SEGMENT = re.compile(r"(\d{4,})-(\d{6,})\.jsonl")
#: Every line begins so, which is how a reader finds ids without parsing.
_HEAD = b'{"id":"'
#: … and goes on so if the job went well.
_OK = b'","ok":true'


@dataclass(frozen=True, slots=True)
class Segment:
    slot: int
    number: int
    path: str


@dataclass(frozen=True, slots=True)
class Finished:
    """How a job ended."""

    ok: bool
    value: Any = None
    kind: str = ""
    text: str = ""
    traceback: str = ""
    attempts: int = 0
    #: When it is not to be shown any more, seconds since the epoch; 0: that is for the app to say.
    until: float = 0.0

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return 0.0 < self.until < time.time()


class ResultLog:
    """This process's log. `add` and `add_failure` note lines, `flush` writes them all at once. Not thread-safe."""

    def __init__(self, folder: str, *, max_age: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._lock: Flock | None = None
        self._file: AppendFile | None = None
        self._segment = Segment(0, 0, "")
        self._lines: list[bytes] = []

    def add(self, job_id: str, value: Any, until: float = 0.0) -> None:
        """Note a result. Raises RowError if JSON can not hold it."""
        line = {"id": job_id, "ok": True, "value": value}
        self._lines.append(encode_json({**line, "until": until} if until else line))

    def add_failure(self, job_id: str, kind: str, text: str, traceback: str, attempts: int, until: float = 0.0) -> None:
        fields = {"id": job_id, "ok": False, "kind": kind, "text": text, "traceback": traceback, "attempts": attempts}
        if until:
            fields["until"] = until
        self._lines.append(encode_json({name: _clean(value) for name, value in fields.items()}))

    def flush(self) -> None:
        """Put what was noted on disk (in the page cache; results have no durability dial)."""
        if not self._lines:
            return
        if self._file is None or self._file.size >= SEGMENT_BYTES:
            self._roll()
        assert self._file is not None
        self._file.append(b"".join(self._lines))
        self._lines.clear()

    def close(self) -> None:
        """Flush and let go of the slot."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
            if self._lock is not None:
                self._lock.close()
            self._file = self._lock = None

    def _roll(self) -> None:
        """Begin the next segment, or go on in the one that the slot's last owner left."""
        if self._lock is None:
            self._lock, slot = _take_slot(self._folder)
            last = [found for found in segments(self._folder) if found.slot == slot][-1:]
            self._segment = last[0] if last else self._named(slot, 1)
        else:
            self._segment = self._named(self._segment.slot, self._segment.number + 1)
        if self._file is not None:
            self._file.close()
        self._file = AppendFile(self._segment.path).open()
        prune(self._folder, max_age=self._max_age, max_bytes=self._max_bytes)
        if self._file.size >= SEGMENT_BYTES:
            self._roll()

    def _named(self, slot: int, number: int) -> Segment:
        return Segment(slot, number, os.path.join(self._folder, f"{slot:04d}-{number:06d}.jsonl"))


class ResultReader:
    """Finds results by job id, reading each line of the logs once. Memory: about 200 bytes per result in the store."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        #: Job id to (path, offset, length) of its last line.
        self._places: dict[bytes, tuple[str, int, int]] = {}

    def find(self, job_id: str) -> Finished | None:
        """How the job ended, if a log says so."""
        key = job_id.encode()
        if key not in self._places:
            self.refresh()
        place = self._places.get(key)
        found = None if place is None else self._load(key, *place)
        if found is not None and not found.ok:
            self.refresh()  # its dead letter may have been tried again since
            found = self._load(key, *self._places.get(key, place))  # type: ignore[misc]
        return None if found is None or found.expired else found

    def _is_wanted(self, key: bytes) -> bool:
        return True

    def refresh(self) -> None:
        """Read what was appended since the last time."""
        for segment in segments(self._folder):
            self._read_on(segment.path)

    def _read_on(self, path: str) -> None:
        start = self._read.get(path, 0)
        try:
            if os.stat(path).st_size <= start:
                return
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return  # pruned meanwhile
        whole = data.rfind(b"\n") + 1
        offset = start
        for line in data[:whole].splitlines(keepends=True):
            if line.startswith(_HEAD):
                key = line[len(_HEAD) : line.index(b'"', len(_HEAD))]
                # Of two logs, nobody knows which is later: a dead letter that was tried again, and went well, went well.
                known = self._places.get(key)
                if self._is_wanted(key) and (known is None or known[0] == path or _OK in line[: len(key) + 24]):
                    self._places[key] = (path, offset, len(line))
            offset += len(line)
        self._read[path] = start + whole

    def _load(self, key: bytes, path: str, offset: int, length: int) -> Finished | None:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                line = orjson.loads(file.read(length))
        except FileNotFoundError:
            del self._places[key]
            return None
        return Finished(**{name: line[name] for name in Finished.__slots__ if name in line})


class WatchedResults(ResultReader):
    """Finds the results of some jobs only, which begin after it was made. Memory: for those that are watched now."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._watched: set[bytes] = set()
        for segment in segments(folder):
            stat = _stat(segment.path)
            self._read[segment.path] = 0 if stat is None else stat.st_size

    def watch(self, jobs: Iterable[str]) -> None:
        """Find these from now on. A result that was read past before can not be found any more."""
        self._watched.update(job.encode() for job in jobs)

    def forget(self, job: str) -> None:
        """Find this one no more."""
        self._watched.discard(job.encode())
        self._places.pop(job.encode(), None)

    def _is_wanted(self, key: bytes) -> bool:
        return key in self._watched


def segments(folder: str) -> list[Segment]:
    """All segments, by slot and number; none if the folder does not exist yet."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [
        Segment(int(match[1]), int(match[2]), os.path.join(folder, name))
        for name in names
        if (match := _SEGMENT.fullmatch(name))
    ]
    return sorted(found, key=lambda segment: (segment.slot, segment.number))


def prune(folder: str, *, max_age: float, max_bytes: int) -> None:
    """Delete sealed segments that are older than `max_age` seconds, and the oldest of those over `max_bytes` in all."""
    found = segments(folder)
    last = {segment.slot: segment for segment in found}
    stats = {segment: stat for segment in found if (stat := _stat(segment.path)) is not None}
    total = sum(stat.st_size for stat in stats.values())
    horizon = time.time() - max_age
    for segment in sorted(stats, key=lambda segment: stats[segment].st_mtime):
        if segment is last[segment.slot]:
            continue
        if stats[segment].st_mtime < horizon or total > max_bytes:
            total -= stats[segment].st_size
            _unlink(segment.path)


def _take_slot(folder: str) -> tuple[Flock, int]:
    """The first slot that nobody owns. The lock is freed by the kernel when its owner dies."""
    slot = 1
    while True:
        lock = Flock(os.path.join(folder, f"{slot:04d}.lock"))
        if lock.acquire(timeout=0):
            return lock, slot
        lock.close()
        slot += 1


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None  # pruned by another worker


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # pruned by another worker


def _clean(value: Any) -> Any:
    """Text that JSON can hold: an error's words may have lone surrogates in them, from undecodable file names."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def to_error(job_id: str, finished: Finished) -> errors.JobFailed:
    """What `Job.result` raises for a job that failed."""
    return errors.JobFailed(
        f"{finished.kind}: {finished.text}" if finished.text else finished.kind,
        job_id=job_id,
        kind=finished.kind,
        text=finished.text,
        traceback=finished.traceback,
        attempts=finished.attempts,
    )
