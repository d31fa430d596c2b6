"""A small web service that answers what it was given, and that can limit, fail, be slow and hang up, as services do."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebService:
    """What it answers, and what it saw."""

    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`GET /path` or `POST /path body` -> {status, json or text}; others are 404."""
    key: str | None = None
    """What the header Authorization must be; else 401."""
    most_at_once: int | None = None
    """Requests in any second beyond this many are answered 429 with Retry-After: 1."""
    first: list[int | str] = field(default_factory=list)
    """Statuses for the first requests, `slow` for one that takes two seconds, `gone` for one whose connection is closed."""
    url: str = ""
    seen: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    _times: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def status_of(self, question: str, authorization: str | None) -> tuple[int | str, Mapping[str, Any]]:
        """What to say to a question."""
        with self._lock:
            self.seen.append(question)
            if self.first:
                return self.first.pop(0), {}
            if self.key is not None and authorization != self.key:
                return 401, {}
            present = time.monotonic()
            self._times = [each for each in self._times if each > present - 1]
            if self.most_at_once is not None and len(self._times) >= self.most_at_once:
                return 429, {}
            self._times.append(present)
            answer = self.answers.get(question)
            return (404, {}) if answer is None else (answer["status"], answer)


@contextmanager
def running(service: WebService) -> Iterator[WebService]:
    """The service at its `url`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            question = f"{self.command} {self.path}" + (f" {body}" if body else "")
            status, answer = service.status_of(question, self.headers.get("Authorization"))
            if status == "gone":
                self.close_connection = True
                return
            if status == "slow":
                time.sleep(2)
                status = 200
            content = json.dumps(answer["json"]).encode() if "json" in answer else str(answer.get("text", "{}")).encode()
            service.statuses[int(status)] += 1
            self.send_response(int(status))
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "1")
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        do_GET = answer
        do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            _ = format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
