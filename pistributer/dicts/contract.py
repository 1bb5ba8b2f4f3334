"""The contract of a persistent dictionary, documented once. Storages and wrappers say only what differs.

Promises, the same for every class:

* The API is that of a dict whose keys are tuples of safe strings (keys.py); it has no order of its own.
* An operation on one key is atomic: every reader, in any process, sees the value before it or the one after it, whole.
* What is written with a condition is written only if the condition holds at that moment, whoever else writes.
* A value belongs to whoever got it: changing it changes nothing that is stored. Assign it again to store it.
* Two equal ETags of one key mean equal values; on files and in memory, the same write.
* Iterating while others write gives every key that was there all the time, once; it may give what came or went meanwhile.
* What can not be stored is refused before anything is written. What can not be read is an error, and stays where it is.

Not promised: anything about two keys at once; an order between keys written at the same moment by two machines; that
`len` is exact while others write.

A storage implements five methods, from `_load` to `_keys`, and everything else follows from them.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Self

from .. import errors
from .basis import Basis, Entry, Mark, Require, V, meets, prefix_of
from .flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_HAS_NOT_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagHasNotChangedFlag,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    Joker,
    OperationResult,
    RetrieveValueFlag,
    TransformingFunction,
    ValueNotRetrievedFlag,
)
from .keys import NonEmptyPersiDictKey, NonEmptySafeStrTuple, to_key

__all__ = ["Entry", "Mark", "PersiDict", "Require", "V", "meets", "prefix_of"]


#: Longest pause between two tries of `transform_item`, in seconds; the first is a five-hundredth of it.
_MAX_PAUSE = 1.0


class PersiDict(Basis[V], Generic[V]):
    """A dictionary whose items outlive the process. Abstract: use FileDirDict, S3Dict, LocalDict or a wrapper.

    serialization_format   "pkl" (the default), "json", or anything else for plain text; also the ending of file names
    base_class_for_values  every value must be an instance of it; None: any value. Plain text implies str
    append_only            items can be added, but never changed or deleted: MutationPolicyError

    Keys are given as a string, a sequence of strings or a SafeStrTuple, and come back as NonEmptySafeStrTuple. BadKey (a
    ValueError; BadKeyType is a TypeError too) for what can not be one. A missing key is a KeyError.

    An object may be shared by threads and by forked children. It pickles as its parameters, where these can be pickled.
    """

    # -- hierarchy and chance

    def subdicts(self) -> dict[str, Self]:
        """`get_subdict` of every first segment that a key has."""
        return {name: self.get_subdict(name) for name in self._first_segments()}

    def _first_segments(self) -> set[str]:
        return {key[0] for key in self._keys()}

    def random_key(self) -> NonEmptySafeStrTuple | None:
        """A key, each with the same chance (Vitter's algorithm R with a reservoir of one); None if there is none."""
        chosen = None
        for count, key in enumerate(self._keys(), 1):
            if random.random() * count < 1:
                chosen = key
        return chosen

    # -- time

    def timestamp(self, key: NonEmptyPersiDictKey) -> float:
        """When the key was last changed, seconds since the epoch. KeyError if it is absent."""
        return self._require_mark(key).timestamp

    def oldest_keys(self, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Keys from the longest unchanged to the newest, `max_n` of them at most."""
        return self._by_age(max_n, newest=False)

    def newest_keys(self, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Keys from the last changed to the oldest, `max_n` of them at most."""
        return self._by_age(max_n, newest=True)

    def oldest_values(self, max_n: int | None = None) -> list[V]:
        """The values of `oldest_keys`, without those that were deleted meanwhile."""
        return self._values_of(self.oldest_keys(max_n))

    def newest_values(self, max_n: int | None = None) -> list[V]:
        """The values of `newest_keys`, without those that were deleted meanwhile."""
        return self._values_of(self.newest_keys(max_n))

    def _by_age(self, max_n: int | None, *, newest: bool) -> list[NonEmptySafeStrTuple]:
        if max_n is None:
            chosen = sorted(self._dated_keys(), reverse=newest)
        else:
            chosen = (heapq.nlargest if newest else heapq.nsmallest)(max(max_n, 0), self._dated_keys())
        return [key for _, key in chosen]

    def _values_of(self, keys: list[NonEmptySafeStrTuple]) -> list[V]:
        return [entry.value for entry in map(self._load, keys) if entry is not None]

    def keys_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        """`(key, timestamp)` of every item; values are not fetched."""
        return ((key, timestamp) for timestamp, key in self._dated_keys())

    def values_and_timestamps(self) -> Iterator[tuple[V, float]]:
        """`(value, timestamp)` of every item."""
        return ((entry.value, entry.timestamp) for _, entry in self._entries())

    def items_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, V, float]]:
        """`(key, value, timestamp)` of every item."""
        return ((key, entry.value, entry.timestamp) for key, entry in self._entries())

    # -- ETags

    def etag(self, key: NonEmptyPersiDictKey) -> ETagValue | None:
        """Names what is stored under the key now: equal only while it is not changed. KeyError if it is absent."""
        return self._require_mark(key).etag

    def get_item_if_etag_changed(
        self, key: NonEmptyPersiDictKey, etag: ETagValue | None
    ) -> tuple[V, ETagValue | None] | ETagHasNotChangedFlag:
        """`(value, its ETag)`, or ETAG_HAS_NOT_CHANGED if it has this ETag still. KeyError if it is absent."""
        kept = to_key(key)
        entry = self._load_unless(kept, etag)
        if entry is None:
            raise KeyError(kept)
        return (entry.value, entry.etag) if isinstance(entry, Entry) else ETAG_HAS_NOT_CHANGED

    def get_with_etag(self, key: NonEmptyPersiDictKey) -> ConditionalOperationResult[V]:
        """The value and its ETag, of one moment; ITEM_NOT_AVAILABLE for both if the key is absent."""
        found = self._load(to_key(key))
        return _unchanged(True, found, ALWAYS_RETRIEVE, ITEM_NOT_AVAILABLE)

    def get_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[V]:
        """The value, and whether the condition between its ETag and the expected one holds. Never a KeyError.

        `condition` is ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED; `expected_etag` an ETag, or ITEM_NOT_AVAILABLE for
        "absent". `retrieve_value` says whether the value is fetched: IF_ETAG_CHANGED, ALWAYS_RETRIEVE or NEVER_RETRIEVE.
        """
        kept = to_key(key)
        found = self._look(kept, expected_etag, retrieve_value)
        return _unchanged(_holds(condition, expected_etag, found), found, retrieve_value, expected_etag)

    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: V | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[V]:
        """Store the value if the condition holds at that moment; parameters as in `get_item_if`.

        If it does not hold, or the value is KEEP_CURRENT, `retrieve_value` says whether the present value is fetched.
        """
        kept = to_key(key)
        if not isinstance(value, Joker):
            self._check_value(value)
        while True:
            found = self._look(kept, expected_etag, retrieve_value)
            if not _holds(condition, expected_etag, found) or value is KEEP_CURRENT:
                held = _holds(condition, expected_etag, found)
                return _unchanged(held, found, retrieve_value, expected_etag)
            if value is DELETE_CURRENT:
                result = self._discard_found(kept, found)
            else:
                result = self._put_over(kept, value, found)
            if result is not None:
                return result

    def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: V,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[V]:
        """Store the value if the key is absent and the condition holds. TypeError for a joker."""
        kept = to_key(key)
        self._refuse_joker(default_value)
        self._check_value(default_value)
        while True:
            found = self._look(kept, expected_etag, retrieve_value)
            held = _holds(condition, expected_etag, found)
            if found is not None or not held:
                return _unchanged(held, found, retrieve_value, expected_etag)
            if (result := self._put_over(kept, default_value, None)) is not None:
                return result

    def discard_if(
        self, key: NonEmptyPersiDictKey, *, condition: ETagConditionFlag, expected_etag: ETagIfExists
    ) -> ConditionalOperationResult[V]:
        """Delete the key if the condition holds at that moment; no error if it is absent."""
        kept = to_key(key)
        while True:
            found = self._stat(kept)
            if not _holds(condition, expected_etag, found):
                return _unchanged(False, found, NEVER_RETRIEVE, expected_etag)
            if (result := self._discard_found(kept, found)) is not None:
                return result

    def transform_item(
        self, key: NonEmptyPersiDictKey, *, transformer: TransformingFunction, n_retries: int | None = 6
    ) -> OperationResult[V]:
        """Replace the value by what `transformer` makes of it, so that no change of another is lost.

        The transformer gets the value, or ITEM_NOT_AVAILABLE, and returns a value, KEEP_CURRENT or DELETE_CURRENT. It is
        called again if somebody changed the key meanwhile, `n_retries` times (None: without limit), with growing random
        pauses; then ConcurrencyConflictError.
        """
        kept = to_key(key)
        _check_retries(n_retries)
        with self._turn(kept):
            return self._transform(kept, transformer, n_retries)

    def _turn(self, key: NonEmptySafeStrTuple) -> AbstractContextManager[object]:
        """Where waiting is cheaper than trying in vain: lets those who transform one key queue up. Fairness, not safety."""
        return nullcontext()

    def _transform(
        self, kept: NonEmptySafeStrTuple, transformer: TransformingFunction, n_retries: int | None
    ) -> OperationResult[V]:
        attempt = 0
        while True:
            attempt += 1
            result = self._transform_once(kept, transformer)
            if result is not None:
                return result
            if n_retries is not None and attempt > n_retries:
                raise errors.ConcurrencyConflictError(
                    f"others changed {tuple(kept)!r} at each of {attempt} tries",
                    hint="try again, or give a higher n_retries (None: without limit)",
                    key=kept, attempts=attempt,
                )  # fmt: skip
            time.sleep(random.random() * min(_MAX_PAUSE, _MAX_PAUSE / 1000 * 2**attempt))

    def _transform_once(
        self, key: NonEmptySafeStrTuple, transformer: TransformingFunction
    ) -> OperationResult[V] | None:
        entry = self._load(key)
        current = ITEM_NOT_AVAILABLE if entry is None else entry.value
        value = transformer(current)
        if value is KEEP_CURRENT:
            return OperationResult(_etag_of(entry), current)
        result = self.set_item_if(
            key, value=value, condition=ETAG_IS_THE_SAME, expected_etag=_etag_of(entry), retrieve_value=NEVER_RETRIEVE
        )
        if not result.condition_was_satisfied:
            return None
        return OperationResult(result.resulting_etag, ITEM_NOT_AVAILABLE if value is DELETE_CURRENT else value)

    # -- parts of these

    def _look(
        self, key: NonEmptySafeStrTuple, expected: ETagIfExists, retrieve: RetrieveValueFlag
    ) -> Entry | Mark | None:
        if retrieve is ALWAYS_RETRIEVE:
            return self._load(key)
        if retrieve is NEVER_RETRIEVE:
            return self._stat(key)
        if retrieve is not IF_ETAG_CHANGED:
            raise ValueError(f"retrieve_value must be one of the three flags, not {retrieve!r}")
        return self._load_unless(key, None if isinstance(expected, ItemNotAvailableFlag) else expected)

    def _put_over(
        self, key: NonEmptySafeStrTuple, value: Any, found: Entry | Mark | None
    ) -> ConditionalOperationResult[V] | None:
        if found is not None and self.append_only:
            raise self._refusal(key)
        etag = self._put(key, value, _etag_of(found))
        return None if etag is None else ConditionalOperationResult(True, _etag_of(found), etag, value)

    def _discard_found(
        self, key: NonEmptySafeStrTuple, found: Entry | Mark | None
    ) -> ConditionalOperationResult[V] | None:
        self._check_may_delete(key)
        if found is not None and not self._remove(key, found.etag):
            return None
        return ConditionalOperationResult(True, _etag_of(found), ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)

    def _require_mark(self, key: NonEmptyPersiDictKey) -> Mark:
        kept = to_key(key)
        mark = self._stat(kept)
        if mark is None:
            raise KeyError(kept)
        return mark


def _etag_of(found: Entry | Mark | None) -> ETagIfExists:
    return ITEM_NOT_AVAILABLE if found is None else found.etag


def _holds(condition: ETagConditionFlag, expected: ETagIfExists, found: Entry | Mark | None) -> bool:
    if condition is ANY_ETAG:
        return True
    if condition is ETAG_IS_THE_SAME:
        return _etag_of(found) == expected
    if condition is ETAG_HAS_CHANGED:
        return _etag_of(found) != expected
    raise ValueError(f"condition must be ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED, not {condition!r}")


def _unchanged(
    held: bool, found: Entry | Mark | None, retrieve: RetrieveValueFlag, expected: ETagIfExists
) -> ConditionalOperationResult[Any]:
    """The result of an operation that left the key as it was found."""
    etag = _etag_of(found)
    value: Any | ItemNotAvailableFlag | ValueNotRetrievedFlag = VALUE_NOT_RETRIEVED
    if found is None:
        value = ITEM_NOT_AVAILABLE
    elif isinstance(found, Entry) and (retrieve is ALWAYS_RETRIEVE or etag != expected):
        value = found.value
    return ConditionalOperationResult(held, etag, etag, value)


def _check_retries(count: object) -> None:
    if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
        raise TypeError(f"n_retries must be a whole number or None, not {count!r}")
    if isinstance(count, int) and count < 0:
        raise ValueError(f"n_retries must be at least 0, not {count}")
