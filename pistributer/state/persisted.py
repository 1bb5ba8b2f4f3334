"""`PersistedState`: a YAML file mapped to Python objects."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal

from .. import errors
from ..storage.durability import Sync, check_mode
from .nodes import StateDict
from .store import Lock, Store

_LOCKS = ("fail", "wait", "share")


class PersistedState(MutableMapping[Any, Any]):
    """A small state that survives: one YAML file, whose keys are attributes and items of this object.

    Every change, at any depth, is on disk when the statement ends; a killed process loses nothing. Threads may share the
    object. Dicts and lists inside are `StateDict` and `StateList`; what is assigned is copied.

    `path` is made if there is no such file; its folder must exist. Each keyword is a default: a key that is set unless
    the file has it. Options therefore begin with an underscore, as do names that are *not* stored:

    _sync          what a power cut may cost: "none" (the last seconds; the default), "group" (a few milliseconds), "each"
    _lock          if another process has the file open: "fail" with StateLocked, "wait" until it is closed, or "share":
                   both may use it at once, one statement or transaction at a time
    _timeout       how long "wait" waits at opening and "share" at each statement, in seconds; None: without limit
    _vacuum_bytes  size of the journal at which it is folded into the document (also at `close`)
    _warn_bytes    size of the document above which a warning is logged, None for never

    Raises StateLocked, NotAState, FolderMissing and other StorageErrors at opening; StateValueError for a default that a
    state can not hold. Not promised: fast access to big data; the order of changes of two processes without transactions.
    """

    _store: Store

    def __init__(
        self,
        _path: str | os.PathLike[str],
        /,
        *,
        _sync: Sync = "none",
        _lock: Lock = "fail",
        _timeout: float | None = None,
        _vacuum_bytes: int = 512 * 1024,
        _warn_bytes: int | None = 1_000_000,
        **defaults: Any,
    ) -> None:
        if _lock not in _LOCKS:
            raise ValueError(f"_lock must be one of {', '.join(_LOCKS)}, not {_lock!r}")
        if unknown := [name for name in defaults if name.startswith("_")]:
            raise TypeError(
                f"there is no option {unknown[0]!r}; a key of that name is set by state[{unknown[0]!r}] = …"
            )
        store = Store(
            os.fsdecode(_path),
            sync=check_mode(_sync),
            lock=_lock,
            timeout=_timeout,
            vacuum_bytes=_vacuum_bytes,
            warn_bytes=_warn_bytes,
        )
        store.open()
        object.__setattr__(self, "_store", store)
        # At the end of the program too, while PyYAML can still be used; in `__del__` it may be gone.
        object.__setattr__(self, "_close", weakref.finalize(self, store.close))
        try:
            with store.guard:
                self.update({name: value for name, value in defaults.items() if name not in store.root})
        except BaseException:
            self.close()
            raise

    # -- reading

    def _tree(self) -> StateDict:
        store = self._store
        if store.shared and not store.closed:
            with store.guard:
                return store.root
        return store.root

    def __getitem__(self, key: Any) -> Any:
        return self._tree()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tree())

    def __len__(self) -> int:
        return len(self._tree())

    def __contains__(self, key: object) -> bool:
        return key in self._tree()

    def __eq__(self, other: object) -> bool:
        return self._tree() == (other._tree() if isinstance(other, PersistedState) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.path!r}, {self._tree()!r})"

    def copy(self) -> dict[Any, Any]:
        """An ordinary dict, all the way down: changes to it are not stored."""
        with self._store.guard:
            return self._store.root.copy()

    # -- changing

    def __setitem__(self, key: Any, value: Any) -> None:
        self._store.root[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._store.root[key]

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The stored value of `key`, which is set to `default` if there is none."""
        return self._store.root.setdefault(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a value out. A dict or list that was taken out is an ordinary one from then on."""
        return self._store.root.pop(key, *default)

    def popitem(self) -> tuple[Any, Any]:
        """Take the newest key and its value out."""
        return self._store.root.popitem()

    def update(self, other: Any = (), /, **more: Any) -> None:
        """All of it or nothing, also if the process dies."""
        self._store.root.update(other, **more)

    def clear(self) -> None:
        """Remove every key, as one change."""
        self._store.root.clear()

    # -- attributes

    def __getattr__(self, name: str) -> Any:
        if name[:1] != "_":
            store = self._store
            try:
                return self._tree()[name] if store.shared else store.root[name]
            except KeyError:
                pass
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        place = _place_of(type(self), name)
        if place == "state":
            self._store.root[name] = value
        elif place == "object":
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"{name!r} is a method of {type(self).__name__}; write state[{name!r}] = … instead")

    def __delattr__(self, name: str) -> None:
        if name[:1] == "_":
            object.__delattr__(self, name)
            return
        try:
            del self._store.root[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(key for key in self._tree() if isinstance(key, str))})

    # -- the file

    def transaction(self) -> AbstractContextManager[None]:
        """`with state.transaction():` makes all changes inside it or, if it raises or the process dies, none.

        Other threads, and with `_lock="share"` other processes, wait meanwhile, so `state.counter += 1` counts right.
        Inside another transaction, the outer one decides. Not promised: threads that only read do not wait, and see changes
        that are still to be made or undone.
        """
        return self._store.transaction()

    def vacuum(self) -> None:
        """Fold the journal into the document, so that the file is easy to read. `close` does it too.

        Comments and the order of keys stay where the values around them are kept. Raises StateChanged if another program
        has changed the file; StateError inside a transaction.
        """
        with self._store.guard:
            self._store.vacuum()

    def close(self) -> None:
        """Vacuum and let go of the file. Closing twice is fine; what is in memory can still be read."""
        self._close.detach()
        self._store.close()

    def __enter__(self) -> PersistedState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise errors.StateError("a PersistedState can not be pickled", hint="send state.copy(), or open it by its path")


@functools.lru_cache(maxsize=1024)
def _place_of(kind: type, name: str) -> Literal["state", "object", "class"]:
    """Where an assignment to this attribute goes. Asked at every change, and the answer is the same for each."""
    if name[:1] == "_" or hasattr(getattr(kind, name, None), "__set__"):
        return "object"
    return "class" if hasattr(kind, name) else "state"
