"""The rows of a stress run, and how each API puts and takes them.

A row names itself and carries a value that only this row has. One in `Scenario.sample_every` also carries the moment
when it was put, in nanoseconds of the monotonic clock, which all processes of a machine share::

    {"writer":7,"channel":140,"seq":12,"value":734201,"t":81234567890123}        jsonl, sqlite
    7 140 12 734201 81234567890123                                               txt

The values are used as they come from the library under test; nothing here repairs them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .plan import Scenario

#: Module and class of each classic driver.
_CLASSIC: Final = {
    "jsonl": ("pistributer.queues.classic", "Pistributer", ".jsonl"),
    "txt": ("pistributer.queues.classic", "PistributerTxt", ".txt"),
    "sqlite": ("pistributer.queues.classic_sqlite", "PistributerSqlite", ".db"),
}

#: (writer, channel, seq, value, nanoseconds or 0) of a row.
Fields = tuple[int, int, int, int, int]


class Channel(Protocol):
    """A classic channel, as far as a reader needs it."""

    def next(self) -> str: ...


def encode_json(writer: int, channel: int, seq: int, value: int, now: int) -> dict[str, int]:
    row = {"writer": writer, "channel": channel, "seq": seq, "value": value}
    if now:
        row["t"] = now
    return row


def encode_text(writer: int, channel: int, seq: int, value: int, now: int) -> str:
    return f"{writer} {channel} {seq} {value} {now}" if now else f"{writer} {channel} {seq} {value}"


def encode_json_text(writer: int, channel: int, seq: int, value: int, now: int) -> str:
    return orjson.dumps(encode_json(writer, channel, seq, value, now)).decode()


def decode_json(row: Any) -> Fields:
    return row["writer"], row["channel"], row["seq"], row["value"], row.get("t", 0)


def decode_json_text(row: str) -> Fields:
    return decode_json(orjson.loads(row))


def decode_text(row: str) -> Fields:
    writer, channel, seq, value, *now = map(int, row.split(" "))
    return writer, channel, seq, value, now[0] if now else 0


def codec_of(scenario: Scenario) -> tuple[Callable[[int, int, int, int, int], Any], Callable[[Any], Fields]]:
    """How a writer makes the value that it puts, and how a reader understands what it was handed."""
    if scenario.driver == "txt":
        return encode_text, decode_text
    if scenario.api == "queue":
        return encode_json, decode_json
    # The classic sqlite driver stores `str(value)`, so JSON has to be text before it; `next` gives text in any case.
    return (encode_json_text if scenario.driver == "sqlite" else encode_json), decode_json_text


def modules_of(scenario: Scenario) -> list[str]:
    """What the children import, for the fork server to have it ready."""
    if scenario.api == "classic":
        return [_CLASSIC[scenario.driver][0]]
    return ["pistributer.queues.sqlite" if scenario.driver == "sqlite" else "pistributer.queues.sharded"]


# -- channels on disk


def classic_path(scenario: Scenario, folder: Path, channel: int) -> Path:
    return folder / f"{channel:06d}{_CLASSIC[scenario.driver][2]}"


def queue_url(scenario: Scenario, folder: Path, channel: int) -> str:
    return f"{scenario.driver}:{folder / f'{channel:06d}'}" + (".db" if scenario.driver == "sqlite" else "")


def classic_type(scenario: Scenario) -> Any:
    """What opens a channel for reading, by its path; of the file drivers, what has `put` as well."""
    module, name, _ = _CLASSIC[scenario.driver]
    kind = getattr(importlib.import_module(module), name)
    return functools.partial(kind, sync=scenario.sync) if scenario.driver == "sqlite" else kind


def open_channel_queue(scenario: Scenario, folder: Path, channel: int) -> Queue:
    return open_queue(queue_url(scenario, folder, channel), sync=scenario.sync)
