"""Going around the drivers: a connection as a foreign program would open it, and dying before a statement."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pistributer.storage import sqlite_db


@contextmanager
def foreign(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode, closed at the end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def die_before(statement: int) -> None:
    """From now on, count the statements of every new connection of this process, and be killed before this one."""
    left = [statement]

    def count(sql: str) -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def counted(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.set_trace_callback(count)
        return connection

    sqlite_db.sqlite3.connect = counted  # type: ignore[attr-defined]
