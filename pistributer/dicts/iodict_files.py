"""What an item of an IODict is on disk, and in which order items were born.

An item is a file in the dictionary's folder:

    name       sha3-224 of the key, hex: of a str its UTF-8, of any other key a canonical form of it
    content    the pickle of the value, then a trailer: kind ("s": UTF-8, "p": pickle), key, birth as a big-endian double,
               the key's length (4 bytes), "IOd1". A reader of pickles stops where the pickle ends and never sees it
    xattrs     user.birthtime and user.key, where the filesystem has them, as the original iodict writes them

The trailer makes an item whole by itself, so that order and keys survive filesystems without extended attributes, attributes
over their size limit, and copies that leave them behind. Listings read the attributes, which is faster, if they are there.

Beside the folder, where the original never looks: `NAME#order`, the last birth that was given out (8 bytes, changed in
place), and `NAME#stage`, in which values are written before they are moved in.
"""

from __future__ import annotations

import contextlib
import fractions
import hashlib
import math
import os
import pickle
import re
import struct
import time
from typing import Any, NamedTuple

from .. import errors
from ..storage import inplace

_MAGIC = b"IOd1"
_TAIL = struct.Struct(">dI4s")
_DOUBLE = struct.Struct(">d")
#: Names that are items. Others are left alone, but for those of `is_old_name`.
is_item_name = re.compile(r"[0-9a-f]{56}").fullmatch

_BIRTH, _KEY = "user.birthtime", "user.key"
#: So much of a file's end is read at first to find the trailer.
_LOOK = 512


class Item(NamedTuple):
    """One item as a listing sees it."""

    birth: float
    name: str
    key: Any


def name_of(key: Any) -> str:
    """The file name of a key. BadKey if it can not be hashed or pickled."""
    if isinstance(key, str):
        return hashlib.sha3_224(key.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        hash(key)
        return hashlib.sha3_224(b"\0key\0" + _canonical(key)).hexdigest()
    except Exception as error:
        raise errors.BadKeyType(
            f"this {type(key).__name__} can not be a key: {error}", hint="a key has a hash and can be pickled", key=key
        ) from error


def _canonical(key: Any) -> bytes:
    """Equal bytes for equal keys, in every process. pickle alone says 1, 1.0 and True apart, and frozensets in any order."""
    if isinstance(key, bool | int | float) and math.isfinite(key):
        number = fractions.Fraction(key)
        return b"n%d/%d" % (number.numerator, number.denominator)
    kind = type(key)
    if kind is str:
        return b"s" + _sized(key.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return b"b" + _sized(key)
    if kind is tuple:
        return b"t" + b"".join(_sized(_canonical(part)) for part in key) + b"."
    if kind is frozenset:
        return b"f" + b"".join(sorted(_sized(_canonical(part)) for part in key)) + b"."
    return b"p" + pickle.dumps(key, 4)


def _sized(data: bytes) -> bytes:
    return b"%d:%s" % (len(data), data)


def trailer(key: Any, birth: float) -> bytes:
    """What follows the value's pickle."""
    data = b"s" + key.encode("utf-8", "surrogatepass") if type(key) is str else b"p" + pickle.dumps(key, 4)
    return data + _TAIL.pack(birth, len(data), _MAGIC)


def set_attributes(fd: int, key: Any, birth: float) -> None:
    """The original's two attributes, as far as the filesystem takes them; the trailer says the same."""
    if hasattr(os, "setxattr"):
        with contextlib.suppress(OSError):
            os.setxattr(fd, _BIRTH, _DOUBLE.pack(birth))
            if type(key) is str:
                os.setxattr(fd, _KEY, key.encode("utf-8", "surrogatepass"))


def read_item(folder: str, name: str) -> Item | None:
    """Birth and key of an item; None if it is gone, or no item. Its value is not read."""
    path = f"{folder}/{name}"
    try:
        key = os.getxattr(path, _KEY, follow_symlinks=False)
        (birth,) = _DOUBLE.unpack(os.getxattr(path, _BIRTH, follow_symlinks=False))
        return Item(birth, name, key.decode("utf-8", "surrogatepass"))
    except FileNotFoundError:
        return None
    except (OSError, AttributeError, struct.error, UnicodeDecodeError):
        return _read_trailer(path, name)  # no attributes here, or a key that does not fit into one


def read_birth(folder: str, name: str) -> float | None:
    """When an item was born; None if it is gone, or no item."""
    path = f"{folder}/{name}"
    try:
        return float(_DOUBLE.unpack(os.getxattr(path, _BIRTH, follow_symlinks=False))[0])
    except FileNotFoundError:
        return None
    except (OSError, AttributeError, struct.error):
        item = _read_trailer(path, name)
        return None if item is None else item.birth


def key_of(data: bytes, path: str) -> Any:
    """The key of the item at `path`, whose bytes are `data`, which may be unpickled. FileNotFoundError if it is gone and
    its bytes do not tell."""
    found = _parse_tail(data)
    if found is not None:
        return _parse_key(data[-found[1] - _TAIL.size : -_TAIL.size], path)
    try:
        return os.getxattr(path, _KEY, follow_symlinks=False).decode("utf-8", "surrogatepass")  # the original wrote it
    except FileNotFoundError:
        raise
    except (OSError, AttributeError, UnicodeDecodeError) as error:
        raise _keyless(path) from error


def _keyless(path: str) -> errors.DamagedValue:
    return errors.DamagedValue(
        f"{path!r} has neither a trailer nor attributes, so its key is not known",
        hint="move the file away, or bring it back from a backup with its attributes",
        path=path,
    )


def _read_trailer(path: str, name: str) -> Item | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.from_os_error(error, "read", path) from error
    try:
        state = os.fstat(fd)
        require_own(state, path)
        end = os.pread(fd, _LOOK, max(0, state.st_size - _LOOK))
        found = _parse_tail(end)
        if found is None:
            raise _keyless(path)
        birth, size = found
        if size + _TAIL.size > len(end):
            end = os.pread(fd, size + _TAIL.size, max(0, state.st_size - size - _TAIL.size))
        return Item(birth, name, _parse_key(end[-size - _TAIL.size : -_TAIL.size], path))
    finally:
        os.close(fd)


def _parse_tail(end: bytes) -> tuple[float, int] | None:
    if len(end) < _TAIL.size:
        return None
    birth, size, magic = _TAIL.unpack(end[-_TAIL.size :])
    return (birth, size) if magic == _MAGIC and math.isfinite(birth) else None


def _parse_key(data: bytes, path: str) -> Any:
    try:
        return data[1:].decode("utf-8", "surrogatepass") if data[:1] == b"s" else pickle.loads(data[1:])
    except Exception as error:
        raise errors.DamagedValue(f"the key of {path!r} can not be read: {error}", path=path) from error


def require_own(state: os.stat_result, path: str) -> None:
    """Refuse a file of another user: reading a pickle runs whatever code it names."""
    if state.st_uid not in (os.geteuid(), 0):  # root may do as we like anyway
        raise errors.UnsafeValue(
            f"{path!r} belongs to user {state.st_uid}, and reading a pickle runs whatever code it names",
            hint='if you trust that user, copy the file; FileDirDict with serialization_format="json" can be shared',
            path=path,
        )


class Births:
    """Gives out times of birth, each later than all before it, whatever the clock does. The caller holds the folder's lock.

    Killed after one was given out and before its item stands: a time is skipped. A file that is missing or damaged: the
    clock alone decides, which is right unless it was set back.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def next(self) -> float:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, "open", self.path) from error
        try:
            data = os.pread(fd, _DOUBLE.size, 0)
            last = _DOUBLE.unpack(data)[0] if len(data) == _DOUBLE.size else 0.0
            # A year ahead can only be damage, and would hold the order back for ever.
            now = time.time()
            birth = max(now, math.nextafter(last, math.inf)) if last < now + 3.2e7 else now
            inplace.write_at(fd, _DOUBLE.pack(birth), 0, self.path)
        finally:
            os.close(fd)
        return birth
