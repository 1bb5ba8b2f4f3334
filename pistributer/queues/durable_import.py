"""Taking over the folder of an iodict DurableQueue: one file an item, a pickle, named by a hash or a UUID.

Items keep the order of their birth times. Steps: insert all with their file names, in one transaction; sync; delete the
files. Killed before the commit: nothing has happened. After it: the names are known, so the next opener deletes the files
instead of taking them again.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import Any

from .. import errors
from ..storage.durability import sync_file
from . import sqlite_steps as steps
from .rows import encode_json
from .sqlite import SqliteQueue

#: sha3_224 in hexadecimal, or where there are no extended attributes the UUID that iodict used as a key.
_ITEM = re.compile(r"[0-9a-f]{56}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BIRTH = "user.birthtime"


def take_over(folder: str, queue: SqliteQueue, serializer: str, wrap: Callable[[bytes], Any]) -> None:
    """Move what iodict left in `folder` into `queue`; most often there is nothing."""
    names = [name for name in os.listdir(folder) if _ITEM.fullmatch(name)]
    if not names:
        return
    if serializer != "pickle":
        raise errors.FormatError(
            f"{folder!r} holds {len(names)} pickled items of iodict",
            hint='open it once with serializer="pickle" and get them, if you trust whoever put them',
            path=folder,
        )
    with errors.typed_os_errors("take over the queue in", folder):
        names.sort(key=lambda name: _birth(os.path.join(folder, name)))
        _insert(folder, names, queue, wrap)
        _sync(queue)
        for name in names:
            os.unlink(os.path.join(folder, name))
        queue._database.write("DELETE FROM taken_over")


def _insert(folder: str, names: list[str], queue: SqliteQueue, wrap: Callable[[bytes], Any]) -> None:
    with queue._database.transaction() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS taken_over (name TEXT PRIMARY KEY)")
        known = {name for (name,) in connection.execute("SELECT name FROM taken_over")}
        new = [name for name in names if name not in known]
        steps.put_at_back(connection, [encode_json(wrap(_read(folder, name)))[:-1] for name in new])
        connection.executemany("INSERT INTO taken_over VALUES (?)", [(name,) for name in new])


def _read(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def _birth(path: str) -> tuple[float, str]:
    """When the item was put. Without extended attributes the file's own time, which says so only roughly."""
    try:
        (birth,) = struct.unpack(">d", os.getxattr(path, _BIRTH))
    except (AttributeError, OSError, struct.error):
        birth = os.stat(path).st_mtime
    return birth, path


def _sync(queue: SqliteQueue) -> None:
    """Have the transaction on disk before what it replaces is deleted, whatever the durability of the queue is."""
    path = queue._database.path + "-wal"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(fd, path)
    finally:
        os.close(fd)
