"""A row with its history: how rows look once they carry more than their value.

A row that was put and never failed is stored as its bare value. A row that was given back, delayed or buried needs its id,
its attempts and more, so it is wrapped in one JSON line that starts with a blank::

     {"pistributer":1,"state":"wait        ","id":"0001-17","attempt":2,"due":1763715600.5,"row":{"url":"…"}}

`put` never writes a leading blank (and the txt driver refuses text that starts like this), so wrapped and bare rows can
share a file, and `jq` reads both. `state` has a fixed width and place because it is changed in place. `row` comes last and
holds the value byte for byte for jsonl, the text as a JSON string for txt. Unknown fields are ignored and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from .. import errors
from .rows import Codec

PREFIX = b' {"pistributer":'
_HEAD = PREFIX + b'1,"state":"'
#: Where the state stands in a wrapped line, and how wide it is.
STATE_AT = len(_HEAD)
STATE_WIDTH = 12
_ROW = b',"row":'


@dataclass(slots=True)
class Envelope:
    """A row and its history."""

    id: str
    #: Deliveries so far.
    attempt: int
    #: The row as the driver stores it, without the newline.
    raw: bytes
    value: Any = None
    state: str = "ready"
    #: Claimable from then on, seconds since the epoch.
    due: float | None = None
    #: Why it was given back or buried.
    error: str | None = None
    #: When it was buried, seconds since the epoch.
    at: float | None = None
    #: How far its source had come with this row (queues/sources.py).
    checkpoint: Any = None


def pad_state(state: str) -> bytes:
    """`state` at its fixed width."""
    return state.encode().ljust(STATE_WIDTH)


def wrap(envelope: Envelope, codec: Codec) -> bytes:
    """The line, with its newline."""
    fields: dict[str, Any] = {"id": envelope.id, "attempt": envelope.attempt}
    for name in ("due", "error", "at", "checkpoint"):
        if (value := getattr(envelope, name)) is not None:
            fields[name] = value
    row = orjson.dumps(envelope.raw.decode()) if codec.text else envelope.raw
    meta = _dumps(fields)[1:-1]
    return b'%s%s",%s%s%s}\n' % (_HEAD, pad_state(envelope.state), meta, _ROW, row)


def _dumps(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # an error text with lone surrogates, say from a file name
        return orjson.dumps({**fields, "error": ascii(fields.get("error"))})


def unwrap(line: bytes, codec: Codec) -> Envelope:
    """The envelope in a wrapped line. Raises ValueError if it is damaged, NewerFormat if a newer release wrote it."""
    found = orjson.loads(line)
    if found["pistributer"] != 1:
        raise errors.NewerFormat(
            f"a row is wrapped in format {found['pistributer']}, and this release knows 1", hint="upgrade pistributer"
        )
    try:
        raw = found["row"].encode() if codec.text else line[line.index(_ROW) + len(_ROW) : line.rindex(b"}")]
        return Envelope(
            id=str(found["id"]),
            attempt=int(found["attempt"]),
            raw=raw,
            value=codec.decode(raw) if codec.text else found["row"],
            state=found["state"].strip(),
            due=found.get("due"),
            error=found.get("error"),
            at=found.get("at"),
            checkpoint=found.get("checkpoint"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a wrapped row lacks {error}") from error
