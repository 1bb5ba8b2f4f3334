"""What operators asked a running app for, and what holds for the next run too: `run/state.yaml`, a `PersistedState`.

::

    paused: [emails]           queues from which nobody takes
    processes:                 sizes set by `scale`
      worker default: {2: 8}   8 where `run` asks for 2; where it asks for another number, that counts

There is no other truth. Supervisors look at the file, bring themselves into line with it, and never write to it by
themselves; whoever changes it does so in one transaction under the file's lock. So the order is always: first the file,
then what runs. Killed before the file: nothing has happened. Between the two: a running supervisor sees the file within a
quarter of a second, the next one when it starts. It is made when somebody first asks for something, so those who never
do need no YAML.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pistributer import errors

if TYPE_CHECKING:
    from pistributer.state.persisted import PersistedState

#: Seconds that anybody waits for the file's lock, which is held for microseconds.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Wishes:
    """What the file says."""

    paused: frozenset[str] = frozenset()
    #: Role to what `run` asks for to how many there are to be.
    sizes: dict[str, dict[int, int]] = field(default_factory=dict)

    def size(self, role: str, asked: int) -> int | None:
        """How many children `role` is to have in a run that asks for `asked`; None: nobody has set that."""
        return self.sizes.get(role, {}).get(asked)


class RunState:
    """The wishes in the app's run folder, read again when they have changed."""

    def __init__(self, folder: str) -> None:
        self._path = state_path(folder)
        self._seen: tuple[int, int, int] | None = None
        self.wishes = Wishes()

    def look(self) -> bool:
        """Whether `wishes` has changed. A look costs one system call; raises StateError and StorageError."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return False
        self._seen = seen
        before, self.wishes = self.wishes, read_wishes(os.path.dirname(self._path))
        return before != self.wishes


def state_path(folder: str) -> str:
    return os.path.join(folder, "state.yaml")


def read_wishes(folder: str) -> Wishes:
    """What the file in `folder` says; without one, nothing is wished for."""
    if not os.path.exists(state_path(folder)):
        return Wishes()
    with _open(folder) as state:
        found = state.copy()
    return _wishes(found, state_path(folder))


def set_paused(folder: str, queue: str, paused: bool) -> bool:
    """Pause a queue or resume it; False if it was so already."""
    with _open(folder) as state, state.transaction():
        queues = state.setdefault("paused", [])
        if (queue in queues) == paused:
            return False
        if paused:
            queues.append(queue)
        else:
            queues.remove(queue)
    return True


def set_size(folder: str, role: str, asked: int, wanted: int | None) -> None:
    """Note how many children `role` is to have in runs that ask for `asked`; None: as many as they ask for."""
    with _open(folder) as state, state.transaction():
        sizes = state.setdefault("processes", {}).setdefault(role, {})
        if wanted is None:
            sizes.pop(asked, None)
        else:
            sizes[asked] = wanted
        if not sizes:
            del state["processes"][role]


@contextlib.contextmanager
def _open(folder: str) -> Iterator[PersistedState]:
    from pistributer.state.persisted import PersistedState

    with PersistedState(state_path(folder), _lock="share", _timeout=_PATIENCE) as state:
        yield state


def _wishes(found: dict[str, Any], path: str) -> Wishes:
    try:
        sizes = {
            str(role): {int(asked): max(1, int(wanted)) for asked, wanted in (chosen or {}).items()}
            for role, chosen in (found.get("processes") or {}).items()
        }
        return Wishes(frozenset(map(str, found.get("paused") or ())), sizes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.NotAState(
            f"{path!r} does not say which queues are paused and how many processes are wanted: {error!r}",
            hint="mend it with an editor, or delete it to forget all that",
            path=path,
            line=0,
        ) from error
