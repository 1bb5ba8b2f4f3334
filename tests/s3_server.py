"""moto's S3 over HTTP on loopback, one request at a time, and with the faults of a real network on demand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Environ = dict[str, Any]
#: What a fault does with a request: "500", "503" refuse it; "lost" does it and loses the answer; "rival" does it, lets another
#: write come between, and loses the answer.
Fault = str


class Server:
    """Serves until `stop`. Requests are done one by one, so that conditions are as atomic as those of AWS."""

    def __init__(self, *, conditional_deletes: bool = True) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self._conditional_deletes = conditional_deletes
        self._one = threading.Lock()
        #: Faults to come, by HTTP method, each for one request.
        self.faults: dict[str, list[Fault]] = {}
        self.rival: Callable[[], None] = lambda: None
        self.requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def options(self) -> dict[str, Any]:
        return {
            "endpoint": self.url,
            "access_key_id": "key",
            "secret_access_key": "s3cr3t",
            "region": "us-east-1",
            "retry_config": {"max_retries": 6, "backoff": _quick(), "retry_timeout": _seconds(20)},
        }

    def _serve(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        self.requests.append(f"{method} {environ['PATH_INFO']}")
        faults = self.faults.get(method)
        fault = faults.pop(0) if faults else None
        if fault in ("500", "503"):
            name = "InternalError" if fault == "500" else "SlowDown"
            start(f"{fault} {'Internal Server Error' if fault == '500' else 'Service Unavailable'}", _XML)
            return [f"<Error><Code>{name}</Code></Error>".encode()]
        answer = self._do(environ)
        if fault == "rival":
            self.rival()
        if fault in ("lost", "rival"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("the answer was lost")
        start(answer[0], answer[1])
        return answer[2]

    def _do(self, environ: Environ) -> tuple[str, list[tuple[str, str]], list[bytes]]:
        with self._one:
            if environ["REQUEST_METHOD"] == "DELETE" and not self._conditional_deletes:
                environ.pop("HTTP_IF_MATCH", None)
            return self._call(environ)

    def _call(self, environ: Environ) -> tuple[str, list[tuple[str, str]], list[bytes]]:
        kept: list[Any] = []
        body = self._app(environ, lambda status, headers, *_: kept.extend((status, headers)))
        return kept[0], kept[1], [b"".join(body)]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_XML = [("Content-Type", "application/xml")]


def _seconds(count: float) -> Any:
    import datetime

    return datetime.timedelta(seconds=count)


def _quick() -> dict[str, Any]:
    return {"init_backoff": _seconds(0.01), "max_backoff": _seconds(0.1), "base": 2.0}


@contextmanager
def serving(**params: Any) -> Iterator[Server]:
    """A server with empty buckets."""
    pytest.importorskip("moto.server", reason="the extra `test` brings moto")
    pytest.importorskip("obstore", reason="the extra `s3` brings obstore")
    from moto.s3.models import s3_backends

    server = Server(**params)
    try:
        yield server
    finally:
        server.stop()
        s3_backends.reset()
