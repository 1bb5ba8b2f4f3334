"""Fixtures for pytest: `pytest_plugins = ["pistributer.testing.plugin"]` in the conftest.py at the root of your tests.

Not an entry point: that would load this package, and reserve these names, in every test run of whoever has it installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pistributer.workers.app import App

from .pools import Pool, pool
from .stage import Stage, eager, memory


@pytest.fixture
def pistributer_pool() -> Iterator[Callable[..., Pool]]:
    """`pistributer_pool(app, processes=2)`: a real pool, stopped at the end of the test, which fails if it leaves a process."""
    with contextlib.ExitStack() as stack:

        def start(app: App, **options: Any) -> Pool:
            return stack.enter_context(pool(app, **options))

        yield start


@pytest.fixture
def pistributer_eager() -> Iterator[Callable[..., Stage]]:
    """`pistributer_eager(app)`: until the end of the test, sends run at once."""
    with contextlib.ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(eager(app, **options))


@pytest.fixture
def pistributer_memory() -> Iterator[Callable[..., Stage]]:
    """`pistributer_memory(app)`: until the end of the test, sends wait in memory."""
    with contextlib.ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(memory(app, **options))
