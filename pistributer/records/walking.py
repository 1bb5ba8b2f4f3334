"""Walking a file from chunk to chunk, past damage if asked.

A chunk counts if the hashes of its header and of its data are right. What happens otherwise:

    header wrong            the next block header that is right tells where a chunk begins or ends: on from there
    data wrong              on at the chunk's end, which its header tells
    block header wrong      the chunk is whole without it, so nothing is lost; it is noted
    signature wrong         likewise, if a sound chunk follows; else this is no record file
    file ends in a chunk    a writer died there, or is writing at this moment: the end, and `torn` says so

So one flipped bit costs at most one chunk, or what stands between a chunk's header and the next block. A damaged chunk is
never searched for things that look like chunks: what a record holds may look like one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from .. import errors
from ..storage.whole_append import read_vector
from .damage import CorruptionStrategy, Damage
from .hot import allocate, block_headers, hash64
from .layout import (
    BLOCK,
    BLOCK_HEADER,
    CHUNK_HEADER,
    SIGNATURE,
    ChunkHeader,
    chunk_end,
    headers_between,
    lay_out,
    parse_block_header,
    parse_header,
)

FIRST_CHUNK = len(SIGNATURE)
#: A chunk that is longer, or says that it holds more, is refused before memory is asked for, in bytes.
MAX_CHUNK_BYTES = 4 * 1024**3


class Place(NamedTuple):
    """A chunk whose header is right and whose bytes are all there."""

    begin: int
    end: int
    header: ChunkHeader
    #: Where the data begins.
    data_at: int


class _Header(NamedTuple):
    """The bytes of a chunk header, with the block header that may stand before or inside it; `got` of them were there."""

    at: int
    chunk: bytearray
    blocks: bytearray
    got: int


class Walker:
    """A position in an open file. `place` looks at the chunk there, `data` reads it, `pass_by` goes to its end.

    At the end of the file the position stays, so that a file that has grown can be walked on.
    """

    def __init__(
        self, fd: int, path: str, strategy: CorruptionStrategy, max_chunk_bytes: int = MAX_CHUNK_BYTES
    ) -> None:
        self.fd = fd
        self.path = path
        self.strategy = strategy
        self._max_chunk_bytes = max_chunk_bytes
        self.at = 0
        #: What was met so far, in order. At an ERROR that was raised, that one is not in it.
        self.damage: list[Damage] = []
        #: The incomplete chunk at the end, if the last look found one.
        self.torn: Damage | None = None
        self._size = 0
        self._ahead: _Header | None = None

    def check_signature(self) -> None:
        """Raise NotARecordFile unless this is one, perhaps damaged."""
        self.size()
        start = os.pread(self.fd, FIRST_CHUNK, 0)
        if start == SIGNATURE[: len(start)]:
            return
        if not self._looks_sound():
            raise errors.NotARecordFile(
                f"{self.path!r} is not a record file", hint="its first bytes are not those of one", path=self.path
            )

    def _looks_sound(self) -> bool:
        header = self._read_header(FIRST_CHUNK)
        if header.got == _header_size(FIRST_CHUNK) and parse_header(header.chunk) is not None:
            return True
        return next(self._blocks_behind(0), None) is not None

    def size(self) -> int:
        """Bytes in the file now."""
        self._size = os.fstat(self.fd).st_size
        return self._size

    def move(self, at: int) -> None:
        """Go to the offset `at`, where a chunk begins."""
        self.at = at
        self._ahead = None

    # -- looking

    def place(self) -> Place | None:
        """The chunk at this position, or in recovery the next one; None at the end of the file."""
        while True:
            header = self._ahead
            if header is None or header.at != self.at:
                header = self._ahead = self._read_header(self.at)
            if header.got < len(header.chunk) + len(header.blocks):
                self._stop_at_end()
                return None
            found = parse_header(header.chunk)
            if found is None:
                if not self._pass_bad_header():
                    return None
                continue
            end = chunk_end(self.at, found.data_size)
            if end > self._size and end > self.size():
                self._stop_at_end(found.records)
                return None
            self.torn = None
            return Place(self.at, end, found, self.at + len(header.chunk) + len(header.blocks))

    def _stop_at_end(self, records: int | None = None) -> None:
        self._ahead = None
        size = self.size()
        self.torn = None
        if self.at < size:
            self.torn = Damage(self.path, self.at, size, "the file ends in the middle of a chunk", records)

    def _read_header(self, at: int) -> _Header:
        header = _Header(at, bytearray(CHUNK_HEADER), bytearray(headers_between(at, _header_end(at))), 0)
        return header._replace(got=read_vector(self.fd, _header_views(header), at))

    def _pass_bad_header(self) -> bool:
        """The chunk header here is damaged: go where a block header leads. False if none does."""
        if self.at == 0 and self._size > FIRST_CHUNK:
            self._report(Damage(self.path, 0, FIRST_CHUNK, "the signature is damaged", 0))
            self.move(FIRST_CHUNK)
            return True
        size = self.size()
        resume = size
        for begin, end in self._blocks_behind(self.at):
            resume = min(begin if begin > self.at else end, size)
            break
        self._report(Damage(self.path, self.at, resume, "a chunk header is damaged", None))
        self.move(resume)
        return resume < size

    def _blocks_behind(self, at: int) -> Iterator[tuple[int, int]]:
        """Begin and end of the chunk that each sound block header behind `at` interrupts."""
        for block in range(at // BLOCK * BLOCK + BLOCK, self._size, BLOCK):
            links = parse_block_header(os.pread(self.fd, BLOCK_HEADER, block), block)
            if links is not None:
                yield links

    # -- reading

    def data(self, place: Place) -> bytearray | None:
        """Read the chunk and go to its end. None if it is damaged or too large, after that was noted."""
        size = max(place.header.data_size, place.header.decoded_size)
        if size > self._max_chunk_bytes:
            self.move(place.end)
            claim = f"a chunk says that it holds {size:,} bytes; the limit is {self._max_chunk_bytes:,}"
            self.lose(place, claim, unsupported=True)
            return None
        data = allocate(place.header.data_size)
        between = bytearray(headers_between(place.data_at, place.end))
        got, following = self._read_chunk(place, data, between)
        if got < place.end - place.data_at:
            self._stop_at_end(place.header.records)  # cut shorter since it was looked at
            return None
        if hash64(data) != place.header.data_hash:
            records = place.header.records
            self._report(Damage(self.path, place.begin, place.end, "the data of a chunk is damaged", records))
            self.move(place.end)
            return None
        self._check_blocks(place, between)
        self.at = place.end
        self._ahead = following
        return data

    def _read_chunk(self, place: Place, data: bytearray, between: bytearray) -> tuple[int, _Header]:
        """In one system call the chunk's data and the header of the next chunk."""
        at = place.end
        header = _Header(at, bytearray(CHUNK_HEADER), bytearray(headers_between(at, _header_end(at))), 0)
        views = lay_out(place.data_at, [memoryview(data)], memoryview(between))
        got = read_vector(self.fd, views + _header_views(header), place.data_at)
        return got, header._replace(got=max(0, got - (at - place.data_at)))

    def _check_blocks(self, place: Place, between: bytearray) -> None:
        found = (self._ahead.blocks if self._ahead is not None else b"") + between
        if found != block_headers(place.begin, place.end):
            self._report(Damage(self.path, place.begin, place.end, "a block header is damaged", 0))

    def pass_by(self, place: Place) -> None:
        """Go to the chunk's end without reading it."""
        self.move(place.end)

    # -- damage

    def lose(self, place: Place, reason: str, *, unsupported: bool = False) -> None:
        """The chunk, which was passed, is of no use: note it, or raise with the position back at its begin."""
        try:
            self._report(Damage(self.path, place.begin, place.end, reason, place.header.records, unsupported))
        except errors.RecordError:
            self.move(place.begin)
            raise

    def _report(self, damage: Damage) -> None:
        """Note it; raise instead if it costs records and that is an error. Met again after a seek, it is the same damage."""
        if self.strategy is CorruptionStrategy.ERROR and damage.records != 0:
            raise damage.as_error()
        if damage not in self.damage:
            self.damage.append(damage)


def _header_end(at: int) -> int:
    return chunk_end(at, 0)


def _header_size(at: int) -> int:
    return _header_end(at) - at


def _header_views(header: _Header) -> list[memoryview]:
    return lay_out(header.at, [memoryview(header.chunk)], memoryview(header.blocks))
