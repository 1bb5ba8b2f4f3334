"""What a state can hold, and how everything else is refused.

A value must come back as it went in, also after a crash, so only types that YAML has are taken, and of those only the
exact ones: an `IntEnum` would come back as an int. Dicts and lists of any class become `StateDict` and `StateList`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any, Final

from .. import errors

#: Values that are kept as they are, because nobody can change them in place.
SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes, datetime.date, datetime.datetime})
#: PyYAML and Python's own recursion limit end somewhere behind this.
MAX_DEPTH: Final = 100

#: Half a surrogate pair can not be written as UTF-8.
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Types whose values need a closer look.
_WITH_LIMITS: Final = frozenset({str, datetime.datetime})
#: The others.
WITHOUT_LIMITS: Final = SCALARS - _WITH_LIMITS

_HINT = "store str, int, float, bool, None, bytes, date, datetime, a set of these, or dicts and lists of all of them"
_HINTS: Final[dict[str, str]] = {
    "bytearray": "store bytes(value)",
    "Decimal": "store str(value)",
    "Fraction": "store str(value)",
    "UUID": "store str(value)",
    "time": "store value.isoformat()",
    "timedelta": "store value.total_seconds()",
    "PosixPath": "store str(value)",
}


def is_scalar(value: object) -> bool:
    """Whether `value` is stored as it is. Raises StateValueError for a scalar that has no place in a UTF-8 file."""
    kind = type(value)
    if kind not in SCALARS:
        return False
    if kind in _WITH_LIMITS:
        _check_limits(value)
    return True


def _check_limits(value: Any) -> None:
    if type(value) is str:
        if not value.isascii() and (found := _SURROGATE.search(value)):
            raise refused(
                f"a text with the lone surrogate {found[0]!r} at position {found.start()}",
                "decode the bytes that it came from with the right encoding",
            )
    else:
        offset = value.utcoffset()
        if offset is not None and offset % datetime.timedelta(minutes=1):
            raise refused(
                f"{value!r}, whose offset from UTC is no whole minute", "store value.astimezone(timezone.utc)"
            )


def check_key(key: object) -> None:
    """Raises StateValueError for a key that would not be found again after a restart."""
    if not is_scalar(key):
        raise refused(f"a key of type {type(key).__name__}: {key!r:.80}", "use a str, int, bool, None, bytes or date")
    if key != key:
        raise refused("the key NaN, which is unequal to itself", "use a str")


def frozen_set(value: Any) -> frozenset[Any]:
    """A set as it is stored: a change in place would not be noticed, so it can not be changed in place."""
    for member in value:
        check_key(member)
    return frozenset(value)


def is_dict(value: object) -> bool:
    return isinstance(value, Mapping)


def refused(what: str, hint: str | None = None) -> errors.StateValueError:
    return errors.StateValueError(f"a state can not hold {what}", hint=hint or _HINT)


def refused_type(value: object) -> errors.StateValueError:
    kind = type(value)
    base = next((parent for parent in kind.__mro__[1:] if parent in SCALARS), None)
    hint = f"store {base.__name__}(value)" if base is not None else _HINTS.get(kind.__name__)
    return refused(f"a value of type {kind.__name__}: {value!r:.80}", hint)
