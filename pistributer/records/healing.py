"""Where in a file the next chunk may be appended, and what to do with what a dead writer left behind that place."""

from __future__ import annotations

import os

from ..storage.whole_append import WholeAppendFile, keep_range
from .damage import CorruptionStrategy, Damage
from .layout import BLOCK, BLOCK_HEADER, SIGNATURE, parse_block_header
from .walking import Walker


def find_end(fd: int, path: str) -> int:
    """The end of the last chunk that a reader can reach and that is all there; 0 if not even the signature is.

    Raises NotARecordFile. Starts from the last sound block header, so it reads some headers, not the file.
    """
    walker = Walker(fd, path, CorruptionStrategy.RECOVER)
    walker.check_signature()
    size = walker.size()
    if size < len(SIGNATURE):
        return 0
    walker.move(_last_known_begin(fd, size))
    end = walker.at
    while (place := walker.place()) is not None:
        walker.pass_by(place)
        end = walker.at
    return end


def _last_known_begin(fd: int, size: int) -> int:
    """Where a chunk begins, the later the better: the one that the last sound block header interrupts."""
    for block in range((size - 1) // BLOCK * BLOCK, 0, -BLOCK):
        links = parse_block_header(os.pread(fd, BLOCK_HEADER, block), block)
        if links is not None:
            return links.begin if links.end > size else links.end
    return len(SIGNATURE)


def heal(file: WholeAppendFile) -> Damage | None:
    """Cut off what stands behind the last whole chunk, after it was copied to `NAME.torn-OFFSET`; tell what it was.

    Killed between copying and cutting, the next writer does both again, to another name. A file without even a whole
    signature is emptied.
    """
    end = find_end(file.fd, file.path)
    if end == file.size:
        return None
    found = Damage(file.path, end, file.size, "the last writer died in the middle of a chunk", None)
    if end > 0:
        keep_range(file.fd, end, file.size, f"{file.path}.torn-{end}")
    file.cut(end)
    return found
