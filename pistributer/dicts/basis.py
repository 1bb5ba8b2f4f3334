"""What a storage does, and the dictionary that follows from it. The contract itself is contract.py, which builds on this."""

from __future__ import annotations

import abc
from collections.abc import ItemsView, Iterator, Mapping, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast, overload

from .. import errors
from .flags import (
    ANY_ETAG,
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    AnyETagFlag,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    Joker,
)
from .formats import Format, open_format
from .keys import NonEmptyPersiDictKey, NonEmptySafeStrTuple, PersiDictKey, SafeStrTuple, to_key

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # `FileDirDict("cache")` is one of any values; Python 3.13 has this at run time, too.
    V = TypeVarWithDefault("V", default=Any)
else:
    V = TypeVar("V")
#: What a change requires of the key: this ETag, absence, or nothing.
Require = ETagIfExists | AnyETagFlag


class Mark(NamedTuple):
    """What is known of a key without fetching its value."""

    etag: ETagValue
    #: Of the last change, seconds since the epoch.
    timestamp: float


class Entry(NamedTuple):
    """A value with the mark that belongs to it: all of one moment."""

    value: Any
    etag: ETagValue
    timestamp: float


class Basis(MutableMapping[NonEmptySafeStrTuple, V], Generic[V]):
    """The five methods of a storage, and what a dict does with them. Its public face is PersiDict."""

    #: Parameters besides those that every dictionary has, in the order of the constructor.
    _own_params: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
    ) -> None:
        if base_class_for_values is not None and not isinstance(base_class_for_values, type):
            raise TypeError(f"base_class_for_values must be a class, not {base_class_for_values!r}")
        if base_class_for_values is None and serialization_format not in ("pkl", "json"):
            base_class_for_values = str
        self._format: Format = open_format(serialization_format, base_class_for_values)
        self.serialization_format = serialization_format
        self.base_class_for_values = base_class_for_values
        self._append_only = bool(append_only)

    # -- what a storage does

    @abc.abstractmethod
    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        """The value and its mark, of one moment; None if the key is absent."""

    @abc.abstractmethod
    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        """The mark alone; None if the key is absent."""

    @abc.abstractmethod
    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        """Store the value and return its ETag, or change nothing and return None if the key is not as required.

        Atomic, against every other `_put` and `_remove`. ITEM_NOT_AVAILABLE is what a dictionary that keeps nothing returns.
        """

    @abc.abstractmethod
    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        """Delete the key, as atomically. False if it is absent or not as required."""

    @abc.abstractmethod
    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        """All keys."""

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        """All keys with their timestamps. Override it where a listing has them."""
        for key in self._keys():
            if (mark := self._stat(key)) is not None:
                yield mark.timestamp, key

    @abc.abstractmethod
    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        """A live view of the items whose keys begin with the prefix; their keys there are without it.

        An empty prefix gives everything, one that no key begins with an empty dictionary. Nothing is created.
        """

    def _load_unless(self, key: NonEmptySafeStrTuple, etag: ETagValue | None) -> Entry | Mark | None:
        """The entry, or its mark alone if its ETag is this one. Override it where one request can do both."""
        if etag is None:
            return self._load(key)
        mark = self._stat(key)
        return mark if mark is None or mark.etag == etag else self._load(key)

    # -- parameters

    @property
    def append_only(self) -> bool:
        """Whether items can only be added."""
        return self._append_only

    def get_params(self) -> dict[str, Any]:
        """The parameters, by name, with which the constructor makes the same dictionary again."""
        common = ("append_only", "base_class_for_values", "serialization_format")
        return {name: getattr(self, name) for name in sorted((*common, *self._own_params))}

    def __copy__(self) -> Self:
        return type(self)(**self.get_params())

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.get_params()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({shown})"

    def __str__(self) -> str:
        return str({tuple(key): value for key, value in self.items()})

    # -- the dictionary

    def __getitem__(self, key: NonEmptyPersiDictKey) -> V:
        kept = to_key(key)
        entry = self._load(kept)
        if entry is None:
            raise KeyError(kept)
        return cast(V, entry.value)

    def __contains__(self, key: object) -> bool:
        return self._stat(to_key(key)) is not None

    def __setitem__(self, key: NonEmptyPersiDictKey, value: V | Joker) -> None:
        self.set_item_get_etag(key, value)

    def set_item_get_etag(self, key: NonEmptyPersiDictKey, value: V | Joker) -> ETagValue | None:
        """Store the value and return the ETag of just this write; None for a joker."""
        kept = to_key(key)
        if isinstance(value, Joker):
            if value is DELETE_CURRENT:
                self.discard(kept)
            return None
        self._check_value(value)
        etag = self._put(kept, value, ITEM_NOT_AVAILABLE if self.append_only else ANY_ETAG)
        if etag is None:
            raise self._refusal(kept)
        return None if isinstance(etag, ItemNotAvailableFlag) else etag

    def __delitem__(self, key: NonEmptyPersiDictKey) -> None:
        if not self.discard(key):
            raise KeyError(to_key(key))

    def __iter__(self) -> Iterator[NonEmptySafeStrTuple]:
        return self._keys()

    def __len__(self) -> int:
        return sum(1 for _ in self._keys())

    def __bool__(self) -> bool:
        return any(True for _ in self._keys())

    def __eq__(self, other: object) -> bool:
        """Whether both hold equal values under the same keys; `other` may be any mapping."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        mine = {tuple(key): value for key, value in self.items()}
        theirs = {tuple(to_key(key)): value for key, value in other.items()} if _has_our_keys(other) else None
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # as every mapping that can change

    def __ior__(self, other: Mapping[Any, Any]) -> Self:
        self.update(other)
        return self

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[NonEmptySafeStrTuple, V]:
        return _Items(self)

    @overload
    def get(self, key: NonEmptyPersiDictKey, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: NonEmptyPersiDictKey, default: T, /) -> V | T: ...
    def get(self, key: NonEmptyPersiDictKey, default: Any = None, /) -> Any:
        """The value of the key; `default` if it is absent."""
        try:
            return self[key]
        except KeyError:
            return default

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set each item of a mapping, of pairs, and of keywords, one after the other."""
        super().update(other, **more)

    def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> V:
        """The value of the key; if it is absent, `default`, which is stored. Atomic. TypeError for a joker."""
        kept = to_key(key)
        self._refuse_joker(default)
        while True:
            entry = self._load(kept)
            if entry is not None:
                return cast(V, entry.value)
            self._check_value(default)
            if self._put(kept, default, ITEM_NOT_AVAILABLE) is not None:
                return cast(V, default)

    def pop(self, key: NonEmptyPersiDictKey, *default: Any) -> Any:
        """Remove the key and return the value that it had at that moment; `default`, or KeyError, if it is absent."""
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        kept = to_key(key)
        self._check_may_delete(kept)
        while True:
            entry = self._load(kept)
            if entry is None:
                if default:
                    return default[0]
                raise KeyError(kept)
            if self._remove(kept, entry.etag):
                return entry.value

    def popitem(self) -> tuple[NonEmptySafeStrTuple, V]:
        """Remove some item and return it. KeyError if there is none."""
        self._check_may_delete(None)
        for key in self._keys():
            try:
                return key, self.pop(key)
            except KeyError:
                continue  # somebody else took it
        raise KeyError("popitem(): dictionary is empty")

    def clear(self) -> None:
        """Delete every item that is there now. What is written meanwhile may stay."""
        self._check_may_delete(None)
        for key in self._keys():
            self._remove(key, ANY_ETAG)

    def discard(self, key: NonEmptyPersiDictKey) -> bool:
        """Delete the key if it is there; whether it was."""
        kept = to_key(key)
        self._check_may_delete(kept)
        return self._remove(kept, ANY_ETAG)

    def delete_if_exists(self, key: NonEmptyPersiDictKey) -> bool:
        """An older name of `discard`."""
        return self.discard(key)

    def _entries(self) -> Iterator[tuple[NonEmptySafeStrTuple, Entry]]:
        for key in self._keys():
            if (entry := self._load(key)) is not None:  # else it was deleted since it was listed
                yield key, entry

    # -- refusals

    def _check_value(self, value: Any) -> None:
        if isinstance(value, Basis):
            raise errors.BadValue("a persistent dictionary can not be a value of another", hint="store get_params()")
        wanted = self.base_class_for_values
        if wanted is not None and not isinstance(value, wanted):
            raise errors.BadValue(
                f"this dictionary holds {wanted.__name__} only, not {type(value).__name__}",
                hint="see base_class_for_values and serialization_format",
            )

    def _check_loaded(self, value: Any, where: str) -> Any:
        wanted = self.base_class_for_values
        if wanted is None or isinstance(value, wanted):
            return value
        raise errors.BadValue(
            f"{where!r} holds {type(value).__name__}, and this dictionary holds {wanted.__name__} only", path=where
        )

    def _refuse_joker(self, value: Any) -> None:
        if isinstance(value, Joker):
            raise errors.BadValue(f"{value!r} is no value", hint="assign it to the key: d[key] = joker")

    def _check_may_delete(self, key: NonEmptySafeStrTuple | None) -> None:
        if self.append_only:
            raise self._refusal(key)

    def _refusal(self, key: NonEmptySafeStrTuple | None) -> errors.MutationPolicyError:
        what = "its items" if key is None else repr(tuple(key))
        return errors.MutationPolicyError(
            f"this {type(self).__name__} is append-only, so {what} can not be changed or deleted",
            hint="use another key, or a dictionary without append_only",
            key=key,
        )


class _Values(ValuesView[V]):
    """As of a dict, but an item that is deleted while this is iterated is left out instead of a KeyError."""

    __slots__ = ()
    _mapping: Basis[V]

    def __iter__(self) -> Iterator[V]:
        return (entry.value for _, entry in self._mapping._entries())


class _Items(ItemsView[NonEmptySafeStrTuple, V]):
    __slots__ = ()
    _mapping: Basis[V]

    def __iter__(self) -> Iterator[tuple[NonEmptySafeStrTuple, V]]:
        return ((key, entry.value) for key, entry in self._mapping._entries())


def _rebuild(kind: type[Basis[Any]], params: dict[str, Any]) -> Basis[Any]:
    return kind(**params)


def _has_our_keys(other: Mapping[Any, Any]) -> bool:
    try:
        return all(to_key(key) is not None for key in other)
    except errors.BadKey:
        return False


def meets(require: Require, etag: ETagValue | None) -> bool:
    """Whether a key with this ETag (None: absent) is as required."""
    if require is ANY_ETAG:
        return True
    return etag is None if require is ITEM_NOT_AVAILABLE else etag == require


def prefix_of(prefix_key: Any) -> SafeStrTuple:
    """A prefix as it is kept; it may be empty."""
    return prefix_key if isinstance(prefix_key, SafeStrTuple) else SafeStrTuple(prefix_key)
