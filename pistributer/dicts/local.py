"""Dictionaries without a disk: LocalDict keeps its items in memory, EmptyDict keeps none."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Generic, Self

from ..storage import forking
from .contract import Entry, Mark, PersiDict, Require, V, meets, prefix_of
from .flags import ITEM_NOT_AVAILABLE, ETagIfExists
from .keys import NonEmptySafeStrTuple, PersiDictKey, trusted_key

#: Values of these classes can not be changed, so they are kept and handed out as they are.
_FROZEN = frozenset({str, int, float, bool, bytes, type(None), complex})


class Memory:
    """What LocalDicts share: items by format and key. Any thread may use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: (format, segments) to (encoded value or frozen value, whether encoded, mark).
        self.items: dict[tuple[str, tuple[str, ...]], tuple[Any, bool, Mark]] = {}
        self._numbers = itertools.count(1)
        self._last = 0
        forking.register(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()  # another thread may have held it

    def next_mark(self) -> Mark:
        """A mark that is later than all before it, even if the clock was set back. The caller holds the lock."""
        self._last = max(self._last + 1000, time.time_ns())
        return Mark(str(next(self._numbers)), self._last / 1e9)


class LocalDict(PersiDict[V], Generic[V]):
    """Items in the memory of this process: a cache, a test's stand-in, a scratch pad.

    Values are encoded as FileDirDict encodes them, so what can not be stored there is refused here, and nobody can change
    a stored value by changing what he got. Numbers, text and bytes are kept as they are.

    backend         a `Memory` to share with others; None: one of its own. Dictionaries of different formats in one do not
                    see each other's items, as with files
    prune_interval  accepted for persidict's sake; there is nothing to prune

    Other arguments are ignored, so that parameters of another class fit. Equal ETags never come twice from one backend.
    """

    _own_params = ("backend", "prune_interval")

    def __init__(
        self,
        backend: Memory | None = None,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        prune_interval: int | None = 64,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(serialization_format, append_only, base_class_for_values)
        self.backend: Memory = Memory() if backend is None else backend
        self.prune_interval = prune_interval
        self._prefix: tuple[str, ...] = ()
        self._items = self.backend.items
        self._decode = self._format.decode_own or self._format.decode

    def _place(self, key: NonEmptySafeStrTuple) -> tuple[str, tuple[str, ...]]:
        return (self.serialization_format, (*self._prefix, *key))

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        found = self._items.get(self._place(key))
        if found is None:
            return None
        kept, encoded, mark = found
        value = self._decode(kept) if encoded else kept
        return Entry(self._check_loaded(value, str(tuple(key))), *mark)

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        found = self._items.get(self._place(key))
        return None if found is None else found[2]

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        encoded = type(value) not in _FROZEN
        kept = self._format.encode(value) if encoded else value
        place = self._place(key)
        with self.backend.lock:
            if not meets(require, self._etag_at(place)):
                return None
            mark = self.backend.next_mark()
            self._items[place] = (kept, encoded, mark)
            return mark.etag

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        place = self._place(key)
        with self.backend.lock:
            if place not in self._items or not meets(require, self._etag_at(place)):
                return False
            del self._items[place]
        return True

    def _etag_at(self, place: tuple[str, tuple[str, ...]]) -> str | None:
        found = self._items.get(place)
        return None if found is None else found[2].etag

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return (key for _, key in self._dated_keys())

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        start, kind = len(self._prefix), self.serialization_format
        # A copy, which others can not change while it is iterated.
        for (name, segments), (_, _, mark) in list(self._items.items()):
            if name == kind and segments[:start] == self._prefix and len(segments) > start:
                yield mark.timestamp, trusted_key(segments[start:])

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        view = self.__copy__()
        view._prefix = (*self._prefix, *prefix_of(prefix_key))
        return view

    def __copy__(self) -> Self:
        copy = super().__copy__()
        copy._prefix = self._prefix
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a LocalDict lives in the memory of its process and can not be pickled; store its items instead"
        )


class EmptyDict(PersiDict[V], Generic[V]):
    """Accepts every write and keeps nothing: the null device among dictionaries. Keys and values are still checked."""

    def __init__(
        self,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(serialization_format, append_only, base_class_for_values)

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        return None

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        return None

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        return ITEM_NOT_AVAILABLE

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        return False

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return iter(())

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        prefix_of(prefix_key)
        return self.__copy__()
