"""Items of a DurableQueue to rows and back: pickled, or as JSON."""

from __future__ import annotations

import base64
import pickle
from typing import Any, Final, Literal

from .. import errors

Serializer = Literal["pickle", "json"]
SERIALIZERS: Final = ("pickle", "json")
#: Marks a pickled item.
_PICKLED: Final = "pickle"


def encode(item: Any, serializer: Serializer) -> Any:
    """What to put on the sqlite driver's queue for `item`. RowError if it can not be pickled."""
    if serializer == "json" or (type(item) is str and item.isprintable()):
        return item  # a text reads as itself in the file
    try:
        return wrap(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise errors.RowError(
            f"an item of type {type(item).__name__} can not be pickled: {error}", hint="put its data instead"
        ) from error


def wrap(data: bytes) -> dict[str, str]:
    """What stands for a pickle."""
    return {_PICKLED: base64.b64encode(data).decode("ascii")}


def decode(value: Any, serializer: Serializer) -> Any:
    """The item that was encoded as `value`. Raises whatever unpickling it raises."""
    if serializer == "json" or not isinstance(value, dict):
        return value
    return pickle.loads(base64.b64decode(value[_PICKLED]))
