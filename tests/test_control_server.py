"""The control socket and clients that are slow, mad, many or not welcome."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pistributer import errors
from pistributer.workers import control
from pistributer.workers.supervision import control_server, runs, sockets
from pistributer.workers.supervision.control_server import ControlServer
from pistributer.workers.supervision.roles import Role
from pistributer.workers.supervision.supervisor import Supervisor
from tests import worker_targets as targets
from tests.worker_tools import DEADLINE, wait_for


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "refuse":
        raise errors.ControlError("no", hint="ask for something else")
    if request["do"] == "break":
        raise ZeroDivisionError("by hand")
    return {"said": "x" * request.get("size", 1), "n": request.get("n")}


class Served:
    """A supervisor in a thread that serves `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self._supervisor = Supervisor([Role("w", targets.stay)], on_event=lambda said: None)
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.steps = 0

    def _serve(self) -> None:
        with self._supervisor:
            server = ControlServer(runs.control_folder(self.folder), self._supervisor, answer)
            self._up.set()
            while self._supervisor.step(0.1):
                self.steps += 1
                server.look()
            server.close()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._up.wait(DEADLINE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._supervisor.request_stop()
        self._thread.join(DEADLINE)

    def connect(self) -> socket.socket:
        return sockets.connect(runs.control_folder(self.folder), control_server.NAME, DEADLINE)

    def ask(self, do: str = "tell", **fields: Any) -> dict[str, Any]:
        return control._ask(self.folder, 0, do, fields).fields


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("run")) as server:
        yield server


def request(**fields: Any) -> bytes:
    return json.dumps({"v": 1, "do": "tell", **fields}).encode() + b"\n"


def lines(client: socket.socket, count: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < count and (more := client.recv(65536)):
        data += more
    return [json.loads(line) for line in data.split(b"\n")[:count] if line]


def heard(client: socket.socket) -> bytes:
    """All that it says until it hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while more := client.recv(65536):
            data += more
    return data


def test_only_its_owner_may_come_in(served: Served) -> None:
    folder = Path(runs.control_folder(served.folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "socket").stat().st_mode) == 0o600


def test_another_user_is_hung_up_on_without_a_word(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "peer_uid", lambda connection: os.geteuid() + 1)
    with served.connect() as client:
        with contextlib.suppress(BrokenPipeError):
            client.sendall(request())
        assert heard(client) == b""
    monkeypatch.undo()
    assert served.ask() == {"said": "x", "n": None}


def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sockets.peer_uid(ours) == os.geteuid()


def test_requests_are_answered_in_order_one_line_each(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"".join(request(n=n) for n in range(100)))
        found = lines(client, 100)
    assert [it["n"] for it in found] == list(range(100))
    assert {it["v"] for it in found} == {1}


def test_a_line_may_come_byte_by_byte(served: Served) -> None:
    with served.connect() as client:
        for byte in request(n=5):
            client.sendall(bytes([byte]))
        assert lines(client, 1)[0]["n"] == 5


def test_a_refusal_says_why_and_what_to_do(served: Served) -> None:
    with pytest.raises(errors.ControlError) as refused:
        served.ask("refuse")
    assert (refused.value.message, refused.value.hint) == ("no", "ask for something else")


def test_a_fault_of_ours_is_answered_too_and_harms_nobody(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level("CRITICAL", logger="pistributer.supervisor"),
        pytest.raises(errors.ControlError, match="by hand"),
    ):
        served.ask("break")
    assert served.ask(n=1)["n"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"garbage\n", "JSON object"),
        (b"\n", "JSON object"),
        (b"[]\n", "JSON object"),
        (b'{"v": 1}\n', "'do'"),
        (b'{"v": 1, "do": 7}\n', "'do'"),
        (b'{"v": 2, "do": "tell"}\n', "version 1, not 2"),
        (b'{"do": "tell"}\n', "version 1, not None"),
        (b'"\xff\xfe"\n', "JSON object"),
    ],
)
def test_garbage_is_refused_and_the_next_line_is_heard(served: Served, line: bytes, words: str) -> None:
    with served.connect() as client:
        client.sendall(line + request(n=1))
        refused, heard = lines(client, 2)
    assert (refused["ok"], heard["ok"]) == (False, True)
    assert words in refused["error"]


def test_a_line_without_an_end_is_hung_up_on(served: Served) -> None:
    with served.connect() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                client.sendall(b"x" * 4096)
        assert heard(client) == b""
    assert served.ask(n=2)["n"] == 2


def test_half_a_line_and_silence_holds_nobody_up(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b'{"v": 1, "do": "te')
        assert served.ask(n=3)["n"] == 3


def test_who_does_not_read_is_not_read_from_and_holds_nobody_up(served: Served) -> None:
    with served.connect() as client:
        client.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 50_000_000:
                sent += client.send(request(size=100_000))
        assert sent < 5_000_000  # what the kernel holds, not what the supervisor has eaten
        before = served.steps
        assert served.ask(n=4)["n"] == 4
        wait_for(lambda: served.steps > before + 3)
        client.settimeout(DEADLINE)
        assert lines(client, 1)[0]["ok"]


def test_who_hangs_up_in_the_middle_harms_nobody(served: Served) -> None:
    for data in (b"", b"{", request(size=1_000_000)):
        client = served.connect()
        client.sendall(data)
        # Closing with RST, as a killed client's kernel may do.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert served.ask(n=5)["n"] == 5


def test_a_thousand_connections_cost_no_more_than_a_few(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            client = stack.enter_context(served.connect())
            client.sendall(b"{")
        assert served.ask(n=6)["n"] == 6
        open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        # 1000 of ours, and those that the server still has.
        assert open_now < 1000 + 150
    assert served.ask(n=7)["n"] == 7


def test_an_idle_server_uses_no_processor_time(served: Served) -> None:
    with served.connect():
        before, begun = served.steps, time.thread_time()
        wait_for(lambda: served.steps >= before + 3)
        assert time.thread_time() - begun < 1.0
        assert served.steps < before + 100


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.binary(max_size=300), max_size=5))
def test_no_bytes_break_it(served: Served, data: list[bytes]) -> None:
    with served.connect() as client:
        for piece in data:
            client.sendall(piece)
    assert served.ask(n=8)["n"] == 8


@pytest.mark.parametrize("length", [10, 90, 103, 104, 107, 108, 109, 200])
def test_the_path_may_be_of_any_length(tmp_path: Path, length: int) -> None:
    folder = tmp_path
    while (missing := length - len(os.fsencode(str(folder))) - len("/control/socket")) > 1:
        folder = folder / ("d" * min(100, missing - 1))
    folder.mkdir(parents=True, exist_ok=True)
    with Served(folder) as server:
        assert server.ask(n=9)["n"] == 9


def test_a_long_path_goes_through_a_link_where_there_is_no_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets.sys, "platform", "darwin")
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    with Served(folder) as server:
        assert server.ask(n=9)["n"] == 9


def test_a_folder_that_can_not_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    supervisor = Supervisor([Role("w", targets.stay)])
    with pytest.raises(errors.StorageError, match="make the control socket"):
        ControlServer(str(tmp_path / "control"), supervisor, answer)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda folder: None, errors.NoSupervisor),
        (lambda folder: (folder / "control").mkdir(), errors.NoSupervisor),
    ],
    ids=["no socket", "no supervisor behind the folder"],
)
def test_who_is_not_there_is_told_so(tmp_path: Path, make: Callable[[Path], object], error: type[Exception]) -> None:
    make(tmp_path)
    with pytest.raises(error):
        control._ask(str(tmp_path), 77, "status", {})


def test_who_hangs_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.1)
    (tmp_path / "control").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control" / "socket"))
        silent.listen()
        with pytest.raises(errors.ControlError, match="did not answer within"):
            control._ask(str(tmp_path), 77, "status", {})
