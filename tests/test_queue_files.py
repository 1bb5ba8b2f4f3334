"""The file drivers, jsonl and txt, by the conformance suite. What they alone do is in test_queue_damage and its neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from pistributer import errors
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


class TestTxtQueueOfObjects(TestTxtQueue):
    """Texts and dicts in one txt queue, as an app on txt has them."""

    options: ClassVar[dict[str, Any]] = {"objects": True}
    values: ClassVar[dict[str, Any]] = {
        **TestTxtQueue.values,
        "object": {"a": {"b": [None, True, -1.5e300]}, "c": "a\nb\0"},
        "empty-object": {},
        "begins-like-an-object": '{"a',
        "json": "[1, 2]",
    }
    bad_values: ClassVar[dict[str, Any]] = {
        **TestTxtQueue.bad_values,
        "list": [1],
        "nan": {"x": float("nan")},
        "int-key": {1: "x"},
        "lone-surrogate-in-object": {"x": "\ud800"},
    }

    def value(self, i: int) -> Any:
        return {"i": i} if i % 2 else super().value(i)

    def number(self, value: Any) -> int:
        return int(value["i"]) if isinstance(value, dict) else super().number(value)


def test_a_txt_queue_stays_what_it_was_made_as(tmp_path: Path) -> None:
    with open_queue(f"txt:{tmp_path / 'texts'}") as texts, pytest.raises(errors.RowError, match="must be str"):
        texts.put({"a": 1})
    with (
        open_queue(f"txt:{tmp_path / 'texts'}", objects=True) as texts,
        pytest.raises(errors.RowError, match="must be"),
    ):
        texts.put({"a": 1})
    open_queue(f"txt:{tmp_path / 'both'}", objects=True).close()
    with open_queue(f"txt:{tmp_path / 'both'}") as both:
        both.put({"a": 1})
        both.put('{"a":2}')
        both.put("three")
        assert [item.value for item in both.claim(3)] == [{"a": 1}, {"a": 2}, "three"]
    (segment,) = (tmp_path / "both" / "shards").glob("*.txt")
    assert segment.read_text() == '{"a":1}\n{"a":2}\nthree\n'
