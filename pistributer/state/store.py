"""The open file behind a state: who may write, how a change gets to disk, how the journal is folded into the document.

::

    app.yaml             the document, and behind it the journal
    app.yaml.lock        kernel lock, held while the state is open (with `_lock="share"`: during each statement)
    app.yaml.quarantine  what dying processes left at the end, if one ever did

A change is one `write` at the end of the file. Killed before it: the state before the change. Inside it: a torn line,
which the next opener cuts off (state/stream.py), so again the state before. After it: the state after. The vacuum writes
the new document beside the old file, syncs it and renames it over: killed anywhere, the old or the new file stands, and
both say the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Literal

from .. import errors
from ..storage import forking
from ..storage.appending import AppendFile
from ..storage.durability import GroupSync, Sync
from ..storage.filesystem import require_local
from ..storage.inplace import write_at
from ..storage.locks import Flock
from ..storage.replacing import remove_litter, replace_file
from . import documents, editing, entries, nodes, stream, tree
from .guard import SharedGuard
from .mending import keep, mend

Lock = Literal["fail", "wait", "share"]

log = logging.getLogger("pistributer.state")

#: How often a writer looks whether another program has changed the file, in seconds; a look costs 2 µs.
_LOOK_EVERY = 0.1


class Store:
    """One open state file. Its methods are called with `guard` held, except where they say so."""

    def __init__(
        self, path: str, *, sync: Sync, lock: Lock, timeout: float | None, vacuum_bytes: int, warn_bytes: int | None
    ) -> None:
        self.path = os.path.realpath(path)  # a link is written through, not replaced
        self.shared = lock == "share"
        self._timeout = 0.0 if lock == "fail" else timeout
        self._sync = sync
        self._vacuum_bytes = vacuum_bytes
        self._warn_bytes = warn_bytes
        self._flock = Flock(self.path + ".lock")
        self._file = AppendFile(self.path)
        self._group = GroupSync() if sync == "group" else None
        #: Which file is open, or was last: device and inode.
        self._identity: tuple[int, int] | None = None
        #: Bytes of the document at the start of the file, and the size at which the journal is folded in.
        self._document_end = self._vacuum_at = 0
        #: When to look next whether another program has changed the file.
        self._look_at = 0.0
        #: The entries of the transaction that is open.
        self._pending: list[bytes] | None = None
        #: The nodes that it has changed, by id, with their content before.
        self._before: dict[int, tuple[nodes.Node, Any]] = {}
        self._conflict: errors.StateChanged | None = None
        self.closed = False
        #: Whether this process holds the lock until it closes.
        self._locked = False
        #: Whether memory and file agree and may be changed; `get_ready` sees to it.
        self.ready = False
        self.guard: Any = None
        self._new_guard()
        self.root = nodes.StateDict(self, None, None)
        forking.register(self)

    def _new_guard(self) -> None:
        self.guard = SharedGuard(self) if self.shared else threading.RLock()

    # -- opening

    def open(self) -> None:
        """Lock the file, make it if there is none, and read it. Called without `guard`."""
        folder = os.path.dirname(self.path)
        if os.path.isdir(self.path):
            raise errors.NotAState(f"{self.path!r} is a folder, and a state is a file", path=self.path, line=0)
        if os.path.isdir(folder):
            require_local(folder)
        try:
            with self.guard:
                self.get_ready()
        except BaseException:
            self._let_go()
            raise
        log.debug("opened %s: %d keys, %d bytes", self.path, len(self.root), self._file.size)

    def get_ready(self) -> None:
        """Make memory and file agree: at first, in a forked child, and after a change that was interrupted."""
        if self.closed:
            raise errors.StateClosed(
                f"the state {self.path!r} was closed", hint="open it again, or keep the object alive"
            )
        if self._conflict is not None:
            raise self._conflict
        if self._pending is not None:
            raise errors.StateError("a change inside this transaction was interrupted", hint="leave the `with` block")
        if not self.shared and not self._locked:
            self._lock_for_good()
        self._load()

    def _lock_for_good(self) -> None:
        if not self._flock.acquire(self._timeout):
            raise self.locked()
        self._locked = True
        write_at(self._flock.fileno(), b"%-20d\n" % os.getpid(), 0, self._flock.path)

    def locked(self) -> errors.StateLocked:
        owner = _read_owner(self._flock.path)
        return errors.StateLocked(
            f"the state {self.path!r} is open" + (f" in process {owner}" if owner else " elsewhere"),
            hint='close it there; `_lock="wait"` waits for that, `_lock="share"` on both sides lets both use it',
            path=self.path,
            owner=owner,
        )

    def _load(self) -> None:
        """Make the tree what the file says, keeping the nodes that programs hold."""
        self._close_file()
        if not os.path.exists(self.path):
            if self._identity is not None:
                raise self._left_to_others()  # deleted under us
            replace_file(self.path, b"{}\n", durable=True)
        remove_litter(os.path.dirname(self.path), of=os.path.basename(self.path))
        data = read_file(self.path)
        found = stream.read(data, self.path)
        mend(self.path, data, found)
        tree.merge(self.root, found.document)
        self._replay(found.changes)
        # A document alone may have got its last newline just now.
        self._open_file(os.path.getsize(self.path) if found.document_end == found.end else found.document_end)
        self.ready = True

    def _replay(self, changes: list[stream.Change]) -> None:
        for change in changes:
            try:
                tree.replay(self.root, change.value)
            except (LookupError, TypeError, ValueError) as error:
                line = f"--- {entries.encode(change.value)}\n".encode()
                keep(self.path, line)
                log.warning("%s: passed over a change that does not fit: %r (%s)", self.path, line, error)

    def _open_file(self, document_end: int) -> None:
        self._file.open(heal=False)
        found = os.stat(self.path)
        self._identity = (found.st_dev, found.st_ino)
        self._document_end = document_end
        self._vacuum_at = document_end + max(self._vacuum_bytes, document_end)
        self._look_at = monotonic() + _LOOK_EVERY
        if self._warn_bytes is not None and document_end > self._warn_bytes:
            log.warning(
                "%s has %d bytes; a state is for small amounts of data, which an editor opens at once",
                self.path,
                document_end,
            )
            self._warn_bytes = None

    # -- changing

    def commit(self, node: nodes.Node, entry: bytes, apply: Callable[..., object], *arguments: Any) -> None:
        """Put `entry` on disk, then change `node` by `apply(*arguments)`. On any error, even Ctrl-C, the file counts.

        With `StateDict.__setitem__` the hot path of this room: each call that is spared is a thirtieth of the whole.
        """
        try:
            if self._pending is None:
                if self._file.size >= self._vacuum_at or monotonic() > self._look_at:
                    self._look_around()
                self._file.append(entry)
                if self._sync != "none":
                    self._make_durable()
            else:
                self._put_off(node, (entry,))
            apply(*arguments)
        except BaseException:
            self._read_again()
            raise

    def commit_all(
        self, node: nodes.Node, change: Sequence[bytes], apply: Callable[..., object], *arguments: Any
    ) -> None:
        """The same for a change of several entries, all or nothing."""
        try:
            if self._pending is None:
                self._look_around()
                self._append(entries.one_change(change))
            else:
                self._put_off(node, change)
            apply(*arguments)
        except BaseException:
            self._read_again()
            raise

    def _read_again(self) -> None:
        """After a change that may be on disk or not, in memory or not. In a transaction, its end sees to that."""
        self.ready = False
        if self._pending is None and self._conflict is None:
            try:
                self.get_ready()
            except (errors.StateError, errors.StorageError) as error:
                # The error that led here is on its way; this is tried again before the next change.
                log.warning("%s can not be read at the moment: %s", self.path, error)

    # -- transactions

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Called without `guard`, which it holds until it ends."""
        with self.guard:
            if not self.ready:
                self.get_ready()
            if self._pending is not None:
                yield  # inside another one, which decides
                return
            self._look_around()
            self._pending, self._before = [], {}
            try:
                yield
                if not self.ready:
                    self.get_ready()  # raises
            except BaseException:
                self._roll_back()
                raise
            self._commit_pending()

    def _put_off(self, node: nodes.Node, change: Sequence[bytes]) -> None:
        assert self._pending is not None
        if id(node) not in self._before:
            self._before[id(node)] = (node, tree.content(node))
        self._pending += change

    def _roll_back(self) -> None:
        """Nothing was written, so only memory has to go back."""
        for node, before in reversed(self._before.values()):
            tree.restore(node, before)
        self._pending, self._before = None, {}
        self.ready = not self.closed

    def _commit_pending(self) -> None:
        change = self._pending
        try:
            if change:
                self._append(entries.one_change(change))
            self._pending, self._before = None, {}
        except BaseException:
            self._roll_back()
            self._read_again()  # it may have been written after all
            raise

    def _append(self, data: bytes) -> None:
        file = self._file
        before = file.size
        try:
            file.append(data)
        except errors.StorageError:
            if file.fd >= 0 and file.size > before:
                file.truncate(before)  # whole lines, but not the whole change
            raise
        if self._sync != "none":
            self._make_durable()

    def _make_durable(self) -> None:
        if self._group is not None:
            self._group.note(self._file.fd, self.path)
        else:
            self._file.sync()

    # -- other programs

    def _look(self) -> None:
        """StateChanged if another program has changed the file since this object wrote or read it."""
        self._look_at = monotonic() + _LOOK_EVERY
        if self.shared:
            return  # looked at when the lock was taken
        if self._seen() != (self._identity, self._file.size):
            raise self._left_to_others()

    def _seen(self) -> tuple[tuple[int, int] | None, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino), found.st_size

    def _left_to_others(self) -> errors.StateChanged:
        saved = self.path + ".mine"
        replace_file(saved, documents.dump(self.root).encode(), durable=True, mode_like=self.path)
        self._conflict = errors.StateChanged(
            f"{self.path!r} was changed by another program while it was open",
            hint=f"merge it with {saved!r}, where this program's state stands, then open it again",
            path=self.path,
            saved=saved,
        )
        return self._conflict

    def refresh(self) -> None:
        """Take over what other processes have changed since. The lock of the file is held."""
        seen = self._seen()
        if not self.ready or seen is None or seen[0] != self._identity or seen[1] < self._file.size:
            self.get_ready()
        elif seen[1] > self._file.size:
            self._catch_up(seen[1])

    def _catch_up(self, size: int) -> None:
        start = self._file.size
        data = read_file(self.path, start)
        try:
            changes, end = stream.read_changes(data, self.path)
        except errors.NotAState:
            self.get_ready()  # an edit; the whole file says what is wrong with it, if anything is
            return
        if not changes or end < len(data):
            self.get_ready()
            return
        self._replay(changes)
        self._file.size = size

    # -- vacuum

    def _look_around(self) -> None:
        """Before a change: has somebody else changed the file, and is the journal so long that it must be folded in?"""
        self._look()
        if self._file.size >= self._vacuum_at:
            self._vacuum_if_possible()

    def _vacuum_if_possible(self) -> None:
        """On a full disk the journal stays and grows on: it says the same, and nobody has asked for a vacuum."""
        try:
            self.vacuum()
        except (errors.DiskFull, errors.TooManyOpenFiles) as error:
            log.warning("%s could not be rewritten: %s", self.path, error)
            self._vacuum_at = 2 * self._file.size

    def vacuum(self) -> None:
        """Write the document anew, with its comments, and drop the journal. Durable at every step of the dial.

        Without the sync a power cut could leave an empty file instead of losing the last seconds.
        """
        if self._pending is not None:
            raise errors.StateError("no vacuum inside a transaction", hint="leave the `with` block first")
        if not self.ready:
            self.get_ready()
        if self._file.size == self._document_end:
            return
        self._look()
        old = read_file(self.path)[: self._document_end].decode("utf-8-sig")
        data = editing.edited(old, self.root).encode()
        log.debug("vacuum of %s: %d bytes become %d", self.path, self._file.size, len(data))
        replace_file(self.path, data, durable=True, mode_like=self.path)
        self._close_file()
        self._open_file(len(data))

    # -- closing

    def close(self) -> None:
        """Vacuum and let go. Called without `guard`; twice is fine. In a forked child that never wrote: only let go."""
        if self.closed:
            return
        try:
            if self._conflict is None and (self.ready or self.shared) and self._file.fd >= 0:
                with self.guard:
                    if self._pending is not None:
                        self._roll_back()  # inside a transaction, whose end will find the state closed
                    if not self.closed:  # by another thread, meanwhile
                        self._vacuum_if_possible()
        finally:
            self.closed = True
            self.ready = False
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._close_file()
            if self._group is not None:
                self._group.close()
        finally:
            self._flock.close()
            self._locked = False

    def _close_file(self) -> None:
        if self._group is not None:
            self._group.flush()
        self._file.close()

    def _after_fork(self) -> None:
        self._pending, self._before = None, {}
        self.ready = self._locked = False
        self._new_guard()

    # -- the lock of a shared state

    def take(self) -> None:
        if not self.closed:
            if not self._flock.acquire(self._timeout):
                raise self.locked()
            self.refresh()

    def give(self) -> None:
        if not self.closed:
            self._flock.release()

    def let_go(self) -> None:
        """Whether or not the lock is held, after a `take` that was cut short."""
        self._flock.close()


def read_file(path: str, start: int = 0) -> bytes:
    with errors.typed_os_errors("read", path), open(path, "rb") as file:
        file.seek(start)
        return file.read()


def _read_owner(path: str) -> int | None:
    try:
        return int(read_file(path))
    except (ValueError, errors.StorageError):
        return None
