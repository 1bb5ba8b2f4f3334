"""A document's text, changed where its values have changed, so that comments, quotes and blank lines stay.

Each value has a place in the text; a new value is put there. Keys that went take their line with them, new ones come
last. What is found by reading the result is compared with what it should say; if that differs in anything (aliases,
merge keys, a layout that this page does not know), the document is written anew and only the comment at its top stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from . import documents, entries

#: The comment lines at the top of a document.
_TOP = re.compile(r"(?:#[^\n]*\n|[ \t]*\n)*")
_INDENT = 2

#: What to put in place of the text between two offsets.
Edit = tuple[int, int, str]


class _TooHard(Exception):
    """A layout that this page does not know."""


def edited(text: str, new: Any) -> str:
    """`text`, a YAML document, saying `new`."""
    try:
        old = documents.load(text)
        if isinstance(old, dict) and old:
            changed = _apply(text, list(_edits(text, documents.compose(text), old, new, 0, None)))
            if same(documents.load(changed), new):
                return changed if changed.endswith("\n") else changed + "\n"
    except (_TooHard, ValueError):
        pass  # another layout than is known here
    top = _TOP.match(text)
    return (top[0] if top else "") + documents.dump(new)


def same(one: Any, other: Any) -> bool:
    """Equal, with the same types and the same order of keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(
            same(*keys) and same(one[keys[0]], other[keys[1]]) for keys in zip(one, other, strict=True)
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one == other
    return type(one) is type(other) and (repr(one) == repr(other) if isinstance(one, float) else one == other)


def _apply(text: str, edits: list[Edit]) -> str:
    # From the back, so that offsets stay right. Of two at one place the one found first, the inner one, stands first.
    for _, (start, end, new) in sorted(enumerate(edits), key=lambda each: (each[1][0], each[0]), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _edits(text: str, node: Any, old: Any, new: Any, column: int, colon: int | None) -> Iterator[Edit]:
    """What to change where `node` stands; `column`: of the mapping or list around it, `colon`: behind its key."""
    if same(old, new):
        return
    block = bool(old) and _is_block(node)
    if block and isinstance(old, dict) and isinstance(new, dict) and new:
        yield from _edits_of_dict(text, node, old, new)
    elif block and isinstance(old, list) and isinstance(new, list) and len(old) <= len(new):
        yield from _edits_of_list(text, node, old, new)
    elif block and not text[_line_start(text, node.start_mark.index) : node.start_mark.index].strip():
        yield from _replace_lines(text, node, new, column, colon)
    else:
        yield from _replace_inline(text, node, new, column)


def _edits_of_dict(text: str, node: Any, old: dict[Any, Any], new: dict[Any, Any]) -> Iterator[Edit]:
    if len(node.value) != len(old):
        raise _TooHard  # a merge key
    column = node.value[0][0].start_mark.column
    coming = iter(new)
    wanted = next(coming, None)
    missing = dict(new)
    for (key_node, value_node), (key, value) in zip(node.value, old.items(), strict=True):
        if key in missing and key == wanted:
            wanted = next(coming, None)
            colon = text.index(":", key_node.end_mark.index) + 1
            yield from _edits(text, value_node, value, missing.pop(key), column, colon)
        else:
            yield _line_start(text, key_node.start_mark.index), _line_end(text, _end(text, value_node)), ""
    if missing:
        yield _insert(text, _line_end(text, _end(text, node)), _block(missing, column))


def _edits_of_list(text: str, node: Any, old: list[Any], new: list[Any]) -> Iterator[Edit]:
    column = node.start_mark.column
    for item_node, value, wanted in zip(node.value, old, new, strict=False):
        yield from _edits(text, item_node, value, wanted, column, None)
    if len(new) > len(old):
        yield _insert(text, _line_end(text, _end(text, node)), _block(new[len(old) :], column))


def _replace_lines(text: str, node: Any, new: Any, column: int, colon: int | None) -> Iterator[Edit]:
    """For a dict or list on lines of its own, below its key."""
    if colon is None:
        raise _TooHard
    lines = _line_start(text, node.start_mark.index), _line_end(text, _end(text, node))
    if isinstance(new, dict | list) and new:
        yield *lines, _block(new, column + _INDENT)
    else:
        yield colon, colon, " " + _inline(new)
        yield *lines, ""


def _replace_inline(text: str, node: Any, new: Any, column: int) -> Iterator[Edit]:
    """For a value in the line of its key or dash."""
    start, end = node.start_mark.index, _end(text, node)
    if isinstance(new, dict | list) and new:
        yield len(text[:start].rstrip(" ")), end, ""
        yield _insert(text, _line_end(text, end), _block(new, column + _INDENT))
    else:
        yield start, end, _inline(new) if text[start - 1 : start].isspace() else " " + _inline(new)


def _is_block(node: Any) -> bool:
    return not isinstance(node.value, str) and not node.flow_style


def _inline(value: Any) -> str:
    shown = documents.dump(value).removesuffix("...\n").removesuffix("\n")
    return entries.encode(value) if "\n" in shown else shown


def _block(value: Any, column: int) -> str:
    lines = documents.dump(value).splitlines(keepends=True)
    return "".join(" " * column + line if line.strip() else line for line in lines)


def _end(text: str, node: Any) -> int:
    """Where a node's own text ends; the mark of a collection stands behind the comments that follow it."""
    if _is_block(node) and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    while end > node.start_mark.index and text[end - 1].isspace():
        end -= 1
    return end


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, offset: int) -> int:
    found = text.find("\n", offset)
    return len(text) if found < 0 else found + 1


def _insert(text: str, offset: int, new: str) -> Edit:
    return offset, offset, new if not offset or text[offset - 1] == "\n" else "\n" + new
