"""The bytes of a record file, as pure functions: blocks, chunk headers, and what a chunk of records holds.

The format is that of Disky, which for uncompressed files is Riegeli/records. docs/records.md has it as a page; the source is
"Riegeli/records file format" of github.com/google/riegeli. In short: a file is a row of chunks. Each chunk has a header of 40
bytes and data, with a hash of either. Every 64 KiB a block header of 24 bytes interrupts whatever is there, and tells where
the chunk that it interrupts begins and ends, so that a reader who met damage finds the next chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from .hot import block_headers, hash64

BLOCK: Final = 65536
BLOCK_HEADER: Final = 24
CHUNK_HEADER: Final = 40
_USABLE: Final = BLOCK - BLOCK_HEADER

RECORDS: Final = ord("r")
PADDING: Final = ord("p")
SIGNATURE_KIND: Final = ord("s")

#: hash, data_size, data_hash, kind and number of records, decoded_data_size
_CHUNK: Final = struct.Struct("<5Q")
_BLOCK: Final = struct.Struct("<3Q")

View = TypeVar("View", bytes, bytearray, memoryview)


class ChunkHeader(NamedTuple):
    """What the 40 bytes before a chunk's data say."""

    data_size: int
    data_hash: int
    #: One byte: "r" records, "s" signature, "p" padding; "m" and "t" are Riegeli's alone.
    kind: int
    records: int
    #: Sum of the lengths of the records, in bytes.
    decoded_size: int


def pack_header(kind: int, data: bytes | bytearray, records: int, decoded_size: int) -> bytes:
    """The header for a chunk with this data."""
    body = _CHUNK.pack(0, len(data), hash64(data), kind | records << 8, decoded_size)[8:]
    return hash64(body).to_bytes(8, "little") + body


def parse_header(header: bytes | bytearray) -> ChunkHeader | None:
    """What the 40 bytes say; None if their hash is wrong."""
    found, data_size, data_hash, kind_records, decoded_size = _CHUNK.unpack(header)
    if found != hash64(memoryview(header)[8:]):
        return None
    return ChunkHeader(data_size, data_hash, kind_records & 0xFF, kind_records >> 8, decoded_size)


def chunk_end(begin: int, data_size: int) -> int:
    """Where the chunk that starts at `begin` ends in the file, block headers counted."""
    size = CHUNK_HEADER + data_size
    return begin + size + (size + (begin + _USABLE - 1) % BLOCK) // _USABLE * BLOCK_HEADER


def lay_out(begin: int, parts: Sequence[View], headers: View) -> list[View]:
    """The parts, one behind the other from offset `begin` on, and the block headers where they interrupt them.

    `headers` holds what `block_headers` makes, or is as long and is to be filled by a read. Nothing is copied if the parts
    are memoryviews.
    """
    pieces: list[View] = []
    at, header = begin, 0
    for part in parts:
        start = 0
        while start < len(part):
            if at % BLOCK == 0:
                pieces.append(headers[header : header + BLOCK_HEADER])
                header += BLOCK_HEADER
                at += BLOCK_HEADER
            piece = part[start : start + BLOCK - at % BLOCK]
            pieces.append(piece)
            start += len(piece)
            at += len(piece)
    return pieces


def headers_between(begin: int, end: int) -> int:
    """Bytes of the block headers that start in `[begin, end)`."""
    return (-(-end // BLOCK) - -(-begin // BLOCK)) * BLOCK_HEADER


def lay_out_chunk(begin: int, header: bytes, data: bytes | bytearray) -> list[memoryview]:
    """What is to be written at `begin` for this chunk."""
    headers = memoryview(block_headers(begin, chunk_end(begin, len(data))))
    return lay_out(begin, [memoryview(header), memoryview(data)], headers)


class BlockLinks(NamedTuple):
    """Where the chunk that a block header interrupts begins and ends in the file."""

    begin: int
    end: int


def parse_block_header(header: bytes, at: int) -> BlockLinks | None:
    """What the 24 bytes at offset `at`, a multiple of 64 KiB, say; None if they are damaged."""
    if len(header) < BLOCK_HEADER:
        return None
    found, previous, following = _BLOCK.unpack(header)
    sound = previous % BLOCK < _USABLE and following > 0 and (following - 1) % BLOCK >= BLOCK_HEADER and previous <= at
    if not sound or found != hash64(memoryview(header)[8:]):
        return None
    return BlockLinks(at - previous, at + following)


def padding_to_block(begin: int) -> int | None:
    """How much data a padding chunk at `begin` needs to end where a block starts; None if one starts there."""
    room = -begin % BLOCK
    if room == 0:
        return None
    return room - CHUNK_HEADER if room >= CHUNK_HEADER else room + _USABLE - CHUNK_HEADER


#: The first 64 bytes of every file: a block header, and a chunk that is nothing but its header.
SIGNATURE: Final = b"".join(lay_out_chunk(0, pack_header(SIGNATURE_KIND, b"", 0, 0), b""))
