"""A small state in one YAML file, mapped to Python objects. Knows storage; knows nothing of queues and workers.

    persisted   `PersistedState`, the object that users open
    nodes       the dicts and lists inside it: every change is recorded, then made
    tree        whole states: replaying, making equal, going back
    values      what may be stored, and how it is refused
    store       the open file: locks, the journal, transactions, vacuum
    guard       the lock in front of a shared state
    stream      reading a file: the document, the journal behind it, and what a dying process left
    mending     setting aside what a dying process left
    entries     one change as one line of YAML
    documents   whole documents, by PyYAML
    editing     changing a document's text where its values changed, so that comments stay

What the bytes mean is in docs/state.md.
"""

from .nodes import StateDict, StateList
from .persisted import PersistedState

__all__ = ["PersistedState", "StateDict", "StateList"]
