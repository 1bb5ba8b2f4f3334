"""One file a value: read whole, replaced whole, compared and deleted under the kernel lock of its folder.

Readers take no lock: they open a name, and what they opened stays what it was, whatever is renamed over it.

Writers first put the bytes into a file of their own in the stage (`#stage` in the root), synced if the dial says so. Then,
holding `flock` on the folder that holds the value, they look at what is there, decide, and rename over it. The lock is taken
on the folder itself and every step goes through its descriptor (`dir_fd`), so that no lock file lies about, that all who
reach the file by whatever root take the same lock, and that a folder which is removed meanwhile shows as ENOENT instead of
as two folders with two locks. Descriptors are not kept: a forked child inherits none, and threads need no lock of their own.

Each write gets a modification time of its own, later than that of the file it replaces even if the clock was set back, so
that (mtime, size, inode) never names two values of one key while the key lives. Kernels alone do not promise that: their
clocks tick every few milliseconds, and inode numbers are used again at once.

Killed before the rename: the old value stands, and a file is left in the stage, which nobody has locked; `clean_stage`, at
the next open, deletes it. Killed after it: the new value stands. A power cut after the call returned: with `durable`, the
new value stands; without, the old one, the new one, or (on filesystems that do not order data before a rename) a damaged
one may. Killed while deleting: the value is there or not. Empty folders may stay, and are no harm.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator

from .. import errors
from .durability import sync_file
from .locks import Flock
from .replacing import write_all

#: `#` can not be part of a key, so nothing of ours is ever taken for a value.
STAGE = "#stage"
TURNS = "#turns"
#: So many lock files for all keys of a tree.
_TURNS = 64
#: Longest wait for one's turn, in seconds.
_PATIENCE = 1.0
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
#: Not blocking: somebody may have put a FIFO there.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
#: So many entries of a folder are looked at together.
_CHUNK = 1024
_numbers = itertools.count()

#: Decides on what is there (None: nothing) whether to go on.
Accepts = Callable[[os.stat_result | None], bool]
#: Is given the descriptor of the new file and what it is about to replace, under the lock; may add to the file.
Finish = Callable[[int, os.stat_result | None], None]


def accept_all(_: os.stat_result | None) -> bool:
    """Go on whatever is there. Recognised, so that nobody looks."""
    return True


def read_value(path: str) -> tuple[bytes, os.stat_result] | None:
    """The bytes of a value and the state of just the file that they were read from; None if there is none."""
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise errors.from_os_error(error, "read", path) from error
    try:
        state = os.fstat(fd)
        data = os.read(fd, state.st_size + 1)
        while 0 < len(data) < state.st_size and (more := os.read(fd, state.st_size)):
            data += more
    except IsADirectoryError:
        return None  # a folder of keys whose first segment looks like a value's name
    except OSError as error:
        raise errors.from_os_error(error, "read", path) from error
    finally:
        os.close(fd)
    return data, state


def stat_value(path: str) -> os.stat_result | None:
    """The state of a value's file; None if there is none."""
    try:
        state = os.lstat(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise errors.from_os_error(error, "look at", path) from error
    return None if stat.S_ISDIR(state.st_mode) else state


def list_folder(folder: str) -> Iterator[list[os.DirEntry[str]]]:
    """What is in a folder, many entries at a time; nothing if it is gone.

    Use the entries before the next are asked for. They are listed by descriptor, which is faster by a tenth because none
    has a path made for it: `entry.path` is the name alone.
    """
    try:
        fd = os.open(folder, _FOLDER)
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise errors.from_os_error(error, "list", folder) from error
    try:
        with errors.typed_os_errors("list", folder), os.scandir(fd) as entries:
            while chunk := list(itertools.islice(entries, _CHUNK)):
                yield chunk
    finally:
        os.close(fd)


class ValueFolder:
    """The tree of values under `root`. Folders are made on first write, for their owner only."""

    __slots__ = ("durable", "root", "stage")

    def __init__(self, root: str, *, durable: bool, stage: str | None = None) -> None:
        self.root = root
        self.durable = durable
        self.stage = stage or os.path.join(root, STAGE)

    def write(self, path: str, data: bytes, accepts: Accepts, finish: Finish | None = None) -> os.stat_result | None:
        """Make `data` the value at `path` and return its state; None, and nothing changed, if it is not accepted.

        `finish` writes what depends on what is replaced; the sync then comes after it, under the lock.
        """
        while True:
            staged, fd = self._put_on_stage(data, sync=self.durable and finish is None)
            try:
                state = self._move_in(staged, fd, path, accepts, finish)
            except BaseException as error:
                _unlink_quietly(staged)
                if not isinstance(error, OSError) or isinstance(error, errors.PistributerError):
                    raise
                if isinstance(error, FileNotFoundError):
                    continue  # somebody removed the folder, being empty, or our file as a dead writer's: from the start
                raise errors.from_os_error(error, "write", path) from error
            finally:
                os.close(fd)
            if state is None:
                _unlink_quietly(staged)
            return state

    def _put_on_stage(self, data: bytes, *, sync: bool) -> tuple[str, int]:
        """A locked file in the stage with these bytes. The lock says that its writer lives."""
        staged = f"{self.stage}/{os.getpid()}-{next(_numbers)}"
        try:
            try:
                fd = os.open(staged, _NEW, 0o600)
            except FileNotFoundError:
                make_folders(self.stage, durable=self.durable)
                fd = os.open(staged, _NEW, 0o600)
            except FileExistsError:
                return self._put_on_stage(data, sync=sync)  # of a dead process with our number
        except OSError as error:
            raise errors.from_os_error(error, "write", staged) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            write_all(fd, data)
            if sync:
                sync_file(fd, staged)
        except BaseException as error:
            os.close(fd)
            _unlink_quietly(staged)
            if isinstance(error, OSError) and not isinstance(error, errors.PistributerError):
                raise errors.from_os_error(error, "write", staged) from error
            raise
        return staged, fd

    def _move_in(
        self, staged: str, fd: int, path: str, accepts: Accepts, finish: Finish | None
    ) -> os.stat_result | None:
        folder, _, name = path.rpartition("/")
        folder_fd = self._open_folder(folder)
        try:
            try:
                fcntl.flock(folder_fd, fcntl.LOCK_EX)
                present = _stat_at(name, folder_fd)
                if not accepts(present):
                    return None
                if finish is not None:
                    finish(fd, present)
                    if self.durable:
                        sync_file(fd, staged)
                moment = time.time_ns()
                if present is not None and moment <= present.st_mtime_ns:
                    moment = present.st_mtime_ns + 1000
                os.utime(fd, ns=(moment, moment))
                os.rename(staged, name, dst_dir_fd=folder_fd)
            finally:
                _unlock(folder_fd)
            if self.durable:
                _sync_names(folder_fd, folder)
        finally:
            os.close(folder_fd)
        return os.fstat(fd)

    def remove(self, path: str, accepts: Accepts) -> bool:
        """Delete the value at `path`; False if there is none or it is not accepted. Folders that it leaves empty go too."""
        folder, _, name = path.rpartition("/")
        try:
            folder_fd = os.open(folder, _FOLDER)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise errors.from_os_error(error, "delete", path) from error
        try:
            if not self._unlink(folder_fd, folder, name, accepts):
                return False
        except OSError as error:
            if isinstance(error, errors.PistributerError):
                raise
            if error.errno in (*_ABSENT, errno.EISDIR):
                return False
            raise errors.from_os_error(error, "delete", path) from error
        finally:
            os.close(folder_fd)
        self._remove_empty(folder)
        return True

    def _unlink(self, folder_fd: int, folder: str, name: str, accepts: Accepts) -> bool:
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX)
            if accepts is not accept_all and ((present := _stat_at(name, folder_fd)) is None or not accepts(present)):
                return False
            os.unlink(name, dir_fd=folder_fd)
        finally:
            _unlock(folder_fd)
        if self.durable:
            _sync_names(folder_fd, folder)
        return True

    def _remove_empty(self, folder: str) -> None:
        # rmdir fails on a folder that is not empty, so it needs no lock.
        while len(folder) > len(self.root):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def _open_folder(self, folder: str) -> int:
        try:
            return os.open(folder, _FOLDER)
        except FileNotFoundError:
            make_folders(folder, durable=self.durable)
            return os.open(folder, _FOLDER)

    @contextlib.contextmanager
    def turn(self, path: str) -> Iterator[None]:
        """Wait, a second at most, until nobody else who asks for `path` is inside. Those who transform one value again and
        again would else overtake each other. Whoever waited in vain goes on all the same, so nothing here can deadlock.
        """
        folder = os.path.join(self.root, TURNS)
        with errors.typed_os_errors("make", folder):
            make_folders(folder, durable=False)
        lock = Flock(os.path.join(folder, f"{zlib.crc32(path.encode()) % _TURNS:02d}"))
        try:
            lock.acquire(timeout=_PATIENCE)
            yield
        finally:
            lock.close()

    def clean_stage(self) -> None:
        """Delete what killed writers left. A file whose writer lives is locked and stays."""
        try:
            names = os.listdir(self.stage)
        except FileNotFoundError:
            return
        except OSError as error:
            raise errors.from_os_error(error, "read", self.stage) from error
        for name in names:
            _unlink_if_dead(os.path.join(self.stage, name))


def append_to(fd: int, data: bytes) -> None:
    """For `finish`: add to the end of the new file, where writing it has left the descriptor."""
    write_all(fd, data)


def make_folders(path: str, *, durable: bool) -> None:
    """Make the folder `path` and those above it that are missing, for their owner only."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if above != path:
        make_folders(above, durable=durable)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    if durable:
        fd = os.open(above or ".", _FOLDER)
        try:
            _sync_names(fd, above)
        finally:
            os.close(fd)


def _unlock(fd: int) -> None:
    # Closing is not enough: a child that another thread forks meanwhile has a copy, and would keep the lock.
    fcntl.flock(fd, fcntl.LOCK_UN)


def _stat_at(name: str, folder_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _sync_names(folder_fd: int, folder: str) -> None:
    try:
        os.fsync(folder_fd)
    except OSError as error:
        raise errors.SyncFailed(
            f"the disk did not confirm the names in {folder!r}",
            hint="the last changes there may be lost; check the disk",
            errno=error.errno or 0,
            path=folder,
        ) from error


def _unlink_if_dead(path: str) -> None:
    try:
        fd = os.open(path, _READ)
    except OSError:
        return  # its writer has moved it in meanwhile
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its writer may have moved it in between: then the name is gone, and what it names now is not ours to delete.
        os.unlink(path)
    except OSError:
        return  # locked: its writer lives
    finally:
        os.close(fd)


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was moved in, or the cleaner has it
