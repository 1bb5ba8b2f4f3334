"""zstd, from the standard library where it has it, else from its backport."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Final, Literal

from .. import errors

Compression = Literal["none", "zstd"]

#: The first byte of a chunk's data says how its values are packed.
NONE: Final = 0
ZSTD: Final = ord("z")
#: What else Riegeli knows, for the error that says so.
FOREIGN: Final = {ord("b"): "brotli", ord("s"): "snappy"}

_MAGIC: Final = 0xFD2FB528.to_bytes(4, "little")

#: The level that the original writes with.
DEFAULT_LEVEL: Final = 3


@functools.cache
def zstd() -> ModuleType:
    """The module that compresses. Raises PackageMissing if there is none."""
    try:
        from compression import zstd as found  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd as found  # type: ignore[no-redef,unused-ignore]
        except ImportError as error:
            raise errors.PackageMissing(
                "zstd needs a package that is not installed", hint="pip install 'pistributer[zstd]'"
            ) from error
    return found  # type: ignore[no-any-return,unused-ignore]


def check_compression(compression: str | None, level: int | None, path: str | os.PathLike[str]) -> int:
    """The code of `compression`, which with `level` is known to work; UnknownCompression or PackageMissing otherwise."""
    if compression not in (None, "none", "zstd"):
        raise errors.UnknownCompression(
            f"there is no compression {compression!r}",
            hint="it is None, 'none' or 'zstd'",
            path=os.fsdecode(path),
            compression=compression,
        )
    if compression != "zstd":
        return NONE
    lowest, highest = zstd().CompressionParameter.compression_level.bounds()
    if level is not None and not lowest <= level <= highest:
        raise ValueError(f"a level of zstd is {lowest} to {highest}, not {level}")
    return ZSTD


def is_frame(packed: memoryview) -> bool:
    """Whether this begins as a zstd frame does (RFC 8878, 3.1.1)."""
    return packed[:4] == _MAGIC


def compress(values: bytes, level: int) -> bytes:
    """One zstd frame. Other threads run meanwhile."""
    packed: bytes = zstd().compress(values, level)
    return packed


def decompress(packed: memoryview, size: int) -> bytes:
    """The `size` bytes that the one frame in `packed` holds; ValueError if it is not that. Never makes more than them."""
    module = zstd()
    decompressor = module.ZstdDecompressor()
    try:
        values: bytes = decompressor.decompress(packed, size)
        # A frame's end is only seen by asking for more than it holds.
        more = b"" if decompressor.eof else decompressor.decompress(b"", 1)
    except module.ZstdError as error:
        raise ValueError(f"the values can not be decompressed: {error}") from error
    if len(values) != size or more or not decompressor.eof or decompressor.unused_data:
        raise ValueError("the values are not as long as the chunk says")
    return values
