"""Telling systemd how a run is: the protocol of sd_notify(3), datagrams of `NAME=value` lines to `$NOTIFY_SOCKET`.

`READY=1` when every process has come up, `STATUS=` with a line for people, `RELOADING=1` and `READY=1` around a reload,
`STOPPING=1` at its end, and, if the unit asks for it with `WatchdogSec=`, `WATCHDOG=1` twice as often as it asks. A run
that hangs is then killed and started again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

_log = logging.getLogger("pistributer.supervisor")

#: Seconds between two lines for people.
_STATUS_EVERY = 5.0


class Notifier:
    """Sends to whoever `environment` names; to nobody, if it names nobody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)  # a full buffer must not hold up the supervisor
        self._watchdog = _watchdog_seconds(environment)
        self._due = self._status_due = 0.0
        self._status = ""
        self._state = "starting"

    def __bool__(self) -> bool:
        return self._socket is not None

    def look(self, *, ready: bool, stopping: bool, reloading: bool, status: str) -> None:
        """Say what has changed since the last look. Called often."""
        lines = self._changes(
            "stopping" if stopping else "reloading" if reloading else "ready" if ready else self._state
        )
        now = time.monotonic()
        if now >= self._status_due and status != self._status:
            self._status, self._status_due = status, now + _STATUS_EVERY
            lines.append(f"STATUS={status}")
        if self._watchdog is not None and now >= self._due:
            self._due = now + self._watchdog / 2
            lines.append("WATCHDOG=1")
        if lines:
            self._send("\n".join(lines))

    def reloads(self) -> None:
        """A reload begins; it may be over before the next look."""
        if self and self._state == "ready":
            self._send("\n".join(self._changes("reloading")))

    def _changes(self, state: str) -> list[str]:
        if state == self._state:
            return []
        self._state = state
        match state:
            case "reloading":
                # systemd orders what it hears by this clock, for units of Type=notify-reload.
                return ["RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"]
            case "ready":
                return ["READY=1"]
            case _:
                return ["STOPPING=1"]

    def _send(self, text: str) -> None:
        assert self._socket is not None
        # "@name" is an abstract address: no file, the name begins with NUL.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            self._socket.sendto(text.encode(), address)
        except OSError as error:
            _log.debug("could not notify %s: %s", self._address, error)

    def close(self) -> None:
        """The run has ended, perhaps before the next look."""
        if self._socket is not None:
            if lines := self._changes("stopping"):
                self._send("\n".join(lines))
            self._socket.close()


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """What `WatchdogSec=` asks of this process; None if of nobody, or of another."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environment["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
