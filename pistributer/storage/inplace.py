"""Small fixed-width state, changed in place.

A `pwrite` within one page is all or nothing for a killed process and for every reader, because the kernel copies it under
one page lock. A power cut may tear it at a sector, so what matters is written twice, alternately, with a checksum
(`Slots`): the newest copy that checks out is the state.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import orjson

from .. import errors

_SLOT = 128
_BLANK = b" "


class Slots:
    """A JSON object in two alternating slots of 128 bytes at the start of an open file. The caller holds its lock.

    The file reads as two lines: `{"n":7,…,"crc":123}` padded with spaces. `n` grows by one with each write, and the slot is
    `n % 2`. Damage to the newest slot brings back the state before it; damage to both, none at all.
    """

    __slots__ = ("_last", "_n", "_state", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._n = 0
        self._last = b""
        self._state: dict[str, int] | None = None

    def read(self, fd: int) -> dict[str, int] | None:
        """The newest state that checks out; None if there is none. Do not change the dict."""
        data = os.pread(fd, 2 * _SLOT, 0)
        if data != self._last:  # others wrote since
            self._last = data
            found = [state for state in (_parse(data[:_SLOT]), _parse(data[_SLOT:])) if state]
            self._state = max(found, key=lambda state: state["n"], default=None)
            self._n = self._state["n"] if self._state else 0
        return self._state

    def write(self, fd: int, state: dict[str, int]) -> None:
        """Replace the state that `read` last returned, under the same lock."""
        n = self._n + 1
        body = b'{"n":%d,%s' % (n, orjson.dumps(state)[1:-1])
        slot = (b'%s,"crc":%d}' % (body, zlib.crc32(body))).ljust(_SLOT - 1, _BLANK) + b"\n"
        offset = _SLOT * (n % 2)
        try:
            os.pwrite(fd, slot, offset)
        except OSError as error:
            raise errors.from_os_error(error, "write", self.path) from error
        old = self._last.ljust(2 * _SLOT, b"\0")
        self._last = old[:offset] + slot + old[offset + _SLOT :]
        self._n = n
        self._state = {**state, "n": n}


def _parse(slot: bytes) -> dict[str, int] | None:
    body, found, rest = slot.rpartition(b',"crc":')
    if not found:
        return None
    try:
        if zlib.crc32(body) != int(rest.rstrip(b"} \n")):
            return None
        state: Any = orjson.loads(slot)
    except ValueError:
        return None
    return state if isinstance(state, dict) and isinstance(state.get("n"), int) else None


def write_at(fd: int, data: bytes, offset: int, path: str) -> None:
    """Change a few bytes in place; they must lie within one page."""
    try:
        os.pwrite(fd, data, offset)
    except OSError as error:
        raise errors.from_os_error(error, "write", path) from error


def empty(fd: int, path: str) -> None:
    """Cut the open file `path` to nothing."""
    try:
        os.ftruncate(fd, 0)
    except OSError as error:
        raise errors.from_os_error(error, "empty", path) from error
