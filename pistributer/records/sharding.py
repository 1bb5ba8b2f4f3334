"""Shards: the numbered files of one folder that together hold one set of records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from .. import errors
from .reading import Path

#: Digits of a shard's number, so that names sort as numbers do; the original's names have none and are read all the same.
_DIGITS = 6


class Shard(NamedTuple):
    """A file of a set."""

    number: int
    path: str


def shard_path(folder: str, prefix: str, number: int) -> str:
    return os.path.join(folder, f"{prefix}_{number:0{_DIGITS}d}")


def find_shards(folder: Path, prefix: str) -> list[Shard]:
    """The files `PREFIX_NUMBER` in `folder`, by number. `PREFIX_x_0` is a shard of another set, and `PREFIX_0.torn-64` is none.

    Raises RecordsMissing if there is no such folder, ValueError for a prefix that leads out of it.
    """
    folder = os.fsdecode(folder)
    if os.path.basename(prefix) != prefix:
        raise ValueError(f"a prefix is a part of a file's name, not {prefix!r}")
    name = re.compile(re.escape(prefix) + r"_([0-9]+)")
    try:
        entries = [(name.fullmatch(entry.name), entry) for entry in os.scandir(folder) if entry.is_file()]
    except FileNotFoundError as error:
        raise errors.RecordsMissing(
            f"there is no folder {folder!r}", hint="check the path", errno=error.errno or 0, path=folder
        ) from error
    except OSError as error:
        raise errors.from_os_error(error, "list", folder) from error
    return sorted(Shard(int(match[1]), entry.path) for match, entry in entries if match)


def require_shards(folder: Path, prefix: str) -> list[str]:
    """Paths of the shards; RecordsMissing if there is none."""
    found = [shard.path for shard in find_shards(folder, prefix)]
    if not found:
        raise errors.RecordsMissing(
            f"no shards found: there is no file {prefix}_NUMBER in {os.fsdecode(folder)!r}",
            hint="give the folder and the prefix that the writer was given",
            path=os.fsdecode(folder),
        )
    return found


PathT = TypeVar("PathT", bound="Globable")


class Globable(Protocol):
    """A folder that can list its files by a pattern, as `pathlib.Path` can, or a path of some object store."""

    def glob(self: PathT, pattern: str, /) -> Iterator[PathT] | Iterable[PathT]:
        """The files that match."""


def expand_dirs(dirs: Iterable[PathT], prefix: str = "shard") -> list[PathT]:
    """The files `PREFIX_*` of several folders, folder by folder, each in the order in which the folder lists them."""
    return [path for folder in dirs for path in folder.glob(f"{prefix}_*")]
