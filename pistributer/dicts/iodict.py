"""IODict: a dict in a folder, for any key that can be pickled, in the order in which its items were born."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import shutil
from collections.abc import Callable, ItemsView, Iterable, Iterator, MutableMapping, ValuesView
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .. import errors
from ..storage import value_files
from .contract import V
from .files import SYNC_MODES
from .iodict_files import (
    Births,
    Item,
    is_item_name,
    key_of,
    name_of,
    read_birth,
    read_item,
    require_own,
    set_attributes,
    trailer,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    K = TypeVarWithDefault("K", default=Any)
else:
    K = TypeVar("K")
_MISSING: Any = object()


class IODict(MutableMapping[K, V], Generic[K, V]):
    """A dict and OrderedDict whose items are files. Any number of threads and processes may use one folder at once.

    path  the folder; `~` is expanded. It is made if it is missing, for its owner only. ValueError if it is a file
    lock  a lock, or a factory of one such as `threading.Lock`, that is held around every change, so that the application
          can hold changes back. None: the kernel's lock on the folder alone, which is always taken, excludes every process
          of this host, and is freed when its holder dies, however it dies
    sync  "each" (the default) or "none", as in FileDirDict

    Order is that of birth: setting a key again keeps its place, deleting and setting it moves it to the end. Births never
    coincide and never go back, whatever the clock does. A value belongs to whoever got it.

    Reading an item unpickles it: an item of another user is refused (UnsafeValue). BadKey (a TypeError) for a key without
    a hash or a pickle, BadValue (a TypeError) for a value without a pickle; nothing is changed then. Keys of a class of your
    own are found again if equal ones pickle to equal bytes. `with` and leaving it delete nothing; `clear` and `delete` do.
    """

    def __init__(self, path: str | os.PathLike[str], lock: Any = None, *, sync: str = "each") -> None:
        if sync not in SYNC_MODES:
            raise ValueError(f"sync must be one of {', '.join(SYNC_MODES)}, not {sync!r}")
        self._db_path = os.path.abspath(os.path.expanduser(path))
        if os.path.lexists(self._db_path) and not os.path.isdir(self._db_path):
            raise ValueError(f"{self._db_path!r} is a file, and path must be a folder")
        self.sync = sync
        self._lock: Any = contextlib.nullcontext() if lock is None else lock() if callable(lock) else lock
        self._encoder = name_of
        with errors.typed_os_errors("make", self._db_path):
            value_files.make_folders(self._db_path, durable=sync == "each")
        beside = _beside(self._db_path)
        self._files = value_files.ValueFolder(self._db_path, durable=sync == "each", stage=beside + "#stage")
        self._births = Births(beside + "#order")
        self._files.clean_stage()

    @property
    def path(self) -> str:
        """The folder, as an absolute path."""
        return self._db_path

    # -- one item

    def _path(self, key: Any) -> str:
        """Where the key's item is; where it would be, if there is none."""
        path = f"{self._db_path}/{name_of(key)}"
        return path if value_files.stat_value(path) is not None else self._old_path(key) or path

    def _old_path(self, key: Any) -> str | None:
        """Where the original puts a key on a filesystem without attributes, if something that can be its item is there."""
        name = str(key) if isinstance(key, str) else ""
        path = os.path.join(self._db_path, name)
        return path if _is_old_name(name) and _is_pickle(path) else None

    def _read(self, key: Any) -> tuple[Any, os.stat_result, str] | None:
        path = f"{self._db_path}/{name_of(key)}"
        found = value_files.read_value(path)
        if found is None and (old := self._old_path(key)) is not None:
            path, found = old, value_files.read_value(old)
        return None if found is None else (_unpickled(*found, path), found[1], path)

    def _write(self, key: Any, value: Any, *, only_new: bool = False, place: Callable[[], float] | None = None) -> bool:
        """Whether it was written. `place` gives its birth, under the lock; else what it replaces hands on its own."""
        path, old = f"{self._db_path}/{name_of(key)}", self._old_path(key)
        data = _pickled(value)

        def finish(fd: int, present: os.stat_result | None) -> None:
            before = path if present is not None else old
            known = self._birth(os.path.basename(before)) if before is not None and place is None else None
            birth = known if known is not None else (place or self._births.next)()
            value_files.append_to(fd, trailer(key, birth))
            set_attributes(fd, key, birth)

        accepts = (lambda state: state is None and old is None) if only_new else value_files.accept_all
        with self._lock:
            written = self._files.write(path, data, accepts, finish) is not None
            if written and old is not None:
                self._files.remove(old, value_files.accept_all)
        return written

    def _remove(self, path: str, accepts: value_files.Accepts = value_files.accept_all) -> bool:
        with self._lock:
            return self._files.remove(path, accepts)

    # -- the dict

    def __getitem__(self, key: K) -> V:
        found = self._read(key)
        if found is None:
            raise KeyError(key)
        return cast(V, found[0])

    def __setitem__(self, key: K, value: V) -> None:
        self._write(key, value)

    def __delitem__(self, key: K) -> None:
        if not self._remove(f"{self._db_path}/{name_of(key)}"):
            old = self._old_path(key)
            if old is None or not self._remove(old):
                raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return value_files.stat_value(self._path(key)) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self._names())

    def __iter__(self) -> Iterator[K]:
        return (item.key for item in sorted(self._items()))

    def __reversed__(self) -> Iterator[K]:
        return (item.key for item in sorted(self._items(), reverse=True))

    def __repr__(self) -> str:
        return str(dict(self._pairs()))

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MutableMapping):
            return NotImplemented
        return dict(self._pairs()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # as every mapping that can change

    def _pairs(self) -> Iterator[tuple[K, V]]:
        # By name, each file read once: a key is in the bytes that hold its value.
        for name in self._names_by_birth():
            path = f"{self._db_path}/{name}"
            found = value_files.read_value(path)
            if found is None:
                continue  # deleted since it was listed
            value = _unpickled(*found, path)
            try:
                key: Any = key_of(found[0], path) if is_item_name(name) else name
            except FileNotFoundError:
                continue
            yield key, value

    def setdefault(self, key: K, default: Any = None) -> V:
        """The value of the key; if it is absent, `default`, which is stored. Atomic."""
        while True:
            found = self._read(key)
            if found is not None:
                return cast(V, found[0])
            if self._write(key, default, only_new=True):
                return cast(V, default)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Remove the key and return its value; `default`, whatever it is, or KeyError if it is absent. One caller gets it."""
        while True:
            found = self._read(key)
            if found is None:
                if default is _MISSING:
                    raise KeyError(key)
                return default
            value, state, path = found
            if self._remove(path, _is_still(state)):
                return value

    def popitem(self, last: bool = False) -> tuple[K, V]:
        """Remove and return the oldest item, or the youngest with `last=True`. KeyError if there is none.

        A dict's popitem takes the youngest; here the oldest is the default, because this is what queues are made of.
        """
        while True:
            items = sorted(self._items(), reverse=last)
            for item in items:
                value = self.pop(item.key, _MISSING)
                if value is not _MISSING:
                    return item.key, value
            if not items:
                raise KeyError("popitem(): dictionary is empty")

    def clear(self) -> None:
        """Delete every item that is there now."""
        for name in list(self._names()):
            self._remove(f"{self._db_path}/{name}")

    def delete(self) -> None:
        """Delete the folder with all items and what lies beside it. The object is of no use then."""
        with self._lock, errors.typed_os_errors("delete", self._db_path):
            for path in (self._db_path, self._files.stage):
                shutil.rmtree(path, ignore_errors=not os.path.isdir(path))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._births.path)

    def copy(self) -> dict[K, V]:
        """The items as a plain dict, in order."""
        return dict(self._pairs())

    def fromkeys(self, iterable: Iterable[K], value: Any = None) -> IODict[K, V]:
        """Set each key to the value, and return this dictionary: a class has no path, so an object does it."""
        for key in iterable:
            self[key] = value
        return self

    def move_to_end(self, key: K, last: bool = True) -> None:
        """Make the item the youngest, or the oldest with `last=False`. KeyError if it is absent."""
        found = self._read(key)
        if found is None:
            raise KeyError(key)
        self._write(key, found[0], place=self._births.next if last else self._before_all)

    def _before_all(self) -> float:
        return math.nextafter(min(item.birth for item in self._items()), -math.inf)

    def __ior__(self, other: Any) -> IODict[K, V]:
        self.update(other)
        return self

    def __enter__(self) -> IODict[K, V]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is deleted, and no exception held back."""

    # -- listing

    def _names(self) -> Iterator[str]:
        try:
            with os.scandir(self._db_path) as entries:
                for entry in entries:
                    if is_item_name(entry.name) or (
                        _is_old_name(entry.name) and entry.is_file(follow_symlinks=False) and _is_pickle(entry.path)
                    ):
                        yield entry.name
        except OSError as error:
            raise errors.from_os_error(error, "list", self._db_path) from error

    def _items(self) -> Iterator[Item]:
        return (item for item in map(self._item, self._names()) if item is not None)

    def _names_by_birth(self) -> list[str]:
        births = [(birth, name) for name in self._names() if (birth := self._birth(name)) is not None]
        births.sort()
        return [name for _, name in births]

    def _birth(self, name: str) -> float | None:
        if is_item_name(name):
            return read_birth(self._db_path, name)
        state = value_files.stat_value(f"{self._db_path}/{name}")
        return None if state is None else state.st_ctime

    def _item(self, name: str) -> Item | None:
        if is_item_name(name):
            return read_item(self._db_path, name)
        birth = self._birth(name)
        return None if birth is None else Item(birth, name, name)


class _Items(ItemsView[K, V]):
    """As of a dict, but an item that is deleted while this is iterated is left out instead of a KeyError."""

    __slots__ = ()
    _mapping: IODict[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._pairs()


class _Values(ValuesView[V]):
    __slots__ = ()
    _mapping: IODict[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._pairs())


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise errors.BadValue(f"pickle can not hold this {type(value).__name__}: {error}") from error


def _unpickled(data: bytes, state: os.stat_result, path: str) -> Any:
    require_own(state, path)
    try:
        return pickle.loads(data)
    except Exception as error:
        raise errors.DamagedValue(
            f"{path!r} can not be read: {type(error).__name__}: {error}",
            hint="if a class or a module is missing, import it; else delete the item or bring it back from a backup",
            path=path,
        ) from error


def _is_still(seen: os.stat_result) -> Callable[[os.stat_result | None], bool]:
    return lambda state: state is not None and (state.st_ino, state.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns)


def _is_old_name(name: str) -> bool:
    return bool(name) and not is_item_name(name) and "/" not in name and "\0" not in name and name[0] not in ".#"


def _is_pickle(path: str) -> bool:
    """Whether a file without a name of ours can be an item of the original, which writes pickles of protocol 4 or 5."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"\x80\x04", b"\x80\x05")
    except OSError:
        return False


def _beside(path: str) -> str:
    """Where our own files go: beside the folder, or into it if it is a disk of its own or nothing can be written beside it."""
    above = os.path.dirname(path)
    if os.path.ismount(path) or not os.access(above, os.W_OK):
        return os.path.join(path, "")
    return path
