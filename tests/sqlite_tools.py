"""Going around the drivers: a connection as a foreign program would open it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def foreign(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode, closed at the end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection
