"""What a request may send beside its body: a target and headers of bounded size, in bounded time. uvicorn and its parser know no limits.

Limits of bodies are in body.py; what targets and headers mean is the application's.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 65_536
"""Most bytes of target and headers together, and of what comes with the chunks of a body. A longer head is answered 431."""
TARGET_BYTES = 49_152
"""Longest target: an event of 32 KiB fits in it as base64, as pixels send it. A longer one is answered 414."""
HEAD_SECONDS = 20.0
"""Longest wait for a head to be whole, from its first byte or that of the connection; then the connection is closed."""
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1_048_576
_SEPARATORS = 4  # ": " and the end of the line

_TOO_LONG = {
    414: {"code": "target_too_long", "message": f"the target is over {TARGET_BYTES} bytes"},
    431: {"code": "head_too_large", "message": f"target and headers are over {HEAD_BYTES} bytes"},
}


class _TooLongError(Exception):
    """Ends the parser's work; `send_400_response` answers it."""


class LimitedHeads(HttpToolsProtocol):
    """One connection. The bytes of an unfinished head are counted by what is received, because the parser hands a header over when it is whole."""

    url = b""
    unread = 0
    """Bytes since the parser last told of a whole head, of a piece of a body, or of the end of a request."""
    _is_refused = False
    _deadline: asyncio.TimerHandle | None = None
    _too_long: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.unread += len(data)
        if self._is_refused:
            if self.unread > _LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self.unread:
            if self.unread > HEAD_BYTES and not self._is_refused:
                self._too_long = 414 if len(self.url) > TARGET_BYTES else 431
                self.send_400_response("")
            elif self._deadline is None:
                self._await_head()
        elif self._deadline is not None:
            self._forget_deadline()

    def on_headers_complete(self) -> None:
        if len(self.url) > TARGET_BYTES:
            self._too_long = 414
        elif self.unread > HEAD_BYTES and self._head_bytes() > HEAD_BYTES:
            self._too_long = 431
        if self._too_long is not None:
            raise _TooLongError
        self.unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.unread = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or none of a size that is read. What still comes is not looked at, or a reset would overtake the answer."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self._too_long is None:
            super().send_400_response(msg)
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # its sender would take this for the answer to what came before
            return
        body = json.dumps(_TOO_LONG[self._too_long]).encode()
        self.transport.write(
            STATUS_LINE[self._too_long]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        self._forget_deadline()
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _SEPARATORS for name, value in self.headers)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
