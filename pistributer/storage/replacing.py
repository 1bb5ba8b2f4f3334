"""Replacing a whole file so that every reader, and every crash, sees the old content or the new one.

Steps: write a temporary sibling, sync it, rename it over the name, sync the directory. Killed before the rename: the old
file stands and the sibling (`.NAME.PID.tmp`) is litter that `remove_litter` clears. Killed after it: the new one stands.
Without the syncs (`durable=False`) the same holds for a killed process; a power cut may then leave an empty file.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator

from .. import errors
from .durability import sync_file

_LITTER = re.compile(r"\..+\.\d+\.tmp")


def replace_file(path: str, data: bytes, *, durable: bool, mode_like: str | None = None) -> None:
    """Make `data` the content of `path`, atomically; durably too if asked. The caller excludes other writers.

    `mode_like`: the file whose mode it gets, if that exists; for files of users, who may have closed them to others.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    mode = None if mode_like is None else mode_of(mode_like)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666 if mode is None else mode)
        try:
            if mode is not None:
                os.fchmod(fd, mode)  # whatever the umask says
            write_all(fd, data)
            if durable:
                sync_file(fd, temporary)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        remove_quietly(temporary)
        if isinstance(error, errors.PistributerError):
            raise
        raise errors.from_os_error(error, "replace", path) from error
    if durable:
        sync_directory(folder)


def mode_of(path: str) -> int | None:
    """The permissions of the file at `path`; None if there is none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of `data`; a full disk shows as OSError on the second round, never as a short file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def keep_and_replace(path: str, temporary: str, kept: str) -> str:
    """Put the finished and synced file `temporary` in the place of `path`, which stays as `kept`; return that name.

    `kept` becomes `kept-2`, … if the name is taken: nothing is overwritten. A hard link is made before the rename, so that
    `path` is there all the time; killed between the two, the old file merely has a second name.
    """
    try:
        for name in free_names(kept):
            try:
                os.link(path, name)
                break
            except FileExistsError:
                pass
        sync_directory(os.path.dirname(path))
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, errors.PistributerError):
            raise
        raise errors.from_os_error(error, "replace", path) from error
    sync_directory(os.path.dirname(path))
    return name


def free_names(name: str) -> Iterator[str]:
    """`name`, `name-2`, `name-3`, …: to be tried until one is free."""
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def sync_directory(folder: str) -> None:
    """Make the names in `folder` durable. fsync of a file does not cover its name (fsync(2))."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise errors.SyncFailed(
            f"the disk did not confirm the names in {folder!r}", errno=error.errno or 0, path=folder
        ) from error
    finally:
        os.close(fd)


def remove_litter(folder: str, of: str | None = None) -> None:
    """Delete what killed calls of `replace_file` left in `folder`, for all files there or for the file named `of`.

    The caller excludes other writers.
    """
    litter = _LITTER if of is None else re.compile(rf"\.{re.escape(of)}\.\d+\.tmp")
    for name in os.listdir(folder):
        if litter.fullmatch(name):
            remove_quietly(os.path.join(folder, name))


def reserve_space(path: str, size: int) -> bool:
    """Make a file that holds `size` bytes of disk for later, to be deleted when they are needed. False if there is no room."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        remove_quietly(path)
        return False
    finally:
        os.close(fd)
    return True


def remove_quietly(path: str) -> None:
    """Delete a file that nobody needs, if it can be."""
    try:
        os.unlink(path)
    except OSError:
        pass
