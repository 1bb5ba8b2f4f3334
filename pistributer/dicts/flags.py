"""Words that are no values: jokers that are assigned, conditions that are asked for, and what comes back.

Each is the only instance of its class, compares by identity, and pickles as itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Self, TypeAlias, TypeVar, cast

ValueType = TypeVar("ValueType")


class Flag:
    """One word. Calling the class gives its one instance."""

    __slots__ = ()
    #: The name under which the instance can be imported.
    word: ClassVar[str] = ""
    _only: ClassVar[Any] = None

    def __new__(cls) -> Self:
        if cls.__dict__.get("_only") is None:
            cls._only = object.__new__(cls)
        return cast(Self, cls._only)

    def __repr__(self) -> str:
        return self.word

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), ())


# -- jokers


class Joker(Flag):
    """Something that is assigned to a key and is not stored, but says what to do."""


class KeepCurrentFlag(Joker):
    """`d[key] = KEEP_CURRENT`: leave the key as it is."""

    word = "KEEP_CURRENT"


class DeleteCurrentFlag(Joker):
    """`d[key] = DELETE_CURRENT`: delete the key, if it is there."""

    word = "DELETE_CURRENT"


KEEP_CURRENT: Final = KeepCurrentFlag()
DELETE_CURRENT: Final = DeleteCurrentFlag()

# -- in the place of a value or an ETag


class ETagHasNotChangedFlag(Flag):
    """`get_item_if_etag_changed` returns it for a value that is still the one of the given ETag."""

    word = "ETAG_HAS_NOT_CHANGED"


class ItemNotAvailableFlag(Flag):
    """Instead of a value or an ETag: the key is absent. False in a condition."""

    word = "ITEM_NOT_AVAILABLE"

    def __bool__(self) -> bool:
        return False


class ValueNotRetrievedFlag(Flag):
    """Instead of a value: it is there, and was not fetched. False in a condition."""

    word = "VALUE_NOT_RETRIEVED"

    def __bool__(self) -> bool:
        return False


ETAG_HAS_NOT_CHANGED: Final = ETagHasNotChangedFlag()
ITEM_NOT_AVAILABLE: Final = ItemNotAvailableFlag()
VALUE_NOT_RETRIEVED: Final = ValueNotRetrievedFlag()

# -- conditions


class ETagConditionFlag(Flag):
    """What must hold between the key's ETag and the expected one."""


class AnyETagFlag(ETagConditionFlag):
    """Nothing need hold."""

    word = "ANY_ETAG"


class ETagIsTheSameFlag(ETagConditionFlag):
    """They are equal; with ITEM_NOT_AVAILABLE expected: the key is absent."""

    word = "ETAG_IS_THE_SAME"


class ETagHasChangedFlag(ETagConditionFlag):
    """They differ; with ITEM_NOT_AVAILABLE expected: the key is there."""

    word = "ETAG_HAS_CHANGED"


ANY_ETAG: Final = AnyETagFlag()
ETAG_IS_THE_SAME: Final = ETagIsTheSameFlag()
ETAG_HAS_CHANGED: Final = ETagHasChangedFlag()

# -- whether to fetch


class RetrieveValueFlag(Flag):
    """Whether a conditional operation brings the value that is there."""


class AlwaysRetrieveFlag(RetrieveValueFlag):
    """Bring it."""

    word = "ALWAYS_RETRIEVE"


class NeverRetrieveFlag(RetrieveValueFlag):
    """Do not bring it."""

    word = "NEVER_RETRIEVE"


class IfETagChangedRetrieveFlag(RetrieveValueFlag):
    """Bring it if its ETag is not the expected one."""

    word = "IF_ETAG_CHANGED"


ALWAYS_RETRIEVE: Final = AlwaysRetrieveFlag()
NEVER_RETRIEVE: Final = NeverRetrieveFlag()
IF_ETAG_CHANGED: Final = IfETagChangedRetrieveFlag()

# -- results

ETagValue: TypeAlias = str
ETagIfExists: TypeAlias = ETagValue | ItemNotAvailableFlag
#: Gets the value or ITEM_NOT_AVAILABLE; gives the new value, KEEP_CURRENT or DELETE_CURRENT.
TransformingFunction: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class OperationResult(Generic[ValueType]):
    """What stands after `transform_item`; both ITEM_NOT_AVAILABLE if the key is absent."""

    resulting_etag: ETagIfExists
    new_value: ValueType | ItemNotAvailableFlag


@dataclass(frozen=True, slots=True)
class ConditionalOperationResult(Generic[ValueType]):
    """What a conditional operation found and left behind."""

    #: Whether the condition held, and so whether the operation was done.
    condition_was_satisfied: bool
    #: The ETag before it, ITEM_NOT_AVAILABLE if the key was absent.
    actual_etag: ETagIfExists
    #: The ETag after it.
    resulting_etag: ETagIfExists
    #: The value after it, ITEM_NOT_AVAILABLE, or VALUE_NOT_RETRIEVED.
    new_value: ValueType | ItemNotAvailableFlag | ValueNotRetrievedFlag

    @property
    def value_was_mutated(self) -> bool:
        """Whether the stored value is another now."""
        return self.resulting_etag != self.actual_etag
