"""Stand-ins for vendors: real HTTP servers that answer as a vendor documents, check what they get, and can be told to misbehave.

`python -m demo.vendors --port 9009` serves one until it is stopped; tests start one in a thread. Loopback only.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import random
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True)
class Misbehaviour:
    """How the vendor treats requests. `POST /_control` takes any of these fields as JSON and keeps the others."""

    rate_limit_count: int = 0
    """This many requests get 429."""
    retry_after: str = "0"
    """The `Retry-After` of a 429."""
    error_share: float = 0.0
    """Share of requests that get 500 without any effect."""
    error_after_share: float = 0.0
    """Share of requests that take effect and get 500 all the same."""
    drop_share: float = 0.0
    """Share of requests that take effect and whose connection is then closed without an answer."""
    drop_count: int = 0
    """This many requests take effect, and their connection is closed without an answer."""
    delay_seconds: float = 0.0
    """Every answer takes this long."""
    is_down: bool = False
    """Every request gets 503."""
    refuse_keys: tuple[str, ...] = ()
    """Records with these keys are not taken."""
    refuse_by: Literal["batch", "row"] = "batch"
    """batch: 400 for the whole request. row: 207 with a result per row."""
    later_keys: tuple[str, ...] = ()
    """Records with these keys get the result `retry`, in the next `later_count` requests that hold one."""
    later_count: int = 0
    """See `later_keys`."""
    busy_count: int = 0
    """This many requests that were received before get 409: it says that it still works at the first."""
    status: int = 0
    """Every request gets this status without any effect, if not 0."""
    seed: int = 0
    """Seed of what happens by share."""


@dataclass
class _Stored:
    """What the vendor holds."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[str, tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)


class WebhookVendor:
    """A receiver of the webhook destination: keeps the present record per sync and key, deduplicates by `Idempotency-Key`.

    With a `secret`, requests without a right `X-CDP-Signature` get 401. Use as a context manager; `url` is where to post.
    """

    def __init__(self, port: int = 0, secret: str | None = None, misbehaviour: Misbehaviour | None = None) -> None:
        self._secret = secret
        self._misbehaviour = misbehaviour or Misbehaviour()
        self._random = random.Random(self._misbehaviour.seed)
        self._lock = threading.Lock()
        self._stored = _Stored()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where records are posted."""
        return f"http://127.0.0.1:{self.port}/records"

    def __enter__(self) -> WebhookVendor:
        self._thread = threading.Thread(target=self.serve, name="webhook-vendor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serve(self) -> None:
        """Serve until stopped."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stop listening; what is stored can still be read."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()

    def control(self, **changes: Any) -> None:
        """Change how it misbehaves."""
        with self._lock:
            self._misbehaviour = replace(self._misbehaviour, **changes)
            self._random = random.Random(self._misbehaviour.seed)

    def reset(self) -> None:
        """Forget everything, and behave."""
        with self._lock:
            self._stored = _Stored()
        self.control(**vars(Misbehaviour()))

    def state(self, sync: str | None = None) -> dict[str, Any]:
        """The records by key: of one sync, or of every sync by name."""
        with self._lock:
            if sync is not None:
                return dict(self._stored.records.get(sync, {}))
            return {name: dict(records) for name, records in self._stored.records.items()}

    def stats(self) -> dict[str, int]:
        """Counts: requests, deduplicated, upserts, deletes, refused, conflicts, and `status_<code>`."""
        with self._lock:
            return {"requests": 0, "deduplicated": 0, "upserts": 0, "deletes": 0, "conflicts": 0, **self._stored.stats}

    def request_times(self) -> list[float]:
        """When requests came in, in seconds of the monotonic clock."""
        with self._lock:
            return list(self._stored.times)

    def receive(
        self, body: bytes, idempotency_key: str | None, signature: str | None
    ) -> tuple[int, dict[str, str], bytes] | None:
        """The answer to a post: status, headers, body; None when the connection is to be closed without one."""
        with self._lock:
            misbehaviour = self._misbehaviour
            self._count("requests")
            self._stored.times.append(time.monotonic())
        if misbehaviour.delay_seconds:
            time.sleep(misbehaviour.delay_seconds)
        with self._lock:
            answer = self._answer(misbehaviour, body, idempotency_key, signature)
            self._count(f"status_{answer[0] if answer else 'none'}")
        if answer is None:
            return None
        status, headers, content = answer
        return status, headers, json.dumps(content).encode()

    def _count(self, name: str, by: int = 1) -> None:
        self._stored.stats[name] = self._stored.stats.get(name, 0) + by

    def _answer(
        self, how: Misbehaviour, body: bytes, idempotency_key: str | None, signature: str | None
    ) -> tuple[int, dict[str, str], dict[str, Any]] | None:
        if how.is_down or how.status:
            return how.status or 503, {}, {"error": "unavailable"}
        if how.rate_limit_count:
            self._misbehaviour = replace(self._misbehaviour, rate_limit_count=self._misbehaviour.rate_limit_count - 1)
            return 429, {"Retry-After": how.retry_after}, {"error": "rate_limited"}
        if self._random.random() < how.error_share:
            return 500, {}, {"error": "internal"}
        if self._secret is not None:
            expected = "sha256=" + hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            if not hmac.compare_digest(expected, signature or ""):
                return 401, {}, {"error": "bad_signature"}
        if how.busy_count and idempotency_key in self._stored.answers:
            self._misbehaviour = replace(self._misbehaviour, busy_count=self._misbehaviour.busy_count - 1)
            return 409, {}, {"error": "still_working"}
        status, content = self._take(how, body, idempotency_key)
        if self._random.random() < how.error_after_share:
            return 500, {}, {"error": "internal"}
        if how.drop_count:
            self._misbehaviour = replace(self._misbehaviour, drop_count=self._misbehaviour.drop_count - 1)
            return None
        if self._random.random() < how.drop_share:
            return None
        return status, {}, content

    def _take(self, how: Misbehaviour, body: bytes, idempotency_key: str | None) -> tuple[int, dict[str, Any]]:
        try:
            message = json.loads(body)
            sync, operation, rows = message["sync"], message["operation"], message["rows"]
            keys = [row["key"] for row in rows]
            fields = [row["fields"] if operation == "upsert" else {} for row in rows]
        except (ValueError, KeyError, TypeError):
            return 422, {"error": "malformed"}
        if not idempotency_key or not rows or operation not in ("upsert", "delete") or len(set(keys)) != len(keys):
            return 422, {"error": "malformed"}
        content = hashlib.sha256(body).hexdigest()
        if idempotency_key in self._stored.answers:
            before, given = self._stored.answers[idempotency_key]
            if before != content:
                self._count("conflicts")
                return 409, {"error": "idempotency_key_reused"}
            self._count("deduplicated")
            return given
        refused = set(keys) & set(how.refuse_keys)
        if refused and how.refuse_by == "batch":
            return 400, {"error": "invalid_record"}
        later = set(keys) & set(how.later_keys) if how.later_count else set()
        if later:
            self._misbehaviour = replace(self._misbehaviour, later_count=self._misbehaviour.later_count - 1)
        records = self._stored.records.setdefault(sync, {})
        for key, row in zip(keys, fields, strict=True):
            if key in refused:
                self._count("refused")
            elif key in later:
                self._count("later")
            elif operation == "upsert":
                records[key] = row
                self._count("upserts")
            else:
                records.pop(key, None)
                self._count("deletes")
        answer: dict[str, Any] = {"received": len(rows)}
        status = 207 if refused or later else 200
        if status == 207:
            answer = {"results": [_result(key, key in refused, key in later) for key in keys]}
        self._stored.answers[idempotency_key] = (content, (status, answer))
        return status, answer


def _result(key: str, is_refused: bool, is_later: bool) -> dict[str, str]:
    if is_refused:
        return {"key": key, "status": "refused", "reason": "invalid_record"}
    return {"key": key, "status": "retry", "reason": "locked"} if is_later else {"key": key, "status": "ok"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away (a time-out, a killed process) is what this server is for."""


def _handler(vendor: WebhookVendor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/_control":
                changes = json.loads(body)
                vendor.control(**{name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()})
                return self._reply(200, {}, b"{}")
            answer = vendor.receive(body, self.headers.get("Idempotency-Key"), self.headers.get("X-CDP-Signature"))
            if answer is None:
                self.close_connection = True
                return None
            return self._reply(*answer)

        def do_GET(self) -> None:
            if self.path == "/_state":
                return self._reply(200, {}, json.dumps(vendor.state()).encode())
            if self.path == "/_stats":
                return self._reply(200, {}, json.dumps(vendor.stats()).encode())
            return self._reply(404, {}, b"{}")

        def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are counted, not printed: their bodies and addresses hold values of people."""

    return Handler


def main() -> None:
    """Serve a webhook receiver until interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in for a vendor that receives webhooks.")
    parser.add_argument("--port", type=int, default=9009)
    parser.add_argument("--secret-env", help="environment variable that holds the signing secret")
    arguments = parser.parse_args()
    secret = os.environ[arguments.secret_env] if arguments.secret_env else None
    vendor = WebhookVendor(arguments.port, secret)
    print(f"listening on {vendor.url}; GET /_state, GET /_stats, POST /_control", flush=True)  # noqa: T201
    try:
        vendor.serve()
    except KeyboardInterrupt:
        pass
    finally:
        vendor._server.server_close()


if __name__ == "__main__":
    main()
