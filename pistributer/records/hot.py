"""The hot loops: in C where that was built, else in Python, which says so once."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Bytes", "allocate", "block_headers", "hash64", "kind", "pack_sizes", "split"]

if TYPE_CHECKING:
    from .plain import Bytes, allocate, block_headers, hash64, kind, pack_sizes, split
else:
    try:
        from ._speed import Bytes, allocate, block_headers, hash64, kind, pack_sizes, split
    except ImportError:
        import logging

        from .plain import Bytes, allocate, block_headers, hash64, kind, pack_sizes, split

        logging.getLogger("pistributer.records").warning(
            "the C part of pistributer was not built, so record files are read and written at a few MB/s: "
            "install again where there is a C compiler and the headers of Python"
        )
