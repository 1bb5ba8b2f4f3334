"""From records to lines of JSON and back.

What a line says of a record is the encoding's matter:

    json    the record is JSON text and the line is it, byte for byte
    text    the record is UTF-8 and the line is a JSON string of it
    base64  the record is anything and the line is a JSON string of its Base64 (RFC 4648)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from .. import errors

if TYPE_CHECKING:
    from typing_extensions import Buffer

Encoding = Literal["json", "text", "base64"]
ENCODINGS = get_args(Encoding)


def to_lines(records: Iterable[Buffer], encoding: Encoding = "json") -> Iterator[bytes]:
    """Each record as a line of JSON with its newline. RecordError, with the record's number, for one that can not be one."""
    for number, record in enumerate(records):
        data = bytes(record)
        try:
            yield _to_json(data, encoding) + b"\n"
        except ValueError as error:
            raise errors.RecordError(
                f"record {number:,} is not {_WANTED[encoding]}: {error}",
                hint="encoding 'base64' takes any bytes" + ("; 'text' takes UTF-8" if encoding == "json" else ""),
                record=number,
            ) from error


def from_lines(lines: Iterable[bytes], encoding: Encoding = "json") -> Iterator[bytes]:
    """The record that each line says; RecordError, with the line's number, for one that says none."""
    for number, line in enumerate(lines, 1):
        try:
            yield _from_json(line.removesuffix(b"\n"), encoding)
        except ValueError as error:
            raise errors.RecordError(
                f"line {number:,} is not {_EXPECTED[encoding]}: {error}",
                hint="check what wrote the file, and --encoding",
                line=number,
            ) from error


_WANTED = {"json": "JSON on one line", "text": "UTF-8 text", "base64": "bytes"}
_EXPECTED = {"json": "JSON", "text": "a JSON string", "base64": "a JSON string of Base64"}


def _to_json(data: bytes, encoding: Encoding) -> bytes:
    if encoding == "base64":
        return orjson.dumps(base64.b64encode(data).decode())
    if encoding == "text":
        return orjson.dumps(data.decode())
    if b"\n" in data:
        raise ValueError("it has a line break")
    orjson.loads(data)
    return data


def _from_json(line: bytes, encoding: Encoding) -> bytes:
    value: Any = orjson.loads(line)
    if encoding == "json":
        return line
    if not isinstance(value, str):
        raise ValueError(f"it is {type(value).__name__}")
    if encoding == "text":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
