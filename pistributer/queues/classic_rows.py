"""What the classic channels write for a value: a text for a text, compact JSON or `str` for the rest.

Release 0.2.0 accepted whatever `json.dumps` accepts; so does this, but for what would not come back: NaN (no JSON), an
empty text (never delivered), a text with a newline (two rows) or a NUL (what a power cut leaves), half a surrogate pair.
orjson does the work, in a tenth of the time; what it does not know (integers beyond 64 bits, keys that are no texts,
subclasses) goes to the standard library.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from orjson import dumps

from .. import errors

# Without these orjson would write dates, UUIDs and dataclasses, which the standard library refuses.
_OPTIONS = (
    orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)

_U = ord("u")


def encode_jsonl(value: Any) -> bytes:
    """The row of `value`, with its newline. Raises RowError; for a type that JSON does not know, one that is a TypeError."""
    if isinstance(value, str):
        return encode_text(value)
    try:
        row = dumps(value, None, _OPTIONS)
    except TypeError:
        return encode_text(_json(value))
    # orjson writes NaN and infinities as null. (`b"null" in row` takes 0.2 µs, a single byte 0.02.)
    if _U in row and row.find(b"null") >= 0:
        _json(value)
    return row


def encode_txt(value: Any) -> bytes:
    """The row of `str(value)`, with its newline. Raises RowError."""
    return encode_text(value if isinstance(value, str) else str(value))


def encode_text(text: str) -> bytes:
    """`text` and a newline, as UTF-8."""
    if not text:
        raise errors.RowError("a row can not be empty", hint='put something, such as "{}"')
    if "\n" in text:
        raise errors.RowError(
            "a row can not hold a newline", hint=r'put each line by itself, or JSON, which writes "\n"'
        )
    return encode_content(text + "\n")


def encode_content(text: str) -> bytes:
    """Several lines as UTF-8. Raises RowError."""
    if "\0" in text:
        raise errors.RowError("a row can not hold a NUL character", hint="put JSON, which escapes it")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise errors.RowError(
            f"a row must be valid Unicode: {error}", hint="decode the text with errors='replace'"
        ) from error


def jsonl_text(value: Any) -> str:
    """A text as it is, another value as compact JSON."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise errors.RowTypeError(
            f"this value can not be a JSON row: {error}",
            hint="put str, int, float, bool, None, and lists and dicts of these",
        ) from error
    except ValueError as error:
        raise errors.RowError(
            f"this value can not be a JSON row: {error}", hint="put None or a text instead of NaN and infinities"
        ) from error
    except RecursionError as error:
        raise errors.RowError("this value is nested too deeply for a JSON row", hint="flatten it") from error
