"""Persistent dictionaries. Knows storage; knows nothing of queues, tasks and workers.

    contract, basis        what every dictionary promises; what a storage does for it
    keys, digests, flags   keys, their names on disk, and words that are no values
    formats, rich_json     values to bytes and back
    files, local           the storages: FileDirDict, LocalDict and EmptyDict
    s3, s3_objects         S3Dict, BasicS3Dict, and the requests that they make
    write_once, cached     behaviour around any of them: WriteOnceDict, MutableDictCached, AppendOnlyDictCached
    overlapping            several formats in one place: OverlappingMultiDict
    iodict, iodict_files   IODict: any key, in order of birth
    opening                from a URL to a dictionary

A guide, and what the bytes on disk mean, is in docs/dicts.md. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # isort: off
    from .cached import AppendOnlyDictCached, MutableDictCached
    from .contract import PersiDict
    from .files import FileDirDict
    from .flags import (
        ALWAYS_RETRIEVE, ANY_ETAG, DELETE_CURRENT, ETAG_HAS_CHANGED, ETAG_HAS_NOT_CHANGED, ETAG_IS_THE_SAME,
        IF_ETAG_CHANGED, ITEM_NOT_AVAILABLE, KEEP_CURRENT, NEVER_RETRIEVE, VALUE_NOT_RETRIEVED,
        ConditionalOperationResult, DeleteCurrentFlag, ETagConditionFlag, ETagHasNotChangedFlag, ETagIfExists, ETagValue,
        Joker, KeepCurrentFlag, OperationResult, RetrieveValueFlag, TransformingFunction,
    )  # fmt: skip
    from .iodict import IODict
    from .keys import (
        NonEmptyPersiDictKey, NonEmptySafeStrTuple, PersiDictKey, SafeStrTuple, get_safe_chars, replace_unsafe_chars,
    )  # fmt: skip
    from .local import EmptyDict, LocalDict
    from .opening import open_dict
    from .overlapping import OverlappingMultiDict
    from .s3 import BasicS3Dict, S3Dict
    from .write_once import WriteOnceDict

_HOMES = {
    "cached": "AppendOnlyDictCached MutableDictCached",
    "contract": "PersiDict",
    "files": "FileDirDict",
    "flags": (
        "ALWAYS_RETRIEVE ANY_ETAG DELETE_CURRENT ETAG_HAS_CHANGED ETAG_HAS_NOT_CHANGED ETAG_IS_THE_SAME IF_ETAG_CHANGED "
        "ITEM_NOT_AVAILABLE KEEP_CURRENT NEVER_RETRIEVE VALUE_NOT_RETRIEVED ConditionalOperationResult DeleteCurrentFlag "
        "ETagConditionFlag ETagHasNotChangedFlag ETagIfExists ETagValue Joker KeepCurrentFlag OperationResult "
        "RetrieveValueFlag TransformingFunction"
    ),
    "iodict": "IODict",
    "keys": ("NonEmptyPersiDictKey NonEmptySafeStrTuple PersiDictKey SafeStrTuple get_safe_chars replace_unsafe_chars"),
    "local": "EmptyDict LocalDict",
    "opening": "open_dict",
    "overlapping": "OverlappingMultiDict",
    "s3": "BasicS3Dict S3Dict",
    "write_once": "WriteOnceDict",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "ALWAYS_RETRIEVE", "ANY_ETAG", "DELETE_CURRENT", "ETAG_HAS_CHANGED", "ETAG_HAS_NOT_CHANGED", "ETAG_IS_THE_SAME",
    "IF_ETAG_CHANGED", "ITEM_NOT_AVAILABLE", "KEEP_CURRENT", "NEVER_RETRIEVE", "VALUE_NOT_RETRIEVED",
    "AppendOnlyDictCached", "BasicS3Dict", "ConditionalOperationResult", "DeleteCurrentFlag", "ETagConditionFlag",
    "ETagHasNotChangedFlag", "ETagIfExists", "ETagValue", "EmptyDict", "FileDirDict", "IODict", "Joker", "KeepCurrentFlag",
    "LocalDict", "MutableDictCached", "NonEmptyPersiDictKey", "NonEmptySafeStrTuple", "OperationResult",
    "OverlappingMultiDict", "PersiDict", "PersiDictKey", "RetrieveValueFlag", "S3Dict", "SafeStrTuple", "TransformingFunction",
    "WriteOnceDict", "get_safe_chars", "open_dict", "replace_unsafe_chars",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562) and keep it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pistributer.dicts' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
