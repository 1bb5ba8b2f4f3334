"""A small state in one YAML file, mapped to Python objects. Knows storage; knows nothing of queues and workers.

    persisted   `PersistedState`, the object that users open
    nodes       the dicts and lists inside it: every change is recorded, then made
    values      what may be stored, and how it is refused
    store       the open file: locks, the journal, transactions, vacuum
    stream      reading a file: the document, the journal behind it, and what a dying process left
    entries     one change as one line of YAML
    documents   whole documents, by PyYAML
    editing     changing a document's text where its values changed, so that comments stay

What the bytes mean is in docs/state.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nodes import StateDict, StateList
    from .persisted import PersistedState

__all__ = ["PersistedState", "StateDict", "StateList"]

_HOMES = {"PersistedState": "persisted", "StateDict": "nodes", "StateList": "nodes"}


def __getattr__(name: str) -> Any:
    # Imported on first use: persisted imports PyYAML, which is an extra.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
