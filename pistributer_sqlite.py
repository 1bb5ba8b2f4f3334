"""The SQLite driver under the module name that release 0.2.0 gave it. See `pistributer.PistributerSqlite`."""

from pistributer import PistributerSqlite

__all__ = ["PistributerSqlite"]
