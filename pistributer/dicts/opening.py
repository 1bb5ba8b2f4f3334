"""From a URL to a dictionary, and from one dictionary to another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import errors
from . import digests
from .contract import PersiDict
from .files import FileDirDict
from .flags import ITEM_NOT_AVAILABLE
from .keys import is_safe

#: What a new dictionary is written in, unless something else is asked: text that is safe to read.
NEW_FORMAT = "json"
_FORMATS = ("json", "pkl", "txt")
#: So many items are looked at to tell what a dictionary is written in.
_SAMPLE = 1000


def open_dict(url: str, *, create: bool = True, **params: Any) -> PersiDict[Any]:
    """Open `files:PATH` (or a path alone), `s3://BUCKET/PREFIX`, or `memory:`.

    `params` are those of FileDirDict, S3Dict or LocalDict. Without `serialization_format` a dictionary that is there is
    opened as it is written (ValueError if it holds several formats), a new one as JSON; `digest_len` likewise. With
    `create=False`, FolderMissing for a folder that is not there.
    """
    kind, _, rest = url.partition(":")
    if kind == "s3" and rest.startswith("//"):
        return _open_s3(rest[2:], params)
    if kind == "memory" and not rest:
        from .local import LocalDict

        return LocalDict(**params)
    path = os.path.abspath(os.path.expanduser(rest if kind == "files" else url))
    if not create and not os.path.isdir(path):
        raise errors.FolderMissing(f"there is no dictionary at {path!r}", hint="check the path", path=path)
    found = _look(path, params.get("serialization_format"))
    return FileDirDict(path, **{**found, **{name: value for name, value in params.items() if value is not None}})


def _open_s3(place: str, params: dict[str, Any]) -> PersiDict[Any]:
    from .s3 import BasicS3Dict

    bucket, _, prefix = place.partition("/")
    if not bucket:
        raise ValueError("an S3 dictionary is s3://BUCKET/PREFIX")
    given = {name: value for name, value in params.items() if value is not None and name != "digest_len"}
    if "serialization_format" not in given:
        with_any = BasicS3Dict[Any](bucket, root_prefix=prefix, **given)
        names = (meta["path"] for meta in with_any._bucket.objects(with_any.root_prefix))
        given["serialization_format"] = _only_format(_endings(names), f"s3://{place}")
    return BasicS3Dict(bucket, root_prefix=prefix, **given)


def _look(path: str, asked: str | None) -> dict[str, Any]:
    """The format and digest length that the files in a folder have."""
    names = list(_some_names(path))
    name = asked or _only_format(_endings(names), path)
    stems = [found[: -len(name) - 1] for found in names if found.endswith(f".{name}")]
    lengths = Counter(digests.guess_length(stem) for stem in stems if is_safe(stem))
    return {"serialization_format": name, "digest_len": lengths.most_common(1)[0][0] if lengths else 0}


def _some_names(path: str) -> Iterator[str]:
    count = 0
    for _, folders, names in os.walk(path):
        folders[:] = [name for name in folders if is_safe(name)]
        for name in names:
            yield name
            count += 1
            if count == _SAMPLE:
                return


def _endings(names: Any) -> set[str]:
    found = set()
    for _, name in zip(range(_SAMPLE), names, strict=False):
        found.add(name.rpartition(".")[2])
    return found & set(_FORMATS)


def _only_format(found: set[str], place: str) -> str:
    if len(found) > 1:
        raise ValueError(f"{place!r} holds items in several formats, {', '.join(sorted(found))}: say which one")
    return found.pop() if found else NEW_FORMAT


@dataclass(frozen=True)
class Copied:
    """How many items a copy has written, and how many were there already and were left alone."""

    written: int
    kept: int


def copy_items(
    source: PersiDict[Any],
    target: PersiDict[Any],
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Write every item of `source` to `target`; keys that `target` has are left alone unless `overwrite`.

    Killed half-way: what was written stays, and the same call again does the rest. Timestamps are those of the copies.
    """
    written = kept = 0
    for key, value in source.items():
        if overwrite:
            target[key] = value
            written += 1
        elif target._put(key, value, ITEM_NOT_AVAILABLE) is None:
            kept += 1
        else:
            written += 1
        progress(written + kept)
    return Copied(written, kept)
