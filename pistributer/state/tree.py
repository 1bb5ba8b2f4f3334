"""Whole states: replaying a journal on one, making one equal to what a file says, going back to what was.

In each of these the dicts and lists that a program holds stay the ones in the state, as far as the kinds agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .nodes import NODES, Node, StateDict, StateList, adopt, release


def replay(root: StateDict, change: Any) -> None:
    """Make one change that was read: a mapping that replaces everything, or `[operation, path, key, value]`.

    LookupError, TypeError or ValueError if it does not fit what is there. The release of persistedstate that the form
    comes from journalled changes before it refused them, so such a change never happened.
    """
    store = root._store
    if isinstance(change, dict):
        merge(root, change)
        return
    operation, path, key, *rest = change
    target: Any = root
    for step in path:
        target = target[step]
    if operation == "set" and isinstance(target, NODES):
        (value,) = rest
        target._place(key, adopt(value, store, target, key))
    elif operation == "delete" and isinstance(target, NODES) and not rest:
        target._remove(key)
    elif operation == "insert" and isinstance(target, StateList):
        (value,) = rest
        list.insert(target, key, adopt(value, store, target, key))
    else:
        raise ValueError(f"no operation {operation!r} on {type(target).__name__}")


def merge(node: Node, new: Any) -> None:
    """Make the content of `node` equal to `new`, keeping the nodes inside it where the kinds agree.

    So an object that a program holds goes on being the one in the state when the file is read again.
    """
    if isinstance(node, StateDict):
        old = dict(node)
        dict.clear(node)
        for key, value in new.items():
            dict.__setitem__(node, key, _merged(old.pop(key, None), value, node, key))
        for gone in old.values():
            release(gone)
    else:
        before = list(node)
        row = [_merged(_at(before, number), value, node, number) for number, value in enumerate(new)]
        for gone in before[len(row) :]:
            release(gone)
        list.__setitem__(node, slice(None), row)


def _at(row: list[Any], index: int) -> Any:
    return row[index] if index < len(row) else None


def _merged(old: Any, new: Any, parent: Node, key: Any) -> Any:
    both_dicts = isinstance(old, StateDict) and isinstance(new, Mapping)
    if both_dicts or (isinstance(old, StateList) and isinstance(new, list)):
        merge(old, new)
        return old
    release(old)
    return adopt(new, parent._store, parent, key)


def content(node: Node) -> Any:
    """What stands in `node` now, for `restore`."""
    return dict(node) if isinstance(node, StateDict) else list(node)


def restore(node: Node, before: Any) -> None:
    """Make `before` the content again. What was taken out meanwhile stands in its place again, the very same objects."""
    for child in node.values() if isinstance(node, StateDict) else node:
        release(child)
    if isinstance(node, StateDict):
        dict.clear(node)
        dict.update(node, before)
    else:
        list.__setitem__(node, slice(None), before)
    for child in before.values() if isinstance(before, dict) else before:
        if isinstance(child, NODES):
            child._parent = node
