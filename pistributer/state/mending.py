"""What a dying process left at the end of a state's file: set aside, logged with its text, and cut off.

Killed between two of these steps: the next opener does them again.
"""

from __future__ import annotations

import logging
import os

from .. import errors
from ..storage.appending import cut
from ..storage.replacing import mode_of, replace_file
from ..storage.shared_append import set_aside, terminate
from .stream import Stream

log = logging.getLogger("pistributer.state")


def mend(path: str, data: bytes, found: Stream) -> None:
    """Have the file at `path`, which held `data`, say what was `found` in it, and end with a newline."""
    if found.rescued is not None:
        keep(path, data)
        log.warning("%s was cut short while it was rewritten; its own copy was taken", path)
        replace_file(path, found.rescued, durable=True, mode_like=path)
    elif found.end < len(data):
        torn = data[found.end :]
        keep(path, torn)
        log.warning("%s: dropped a change that a dying process did not finish: %r", path, torn)
        cut(path, found.end)
    terminate(path)


def keep(path: str, data: bytes) -> None:
    """Add bytes that are taken out of `path` to its quarantine."""
    quarantine = path + ".quarantine"
    try:
        # What is closed to others in the state is so there, too.
        with errors.typed_os_errors("open", quarantine):
            os.close(os.open(quarantine, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode_of(path) or 0o600))
        set_aside(quarantine, data)
    except errors.DiskFull as error:
        # A full disk is what tears lines. The state must open all the same, and what goes is in the log.
        log.warning("%s: %s", path, error)
