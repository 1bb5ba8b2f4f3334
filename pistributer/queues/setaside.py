"""Two files beside the queue: damaged bytes (quarantine.jsonl) and buried rows (dead.jsonl).

The quarantine is appended to under the folder's lock, the dead letters under one of their own, because putting a row back
takes the folder's. Buried rows change state in place: `dead` → `requeued` or `dropped`; the file
is emptied once none is dead any more. Killed inside, a row is still dead, or has been put back and still reads as dead:
never lost.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterable, Iterator

import orjson

from ..storage.appending import append_once
from ..storage.inplace import empty, write_at
from ..storage.locks import Flock
from .envelope import STATE_AT, Envelope, pad_state, unwrap, wrap
from .folder import Folder


class Quarantine:
    """Where damage goes. One JSON line each: where it was found, why it is damage, and the bytes."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def add(self, damaged: bytes, *, found: str, reason: str) -> None:
        """Keep `damaged`. Called before the bytes are cut or passed over, so a kill may keep them twice, never lose them."""
        try:
            content = {"text": damaged.decode()}
        except UnicodeDecodeError:
            content = {"base64": base64.b64encode(damaged).decode()}
        line = orjson.dumps({"found": found, "reason": reason, "at": time.time(), **content}) + b"\n"
        with self._folder.lock:
            append_once(self._folder.quarantine, line)

    def count(self) -> int:
        """How many places are damaged; one that was kept twice because of a kill counts once."""
        return len({line.partition(b'","reason"')[0] for line in _lines(self._folder.quarantine)})


class DeadLetters:
    """Rows that were given up, with the reason."""

    def __init__(self, folder: Folder, *, sync: bool) -> None:
        self._folder = folder
        self._sync = sync
        self._lock = Flock(os.path.join(folder.path, "dead.lock"))

    def add(self, envelopes: Iterable[Envelope]) -> None:
        lines = b"".join(wrap(envelope, self._folder.codec) for envelope in envelopes)
        with self._lock:
            append_once(self._folder.dead, lines, sync=self._sync)

    def __iter__(self) -> Iterator[Envelope]:
        for line in _lines(self._folder.dead):
            if (envelope := self._parse(line)) and envelope.state == "dead":
                yield envelope

    def _parse(self, line: bytes) -> Envelope | None:
        try:
            return unwrap(line, self._folder.codec)
        except ValueError:
            return None  # edited by hand, or damaged by a power cut; nothing of ours can act on it

    def count(self) -> int:
        mark = pad_state("dead")
        return sum(line.startswith(mark, STATE_AT) for line in _lines(self._folder.dead))

    def settle(self, ids: set[str] | None, state: str, each: Callable[[Envelope], None]) -> int:
        """Call `each` for every dead row (or those in `ids`) and mark it as `state`; return how many."""
        if not os.path.exists(self._folder.dead):
            return 0
        with self._lock:
            fd = os.open(self._folder.dead, os.O_RDWR | os.O_CLOEXEC)
            try:
                settled, left = self._settle(fd, ids, state, each)
                if not left:
                    empty(fd, self._folder.dead)
            finally:
                os.close(fd)
        return settled

    def _settle(self, fd: int, ids: set[str] | None, state: str, each: Callable[[Envelope], None]) -> tuple[int, int]:
        position = settled = left = 0
        for line in _lines(self._folder.dead):
            envelope = self._parse(line)
            if envelope is None or envelope.state != "dead":
                left += envelope is None
            elif ids is None or envelope.id in ids:
                each(envelope)
                write_at(fd, pad_state(state), position + STATE_AT, self._folder.dead)
                settled += 1
            else:
                left += 1
            position += len(line) + 1
        return settled, left


def _lines(path: str) -> Iterator[bytes]:
    """Whole lines of a file that may be missing, without their newlines; a torn last one is left out."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
    except FileNotFoundError:
        return
