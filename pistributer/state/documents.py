"""Whole documents, by PyYAML: its C loader and dumper where they are, else its Python ones. Both are the safe ones.

A document is loaded as plain objects: dicts, lists, frozensets and scalars, nothing shared between two places.
"""

from __future__ import annotations

import datetime
from typing import Any

from .. import errors
from . import entries
from .values import MAX_DEPTH, check_key, frozen_set, is_dict, is_scalar, refused

try:
    import yaml
except ImportError as error:  # pragma: no cover - the test extra has it
    raise errors.PackageMissing("PersistedState needs PyYAML", hint="pip install 'pistributer[yaml]'") from error

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
#: Lines are never folded, so that an editor's search finds a text.
_WIDTH = 1_000_000_000
#: A document may name one part in many places (YAML's anchors). More values than so many for each byte is an attack.
_VALUES_PER_BYTE = 100


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice in one mapping, of which PyYAML would silently drop the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if _is_hashable(key):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        "in a mapping", node.start_mark, f"found the key {key!r} twice", key_node.start_mark
                    )
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False  # PyYAML says so better
    return True


class _Dumper(_SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True  # `&id001` helps nobody who edits the file


def _dump_text(dumper: Any, value: str) -> Any:
    # What has to be escaped must be quoted; PyYAML would fold some line breaks away. Several lines stay several lines.
    style = '"' if entries.ESCAPED.search(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _scalar(kind: str, encode: Any) -> Any:
    return lambda dumper, value: dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", encode(value))


_Dumper.add_representer(str, _dump_text)
_Dumper.add_representer(int, _scalar("int", entries.encode_int))
_Dumper.add_representer(float, _scalar("float", entries.encode_float))
_Dumper.add_representer(bytes, _scalar("binary", entries.encode_bytes))
_Dumper.add_representer(datetime.date, _scalar("timestamp", entries.encode_date))
_Dumper.add_representer(datetime.datetime, _scalar("timestamp", entries.encode_date))
_Dumper.add_representer(
    frozenset, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:set", dict.fromkeys(value))
)


def register(kind: type, like: type) -> None:
    """Have instances of the class `kind` dumped as those of its base `like`."""
    _Dumper.add_representer(kind, _Dumper.yaml_representers[like])
    entries.register(kind, like)


def dump(value: Any) -> str:
    """A value as a YAML document in block style."""
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=_WIDTH)
    return text


def load(text: str) -> Any:
    """The plain value of one document. ValueError with YAML's own words if it is none, or holds what no state can."""
    try:
        loaded = yaml.load(text, Loader=_Loader)
        return _Plain(len(text)).plain(loaded)
    except yaml.YAMLError as error:
        raise ValueError(_in_one_line(error)) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None


def compose(text: str) -> Any:
    """The tree of nodes of one document, with the places in `text` where each begins and ends."""
    return yaml.compose(text, Loader=_SafeLoader)


def _in_one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).replace('in "<unicode string>", ', "").split())


class _Plain:
    """Copies what a YAML loader made: tuples become lists, sets frozensets, and shared parts copies."""

    def __init__(self, size: int) -> None:
        self._left = 10_000 + _VALUES_PER_BYTE * size

    def plain(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ValueError("aliases that multiply without end" if self._left < 0 else "nested too deeply")
        if is_scalar(value):
            return value
        if is_dict(value):
            return {self._key(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, set):
            return frozen_set(value)
        if isinstance(value, list | tuple):
            return [self.plain(item, depth + 1) for item in value]
        raise refused(f"a value of type {type(value).__name__}")

    def _key(self, key: Any) -> Any:
        check_key(key)
        return key
