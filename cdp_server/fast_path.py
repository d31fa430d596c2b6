"""The way of nearly all requests: whole, to a known path, and good. The connection itself answers them, without ASGI's messages.

uvicorn makes a scope, a task and four messages of each request, and looks at each header of the answer with two regular expressions: that is most
of what a bare application costs. Whatever cannot be answered with success here, and what does not come whole within a short time, is handed to the
application as if it had never been here, so every refusal is written in one place. What this relies on of uvicorn's connection is compared
with its own way in tests/server/test_fast_path.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from cdp_server.http import AtOnce, Headers, Success
from cdp_server.metrics import Metrics
from cdp_server.request_head import HEAD_BYTES, LimitedHeads

_log = logging.getLogger(__name__)
_BODY_SECONDS = 0.5
"""How long the rest of a body may take; the application gives it the declared time after that."""


class _Nobody:
    def set(self) -> None:
        """Nobody waits for the event of a request that is answered here."""


class _Request:
    """One request that is under way here. To uvicorn's connection it is a cycle."""

    message_event = _Nobody()
    keep_alive = True
    disconnected = False
    response_complete = False
    body = b""
    answer: Success | None = None

    def __init__(self, url: bytes, sent: Headers, headers: Mapping[bytes, bytes], route: str, take: AtOnce) -> None:
        """`headers` are the ones `sent`, by name."""
        self.url = url
        self.sent = sent
        self.headers = headers
        self.route = route
        self.take = take


class FastPath(LimitedHeads):
    """One connection."""

    _awaited: _Request | None = None
    """The request whose body is not yet whole."""
    _body_deadline: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, routes: Mapping[bytes, tuple[str, AtOnce]], metrics: Metrics, **named: Any) -> None:
        """`routes`: path -> the name of its route and what takes requests; `metrics` are told of what is answered here."""
        super().__init__(*arguments, **named)
        self._routes = routes
        self._metrics = metrics
        self._answered_at = 0.0
        self._of_every_answer: list[tuple[bytes, bytes]] = []
        self._beginning = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._awaited = None
        self._forget_body_deadline()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._awaited is None:
            return
        if len(self._awaited.body) > HIGH_WATER_LIMIT:
            self._give_up()
        elif self._body_deadline is None:
            self._body_deadline = self.loop.call_later(_BODY_SECONDS, self._give_up)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers = dict(self.headers)
        found = self._routes.get(self.url)
        if (
            found is not None
            and self.unread <= HEAD_BYTES
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.should_keep_alive()
            # Without this header HTTP/1.0 does not keep alive, and nothing is upgraded.
            and (b"connection" not in headers or self._is_plain())
            and b"expect" not in headers
            and not self.flow.write_paused
        ):
            self.unread = 0
            self._awaited = self.cycle = _Request(self.url, self.headers, headers, *found)  # type: ignore[assignment]
            return
        self.expect_100_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self.scope = self._scope(self.headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        request = self._awaited
        if request is None:
            super().on_body(body)
            return
        self.unread = 0
        request.body = request.body + body if request.body else body

    def on_message_complete(self) -> None:
        request = self._awaited
        if request is None:
            super().on_message_complete()
            return
        self.unread = 0
        self._awaited = None
        if self._body_deadline is not None:
            self._forget_body_deadline()
        peer = self.client[0] if self.client else None
        try:
            request.answer = request.take(request.sent, request.headers, peer, request.body, partial(self._stored, request))
        except Exception as error:  # the application meets it too, and answers it
            _log.error("a request cannot be taken at once: %s", type(error).__name__)
        if request.answer is None:
            self._hand_over(request, is_whole=True)

    def _stored(self, request: _Request, is_stored: bool) -> None:
        """Say that everything is on disk, or let the application try again and say what is wrong."""
        if not is_stored:
            self._hand_over(request, is_whole=True)
            return
        assert request.answer is not None
        self._metrics.requests[request.route, 200] += 1
        self._metrics.received_bytes += len(request.body)
        if request.disconnected or self.transport.is_closing():
            return
        close = b"" if request.keep_alive else b"connection: close\r\n"
        if self._of_every_answer is not self.server_state.default_headers:  # uvicorn makes them once a second
            self._of_every_answer = self.server_state.default_headers
            self._beginning = _beginning(tuple(self._of_every_answer))
        self.transport.write(self._beginning + close + request.answer.success())
        request.response_complete = True
        request.body = b""  # the connection may rest for a while
        if not request.keep_alive:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_idle)

    def _hand_over(self, request: _Request, *, is_whole: bool) -> None:
        """Let the application answer."""
        if request.disconnected:
            return
        scope = self._scope(request.sent)
        scope |= {"method": "POST", "path": request.url.decode("ascii"), "raw_path": request.url, "query_string": b""}
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=request.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += request.body
        cycle.more_body = not is_whole
        cycle.message_event.set()
        if cast(object, self.cycle) is request:  # and not one that came after it
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _is_plain(self) -> bool:
        return self.parser.get_http_version() == "1.1" and not self.parser.should_upgrade()

    def _scope(self, headers: Headers) -> Any:
        """What uvicorn makes at the beginning of every message, for one that it is needed for."""
        begun = self.url, self.expect_100_continue, self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue, self.headers = begun
        scope: Any = self.scope
        scope["headers"] = headers
        return scope

    def _close_idle(self) -> None:
        """One timer for many requests: it looks when the last was answered, where uvicorn makes and cancels one for each."""
        self._idle_timer = None
        if self.unread or not self.cycle.response_complete:
            return  # the next answer begins anew
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._close_idle)
        else:
            self.timeout_keep_alive_handler()

    def _give_up(self) -> None:
        request, self._awaited = self._awaited, None
        self._forget_body_deadline()
        if request is not None:
            self._hand_over(request, is_whole=False)

    def _forget_body_deadline(self) -> None:
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None


@lru_cache(maxsize=4)
def _beginning(of_every_answer: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The status line and headers."""
    return STATUS_LINE[200] + b"".join([b"%b: %b\r\n" % each for each in of_every_answer])
