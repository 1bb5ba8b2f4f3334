"""What the sources of all drivers share: names, batches, and what is refused."""

from __future__ import annotations

import abc
import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from .. import errors
from .contract import Source
from .rows import encode_json

_PUT_BATCH = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

#: A value and the checkpoint that is committed with it.
Pair = tuple[Any, Any]


class BatchedSource(Source):
    """A driver adds how a batch is stored. Docstrings of the methods are inherited from the contract."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checkpoint = None
        self._closed = False

    def put(self, value: Any, *, checkpoint: Any, block: bool = True, timeout: float | None = None) -> None:
        self._store_batch([(value, checkpoint)], block, timeout)

    def put_many(self, rows: Iterable[Pair], *, block: bool = True, timeout: float | None = None) -> int:
        waiting, stored = iter(rows), 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while batch := list(islice(waiting, _PUT_BATCH)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._store_batch(batch, block, left)
            except (errors.DiskFull, errors.QueueFull) as error:
                error.stored += stored
                raise
            stored += len(batch)
        return stored

    def _store_batch(self, batch: list[Pair], block: bool, timeout: float | None) -> None:
        self._require_open()
        for _, checkpoint in batch:
            encode_json(checkpoint)  # refuses what would not come back
        stored = 0
        try:
            self._store(batch, block, timeout)
            stored = len(batch)
        except (errors.DiskFull, errors.QueueFull) as error:
            stored = error.stored
            raise
        finally:
            if stored:
                self.checkpoint = batch[stored - 1][1]

    @abc.abstractmethod
    def _store(self, batch: list[Pair], block: bool, timeout: float | None) -> None:
        """Store the values, and the checkpoint of the last one that is stored, in one step.

        The `stored` of DiskFull and QueueFull says how many are.
        """

    def commit(self, checkpoint: Any) -> None:
        self._require_open()
        encode_json(checkpoint)
        self._save(checkpoint)
        self.checkpoint = checkpoint

    @abc.abstractmethod
    def _save(self, checkpoint: Any) -> None:
        """Store the checkpoint."""

    def _require_open(self) -> None:
        if self._closed:
            raise errors.QueueClosed(f"the source {self.name!r} was closed", hint="open it again with queue.source(…)")

    def _after_fork(self) -> None:
        self._closed = True


def check_source_name(name: str) -> str:
    """`name` if a source can be called that; ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a source's name is letters, digits and _ . -, not {name!r}")
    return name


def source_busy(name: str) -> errors.SourceBusy:
    return errors.SourceBusy(
        f"another object holds the source {name!r}", hint="close it there, or end the process that has it", name=name
    )
