"""WriteOnceDict: the first value of a key stands; later ones are ignored, and now and then compared with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Generic, Self

from .. import errors
from .contract import Entry, Mark, PersiDict, Require, V
from .files import FileDirDict
from .flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue, ItemNotAvailableFlag, Joker, KeepCurrentFlag
from .keys import NonEmptyPersiDictKey, NonEmptySafeStrTuple, PersiDictKey, to_key


class WriteOnceDict(PersiDict[V], Generic[V]):
    """A dictionary over an append-only one, for content that its key determines, such as results of a computation.

    wrapped_dict          an append-only dictionary; ValueError for another
    p_consistency_checks  this share of repeated writes is compared with what is stored, and InconsistentValue raised if
                          it is another value; from 0 (None: never) to 1 (always)

    Deleting is a MutationPolicyError.
    """

    _own_params = ("p_consistency_checks", "wrapped_dict")

    def __init__(
        self, wrapped_dict: PersiDict[V] | None = None, p_consistency_checks: float | KeepCurrentFlag | None = None
    ) -> None:
        wrapped = FileDirDict[V](append_only=True) if wrapped_dict is None else wrapped_dict
        if not isinstance(wrapped, PersiDict):
            raise TypeError(f"wrapped_dict must be a PersiDict, not {type(wrapped).__name__}")
        if not wrapped.append_only:
            raise ValueError("wrapped_dict must be append-only: open it with append_only=True")
        super().__init__(wrapped.serialization_format, True, wrapped.base_class_for_values)
        self.wrapped_dict = wrapped
        self._share = 0.0
        self.p_consistency_checks = p_consistency_checks
        #: How many repeated writes were compared, and how many of these were equal.
        self.consistency_checks_attempted = 0
        self.consistency_checks_passed = 0

    @property
    def p_consistency_checks(self) -> float:
        """The share of repeated writes that are compared. KEEP_CURRENT may be assigned, and changes nothing."""
        return self._share

    @p_consistency_checks.setter
    def p_consistency_checks(self, share: float | KeepCurrentFlag | None) -> None:
        if isinstance(share, KeepCurrentFlag):
            return
        share = 0.0 if share is None else share
        if not 0 <= share <= 1:
            raise ValueError(f"p_consistency_checks must be from 0 to 1, not {share!r}")
        self._share = float(share)

    @property
    def consistency_checks_failed(self) -> int:
        """How many repeated writes had another value."""
        return self.consistency_checks_attempted - self.consistency_checks_passed

    def get_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._own_params}

    def set_item_get_etag(self, key: NonEmptyPersiDictKey, value: V | Joker) -> ETagValue | None:
        """As in every dictionary, but a value for a key that has one is ignored, and the ETag is that of the first."""
        if isinstance(value, Joker):
            return super().set_item_get_etag(key, value)
        kept = to_key(key)
        self._check_value(value)
        etag = self._put(kept, value, ITEM_NOT_AVAILABLE)
        if etag is None:
            if random.random() < self._share:
                self._compare(kept, value)
            return self.etag(kept)
        return None if isinstance(etag, ItemNotAvailableFlag) else etag

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        return self.wrapped_dict._put(key, value, ITEM_NOT_AVAILABLE)

    def _compare(self, key: NonEmptySafeStrTuple, value: Any) -> None:
        entry = self.wrapped_dict._load(key)
        if entry is None:
            return
        self.consistency_checks_attempted += 1
        if not _same(entry.value, self._format.decode(self._format.encode(value)), self._format.encode):
            raise errors.InconsistentValue(
                f"{tuple(key)!r} was written before with another value, which stands",
                hint="the key should determine the value: put what it depends on into the key",
                key=key,
            )
        self.consistency_checks_passed += 1

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        return self.wrapped_dict._load(key)

    def _load_unless(self, key: NonEmptySafeStrTuple, etag: str | None) -> Entry | Mark | None:
        return self.wrapped_dict._load_unless(key, etag)

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        return self.wrapped_dict._stat(key)

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        raise self._refusal(key)

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return self.wrapped_dict._keys()

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        return self.wrapped_dict._dated_keys()

    def __len__(self) -> int:
        return len(self.wrapped_dict)

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        return type(self)(self.wrapped_dict.get_subdict(prefix_key), self.p_consistency_checks)


def _same(one: Any, other: Any, encode: Any) -> bool:
    """Equal as values, or, for arrays and others that do not say, in their bytes."""
    try:
        if bool(one == other):
            return True
    except Exception:  # noqa: BLE001 - an array has no truth, and an __eq__ of the value's own may raise anything
        pass
    return bool(encode(one) == encode(other))
