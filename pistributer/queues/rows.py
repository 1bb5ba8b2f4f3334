"""Turning values into rows and back. A row is bytes without a newline; the newline ends it on disk.

jsonl rows are compact JSON. orjson does the work; what it would change silently is refused instead (NaN, which it writes
as null) and what JSON can not hold is refused by name. txt rows are the text itself; in a queue that was made for them,
JSON objects may stand between the texts, each on its line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from .. import errors

# datetime, UUID and dataclasses would come back as something else, so they are not let through.
_OPTIONS = (
    orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_dumps = orjson.dumps
#: Looking for one byte of `null` costs 0.01 µs and is enough for half of all rows; `partition` takes 0.05, `find` 0.08, and
#: `in`, which first takes what it is given for a number, 0.15.
_U = ord("u")
#: How wrapped rows begin (queues/envelope.py).
_RESERVED = ' {"pistributer":'
_TXT_HINT = "txt rows are text of one line; use the jsonl driver for other values"


@dataclass(frozen=True, slots=True)
class Codec:
    """How the rows of a queue are written."""

    #: Value to a row with its newline. Raises RowError.
    encode: Callable[[Any], bytes]
    #: Many values to their rows, end to end, and how many they are; faster.
    encode_many: Callable[[Iterable[Any]], tuple[bytes, int]]
    #: Row without its newline to the value. Raises ValueError for a damaged row.
    decode: Callable[[bytes], Any]
    #: The same for many rows, faster. Raises ValueError if any is damaged, without saying which.
    decode_many: Callable[[Iterable[bytes]], list[Any]]
    #: Rows are text, and no JSON.
    text: bool = False


def encode_json(value: Any) -> bytes:
    """Compact JSON and a newline. Raises RowError for what JSON can not hold or would change."""
    try:
        row = _dumps(value, None, _OPTIONS)
    except TypeError as error:
        raise _not_json(error) from error
    if _U in row and row.partition(b"null")[1]:
        _refuse_nan(value)
    return row


def _encode_many_json(values: Iterable[Any]) -> tuple[bytes, int]:
    # Into one buffer, row by row: orjson shrinks a kilobyte for each, and a thousand of those at once cost five times more.
    buffer, count = bytearray(), 0
    try:
        for value in values:
            row = _dumps(value, None, _OPTIONS)
            if _U in row and row.partition(b"null")[1]:
                _refuse_nan(value)
            buffer += row
            count += 1
    except TypeError as error:
        raise _not_json(error) from error
    return bytes(buffer), count


def _not_json(error: TypeError) -> errors.RowError:
    return errors.RowError(
        f"this value can not be a JSON row: {error}",
        hint="send str, int within 64 bits, float, bool, None, and lists and dicts (with str keys) of these",
    )


def _refuse_nan(value: Any) -> None:
    """orjson writes NaN and infinities as null, which would lose them; the stdlib can tell."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise errors.RowError(
            "NaN and infinities can not be in a JSON row", hint="send None or a string instead"
        ) from error


def decode_json(row: bytes) -> Any:
    """The value of a JSON row; a byte-order mark before it is ignored (RFC 8259, section 8.1)."""
    if row.startswith(b"\xef\xbb\xbf"):
        row = row[3:]
    return orjson.loads(row)


def _decode_many_json(rows: Iterable[bytes]) -> list[Any]:
    return list(map(orjson.loads, rows))


def encode_txt(value: Any) -> bytes:
    """The text and a newline. Raises RowError for what would not come back as one line of the same text."""
    if not isinstance(value, str):
        raise errors.RowError(f"a txt row must be str, not {type(value).__name__}", hint=_TXT_HINT)
    if not value or "\n" in value or "\0" in value:
        what = "be empty" if not value else "hold a newline" if "\n" in value else "hold a NUL character"
        raise errors.RowError(f"a txt row can not {what}", hint=_TXT_HINT)
    # The first character alone is looked at in a third of the time.
    if value[0] == " " and value.startswith(_RESERVED):
        raise errors.RowError(
            f"a txt row can not begin with {_RESERVED!r}, which marks rows with a history", hint=_TXT_HINT
        )
    try:
        return value.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise errors.RowError(f"a txt row must be valid Unicode: {error}", hint=_TXT_HINT) from error


def decode_txt(row: bytes) -> str:
    if not row or b"\0" in row:
        raise ValueError("empty row" if not row else "NUL bytes")
    return row.decode()


def encode_txt_or_object(value: Any) -> bytes:
    """A dict as the line of its JSON, a text as it is. Raises RowError."""
    if isinstance(value, dict):
        return encode_json(value)
    if isinstance(value, str):
        return encode_txt(value)
    raise errors.RowError(
        f"a row of this txt queue must be str or dict, not {type(value).__name__}",
        hint="put it into a dict, or use the jsonl driver",
    )


def decode_txt_or_object(row: bytes) -> str | dict[str, Any]:
    """The dict of a line that is a JSON object, else the text; so a text that is the JSON of an object comes back as a dict."""
    if row.startswith(b"{"):
        try:
            found: dict[str, Any] = orjson.loads(row)
        except ValueError:
            pass
        else:
            return found
    return decode_txt(row)


def _of_texts(encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Codec:
    def encode_many(values: Iterable[Any]) -> tuple[bytes, int]:
        rows = [encode(value) for value in values]
        return b"".join(rows), len(rows)

    return Codec(encode, encode_many, decode, lambda rows: [decode(row) for row in rows], text=True)


JSON = Codec(encode_json, _encode_many_json, decode_json, _decode_many_json)
TXT = _of_texts(encode_txt, decode_txt)
TXT_OR_OBJECTS = _of_texts(encode_txt_or_object, decode_txt_or_object)
