"""Unix sockets whose path may be of any length, and who is at their other end."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator

#: `sun_path` has 108 bytes on Linux and 104 elsewhere; one is for the NUL at the end.
_LONGEST = 103


@contextlib.contextmanager
def reachable(folder: str, name: str) -> Iterator[str]:
    """A path of `name` in `folder` that is short enough to bind or connect to.

    A long one goes through the folder's open descriptor or, where there is no /proc, through a link in a temporary folder.
    Refused: changing the working directory for a moment, which every thread of the process would see.
    """
    plain = os.path.join(folder, name)
    if len(os.fsencode(plain)) <= _LONGEST:
        yield plain
    elif sys.platform == "linux":
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}/{name}"
        finally:
            os.close(fd)
    else:
        with tempfile.TemporaryDirectory() as short:
            os.symlink(folder, os.path.join(short, "f"))
            yield os.path.join(short, "f", name)


def connect(folder: str, name: str, timeout: float) -> socket.socket:
    """A connection that waits at most `timeout` seconds, for each step by itself. OSError, TimeoutError among them.

    A Unix socket with Python's timeout does not wait for a place in a full line of those who connect; it fails at once. So
    that step waits in the kernel.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        wait = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        with reachable(folder, name) as path:
            connection.connect(path)
        connection.settimeout(timeout)
    except BlockingIOError:
        connection.close()
        raise TimeoutError("nobody takes the connection") from None
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end, by the kernel's word; None where it can not be asked."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
