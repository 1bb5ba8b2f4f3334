"""What a driver tells the conformance suite about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from pistributer.queues.contract import Item, Queue

#: Values that JSON can not hold, or not without change.
NOT_JSON: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": [1, {"x": float("inf")}],
    "bytes": b"x",
    "set": {1},
    "object": object(),
    "big-int": 2**64,
    "lone-surrogate": "\ud800",
    "int-key": {1: "x"},
    "complex": 1j,
}
JSON_VALUES: dict[str, Any] = {
    "null": None,
    "false": False,
    "int": 2**63 - 1,
    "float": 0.1,
    "empty-string": "",
    "newlines": "a\nb\r\nc\0",
    "unicode": "é 漢字 🎉\u2028",
    "list": [1, [2, []], {}],
    "nested": {"a": {"b": [None, True, -1.5e300]}},
    "looks-wrapped": {"pistributer": {"id": "1"}},
}


class Hooks:
    """Subclasses override what differs."""

    #: Why other processes can not share the queue, if they can not.
    one_process: ClassVar[str | None] = None
    #: Why there are no files, if there are none.
    no_files: ClassVar[str | None] = None
    #: What a new queue is opened with.
    options: ClassVar[dict[str, Any]] = {}
    #: Values that must come back as they went in, and values that must be refused.
    values: ClassVar[dict[str, Any]] = JSON_VALUES
    bad_values: ClassVar[dict[str, Any]] = NOT_JSON

    def url_in(self, folder: Path) -> str:
        """The URL of a queue that does not exist yet."""
        raise NotImplementedError

    def value(self, i: int) -> Any:
        """A value that `number` tells from the others."""
        return {"i": i}

    def number(self, value: Any) -> int:
        return int(value["i"])

    def long_value(self, size: int) -> Any:
        """A value whose row is `size` bytes long."""
        return "x" * (size - 2)

    # -- around the driver: for those with files only

    def path_in(self, folder: Path) -> Path:
        """Where the queue of `url_in` lies."""
        return Path(self.url_in(folder).partition(":")[2])

    def other_driver_in(self, folder: Path) -> str:
        """Make a queue of another driver where `url_in` points; its driver."""
        raise NotImplementedError

    def make_newer(self, folder: Path) -> None:
        """Turn the closed queue into one of a newer format."""
        raise NotImplementedError

    def damage(self, folder: Path, i: int) -> None:
        """Make the row of `value(i)` unreadable, going around the driver."""
        raise NotImplementedError

    # -- shared by the tests

    def numbers(self, items: list[Item]) -> list[int]:
        return [self.number(item.value) for item in items]

    def fill(self, queue: Queue, count: int, start: int = 0) -> None:
        queue.put_many([self.value(i) for i in range(start, start + count)])

    def drain(self, queue: Queue) -> list[int]:
        """Claim and acknowledge until the queue is empty."""
        found: list[int] = []
        while items := queue.claim(7):
            found += self.numbers(items)
            queue.ack(items)
        return found

    def need_processes(self) -> None:
        if self.one_process:
            pytest.skip(self.one_process)

    def need_files(self) -> None:
        if self.no_files:
            pytest.skip(self.no_files)

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """`bad_value` and `good_value` run over the driver's own tables."""
        for name, table in (("bad_value", cls.bad_values), ("good_value", cls.values)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, list(table.values()), ids=list(table))
