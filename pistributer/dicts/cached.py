"""Caches in front of a dictionary: one that asks whether the value is still the same, one that need not ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, Self, cast

from .. import errors
from .contract import Entry, Mark, PersiDict, Require, V
from .flags import ANY_ETAG, ETagIfExists
from .keys import NonEmptyPersiDictKey, NonEmptySafeStrTuple, PersiDictKey, to_key


class _Cached(PersiDict[V], Generic[V]):
    """What both share: everything but values comes from the main dictionary."""

    def __init__(self, main_dict: PersiDict[V], caches: dict[str, PersiDict[Any]]) -> None:
        for name, given in {"main_dict": main_dict, **caches}.items():
            if not isinstance(given, PersiDict):
                raise TypeError(f"{name} must be a PersiDict, not {type(given).__name__}")
        super().__init__(main_dict.serialization_format, main_dict.append_only, main_dict.base_class_for_values)
        self.main_dict = main_dict

    def get_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in sorted(self._own_params)}

    @staticmethod
    def _copy_in(cache: PersiDict[Any], key: NonEmptySafeStrTuple) -> Entry | None:
        """What a cache holds; nothing, if a power cut has damaged it."""
        try:
            return cache._load(key)
        except errors.DamagedValue:
            return None

    @staticmethod
    def _keep(cache: PersiDict[Any], key: NonEmptySafeStrTuple, value: Any) -> ETagIfExists | None:
        """Keep a copy, if the cache can: its keys may be shorter and its format narrower. Else it is fetched each time."""
        try:
            return cache._put(key, value, ANY_ETAG)
        except (errors.BadKey, errors.BadValue):
            return None

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        return self.main_dict._stat(key)

    def _turn(self, key: NonEmptySafeStrTuple) -> AbstractContextManager[object]:
        return self.main_dict._turn(key)

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return self.main_dict._keys()

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        return self.main_dict._dated_keys()

    def __len__(self) -> int:
        return len(self.main_dict)

    def _first_segments(self) -> set[str]:
        return self.main_dict._first_segments()

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        return type(self)(**{name: given.get_subdict(prefix_key) for name, given in self.get_params().items()})


class MutableDictCached(_Cached[V], Generic[V]):
    """Values come from `data_cache` as long as the main dictionary says that their ETag is the same.

    Each read costs the main dictionary one look at an ETag; writes go to the main dictionary first. The caches may be
    shared by threads and processes, be emptied at any time, and outlive the process; nothing is ever served from them that
    the main dictionary has replaced. ValueError if any of the three is append-only.
    """

    _own_params: ClassVar[tuple[str, ...]] = ("data_cache", "etag_cache", "main_dict")

    def __init__(self, main_dict: PersiDict[V], data_cache: PersiDict[V], etag_cache: PersiDict[Any]) -> None:
        if any(getattr(part, "append_only", False) for part in (main_dict, data_cache, etag_cache)):
            raise ValueError("no part of a MutableDictCached may be append-only; use AppendOnlyDictCached")
        self._set_parts(main_dict, data_cache, etag_cache)

    def _set_parts(self, main_dict: PersiDict[V], data_cache: PersiDict[V], etag_cache: PersiDict[Any]) -> None:
        _Cached.__init__(self, main_dict, {"data_cache": data_cache, "etag_cache": etag_cache})
        self.data_cache = data_cache
        #: Of each key, the main dictionary's ETag and that of the copy in `data_cache`. The pair is what makes a copy good:
        #: two writers that fill the caches in different orders would else leave the value of one with the ETag of the other.
        self.etag_cache = etag_cache

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        return cast("Entry | None", self._load_unless(key, None))

    def _load_unless(self, key: NonEmptySafeStrTuple, etag: str | None) -> Entry | Mark | None:
        copy = self._copy_of(key)
        found = self.main_dict._load_unless(key, etag if copy is None else copy[0])
        if found is None:
            self._forget(key)
        elif isinstance(found, Entry):
            self._remember(key, found.value, found.etag)
        elif copy is not None and found.etag != etag:
            return Entry(copy[1], found.etag, found.timestamp)
        return found

    def _copy_of(self, key: NonEmptySafeStrTuple) -> tuple[str, Any] | None:
        """The main dictionary's ETag and the value of a copy whose parts belong together."""
        pair = self._copy_in(self.etag_cache, key)
        if pair is None or not isinstance(pair.value, str):
            return None
        etag, _, copy_etag = pair.value.rpartition(" ")
        copy = self._copy_in(self.data_cache, key) if etag else None
        return (etag, copy.value) if copy is not None and copy.etag == copy_etag else None

    def _remember(self, key: NonEmptySafeStrTuple, value: Any, etag: ETagIfExists) -> None:
        copy_etag = self._keep(self.data_cache, key, value)
        if isinstance(etag, str) and isinstance(copy_etag, str):
            self._keep(self.etag_cache, key, f"{etag} {copy_etag}")

    def _forget(self, key: NonEmptySafeStrTuple) -> None:
        self.etag_cache._remove(key, ANY_ETAG)
        self.data_cache._remove(key, ANY_ETAG)

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        etag = self.main_dict._put(key, value, require)
        if etag is not None:
            self._remember(key, value, etag)
        return etag

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        removed = self.main_dict._remove(key, require)
        if removed:
            self._forget(key)
        return removed


class AppendOnlyDictCached(_Cached[V], Generic[V]):
    """Values come from `data_cache` if they are there: in an append-only dictionary they can not have changed.

    A hit asks the main dictionary nothing at all. The cache may be any dictionary, append-only or not, and must hold
    nothing but copies of this main dictionary's items. ValueError if the main dictionary is not append-only.
    """

    _own_params = ("data_cache", "main_dict")

    def __init__(self, main_dict: PersiDict[V], data_cache: PersiDict[V]) -> None:
        super().__init__(main_dict, {"data_cache": data_cache})
        if not main_dict.append_only:
            raise ValueError("main_dict must be append-only: open it with append_only=True, or use MutableDictCached")
        self.data_cache = data_cache

    def __getitem__(self, key: NonEmptyPersiDictKey) -> V:
        kept = to_key(key)
        copy = self._copy_in(self.data_cache, kept)
        return super().__getitem__(kept) if copy is None else cast(V, copy.value)

    def __contains__(self, key: object) -> bool:
        kept = to_key(key)
        return self.data_cache._stat(kept) is not None or self.main_dict._stat(kept) is not None

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        copy = self._copy_in(self.data_cache, key)
        if copy is not None and (mark := self.main_dict._stat(key)) is not None:
            return Entry(copy.value, *mark)
        found = self.main_dict._load(key)
        if found is not None:
            self._keep(self.data_cache, key, found.value)
        return found

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        etag = self.main_dict._put(key, value, require)
        if etag is not None:
            self._keep(self.data_cache, key, value)
        return etag

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        raise self._refusal(key)
