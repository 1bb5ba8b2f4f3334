"""Append-only logs of JSON lines in a folder, one per writing process: what results and histories are kept in.

`SSSS-NNNNNN.jsonl`: slot SSSS belongs to the process that holds `SSSS.lock`; NNNNNN counts its segments. Each line is an
object whose first field is `"id"`, so that a reader finds a job's lines without parsing the others.

A process takes the first slot that is free, and goes on in the segment that its last owner left; a torn line there is
cut off. Old segments are deleted by age and by total size. The last segment of each slot stays, because its owner may be
appending to it.

Killed between any two steps: before the append, nothing; inside it, a torn line that readers pass over and the slot's next
owner cuts off; while segments are deleted, fewer of them are gone.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from pistributer import errors
from pistributer.queues.rows import encode_json
from pistributer.storage.appending import AppendFile
from pistributer.storage.locks import Flock, take_numbered

#: A log of this size is followed by the next, in bytes.
SEGMENT_BYTES = 4 * 1024 * 1024

_SEGMENT = re.compile(r"(\d{4,})-(\d{6,})\.jsonl")
#: Every line begins so.
_HEAD = b'{"id":"'


@dataclass(frozen=True, slots=True)
class Segment:
    slot: int
    number: int
    path: str


class SegmentLog:
    """This process's log. `note` keeps lines, from any thread; `flush` writes them all at once, from one.

    max_age, max_bytes  what is older, in seconds, or does not fit, is deleted
    longer              how old it may become nevertheless
    """

    def __init__(
        self, folder: str, *, max_age: float, max_bytes: int, longer: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._folder = folder
        self._max_age = max_age
        self._longer = longer
        self._max_bytes = max_bytes
        self._lock: Flock | None = None
        self._file: AppendFile | None = None
        self._segment = Segment(0, 0, "")
        #: Adding to one end and taking from the other needs no lock.
        self._lines: deque[bytes] = deque()

    def note(self, fields: dict[str, Any]) -> None:
        """Keep a line, whose first field is "id", for `flush`. Raises RowError if JSON can not hold it."""
        self._lines.append(encode_json(fields))

    def note_line(self, line: bytes) -> None:
        """The same with a line that is JSON already, its newline included."""
        self._lines.append(line)

    def flush(self) -> None:
        """Put what was noted on disk (in the page cache; these logs have no durability dial)."""
        if not self._lines:
            return
        if self._file is None or self._file.size >= SEGMENT_BYTES:
            self._roll()
        assert self._file is not None
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            self._file.append(b"".join(lines))
        except errors.StorageError:
            self._lines.extendleft(reversed(lines))
            raise

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
            self._lock, slot = take_numbered(self._folder)
            last = [found for found in segments(self._folder) if found.slot == slot][-1:]
            self._segment = last[0] if last else self._named(slot, 1)
        else:
            self._segment = self._named(self._segment.slot, self._segment.number + 1)
        if self._file is not None:
            self._file.close()
        self._file = AppendFile(self._segment.path).open()
        prune(self._folder, max_age=max(self._max_age, self._longer()), max_bytes=self._max_bytes)
        if self._file.size >= SEGMENT_BYTES:
            self._roll()

    def _named(self, slot: int, number: int) -> Segment:
        return Segment(slot, number, os.path.join(self._folder, f"{slot:04d}-{number:06d}.jsonl"))


class Follower:
    """Reads the logs of a folder as they grow, each line once. Holds no lock and disturbs nobody."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}

    def blocks(self) -> Iterator[tuple[str, int, bytes]]:
        """What was appended since the last time: `(path, offset, whole lines)`."""
        for segment in segments(self._folder):
            start = self._read.get(segment.path, 0)
            try:
                if os.stat(segment.path).st_size <= start:
                    continue
                with open(segment.path, "rb") as file:
                    file.seek(start)
                    data = file.read()
            except FileNotFoundError:
                continue  # pruned meanwhile
            end = data.rfind(b"\n") + 1
            self._read[segment.path] = start + end
            yield segment.path, start, data[:end]

    def lines(self) -> Iterator[tuple[bytes, str, int, bytes]]:
        """The same line by line: `(id, path, offset, line)`."""
        for path, offset, block in self.blocks():
            for line in block.splitlines(keepends=True):
                if line.startswith(_HEAD):
                    yield line[len(_HEAD) : line.index(b'"', len(_HEAD))], path, offset, line
                offset += len(line)

    def lines_of(self, id: str) -> Iterator[dict[str, Any]]:
        """What was appended about one id, parsed. Much cheaper than `lines` for those who want no other."""
        wanted = b'%s%s"' % (_HEAD, id.encode())
        for _, _, block in self.blocks():
            at = block.find(wanted)
            while at >= 0:
                end = block.index(b"\n", at)
                if at == 0 or block[at - 1 : at] == b"\n":
                    yield orjson.loads(block[at:end])
                at = block.find(wanted, end)

    def skip(self) -> None:
        """Pass over all that is there now."""
        for segment in segments(self._folder):
            self._read[segment.path] = size_of(segment.path)


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


def size_of(path: str) -> int:
    """Bytes of the file at `path`; 0 if it is gone."""
    found = _stat(path)
    return 0 if found is None else found.st_size


def clean(value: Any) -> Any:
    """Text that JSON can hold: an error's words may have lone surrogates in them, from undecodable file names."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


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
