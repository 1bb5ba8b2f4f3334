"""The supervisor's side of the control socket: `run/running/…/control/socket`.

Protocol, version 1: JSON objects, one a line, answered in order, one line each::

    {"v": 1, "do": "scale", "what": "default", "to": "+2"}
    {"v": 1, "ok": true, "pid": 4711, "now": 6}
    {"v": 1, "ok": false, "pid": 4711, "error": "no queue or pool is called 'defualt'", "hint": "did you mean 'default'?"}

Fields that a supervisor does not know are ignored; a request of another version is refused. The commands are in
run_control.py.

Who may ask: the owner of the supervisor, and root. The socket's mode says so, and that of its folder; the kernel is asked once
more who has connected.

It is served from the supervisor's selector, without threads, and no client can hold it up: nothing here blocks, a line may
have `_LONGEST_LINE` bytes, a client that does not read its answer is not read from until it does, and when there are
`_MOST_CLIENTS`, the one that has been silent for longest has to go.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Callable
from typing import Any

import orjson

from pistributer import errors
from pistributer.storage import forking

from .sockets import peer_uid, reachable
from .supervisor import Supervisor

_log = logging.getLogger("pistributer.supervisor")

VERSION = 1
NAME = "socket"

_LONGEST_LINE = 16 * 1024
_MOST_CLIENTS = 64
#: Connections accepted, and requests answered, before the supervisor looks at anything else.
_AT_ONCE = 16

#: What does it: command fields to answer fields. Raises WorkError, or any other PistributerError, to refuse.
Answer = Callable[[dict[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers requests in `folder` as long as the supervisor takes steps."""

    def __init__(self, folder: str, supervisor: Supervisor, answer: Answer) -> None:
        self._folder = folder
        self._supervisor = supervisor
        self._answer = answer
        #: In the order in which they were last heard of.
        self._clients: dict[_Client, None] = {}
        self._listener = _listen(folder)
        supervisor.attach(self._listener, self._accept)
        forking.register(self)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # No descriptor left. The listener would be ready again at once, for ever; `look` tries again.
                self._supervisor.detach(self._listener)
                return
            if peer_uid(connection) not in (None, 0, os.geteuid()):
                connection.close()
                continue
            connection.setblocking(False)
            if len(self._clients) >= _MOST_CLIENTS:
                self.drop(next(iter(self._clients)))
            client = _Client(self, connection)
            self._clients[client] = None
            self._supervisor.attach(connection, client.read)

    def look(self) -> None:
        """Called now and then."""
        self._supervisor.attach(self._listener, self._accept)

    def heard_of(self, client: _Client) -> None:
        self._clients[client] = self._clients.pop(client, None)

    def drop(self, client: _Client) -> None:
        self._clients.pop(client, None)
        self._supervisor.detach(client.connection)
        client.connection.close()
        client.gone = True

    def attach(self, client: _Client, *, write: bool) -> None:
        self._supervisor.attach(client.connection, client.write if write else client.read, write=write)

    def respond(self, line: bytes) -> bytes:
        """The answer to one request, whatever it is."""
        try:
            answer = {"ok": True, **self._answer(_parse(line))}
        except errors.PistributerError as error:
            answer = {"ok": False, "error": error.message, "hint": error.hint}
        except Exception as error:  # noqa: BLE001 (a fault of ours; the pool is not to pay for it)
            _log.exception("a request through the control socket failed: %.200r", line)
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}", "hint": "its log says where"}
        return orjson.dumps({"v": VERSION, "pid": os.getpid(), **answer}) + b"\n"

    def _after_fork(self) -> None:
        """In a child: else it would keep the door open when the supervisor is gone, and nobody would answer."""
        for client in self._clients:
            client.connection.close()
        self._listener.close()

    def close(self) -> None:
        for client in list(self._clients):
            self.drop(client)
        self._supervisor.detach(self._listener)
        self._listener.close()


class _Client:
    """One connection. What it said and has not been answered, what it was answered and has not read."""

    def __init__(self, server: ControlServer, connection: socket.socket) -> None:
        self._server = server
        self.connection = connection
        self._said = b""
        self._owed = b""
        self.gone = False

    def read(self) -> None:
        if self.gone:
            return  # dropped for another one, in the same round
        try:
            data = self.connection.recv(_LONGEST_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._server.heard_of(self)
        self._said += data
        if not data or len(self._said) > 2 * _LONGEST_LINE:
            self._server.drop(self)
            return
        self._go_on()

    def write(self) -> None:
        if not self.gone:
            self._server.heard_of(self)
            self._go_on()

    def _go_on(self) -> None:
        """Send what is owed, and answer what was said, as long as it is read."""
        for _ in range(_AT_ONCE):
            if not self._send():
                return
            line, newline, rest = self._said.partition(b"\n")
            if not newline:
                if len(line) > _LONGEST_LINE:
                    self._server.drop(self)
                return
            self._said = rest
            self._owed = self._server.respond(line)
        self._server.attach(self, write=True)  # others first

    def _send(self) -> bool:
        """Whether nothing is owed any more."""
        if self._owed:
            try:
                self._owed = self._owed[self.connection.send(self._owed) :]
            except BlockingIOError:
                pass
            except OSError:
                self._server.drop(self)
                return False
        self._server.attach(self, write=bool(self._owed))
        return not self._owed


def _listen(folder: str) -> socket.socket:
    """A socket that only this user can reach, in a folder that only this user can enter."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with errors.typed_os_errors("make the control socket in", folder), contextlib.ExitStack() as stack:
            os.mkdir(folder, 0o700)
            path = stack.enter_context(reachable(folder, NAME))
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(128)
    except BaseException:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return listener


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise errors.ControlError("a request is a JSON object with a field 'do', on one line", hint="see `control`")
    if request.get("v") != VERSION:
        raise errors.ControlError(
            f"this supervisor speaks version {VERSION}, not {request.get('v')!r}", hint="use the release that it runs"
        )
    return request
