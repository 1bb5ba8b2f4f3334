"""Appending rows to a file that other processes append to as well, and that a reader may take away.

The file is a channel of the classic API (`queues/classic.py`): writers append to NAME; a reader renames it to NAME.in_use,
consumes it, and empties it. A rename does not stop those who have the file open, which is how release 0.2.0 lost rows.
Here it need not stop them: at any moment there is one file to append to, and every writer can tell which.

    NAME, if it holds rows
    else NAME.in_use, unless it is sealed, or emptied without its cursor having been reset
    else NAME, which is made if there is none

So rows come out in the order in which they went in, also if one process puts, then another, then the first again.

* Appending happens under `flock` of the data file. The lock file is the data file itself, because a writer with a stale
  descriptor then contends with exactly those who may change what it sees.
* Under the lock, a writer compares the size with what it left. Equal: nobody wrote, nothing was taken away, append. This
  is the whole hot path: flock, lseek, write, flock; after a pause fstat in place of lseek.
* Else it looks at the last two bytes. The ordinary end of a row: another writer was here; append. A row without its
  newline: its writer died (the lock is ours), so heal. Nothing, or an empty line: a reader has emptied the file, or has
  sealed it with an empty line, which every reader skips. Only then does the writer look whether its file is still the one
  to append to.
* An emptied NAME.in_use is used on, because a producer whose consumer keeps up would otherwise make a file per row (60 to
  100 µs). Not if the cursor has not been reset: the reader died between the two steps, and rows written now would be
  mistaken for consumed ones.

A file deleted from outside is noticed at the next append after a pause, where a pause is less than it takes to delete a
file, so that a thread which deletes and appends in turns loses nothing. A writer that never pauses notices when the
scheduler interrupts it. (`fstat` each time would cost 1.8 µs: on kernels with fine-grained timestamps, looking at them
makes the next write update them.) A folder that was moved away is noticed the same way, within a tenth of a second.

Killed before the write: nothing. Inside it: a torn tail, healed by the next writer or reader. In the middle of healing:
the torn tail again, and its bytes perhaps twice in the quarantine.
"""

from __future__ import annotations

import enum
import math
import os
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, flock
from os import SEEK_END, fstat, lseek, write
from time import monotonic
from typing import NoReturn

from .. import errors
from . import forking
from .appending import last_row_end, read_range
from .descriptors import open_descriptor, pool
from .quick_channel import QuickSharedAppend
from .replacing import write_all
from .turns import Turn

#: A writer that paused for longer looks whether its file was deleted, in seconds. (An unlink alone takes 2.3 µs on tmpfs.)
_PAUSE = 1.5e-6
#: How often it also looks whether the folder was moved away, in seconds.
_LOOK_EVERY = 0.1

_FLAGS = os.O_RDWR | os.O_APPEND


class ChannelPaths:
    """The files of the channel at `data`, as absolute or given paths."""

    __slots__ = ("data", "in_use", "index", "quarantine")

    def __init__(self, data: str) -> None:
        self.data = data
        self.in_use = f"{data}.in_use"
        self.index = f"{data}.index"
        self.quarantine = f"{data}.quarantine"


class Tail(enum.Enum):
    """How a file of rows ends."""

    NOTHING = enum.auto()
    ROW = enum.auto()
    #: A reader's seal, or an empty line from elsewhere.
    EMPTY_LINE = enum.auto()
    #: No newline at the end.
    TORN = enum.auto()


def tail_of(fd: int, size: int) -> Tail:
    """How the file of `size` bytes ends."""
    if size == 0:
        return Tail.NOTHING
    last = os.pread(fd, 2, max(0, size - 2))
    if not last.endswith(b"\n"):
        return Tail.TORN
    return Tail.EMPTY_LINE if last in (b"\n", b"\n\n") else Tail.ROW


class SharedAppendFile(Turn):
    """A kept descriptor of a channel's data file. Threads may share the object."""

    __slots__ = (
        "__weakref__",
        "_end",
        "_fd",
        "_last",
        "_looked",
        "_may_use_on",
        "_on_retire",
        "_prepare",
        "paths",
        "quick",
        "retired",
    )

    def __init__(
        self,
        paths: ChannelPaths,
        prepare: Callable[[ChannelPaths], None],
        may_use_on: Callable[[ChannelPaths], bool],
        on_retire: Callable[[SharedAppendFile], None],
    ) -> None:
        super().__init__()
        self.paths = paths
        #: Called before the file is opened.
        self._prepare = prepare
        #: Whether the cursor of an emptied NAME.in_use has been reset.
        self._may_use_on = may_use_on
        self._on_retire = on_retire
        self._fd = -1
        #: Size of the file when this object last wrote; -1 if it must look.
        self._end = -1
        #: When the last append ended, and when the file's name was last looked at (monotonic).
        self._last = self._looked = -math.inf
        #: This object has closed for good; `append` refuses.
        self.retired = False
        #: `append` in the plain case, False in any other: try it first (quick_channel.py).
        self.quick = QuickSharedAppend(self, _PAUSE, _LOOK_EVERY) if QuickSharedAppend else self.append

    def append(self, rows: bytes) -> bool:
        """Append whole rows, each with its newline. False if this object is retired: nothing was written, get another.

        Raises DiskFull (`stored` rows stand) and other StorageErrors. No fsync.
        """
        try:
            del self.free
        except AttributeError:
            self.wait_for_turn()
        try:
            now = monotonic()
            paused = now - self._last > _PAUSE
            if paused and now - self._looked > _LOOK_EVERY:
                if self.retired:
                    return False
                self._look(now)
            fd = self._fd
            flock(fd, LOCK_EX)
            end = self._size_if_named() if paused else lseek(fd, 0, SEEK_END)
            if end != self._end:
                fd, end = self._catch_up()
            written = write(fd, rows)
            if written != len(rows):
                self._complete(rows, written, end)
            self._end = end + len(rows)
            flock(fd, LOCK_UN)
            self._last = monotonic()
        except BaseException as error:  # noqa: BLE001 - raises it
            self._fail(error)
        finally:
            self.free = True
            if self.waiters:
                self.wake_waiter()
        return True

    def complete(self, rows: bytes, written: int, end: int) -> None:
        """For `quick`, which has the turn and the lock: the kernel took only `written` bytes at `end`; do the rest."""
        try:
            self._complete(rows, written, end)
            self._end = end + len(rows)
            flock(self._fd, LOCK_UN)
            self._last = monotonic()
        except BaseException as error:  # noqa: BLE001 - raises it
            self._fail(error)

    # -- finding the right file

    def _look(self, now: float) -> None:
        """Have a descriptor on a file that has the right name."""
        if self._fd < 0 or not self._is_ours(fstat(self._fd)):
            self._reopen()
        self._looked = now

    def _size_if_named(self) -> int:
        """Size of the locked file; if it was deleted from outside, of another that is opened and locked in its place."""
        while True:
            mine = fstat(self._fd)
            if mine.st_nlink:
                return mine.st_size
            self._reopen()
            flock(self._fd, LOCK_EX)

    def _is_ours(self, mine: os.stat_result) -> bool:
        # In this order, because a reader moves files from the first name to the second.
        return is_same(mine, self.paths.data) or is_same(mine, self.paths.in_use)

    def _reopen(self) -> None:
        """Open the file to append to, as far as it can be told without its lock."""
        self._close()
        self._prepare(self.paths)
        if not self._open(self.paths.data, _FLAGS) and not self._open(self.paths.in_use, _FLAGS):
            self._open(self.paths.data, _FLAGS | os.O_CREAT)

    def _open(self, path: str, flags: int) -> bool:
        """Open `path` instead of what is open; False if there is no such file."""
        self._close()
        try:
            self._fd = open_descriptor(path, flags)
        except errors.FolderMissing:
            if flags & os.O_CREAT:
                raise
            return False
        pool.admit(self)
        return True

    def _catch_up(self) -> tuple[int, int]:
        """The size is not what this object left: find out why, holding the lock. Returns a locked descriptor, its size."""
        while True:
            fd = self._fd
            size = lseek(fd, 0, SEEK_END)
            tail = tail_of(fd, size)
            if tail is Tail.TORN:
                cut_torn_tail(fd, size, self.paths.quarantine)
                continue
            path = None if tail is Tail.ROW else self._elsewhere(size)
            if path is None:
                return fd, size
            if path == self.paths.data or not self._open(path, _FLAGS):
                self._open(self.paths.data, _FLAGS | os.O_CREAT)
            flock(self._fd, LOCK_EX)

    def _elsewhere(self, size: int) -> str | None:
        """What to append to instead of this file, which is empty or ends in an empty line; None if this is right."""
        paths, mine = self.paths, os.fstat(self._fd)
        if is_same(mine, paths.data):
            return paths.in_use if size == 0 and self._batch_takes_rows() else None
        if size == 0 and not has_rows(paths.data) and is_same(mine, paths.in_use) and self._may_use_on(paths):
            return None
        return paths.data

    def _batch_takes_rows(self) -> bool:
        """Whether NAME.in_use is there for rows to be appended. Seen without its lock; the caller looks again with it."""
        try:
            fd = os.open(self.paths.in_use, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            tail = tail_of(fd, lseek(fd, 0, SEEK_END))
        finally:
            os.close(fd)
        return self._may_use_on(self.paths) if tail is Tail.NOTHING else tail is not Tail.EMPTY_LINE

    # -- when something goes wrong

    def _complete(self, rows: bytes, written: int, start: int) -> None:
        """The kernel took only a part: write the rest, or cut back to the last whole row and raise."""
        try:
            write_all(self._fd, rows[written:])
        except OSError as error:
            raise cut_back(self._fd, start, error, self.paths.data) from error

    def _fail(self, error: BaseException) -> NoReturn:
        """Give up the descriptor, and the lock with it; the next append looks at the tail. Raise `error`, typed."""
        self._close()
        if isinstance(error, OSError) and not isinstance(error, errors.PistributerError):
            raise errors.from_os_error(error, "append to", self.paths.data) from error
        raise error

    # -- closing

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._end = -1
        self._last = self._looked = -math.inf
        if fd >= 0:
            os.close(fd)

    def stamp(self) -> object:
        return self._last

    def evict(self) -> bool:
        """Close for good, unless in use. One object per file at a time: two could be on two generations of it, and rows
        of one thread would change places."""
        if not self.try_turn():
            return False
        try:
            self._on_retire(self)  # first, so that nobody who sees `retired` can find this object again
            self.retired = True
            self._close()
        finally:
            self.give_turn()
        return True

    def abandon(self) -> None:
        """Close for good without waiting for anybody: in a forked child."""
        self.retired = True
        self._close()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class SharedAppendFiles:
    """The open channels of this process, by path. `known[path]` may be tried before `find`."""

    def __init__(
        self,
        check: Callable[[str], None],
        prepare: Callable[[ChannelPaths], None],
        may_use_on: Callable[[ChannelPaths], bool],
    ) -> None:
        #: Raises if this can not be the path of a channel.
        self._check = check
        self._prepare = prepare
        self._may_use_on = may_use_on
        #: Absolute paths, as given and in normal form, of files that are not retired.
        self.known: dict[str, SharedAppendFile] = {}
        self._aliases: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        forking.register(self)

    def append(self, path: str | os.PathLike[str], rows: bytes) -> bool:
        """Append whole rows, each with its newline, to the channel at `path`; True."""
        while not self.find(path).append(rows):
            pass  # evicted between the two calls
        return True

    def find(self, path: str | os.PathLike[str]) -> SharedAppendFile:
        """The open file of the channel at `path`."""
        given = os.fspath(path)
        if not given.startswith("/"):
            # A relative path means another file after os.chdir.
            given = f"{os.getcwd()}/{given}"
        file = self.known.get(given)
        return file if file is not None and not file.retired else self._add(given)

    def _add(self, given: str) -> SharedAppendFile:
        self._check(given)
        normal = os.path.abspath(given)
        with self._lock:
            file = self.known.get(normal)
            if file is None or file.retired:
                file = SharedAppendFile(ChannelPaths(normal), self._prepare, self._may_use_on, self._forget)
                self.known[normal] = file
            if given != normal:
                self.known[given] = file
                self._aliases.setdefault(normal, []).append(given)
        return file

    def _forget(self, file: SharedAppendFile) -> None:
        # Without `_lock`, which the thread that made this call may hold: single operations on a dict need none.
        normal = file.paths.data
        for name in (normal, *self._aliases.pop(normal, ())):
            self.known.pop(name, None)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        files = set(self.known.values())
        self.known.clear()
        self._aliases.clear()
        for file in files:
            file.abandon()


def is_same(mine: os.stat_result, path: str) -> bool:
    """Whether `path` means the file that `mine` describes."""
    try:
        return os.path.samestat(mine, os.stat(path))
    except FileNotFoundError:
        return False


def has_rows(path: str) -> bool:
    """Whether the file exists and is not empty."""
    try:
        return os.stat(path).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def cut_torn_tail(fd: int, size: int, quarantine: str) -> int:
    """Set aside and cut what stands behind the last newline; return the size now. The caller holds the file's lock."""
    end = last_row_end(fd, size)
    set_aside(quarantine, read_range(fd, end, size))
    os.ftruncate(fd, end)
    return end


def cut_back(fd: int, start: int, error: OSError, path: str) -> errors.StorageError:
    """After a failed append that began at `start`: cut to the last whole row; the typed error, with `stored` rows."""
    taken = read_range(fd, start, lseek(fd, 0, SEEK_END))
    os.ftruncate(fd, start + taken.rfind(b"\n") + 1)
    failure = errors.from_os_error(error, "append to", path)
    failure.stored = taken.count(b"\n")  # type: ignore[attr-defined]
    return failure


def terminate(path: str) -> None:
    """Give an unterminated last line its newline. For files from before this release, where such a line is a row."""
    try:
        fd = os.open(path, _FLAGS | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        flock(fd, LOCK_EX)
        size = lseek(fd, 0, SEEK_END)
        if tail_of(fd, size) is Tail.TORN:
            write(fd, b"\n")
    finally:
        os.close(fd)


def rewrite(path: str, rows: bytes, *, exclusive: bool) -> None:
    """Make `rows` the content of the data file at `path`, which the caller has kept readers from taking away.

    `exclusive`: FileExistsError if there is one. Writers notice by the size. Not atomic: killed in the middle, a part.
    """
    fd = open_exclusive(path) if exclusive else open_descriptor(path, _FLAGS | os.O_CREAT)
    try:
        flock(fd, LOCK_EX)
        if not exclusive:
            os.ftruncate(fd, 0)
        start = lseek(fd, 0, SEEK_END)
        try:
            write_all(fd, rows)
        except OSError as error:
            raise cut_back(fd, start, error, path) from error
    finally:
        os.close(fd)


def open_exclusive(path: str) -> int:
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise
    except OSError as error:
        raise errors.from_os_error(error, "make", path) from error


def set_aside(path: str, data: bytes) -> None:
    """Add damaged bytes to the quarantine file at `path`, ended by a newline. Nothing is deleted if this fails."""
    fd = open_descriptor(path, _FLAGS | os.O_CREAT)
    try:
        flock(fd, LOCK_EX)
        write_all(fd, data if data.endswith(b"\n") else data + b"\n")
    except OSError as error:
        raise errors.from_os_error(error, "set damaged bytes aside in", path) from error
    finally:
        os.close(fd)
