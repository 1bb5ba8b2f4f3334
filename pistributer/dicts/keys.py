"""Keys: flat tuples of strings that are safe as file names and in URLs, on every filesystem and in every bucket.

A segment is 1 to 253 characters from `A-Za-z0-9()_-~.=`, and neither `.` nor `..`. So a key can name neither a separator,
nor a NUL, nor a look-alike of either, and what is stored under it never leaves its folder. Names with other characters
(`#` above all) are free for our own files.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, SupportsIndex, TypeAlias

from .. import errors

#: Characters that a segment may hold.
SAFE_CHARS: Final = frozenset(string.ascii_letters + string.digits + "()_-~.=")
#: A segment is shorter than this, in characters, which are bytes here.
SAFE_STRING_MAX_LENGTH: Final = 254

is_safe = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9()_\-~.=]{1,253}").fullmatch
_SAFE_BYTES = "".join(sorted(SAFE_CHARS)).encode() + b"/"
_NO_SEGMENTS = frozenset({"", ".", ".."})


class SafeStrTuple(tuple[str, ...]):
    """An immutable, flat tuple of safe strings: `SafeStrTuple("a", ["b", ("c",)])` is `("a", "b", "c")`.

    It compares with strings and sequences as if they had been given to it: `SafeStrTuple("a") == "a" == SafeStrTuple(["a"])`.
    A tuple of one hashes as its string does, so `set(d) == {"a", "b"}` holds for keys of one segment; the other side of
    that is that a *plain* tuple of one, though equal, is not found in a set of keys.

    Raises BadKey (a ValueError) for an unsafe string, BadKeyType (a TypeError too) for anything else than strings and
    sequences of them.
    """

    __slots__ = ()

    def __new__(cls, *parts: Any) -> SafeStrTuple:
        if len(parts) == 1 and type(parts[0]) is str and is_safe(parts[0]):
            return tuple.__new__(cls, parts)
        return tuple.__new__(cls, _flatten(parts))

    @property
    def strings(self) -> tuple[str, ...]:
        """The segments as a plain tuple."""
        return tuple(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SafeStrTuple):
            return tuple.__eq__(self, other)
        if isinstance(other, str):
            return len(self) == 1 and self[0] == other
        try:
            return tuple.__eq__(self, SafeStrTuple(other))
        except errors.BadKey:
            return NotImplemented

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash(self[0]) if len(self) == 1 else tuple.__hash__(self)

    def __add__(self, other: Any) -> SafeStrTuple:
        return SafeStrTuple(self, other)

    def __radd__(self, other: Any) -> SafeStrTuple:
        return SafeStrTuple(other, self)

    def __mul__(self, count: SupportsIndex) -> SafeStrTuple:
        return SafeStrTuple(tuple.__mul__(self, count))

    def __reversed__(self) -> SafeStrTuple:  # type: ignore[override]  # persidict's: a tuple, which can be iterated too
        return SafeStrTuple(*self[::-1])

    def __getnewargs__(self) -> tuple[str, ...]:
        return tuple(self)


class NonEmptySafeStrTuple(SafeStrTuple):
    """A SafeStrTuple with at least one segment: what a value is stored under. BadKey if there is none."""

    __slots__ = ()

    def __new__(cls, *parts: Any) -> NonEmptySafeStrTuple:
        made = super().__new__(cls, *parts)
        if not made:
            raise errors.BadKey("a key needs at least one string", hint="give a string or a sequence of strings")
        return made  # type: ignore[return-value]


#: What every method takes for a key, and for a prefix.
NonEmptyPersiDictKey: TypeAlias = "NonEmptySafeStrTuple | str | Sequence[Any]"
PersiDictKey: TypeAlias = "SafeStrTuple | str | Sequence[Any]"


def to_key(key: Any) -> NonEmptySafeStrTuple:
    """`key` as it is kept; the same object if it is one already."""
    return key if type(key) is NonEmptySafeStrTuple else NonEmptySafeStrTuple(key)


def only_safe(names: list[str]) -> list[str]:
    """Those names of files, none longer than a name can be, that are segments."""
    # All of them at once, which is twenty times as fast as one by one.
    if _NO_SEGMENTS.isdisjoint(names) and not has_unsafe("".join(names)):
        return names
    return [name for name in names if is_safe(name)]


def has_unsafe(names: str) -> bool:
    """Whether a character that no segment may hold is in `names`, which slashes may divide."""
    return bool(names.encode(errors="surrogateescape").translate(None, _SAFE_BYTES))


def trusted_key(segments: Iterable[str]) -> NonEmptySafeStrTuple:
    """A key of segments that are known to be safe; for storages, which have just looked at them."""
    return tuple.__new__(NonEmptySafeStrTuple, segments)


def _flatten(parts: Iterable[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, SafeStrTuple):
            yield from part
        elif isinstance(part, str):
            yield _require_safe(part)
        elif isinstance(part, Sequence) and not isinstance(part, bytes | bytearray | memoryview | Mapping):
            yield from _flatten(part)
        else:
            raise errors.BadKeyType(
                f"a key is made of strings, not of {type(part).__name__}",
                hint="give a string or a sequence of strings, for example str(key)",
                key=part,
            )


def _require_safe(text: str) -> str:
    if is_safe(text):
        return str(text)
    if not text:
        why = "it is empty"
    elif text in (".", ".."):
        why = "it names a folder"
    elif len(text) >= SAFE_STRING_MAX_LENGTH:
        why = f"it has {len(text)} characters; {SAFE_STRING_MAX_LENGTH - 1} are the most"
    else:
        why = f"it holds {next(char for char in text if char not in SAFE_CHARS)!r}"
    raise errors.BadKey(
        f"{text[:60]!r} can not be part of a key: {why}",
        hint="use A-Z a-z 0-9 ( ) _ - ~ . = only; replace_unsafe_chars() replaces the others",
        key=text,
    )


def get_safe_chars() -> set[str]:
    """The characters that a segment of a key may hold."""
    return set(SAFE_CHARS)


def replace_unsafe_chars(a_str: str, replace_with: str) -> str:
    """`a_str` with `replace_with` for each character that a segment may not hold. Two strings may become one."""
    return "".join(char if char in SAFE_CHARS else replace_with for char in a_str)
