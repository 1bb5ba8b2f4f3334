"""Waking those who wait for rows (or for room), at no cost while nobody waits.

One page of shared memory per queue says who is waiting; each waiter sleeps on a FIFO of its own. A `put` that finds byte 0
of the page clear has paid 40 ns; a `put` that finds it set wakes one waiter (about 6 µs). Refused: inotify, because the
writer pays for it on every write while consumers are busy, and a user may have only 128 instances; one FIFO for all,
because each row would wake the whole pool.

Layout of the page, 4096 bytes, never shortened (a shortened page would kill its readers with SIGBUS):

    byte 0          1 if somebody may be waiting
    bytes 8..23     two counters for the queue's use, 8 bytes each, little endian
    bytes 64..1023  one byte per waiter: 1 while it sleeps
    bytes 1024..    four bytes per waiter: its process, while it holds rows that it has claimed and not begun; else 0

Order matters. A waiter sets its byte, then byte 0, then looks for rows once more, then sleeps. A ringer writes its row, then
reads byte 0; when set, it clears byte 0 *before* it looks for waiters, so that a waiter who arrives meanwhile sets it again.
A ring can still be lost (the woken process is killed), which is why waiters also wake by themselves now and then.

Who waits for several queues arms all their bells, then looks into all of them, then sleeps on all FIFOs at once
(`sleep_on`), so each of them sees the order above. Awake, it disarms all: a byte left standing would draw a ring meant for
somebody who still sleeps. It is told which bells rang, to hand on those that it does not follow.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections.abc import Iterable, Sequence

from .. import errors
from . import forking

_SIZE = 4096
_FIRST, _LAST = 64, 1024
_COUNTER = struct.Struct("<Q")
_PID = struct.Struct("<I")
#: So many waiters have room to say that they hold rows.
_HOLDERS = (_SIZE - _LAST) // _PID.size


class Doorbell:
    """The bell of the queue in `folder`. `page[0]` may be read directly by a hot path before it calls `ring`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        path = os.path.join(folder, "bell")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if os.fstat(fd).st_size < _SIZE:
                    os.ftruncate(fd, _SIZE)
                self.page = mmap.mmap(fd, _SIZE)
            finally:
                os.close(fd)
        except OSError as error:
            raise errors.from_os_error(error, "map", path) from error
        self._fifo = -1
        self._slot = -1
        forking.register(self)

    # -- the waiting side

    def arm(self, slot: int) -> None:
        """Say that waiter `slot` (a number that the caller owns) is about to sleep. Look for rows once more after this."""
        if self._fifo < 0:
            self._open_fifo(slot)
        if _FIRST + slot < _LAST:
            self.page[_FIRST + slot] = 1
        self.page[0] = 1

    def sleep(self, timeout: float) -> bool:
        """Sleep until rung, `timeout` seconds at most. True if rung."""
        return bool(sleep_on([self], timeout))

    def disarm(self) -> bool:
        """Say that this waiter is awake. True if it was rung since it armed."""
        rung = False
        if _FIRST + self._slot < _LAST:
            # Whoever rings clears the byte first.
            rung = not self.page[_FIRST + self._slot]
            self.page[_FIRST + self._slot] = 0
        try:
            rung |= bool(os.read(self._fifo, 4096))
        except BlockingIOError:
            pass  # nobody rang, or another thread of this process heard the same ring
        return rung

    def has_sleepers(self) -> bool:
        """Whether somebody sleeps, as far as the page says: one who was killed in his sleep counts until he is rung."""
        return bool(self.page[0]) and self.page.find(b"\x01", _FIRST, _LAST) >= 0

    def _open_fifo(self, slot: int) -> None:
        path = self._fifo_path(slot)
        try:
            try:
                os.mkfifo(path, 0o666)
            except FileExistsError:
                pass
            # Read-write, so that the end of one ringer is not the end of the file.
            self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise errors.from_os_error(error, "open", path) from error
        self._slot = slot

    # -- the ringing side

    def ring(self, count: int = 1) -> None:
        """Wake up to `count` waiters."""
        page = self.page
        while count > 0 and page[0]:
            page[0] = 0
            position = page.find(b"\x01", _FIRST, _LAST)
            if position < 0:
                return
            page[position] = 0
            page[0] = 1
            count -= self._wake(position - _FIRST)

    def ring_all(self) -> None:
        """Wake everybody."""
        self.ring(_LAST - _FIRST)

    def _wake(self, slot: int) -> bool:
        try:
            fd = os.open(self._fifo_path(slot), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False  # ENXIO: the waiter is dead; ring the next one
        try:
            os.write(fd, b"!")
        except OSError:
            return False  # full: it has been rung already
        finally:
            os.close(fd)
        return True

    # -- who holds rows that others could have

    def hold(self, slot: int, pid: int) -> None:
        """Say that process `pid`, as waiter `slot`, holds rows that it has not begun; 0: it holds none."""
        if slot < _HOLDERS:
            _PID.pack_into(self.page, _LAST + slot * _PID.size, pid)

    def holders(self) -> list[tuple[int, int]]:
        """`(slot, process)` of those who hold such rows. Some may be dead, and their number another's by now."""
        table = self.page[_LAST:_SIZE]
        if not table.strip(b"\0"):
            return []
        return [(slot, pid) for slot, (pid,) in enumerate(_PID.iter_unpack(table)) if pid]

    # -- the counters

    def counter(self, which: int) -> int:
        """Counter 0 or 1: changes whenever somebody called `count_up` for it."""
        return int(_COUNTER.unpack_from(self.page, 8 + 8 * which)[0])

    def count_up(self, which: int) -> None:
        """The caller holds a lock of the queue that makes it the only one to count this up."""
        _COUNTER.pack_into(self.page, 8 + 8 * which, (self.counter(which) + 1) % (1 << 64))

    def close(self) -> None:
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1
        try:
            self.page.close()
        except BufferError:
            pass  # another thread has just begun a put, and finds the queue closed; unmapped with the last reference

    def _fifo_path(self, slot: int) -> str:
        return os.path.join(self._folder, f"{slot:04d}.fifo")

    def _after_fork(self) -> None:
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1


def sleep_on(bells: Sequence[Doorbell], timeout: float, also: Iterable[int] = ()) -> list[Doorbell]:
    """Sleep until one of these armed bells is rung or one of the descriptors `also` can be read, `timeout` seconds at most.

    Afterwards none of the bells is armed. Returns those that were rung.
    """
    sleeper = select.poll()
    for fd in (*(bell._fifo for bell in bells), *also):
        sleeper.register(fd, select.POLLIN)
    sleeper.poll(timeout * 1000)
    return [bell for bell in bells if bell.disarm()]
