"""One change as one line of YAML, written so that JSON readers understand most of them too.

    --- ["set", ["servers", 2], "port", 8080]
    --- ["delete", [], "old"]
    --- ["insert", ["items"], 0, "first"]
    --- {"counter": 7}

An operation, the path to the dict or list, a key or index, a value; a mapping replaces everything. It is the journal of
persistedstate, so each opens what the other left, but on one line with its newline at the end: a line that a dying
process did not finish is told by its missing newline. ` # +2` behind an entry says that two more belong to the same
change, all or nothing; other YAML readers see a comment.

Why not json.dumps: YAML 1.1 reads `1e-07` and `NaN` as text, some control characters as errors, and NEL as a space. Why
not yaml.dump: it takes forty times as long.
"""

from __future__ import annotations

import base64
import datetime
import functools
import re
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any

#: What JSON leaves as it is in a string, and YAML does not read back (printable characters and line breaks of YAML 1.1).
ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
#: Python refuses to write longer ints in decimal (sys.set_int_max_str_digits); YAML reads hexadecimal ones.
_DECIMAL_BITS = 8192
#: YAML gives up looking for the colon behind a key after 1,024 characters, unless a question mark stands before it.
_SIMPLE_KEY = 1000


#: The root has nothing left.
CLEARED = b"--- {}\n"


def set_entry(path: str, key: object, value: object) -> bytes:
    return f'--- ["set", {path}, {_encode_step(key)}, {_ENCODERS[type(value)](value)}]\n'.encode()


def delete_entry(path: str, key: object) -> bytes:
    return f'--- ["delete", {path}, {_encode_step(key)}]\n'.encode()


def insert_entry(path: str, index: int, value: object) -> bytes:
    return f'--- ["insert", {path}, {index}, {encode(value)}]\n'.encode()


def encode_path(keys: Iterable[object]) -> str:
    return f"[{', '.join(map(_encode_step, keys))}]"


def one_change(entries: Sequence[bytes]) -> bytes:
    """The entries as one change, all or nothing."""
    left = range(len(entries) - 1, 0, -1)
    return (
        b"".join(b"%b # +%d\n" % (entry[:-1], more) for entry, more in zip(entries, left, strict=False)) + entries[-1]
    )


def encode(value: object) -> str:
    """A value as YAML on one line."""
    text: str = _ENCODERS[type(value)](value)
    return text


#: Keys come again and again. Typed, because 1 and True are equal and mean the same key, but are not written alike.
_encode_step = functools.lru_cache(maxsize=1024, typed=True)(encode)


def encode_text(value: str) -> str:
    quoted: str = encode_basestring(value)
    return quoted if value.isascii() and "\x7f" not in value else ESCAPED.sub(_escape, quoted)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def encode_int(value: int) -> str:
    return str(value) if value.bit_length() <= _DECIMAL_BITS else hex(value)


def encode_float(value: float) -> str:
    shown = repr(value)
    if "e" in shown and "." not in shown:
        return shown.replace("e", ".0e")  # without the point YAML 1.1 sees a text
    return _NAMED_FLOATS.get(shown, shown)


_NAMED_FLOATS = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}


def encode_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def encode_date(value: datetime.date) -> str:
    return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()


def _encode_dict(value: dict[Any, Any]) -> str:
    return f"{{{', '.join(f'{_encode_key(key)}: {encode(item)}' for key, item in value.items())}}}"


def _encode_key(key: object) -> str:
    text = encode(key)
    return text if len(text) <= _SIMPLE_KEY else f"? {text} "


def _encode_list(value: list[Any]) -> str:
    return f"[{', '.join(map(encode, value))}]"


def _encode_set(value: frozenset[Any]) -> str:
    return f"!!set {{{', '.join(f'{_encode_key(member)}: null' for member in value)}}}"


_ENCODERS: dict[type, Any] = {
    str: encode_text,
    int: encode_int,
    float: encode_float,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
    bytes: lambda value: f'!!binary "{encode_bytes(value)}"',
    datetime.date: lambda value: f'!!timestamp "{encode_date(value)}"',
    datetime.datetime: lambda value: f'!!timestamp "{encode_date(value)}"',
    frozenset: _encode_set,
    dict: _encode_dict,
    list: _encode_list,
}


def register(kind: type, like: type) -> None:
    """Have instances of the class `kind` written as those of its base `like`."""
    _ENCODERS[kind] = _ENCODERS[like]
