"""The file drivers, jsonl and txt, by the conformance suite. What they alone do is in test_queue_damage and its neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import orjson

from pistributer.queues.opening import open_queue

from .conformance import QueueContract


class FileContract(QueueContract):
    """What jsonl and txt share."""

    driver: ClassVar[str]

    def url_in(self, folder: Path) -> str:
        return f"{self.driver}:{folder / 'q'}"

    def make_newer(self, folder: Path) -> None:
        path = self.path_in(folder) / "pistributer.json"
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "format": 99}))

    def damage(self, folder: Path, i: int) -> None:
        (segment,) = self.path_in(folder).glob(f"shards/*.{self.driver}")
        rows = segment.read_bytes().splitlines(keepends=True)
        rows[i] = rows[i][:-2] + b"\0\n"
        segment.write_bytes(b"".join(rows))


class TestJsonlQueue(FileContract):
    driver = "jsonl"

    def other_driver_in(self, folder: Path) -> str:
        open_queue(f"txt:{self.path_in(folder)}").close()
        return "txt"


class TestTxtQueue(FileContract):
    driver = "txt"

    values: ClassVar[dict[str, Any]] = {
        "word": "x",
        "unicode": "é 漢字 🎉",
        "spaces": "  two  spaces\t",
        "carriage-return": "a\rb\r",
        "line-separators": "a\u2028b\x0bc\x85d",
        "json": '{"pistributer": 1}',
        "number": "1.0",
    }
    bad_values: ClassVar[dict[str, Any]] = {
        "newline": "a\nb",
        "empty": "",
        "nul": "a\0b",
        "lone-surrogate": "\ud800",
        "bytes": b"x",
        "int": 1,
        "none": None,
        "reserved-prefix": ' {"pistributer":{}}',
    }

    def value(self, i: int) -> Any:
        return f"row {i}"

    def number(self, value: Any) -> int:
        return int(value.removeprefix("row "))

    def long_value(self, size: int) -> Any:
        return "x" * size

    def other_driver_in(self, folder: Path) -> str:
        open_queue(f"jsonl:{self.path_in(folder)}").close()
        return "jsonl"
