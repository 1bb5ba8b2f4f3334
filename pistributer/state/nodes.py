"""The dicts and lists inside a state. Real ones, so that reading is as fast and everything that takes a dict takes them.

Every method that changes something works out what is to change, has the store record it, and only then changes it: what
was refused leaves no trace. A node knows its parent and finds its path by climbing, so inserting into a list leaves no
stale paths behind. A node that was replaced, popped or deleted is an ordinary dict or list from then on; what is assigned
is copied, so that each node stands in one place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex, Union

from . import documents, entries, values

if TYPE_CHECKING:
    from .store import Store

#: A dict or list inside a state.
Node = Union["StateDict", "StateList"]
_MISSING: Any = object()


class StateDict(dict[Any, Any]):
    """A dict whose every change is on disk when the statement ends. It comes from a `PersistedState`; make none yourself.

    Raises StateValueError for a key or value that a state can not hold; nothing is changed then.
    """

    __slots__ = ("_key", "_parent", "_store")

    def __init__(self, store: Store, parent: Node | None, key: Any) -> None:
        super().__init__()
        self._store = store
        #: Where it stands: None for the root, and for one that was taken out.
        self._parent = parent
        self._key = key

    # -- changing

    def __setitem__(self, key: Any, value: Any) -> None:
        store = self._store
        with store.guard:
            path = "[]" if self is store.root and store.ready else _path(self)
            if path is None:
                dict.__setitem__(self, key, value)
                return
            old = dict.get(self, key, _MISSING)
            if old is _MISSING:
                values.check_key(key)
            elif old is value and isinstance(old, NODES):
                return  # the end of `state.items += [1]`: it stands there already
            elif type(key) not in values.SCALARS:
                key = self._stored_key(key)
            new = value if type(value) in values.WITHOUT_LIMITS else adopt(value, store, self, key)
            entry = entries.set_entry(path, key, new)
            if isinstance(old, NODES):
                store.commit(self, entry, self._place, key, new)
            else:
                store.commit(self, entry, dict.__setitem__, self, key, new)

    def __delitem__(self, key: Any) -> None:
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None or key not in self:
                dict.__delitem__(self, key)
            else:
                store.commit(self, entries.delete_entry(path, self._stored_key(key)), self._remove, key)

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        with self._store.guard:
            _agree(self)
            if key not in self:
                self[key] = default
            return self[key]

    def pop(self, key: Any, default: Any = _MISSING, /) -> Any:
        """Take a value out. A dict or list that was taken out is an ordinary one from then on."""
        with self._store.guard:
            _agree(self)
            if key not in self and default is not _MISSING:
                return default
            value = dict.__getitem__(self, key)
            del self[key]
            return value

    def popitem(self) -> tuple[Any, Any]:
        with self._store.guard:
            _agree(self)
            if not self:
                raise KeyError("popitem(): dictionary is empty")
            key = next(reversed(self))
            return key, self.pop(key)

    def update(self, other: Any = (), /, **more: Any) -> None:
        """All of it or nothing, also if the process dies."""
        new = dict(other, **more)
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                dict.update(self, new)
                return
            adopted = {}
            for key, value in new.items():
                if key not in self:
                    values.check_key(key)
                elif isinstance(value, NODES) and dict.__getitem__(self, key) is value:
                    continue  # it stands there already
                key = self._stored_key(key)
                adopted[key] = adopt(value, store, self, key)
            if adopted:
                store.commit_all(
                    self,
                    [entries.set_entry(path, key, value) for key, value in adopted.items()],
                    self._place_all,
                    adopted,
                )

    def __ior__(self, other: Any) -> StateDict:  # type: ignore[misc]
        self.update(other)
        return self

    def clear(self) -> None:
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                dict.clear(self)
            elif self._parent is None:
                store.commit(self, entries.CLEARED, self._empty)
            else:
                store.commit(self, _replacing(self, {}), self._empty)

    # -- copying

    def copy(self) -> dict[Any, Any]:
        """An ordinary dict, all the way down: changes to it are not stored."""
        return {key: plain(value) for key, value in self.items()}

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # Pickled and deep-copied, it is an ordinary dict: another process can not write to this one's file.
        return dict, (self.copy(),)

    __hash__ = None

    # -- without recording: what `Store.commit` calls, and a reader of the journal

    def _place(self, key: Any, value: Any) -> None:
        release(dict.get(self, key))
        dict.__setitem__(self, key, value)

    def _place_all(self, new: dict[Any, Any]) -> None:
        for key, value in new.items():
            self._place(key, value)

    def _remove(self, key: Any) -> None:
        release(dict.pop(self, key))

    def _stored_key(self, key: Any) -> Any:
        """For a key that is equal to one that is there and of another class, such as an IntEnum: the one that is there."""
        return key if type(key) in values.SCALARS else next(mine for mine in self if mine == key)

    def _empty(self) -> None:
        for value in self.values():
            release(value)
        dict.clear(self)

    def _key_of(self, child: Node) -> Any:
        return child._key


class StateList(list[Any]):
    """A list whose every change is on disk when the statement ends. It comes from a `PersistedState`; make none yourself.

    `append`, `insert`, `extend`, `pop`, `remove`, `del x[i]` and `x[i] = …` write one line a value. `sort`, `reverse` and
    changes of slices write the whole list. Raises StateValueError for a value that a state can not hold.
    """

    __slots__ = ("_key", "_parent", "_store")

    def __init__(self, store: Store, parent: Node | None, key: Any) -> None:
        super().__init__()
        self._store = store
        self._parent = parent
        #: In a list: where it stood when somebody looked last.
        self._key = key

    # -- changing

    def __setitem__(self, index: Any, value: Any) -> None:
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                list.__setitem__(self, index, value)
                return
            if isinstance(index, slice):
                changed = list(self)
                changed[index] = list(value)
                self._rewrite(changed)
                return
            where = self._index(index)
            if isinstance(value, NODES) and list.__getitem__(self, where) is value:
                return
            new = adopt(value, store, self, where)
            store.commit(self, entries.set_entry(path, where, new), self._place, where, new)

    def __delitem__(self, index: Any) -> None:
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                list.__delitem__(self, index)
            elif isinstance(index, slice):
                changed = list(self)
                del changed[index]
                self._rewrite(changed)
            else:
                where = self._index(index)
                store.commit(self, entries.delete_entry(path, where), self._remove, where)

    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                list.insert(self, index, value)
                return
            where = slice(operator.index(index), None).indices(len(self))[0]  # as list.insert: far out is an end
            new = adopt(value, store, self, where)
            store.commit(self, entries.insert_entry(path, where, new), list.insert, self, where, new)

    def append(self, value: Any, /) -> None:
        with self._store.guard:
            _agree(self)
            self.insert(len(self), value)

    def extend(self, other: Iterable[Any], /) -> None:
        """All of it or nothing, also if the process dies."""
        new = list(other)
        store = self._store
        with store.guard:
            path = _path(self)
            if path is None:
                list.extend(self, new)
                return
            adopted = [adopt(value, store, self, len(self) + number) for number, value in enumerate(new)]
            if adopted:
                store.commit_all(
                    self,
                    [entries.insert_entry(path, len(self) + number, value) for number, value in enumerate(adopted)],
                    list.extend,
                    self,
                    adopted,
                )

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """Take a value out. A dict or list that was taken out is an ordinary one from then on."""
        with self._store.guard:
            _agree(self)
            if not self:
                raise IndexError("pop from empty list")
            value = list.__getitem__(self, index)
            del self[index]
            return value

    def remove(self, value: Any, /) -> None:
        with self._store.guard:
            _agree(self)
            del self[self.index(value)]

    def clear(self) -> None:
        with self._store.guard:
            _agree(self)
            self._rewrite([])

    def reverse(self) -> None:
        with self._store.guard:
            _agree(self)
            self._rewrite(list(reversed(self)))

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        with self._store.guard:
            _agree(self)
            self._rewrite(sorted(self, key=key, reverse=reverse))

    def __iadd__(self, other: Iterable[Any]) -> StateList:  # type: ignore[misc]
        self.extend(other)
        return self

    def __imul__(self, times: SupportsIndex) -> StateList:
        with self._store.guard:
            _agree(self)
            self._rewrite(list(self) * times)
        return self

    def _rewrite(self, changed: list[Any]) -> None:
        """Make `changed` the content, as one change. Children that stand in it once stay what they are."""
        store = self._store
        if _path(self) is None:
            list.__setitem__(self, slice(None), changed)
            return
        kept: set[int] = set()
        new = []
        for number, value in enumerate(changed):
            mine = isinstance(value, NODES) and value._parent is self and id(value) not in kept
            if mine:
                kept.add(id(value))
            new.append(value if mine else adopt(value, store, self, number))
        store.commit(self, _replacing(self, new), self._fill, new)

    def _index(self, index: Any) -> int:
        try:
            found: int = range(len(self))[index]
            return found
        except IndexError:
            raise IndexError("list index out of range") from None

    # -- copying

    def copy(self) -> list[Any]:
        """An ordinary list, all the way down: changes to it are not stored."""
        return [plain(value) for value in self]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self.copy(),)

    __hash__ = None

    # -- without recording

    def _place(self, index: int, value: Any) -> None:
        release(list.__getitem__(self, index))
        list.__setitem__(self, index, value)

    def _remove(self, index: int) -> None:
        release(list.pop(self, index))

    def _fill(self, new: list[Any]) -> None:
        staying = {id(value) for value in new}
        for value in self:
            if id(value) not in staying:
                release(value)
        list.__setitem__(self, slice(None), new)

    def _key_of(self, child: Node) -> int:
        """Its index: most often where it was seen last."""
        index: int = child._key
        if not (index < len(self) and list.__getitem__(self, index) is child):
            index = next(number for number, value in enumerate(self) if value is child)
            child._key = index
        return index


NODES = (StateDict, StateList)
documents.register(StateDict, like=dict)
documents.register(StateList, like=list)


def plain(value: Any) -> Any:
    """A copy without nodes."""
    return value.copy() if isinstance(value, NODES) else value


def adopt(value: Any, store: Store, parent: Node, key: Any) -> Any:
    """`value` as it is stored at `key` of `parent`: scalars as they are, dicts and lists copied into nodes.

    Raises StateValueError for what a state can not hold.
    """
    return value if values.is_scalar(value) else _adopt(value, store, parent, key, _depth(parent) + 1)


def _adopt(value: Any, store: Store, parent: Node, key: Any, depth: int) -> Any:
    if values.is_scalar(value):
        return value
    if isinstance(value, set | frozenset):
        return values.frozen_set(value)
    if depth > values.MAX_DEPTH:
        raise values.refused(f"more than {values.MAX_DEPTH} levels, or a value that contains itself")
    if values.is_dict(value):
        made = StateDict(store, parent, key)
        for name, item in value.items():
            values.check_key(name)
            dict.__setitem__(made, name, _adopt(item, store, made, name, depth + 1))
        return made
    if isinstance(value, list | tuple):
        row = StateList(store, parent, key)
        list.extend(row, [_adopt(item, store, row, number, depth + 1) for number, item in enumerate(value)])
        return row
    raise values.refused_type(value)


def _depth(node: Node | None) -> int:
    """How many dicts and lists `node` stands in."""
    depth = -1
    while node is not None:
        node, depth = node._parent, depth + 1
    return depth


def release(value: Any) -> None:
    """`value` is no longer part of the state."""
    if isinstance(value, NODES):
        value._parent = None


def _agree(node: Node) -> None:
    """Before a change looks at `node`: have memory say what the file says. The guard is held."""
    store = node._store
    if not store.ready and keys_of(node) is not None:
        store.get_ready()


def _path(node: Node) -> str | None:
    """Where `node` stands, as the journal writes it; None if it is no part of a state any more. The guard is held."""
    store = node._store
    if not store.ready:
        _agree(node)
    if node is store.root:
        return "[]"
    keys = keys_of(node)
    return None if keys is None else entries.encode_path(keys)


def keys_of(node: Node) -> list[Any] | None:
    keys = []
    child = node
    while (parent := child._parent) is not None:
        keys.append(parent._key_of(child))
        child = parent
    return keys[::-1] if child is node._store.root else None


def _replacing(node: Node, new: Any) -> bytes:
    """The entry that puts `new` where `node` stands."""
    keys = keys_of(node)
    assert keys, "the root is replaced by a document"
    return entries.set_entry(entries.encode_path(keys[:-1]), keys[-1], new)
