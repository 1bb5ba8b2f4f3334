"""Where results are kept: plain logs in the app's folder, one per worker process, read by whoever waits.

`results/` holds logs as segment_log.py keeps them. One JSON line per finished job::

    {"id": "5f0c…", "ok": true, "value": 42, "task": "resize", "at": 1763715600.5, "seconds": 0.2, "attempts": 1}
    {"id": "…", "ok": false, "kind": "ValueError", "text": "bad", "traceback": "…", "attempts": 3, "task": …}

`"until": 1763750000.0` is there if the task or the sender says how long the result is kept: readers pass over it after that
moment. A log is deleted as a whole, so it stays as long as any result in the folder may have to (longest.py).

A result is in the log before its job is acknowledged, so a job that is gone from its queue has one. A worker killed
between the two runs the job again, and the later line stands for the same job.

Old segments are deleted by age and by total size; a result that went with them is lost (`ResultLost`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json

from .longest import Longest
from .segment_log import Follower, SegmentLog, clean

#: Results are kept for a day, or as long as they fit, unless the app says otherwise.
MAX_AGE, MAX_BYTES = 86400.0, 256 * 1024 * 1024
#: After its id, the line of a job that went well goes on so.
_OK = b'","ok":true'
_LINE = b'{"id":%s,"ok":true,"value":%s,"task":%s,"at":%.6f,"seconds":%.6f,"attempts":%d'


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
    #: When it ended, seconds since the epoch, and how long its last attempt took; None: kept by an older release.
    at: float | None = None
    seconds: float | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return 0.0 < self.until < time.time()


class ResultLog:
    """This process's log. `add` and `add_failure` note lines, `flush` writes them all at once, from one thread."""

    def __init__(self, folder: str, *, max_age: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> None:
        self._longest = Longest(folder, max_age)
        self._log = SegmentLog(folder, max_age=max_age, max_bytes=max_bytes, longer=self._longest.read)
        self.flush = self._log.flush
        self.close = self._log.close

    def add(
        self, job_id: str, value: Any, until: float = 0.0, *, task: str = "", seconds: float = 0.0, attempts: int = 1
    ) -> None:
        """Note a result. Raises RowError if JSON can not hold it."""
        if until:
            self._longest.keep_until(until)
        # Put together by hand: to look for NaN, as `encode_json` does wherever there is a null, is worth it for the value only.
        shown = b"null" if value is None else encode_json(value)[:-1]
        line = _LINE % (orjson.dumps(job_id), shown, orjson.dumps(task), time.time(), seconds, attempts)
        self._log.note_line(line + (b',"until":%.3f}\n' % until if until else b"}\n"))

    def add_failure(
        self, job_id: str, kind: str, text: str, traceback: str, attempts: int, until: float = 0.0, *, task: str = "",
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        fields = {"id": job_id, "ok": False, "kind": kind, "text": text, "traceback": traceback, "attempts": attempts}
        fields |= {"task": task, "at": time.time(), "seconds": seconds}
        if until:
            self._longest.keep_until(until)
            fields["until"] = until
        self._log.note({name: clean(value) for name, value in fields.items()})


class ResultReader:
    """Finds results by job id, reading each line of the logs once. Memory: about 200 bytes per result in the store."""

    def __init__(self, folder: str) -> None:
        self._follower = Follower(folder)
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
        for key, path, offset, line in self._follower.lines():
            # Of two logs, nobody knows which is later: a dead letter that was tried again, and went well, went well.
            known = self._places.get(key)
            if self._is_wanted(key) and (known is None or known[0] == path or _OK in line[: len(key) + 24]):
                self._places[key] = (path, offset, len(line))

    def _load(self, key: bytes, path: str, offset: int, length: int) -> Finished | None:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                line = orjson.loads(file.read(length))
        except FileNotFoundError:
            del self._places[key]
            return None
        return to_finished(line)


def to_finished(line: dict[str, Any]) -> Finished:
    """A line of a log; fields that a later release added are passed over."""
    return Finished(**{name: line[name] for name in Finished.__slots__ if name in line})


class WatchedResults(ResultReader):
    """Finds the results of some jobs only, which begin after it was made. Memory: for those that are watched now."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._watched: set[bytes] = set()
        self._follower.skip()

    def watch(self, jobs: Iterable[str]) -> None:
        """Find these from now on. A result that was read past before can not be found any more."""
        self._watched.update(job.encode() for job in jobs)

    def forget(self, job: str) -> None:
        """Find this one no more."""
        self._watched.discard(job.encode())
        self._places.pop(job.encode(), None)

    def _is_wanted(self, key: bytes) -> bool:
        return key in self._watched


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
