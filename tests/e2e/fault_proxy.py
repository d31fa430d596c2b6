"""A small HTTP proxy in front of a server that goes wrong on purpose, in the ways that networks and servers do. What SDKs make of it is not here."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

FAULTS = ("500", "429", "dropped", "slow")
"""Answered 500 without being passed on; 429 with Retry-After 1, the same; passed on, and the connection dropped without an answer; answered late."""
_SLOW_SECONDS = 1.0
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "host"}


class FaultProxy:
    """Passes requests on to a port of this machine; the first POSTs meet one fault after the other of a list."""

    def __init__(self, port: int, faults: Sequence[str] = FAULTS) -> None:
        self.injected: list[str] = []
        self._waiting = list(faults)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, port))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, method: str) -> str | None:
        """What goes wrong with this request."""
        with self._lock:
            if method != "POST" or not self._waiting:
                return None
            self.injected.append(self._waiting.pop(0))
            return self.injected[-1]

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _handler(proxy: FaultProxy, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = proxy.fault(self.command)
            if fault in ("500", "429"):
                self._say(
                    int(fault), [("retry-after", "1")] if fault == "429" else [], b'{"code": "fault", "message": "on purpose"}'
                )
                return
            status, headers, answer = self._passed_on(body)
            if fault == "dropped":
                self.close_connection = True
                return
            if fault == "slow":
                time.sleep(_SLOW_SECONDS)
            self._say(status, headers, answer)

        do_GET = do_POST = do_OPTIONS = do_HEAD = do_any

        def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                headers["Host"] = self.headers.get("host", "")
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                return response.status, [each for each in response.getheaders() if each[0].lower() not in _HOP], response.read()
            finally:
                connection.close()

        def _say(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            origin = self.headers.get("origin")
            if status in (429, 500) and origin:
                headers = [*headers, ("access-control-allow-origin", origin), ("access-control-allow-credentials", "true")]
                headers.append(("access-control-expose-headers", "retry-after"))
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True  # the SDK gave up, as after an answer that was late

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
