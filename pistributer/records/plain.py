"""The hot loops of record files in Python: what says what they do, and what serves where the C part was not built.

The hash does 4 MB/s here and 11 GB/s in C (AVX2), so everything that is larger than a test wants the C part.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

#: "Riegeli/", "records\n", twice: the key that the format names.
KEY: Final = (0x2F696C6567656952, 0x0A7364726F636572, 0x2F696C6567656952, 0x0A7364726F636572)

#: Which code hashes: "python" here, "portable" or "avx2" in the C part.
kind: Final = "python"

_BLOCK, _BLOCK_HEADER = 65536, 24
_MASK = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_INIT0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_INIT1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
#: Bytes of the longest varint.
MOST_VARINT: Final = 10

Buffer = bytes | bytearray | memoryview


class Bytes(bytes):
    """A record, as `bytes`. Without the C part it is a copy and not a view; it does all the same."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        """A copy, as plain `bytes`."""
        return bytes(self)

    def __repr__(self) -> str:
        return f"Bytes({super().__repr__()})"


# -- HighwayHash-64 (Alakuijala, Cox, Wassenberg, arXiv:1612.06257)


def hash64(data: Buffer, key: tuple[int, int, int, int] = KEY) -> int:
    """HighwayHash-64 of `data`. The C part lets other threads run meanwhile."""
    state = _State(key)
    view = memoryview(data)
    whole = len(view) & ~31
    for lanes in struct.iter_unpack("<4Q", view[:whole]):
        state.mix(lanes)
    if tail := bytes(view[whole:]):
        state.mix_tail(tail)
    return state.finish()


class _State:
    def __init__(self, key: Sequence[int]) -> None:
        self.mul0, self.mul1 = list(_INIT0), list(_INIT1)
        self.v0 = [init ^ lane for init, lane in zip(_INIT0, key, strict=True)]
        self.v1 = [init ^ _swap_halves(lane) for init, lane in zip(_INIT1, key, strict=True)]

    def mix(self, lanes: Sequence[int]) -> None:
        v0, v1, mul0, mul1 = self.v0, self.v1, self.mul0, self.mul1
        for i, lane in enumerate(lanes):
            v1[i] = (v1[i] + mul0[i] + lane) & _MASK
            mul0[i] ^= (v1[i] & _LOW) * (v0[i] >> 32)
            v0[i] = (v0[i] + mul1[i]) & _MASK
            mul1[i] ^= (v0[i] & _LOW) * (v1[i] >> 32)
        for to, source in ((v0, v1), (v1, v0)):
            for i in (0, 2):
                low, high = _zipper(source[i], source[i + 1])
                to[i] = (to[i] + low) & _MASK
                to[i + 1] = (to[i + 1] + high) & _MASK

    def mix_tail(self, tail: bytes) -> None:
        """The last 1 to 31 bytes: the length goes into the state, the bytes into a packet at places that depend on it."""
        size = len(tail)
        self.v0 = [(lane + (size << 32) + size) & _MASK for lane in self.v0]
        self.v1 = [_rotate(lane >> 32, size) << 32 | _rotate(lane & _LOW, size) for lane in self.v1]
        whole, rest = size & ~3, size & 3
        packet = bytearray(tail[:whole].ljust(32, b"\0"))
        if size & 16:
            packet[28:] = tail[-4:]
        elif rest:
            packet[16:19] = tail[whole], tail[whole + (rest >> 1)], tail[-1]
        self.mix(struct.unpack("<4Q", packet))

    def finish(self) -> int:
        for _ in range(4):
            v0 = self.v0
            self.mix([_swap_halves(lane) for lane in (v0[2], v0[3], v0[0], v0[1])])
        return (self.v0[0] + self.v1[0] + self.mul0[0] + self.mul1[0]) & _MASK


def _swap_halves(lane: int) -> int:
    return lane >> 32 | (lane & _LOW) << 32


def _rotate(half: int, count: int) -> int:
    return (half << count | half >> (32 - count)) & _LOW


def _zipper(v0: int, v1: int) -> tuple[int, int]:
    """The bytes of two lanes, shuffled so that each multiplication spreads as far as it can."""
    a, b = v0.to_bytes(8, "little"), v1.to_bytes(8, "little")
    low = bytes((a[3], b[4], a[2], a[5], b[6], a[1], b[7], a[0]))
    high = bytes((b[3], a[4], b[2], b[5], b[1], a[6], b[0], a[7]))
    return int.from_bytes(low, "little"), int.from_bytes(high, "little")


# -- blocks and sizes


def block_headers(begin: int, end: int) -> bytes:
    """The 24-byte headers of every block that starts in `[begin, end)`, for a chunk from `begin` to `end` in the file."""
    headers = []
    for at in range(-(-begin // _BLOCK) * _BLOCK, end, _BLOCK):
        links = struct.pack("<QQ", at - begin, end - at)
        headers.append(struct.pack("<Q", hash64(links)) + links)
    return b"".join(headers)


def pack_sizes(records: list[bytes]) -> bytes:
    """The lengths of the records as LEB128 varints, in the shortest form."""
    return b"".join([pack_varint(len(record)) for record in records])


def pack_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the high bit says that more follow."""
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def take_varint(data: Buffer, at: int) -> tuple[int, int]:
    """`(value, offset behind it)` of the varint at `at`, in any form of at most ten bytes; ValueError if there is none."""
    value = 0
    for index, byte in enumerate(data[at : at + MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >> 63:
                break
            return value, at + index + 1
    raise ValueError("a record's size can not be read")


def split(sizes: Buffer, values: Buffer, count: int) -> list[Bytes]:
    """`values` cut into `count` records by the varints in `sizes`; views in C, copies here.

    Raises ValueError unless sizes, values and count agree to the byte.
    """
    if not 0 <= count <= len(sizes):
        raise ValueError("there are more records than sizes")
    records: list[Bytes] = []
    at = start = 0
    view = memoryview(values)
    for _ in range(count):
        size, at = take_varint(sizes, at)
        if size > len(view) - start:
            raise ValueError("the records are longer than the chunk")
        records.append(Bytes(view[start : start + size]))
        start += size
    if at != len(sizes):
        raise ValueError("there are more sizes than records")
    if start != len(view):
        raise ValueError("the records are shorter than the chunk")
    return records


def allocate(size: int) -> bytearray:
    """A buffer to be filled; the C part leaves out the zeros, which at 1 MiB take as long as a third of the read."""
    return bytearray(size)
