"""For the tests of those who use pistributer. Needs no test framework; `pistributer.testing.plugin` has fixtures for pytest.

    eager     every `.send` runs the task at once, in this process
    memory    sends wait in memory until the test runs them
    pool      a real supervisor with real workers, in a temporary folder

All three move the app for the time of a `with` block, and what runs is the code of the real workers: messages and results
go through JSON, failures are judged by the same policies, hooks are called. docs/testing.md is the guide.
"""

from __future__ import annotations

from .clock import Clock
from .pools import Pool, pool
from .stage import Sent, Stage, eager, memory

__all__ = ["Clock", "Pool", "Sent", "Stage", "eager", "memory", "pool"]
