"""From records to the data of a chunk and back.

::

    compression u8 (0, or "z" for zstd) | varint: bytes of the sizes | sizes, one varint a record | values

The sizes are never compressed; the values are one zstd frame. That is Disky's way, and ours. Riegeli compresses the sizes as
well and puts the decompressed length, a varint, before either frame. A zstd frame has a magic number, so both can be read.
"""

from __future__ import annotations

from typing import NamedTuple

from . import compression
from .hot import Bytes, pack_sizes, split
from .layout import RECORDS, ChunkHeader, pack_header
from .plain import MOST_VARINT, pack_varint, take_varint

#: The sizes of one chunk are no longer than this, in bytes; a small frame could claim to hold any number.
_MOST_SIZES = 256 * 1024 * 1024


class Packed(NamedTuple):
    """A chunk on its way to the disk."""

    header: bytes
    data: bytes


class Foreign(ValueError):
    """The chunk is sound, but another program's: `split_chunk` can not read it."""


def pack_chunk(records: list[bytes], code: int, level: int) -> Packed:
    """The chunk of records with these bytes, in this compression."""
    sizes = pack_sizes(records)
    prefix = bytes((code,)) + pack_varint(len(sizes)) + sizes
    if code == compression.NONE:
        data = b"".join([prefix, *records])
        decoded = len(data) - len(prefix)
    else:
        values = b"".join(records)
        data = prefix + compression.compress(values, level)
        decoded = len(values)
    return Packed(pack_header(RECORDS, data, len(records), decoded), data)


def split_chunk(header: ChunkHeader, data: bytearray) -> list[Bytes]:
    """The records of a chunk whose hashes were right.

    Raises Foreign for what another program may have meant, ValueError for what nobody can.
    """
    if not data:
        raise ValueError("a chunk of records without data")
    code = data[0]
    if code not in (compression.NONE, compression.ZSTD):
        raise Foreign(f"its records are compressed with {compression.FOREIGN.get(code, hex(code))}")
    view = memoryview(data)
    size, start = take_varint(data, 1)
    sizes, values = view[start : start + size], view[start + size :]
    if len(sizes) != size:
        raise ValueError("the sizes are longer than the chunk")
    if code == compression.ZSTD:
        if not compression.is_frame(values):
            sizes, values = _riegelis_sizes(sizes, header), values[take_varint(values, 0)[1] :]
        return split(sizes, compression.decompress(values, header.decoded_size), header.records)
    if len(values) != header.decoded_size:
        raise ValueError("the values are not as long as the chunk says")
    return split(sizes, values, header.records)


def _riegelis_sizes(packed: memoryview, header: ChunkHeader) -> memoryview:
    size, start = take_varint(packed, 0)
    if size > min(MOST_VARINT * header.records, _MOST_SIZES):
        raise ValueError("the sizes are longer than the records need")
    return memoryview(compression.decompress(packed[start:], size))
