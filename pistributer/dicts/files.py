"""FileDirDict: a folder in which each item is a file, and the segments of its key are the path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import filterfalse
from operator import attrgetter
from typing import Any, Generic, Self

from .. import errors
from ..storage import value_files
from . import digests
from .contract import Entry, Mark, PersiDict, Require, V, prefix_of
from .flags import ANY_ETAG, ITEM_NOT_AVAILABLE, ETagIfExists
from .keys import NonEmptySafeStrTuple, PersiDictKey, has_unsafe, is_safe, only_safe, trusted_key

DEFAULT_FOLDER = "__file_dir_dict__"
#: The dial of this room: there is no group, because a name must not come to lie on a disk before its bytes do.
SYNC_MODES = ("none", "each")
#: So many names are looked at to tell with what `digest_len` a folder was written.
_SAMPLE = 16
_name, _is_file, _is_symlink = attrgetter("name"), os.DirEntry.is_file, os.DirEntry.is_symlink


class FileDirDict(PersiDict[V], Generic[V]):
    """Items as files: `d["users", "alice"] = …` is `base_dir/users/alice.pkl`. Any number of processes may use it at once.

    base_dir    the folder; it is made with the first item, for its owner only
    digest_len  so many characters of a digest are added to each segment's name, so that `Key` and `key` stay two items on
                a filesystem that does not tell them apart. DictMismatch if the folder was written with another length
    sync        "each" (the default): an item is on the disk when the call returns; "none": in the page cache, so a power
                cut may cost or damage what was written in the last half minute. `kill -9` costs nothing either way

    With pickle, the default format, a value whose file belongs to another user is refused (UnsafeValue), because reading
    it runs code of that user. Symbolic links are not followed to values and not listed.

    Conditional operations exclude all processes of this host. On a network filesystem several hosts may share the folder:
    reading and writing stay whole there, but two hosts may both find a condition to hold.
    """

    _own_params = ("base_dir", "digest_len", "sync")

    def __init__(
        self,
        base_dir: str | os.PathLike[str] = DEFAULT_FOLDER,
        serialization_format: str = "pkl",
        append_only: bool = False,
        digest_len: int = 0,
        base_class_for_values: type | None = None,
        *,
        sync: str = "each",
    ) -> None:
        super().__init__(serialization_format, append_only, base_class_for_values)
        if not 0 <= digest_len <= digests.MAX_DIGEST_LEN:
            raise ValueError(f"digest_len must be from 0 to {digests.MAX_DIGEST_LEN}, not {digest_len!r}")
        if sync not in SYNC_MODES:
            raise ValueError(f"sync must be one of {', '.join(SYNC_MODES)}, not {sync!r}")
        self._base_dir = os.path.abspath(os.path.expanduser(base_dir))
        self.digest_len = digest_len
        self.sync = sync
        self._suffix = f".{serialization_format}"
        self._files = value_files.ValueFolder(self._base_dir, durable=sync == "each")
        self._open()

    @property
    def base_dir(self) -> str:
        """The folder, as an absolute path."""
        return self._base_dir

    def _open(self) -> None:
        if os.path.lexists(self._base_dir) and not os.path.isdir(self._base_dir):
            raise ValueError(f"{self._base_dir!r} is a file, and base_dir must be a folder")
        self._files.clean_stage()
        self._require_same_digests()

    def _require_same_digests(self) -> None:
        # The folder does not say how it was written, because persidict's do not; its names do.
        wrong = None
        stems = (stem for _, names in self._walk() for stem in _stems(names, self._suffix))
        for name in itertools.islice(stems, _SAMPLE):
            found = digests.guess_length(name)
            if found == self.digest_len or (self.digest_len and digests.unsign(name, self.digest_len)):
                return
            wrong = found
        if wrong is not None and (wrong or self.digest_len):
            raise errors.DictMismatch(
                f"{self._base_dir!r} was written with digest_len={wrong}, not {self.digest_len}",
                hint=f"open it with digest_len={wrong}, or copy its items into a new folder",
                path=self._base_dir, found=wrong, asked=self.digest_len,
            )  # fmt: skip

    # -- where things lie

    def _path(self, key: NonEmptySafeStrTuple) -> str:
        if self.digest_len:
            return f"{self._base_dir}/{'/'.join(digests.sign(part, self.digest_len) for part in key)}{self._suffix}"
        return f"{self._base_dir}/{'/'.join(key)}{self._suffix}"

    def _path_to_write(self, key: NonEmptySafeStrTuple) -> str:
        if any(part.endswith(self._suffix) for part in key[:-1]) and not self.digest_len:
            raise errors.BadKey(
                f"{tuple(key)!r} can not be stored: a folder whose name ends in {self._suffix!r} would stand where the "
                "item of that name belongs",
                hint="use another segment, or open a new folder with digest_len=4",
                key=key,
            )
        path = self._path(key)
        longest = max(len(name) for name in path[len(self._base_dir) + 1 :].split("/"))
        if longest > 255:  # NAME_MAX
            raise errors.BadKey(
                f"{key[-1][:40]!r}… is too long: with its ending it has {longest} characters as a file name, 255 are the most",
                hint="shorten it, or split it into several segments",
                key=key,
            )
        return path

    # -- the contract

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        path = self._path(key)
        found = value_files.read_value(path)
        if found is None:
            return None
        data, state = found
        if self._format.runs_code:
            _require_own(state, path)
        try:
            value = self._format.decode(data)
        except (errors.DamagedValue, errors.UnsafeValue) as error:
            error.message = f"{path!r}: {error.message}"
            error.__dict__["path"] = path
            raise
        return Entry(self._check_loaded(value, path), _etag(state), state.st_mtime)

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        state = value_files.stat_value(self._path(key))
        return None if state is None else Mark(_etag(state), state.st_mtime)

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        state = self._files.write(self._path_to_write(key), self._format.encode(value), _accepting(require))
        return None if state is None else _etag(state)

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        return self._files.remove(self._path(key), _accepting(require))

    def _turn(self, key: NonEmptySafeStrTuple) -> AbstractContextManager[object]:
        return self._files.turn(self._path(key))

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return (key for _, _, key in self._found())

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        for folder, stem, key in self._found():
            state = value_files.stat_value(f"{folder}/{stem}{self._suffix}")
            if state is not None:  # else it was deleted since it was listed
                yield state.st_mtime, key

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        segments = [digests.sign(part, self.digest_len) for part in prefix_of(prefix_key)]
        # Not opened again: what lies there may be no folder, and its stage is ours, so that no folder gets one of its own.
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _base_dir=os.path.join(self._base_dir, *segments))
        return view

    def _first_segments(self) -> set[str]:
        try:
            with os.scandir(self._base_dir) as entries:
                found = {self._first_segment(entry) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {name for name in found if name is not None}

    def _first_segment(self, entry: os.DirEntry[str]) -> str | None:
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            if not is_safe(name) or not any(_count(names, self._suffix) for _, names in self._walk(entry.path)):
                return None
        elif name.endswith(self._suffix) and entry.is_file(follow_symlinks=False):
            name = name.removesuffix(self._suffix)
        else:
            return None
        segment = digests.unsign(name, self.digest_len)
        return segment if segment and is_safe(segment) else None

    # -- listing

    def __len__(self) -> int:
        if self.digest_len:
            return super().__len__()
        return sum(_count(names, self._suffix) for _, names in self._walk())

    def _found(self) -> Iterator[tuple[str, str, NonEmptySafeStrTuple]]:
        """Folder, file name without its ending, and key of every item. Files that are no items are left alone."""
        length, start = self.digest_len, len(self._base_dir) + 1
        for folder, names in self._walk():
            above = tuple(folder[start:].split("/")) if len(folder) >= start else ()
            for stem in _stems(names, self._suffix):
                if not length:
                    yield folder, stem, trusted_key((*above, stem))
                    continue
                segments = [digests.unsign(part, length) for part in (*above, stem)]
                if all(segments):
                    yield folder, stem, trusted_key(part for part in segments if part)

    def _walk(self, top: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """Folder and the names of some files in it, which are no links; over all folders of the tree."""
        todo = [top or self._base_dir]
        while todo:
            folder = todo.pop()
            for entries in value_files.list_folder(folder):
                chunk = list(
                    filterfalse(_is_symlink, entries)
                )  # first, because to follow one that leads to itself fails
                files = list(filter(_is_file, chunk))
                if len(files) < len(chunk):
                    folders = map(_name, filter(os.DirEntry.is_dir, chunk))
                    todo += [f"{folder}/{name}" for name in folders if is_safe(name)]
                yield folder, list(map(_name, files))


# Of names all at once, in C, which takes a fraction of the time that one by one does. No name has a slash in it.


def _stems(names: list[str], suffix: str) -> list[str]:
    """The names, without `suffix`, of those that have it and are safe."""
    joined, mark = "/".join(names) + "/", suffix + "/"
    if joined.count(mark) == len(names):
        return only_safe(joined.split(mark)[:-1])
    return only_safe([name.removesuffix(suffix) for name in names if name.endswith(suffix)])


def _count(names: list[str], suffix: str) -> int:
    """How many `_stems` would find."""
    joined, mark = "/" + "/".join(names) + "/", suffix + "/"
    # What begins with a dot could be a folder's name, or none at all, without its ending.
    if joined.count(mark) == len(names) and "/." not in joined and not has_unsafe(joined):
        return len(names)
    return len(_stems(names, suffix))


def _etag(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns}:{state.st_size}:{state.st_ino}"


def _accepting(require: Require) -> value_files.Accepts:
    if require is ANY_ETAG:
        return value_files.accept_all
    if require is ITEM_NOT_AVAILABLE:
        return lambda state: state is None
    return lambda state: state is not None and _etag(state) == require


def _require_own(state: os.stat_result, path: str) -> None:
    # root may do as we like anyway, so its files tell us nothing new.
    if state.st_uid not in (os.geteuid(), 0):
        raise errors.UnsafeValue(
            f"{path!r} belongs to user {state.st_uid}, and reading a pickle runs whatever code it names",
            hint='if you trust that user, copy the file; for sharing between users, use serialization_format="json"',
            path=path,
        )
