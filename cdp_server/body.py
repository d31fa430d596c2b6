"""Reading a request's body within limits, and undoing gzip. What the body means is not here."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from contextlib import suppress

from cdp_server.http import HttpError, Receive

_GZIP = b"\x1f\x8b"
_DRAINED_BYTES = 64 * 1024 * 1024


class ClientGoneError(Exception):
    """The connection closed before the body was whole; nobody waits for an answer."""


class BadGzipError(ValueError):
    """The body is gzip that is torn or wrong; `partial` is what could be read of it."""

    def __init__(self, partial: bytes) -> None:
        super().__init__("gzip is truncated or corrupt")
        self.partial = partial


class BodyReader:
    """Reads bodies, and knows how many bytes of unfinished ones are in memory."""

    def __init__(self, max_reading_bytes: int, timeout: float) -> None:
        self._max_reading_bytes = max_reading_bytes
        self._timeout = timeout
        self.reading_bytes = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
        """The whole body as sent. Raises HttpError 413 over `limit` bytes, 408, 429, and ClientGoneError."""
        if b"expect" in headers and int(headers.get(b"content-length", b"0")) > limit:
            raise _too_large(limit)  # the client waits to be told before it sends
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            body = await self._rest(body, receive, limit)
        if len(body) > limit:
            raise _too_large(limit)
        return body

    async def drain(self, receive: Receive) -> None:
        """Read a body that nobody wants, so that the sender hears the answer; given up after a time or a size."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while size <= _DRAINED_BYTES:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    async def _rest(self, first: bytes, receive: Receive, limit: int) -> bytes:
        held = len(first)
        chunks = [first]
        size = held
        self.reading_bytes += held
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        # Read on without keeping: a client that is still sending would see a reset instead of the answer.
                        chunks.clear()
                        self.reading_bytes -= held
                        held = 0
                        if size > max(limit, _DRAINED_BYTES):
                            raise _too_large(limit)
                    else:
                        chunks.append(chunk)
                        held += len(chunk)
                        self.reading_bytes += len(chunk)
                        if self.reading_bytes > self._max_reading_bytes:
                            raise HttpError(
                                429, "overloaded", "too much is being received; send again", retry_after=1, close=True
                            )
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise HttpError(408, "timeout", "the body did not arrive in time", close=True) from None
        finally:
            self.reading_bytes -= held
        if size > limit:
            raise _too_large(limit)
        return b"".join(chunks)


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "too_large", f"the body is longer than {limit} bytes", close=True)


def decompressed(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """The body without its gzip, known by its first bytes: senders label wrongly, and JSON never begins with them.

    Raises BadGzipError; HttpError 413 when it unpacks to more than `limit` bytes, 415 for another encoding.
    """
    if body[:2] != _GZIP:
        if encoding is not None and encoding.strip().lower() in (b"br", b"zstd", b"deflate", b"compress"):
            raise HttpError(415, "unsupported_encoding", "Content-Encoding is gzip or nothing")
        return body
    parts: list[bytes] = []
    size = 0
    while body:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(body, limit - size + 1)
        except zlib.error:
            raise BadGzipError(b"".join(parts)) from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not stream.eof:
            raise BadGzipError(b"".join(parts))
        body = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)
