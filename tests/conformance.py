"""The conformance suite: what the contract promises, one test per promise, run unchanged over every driver.

A driver's test module subclasses `QueueContract`, names its URL, and fills in the hooks that go around the driver. What a
driver can not do it says with a reason, and the tests that need it are skipped with that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pistributer.queues.contract import Queue
from pistributer.queues.opening import open_queue

from .conformance_claims import ClaimContract
from .conformance_delivery import DeliveryContract
from .conformance_limits import LimitContract
from .conformance_processes import ProcessContract
from .conformance_refusals import RefusalContract
from .conformance_sources import SourceContract

Open = Callable[..., Queue]


class QueueContract(DeliveryContract, ClaimContract, LimitContract, RefusalContract, SourceContract, ProcessContract):
    """All of it. The parts stand in modules of their own, by subject."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return self.url_in(tmp_path)

    @pytest.fixture
    def opened(self, url: str) -> Iterator[Open]:
        """Opens the test's queue, as often and with what options the test likes; all are closed at the end."""
        queues: list[Queue] = []

        def open_it(**options: Any) -> Queue:
            queues.append(open_queue(url, **{**self.options, **options}))
            return queues[-1]

        yield open_it
        for queue in queues:
            queue.close()

    @pytest.fixture
    def queue(self, opened: Open) -> Queue:
        return opened()
