"""Digests in file names, for filesystems that do not tell `Key` from `key`.

With `digest_len` n, each segment gets `_` and the first n characters of the lower-case base32 of its MD5 (RFC 1321, RFC 4648),
as persidict writes them. MD5 serves to spread names here, not to protect them.

Unlike there, a segment that happens to end in its own digest gets another: there `k` and `k_<digest of k>` were one file.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re

#: The base32 of an MD5 has this many characters before the padding.
MAX_DIGEST_LEN = 26
#: A digest of fewer characters may stand in a name by chance.
_TELLING = 4
_SIGNED = re.compile(rf"(.+)_([a-z2-7]{{{_TELLING},{MAX_DIGEST_LEN}}})")


@functools.lru_cache(maxsize=65536)
def sign(segment: str, length: int) -> str:
    """`segment` with its digest."""
    return f"{segment}_{_digest(segment)[:length]}" if length else segment


def unsign(name: str, length: int) -> str | None:
    """The segment that `sign` made `name` of; None if it did not."""
    if not length:
        return name
    segment = name[: -length - 1]
    return segment if segment and sign(segment, length) == name else None


def guess_length(name: str) -> int:
    """The `digest_len` with which `name` seems to have been made: 0 if no digest of four characters or more is in it."""
    match = _SIGNED.fullmatch(name)
    return len(match[2]) if match and _digest(match[1]).startswith(match[2]) else 0


def _digest(segment: str) -> str:
    digest = hashlib.md5(segment.encode(), usedforsecurity=False).digest()
    return base64.b32encode(digest).decode().lower()
