"""One authenticated request: whose it is, when it came and from where.

What it says about its sender beside the message is in visitor.py; the message is not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache

from cdp_resources import envelope, messages
from cdp_server.config import SourceEntry
from cdp_server.http import JSON, Headers, Send, cross_origin, respond
from cdp_server.visitor import Visitor

_SUCCESS = b'{"success": true}'
_END = b"content-length: %d\r\n\r\n%b" % (len(_SUCCESS), _SUCCESS)


class Call:
    """One authenticated request."""

    visitor = Visitor()
    """What it says about its sender beside the message."""

    def __init__(self, entry: SourceEntry, received_at: int, ip: str | None, headers: Mapping[bytes, bytes]) -> None:
        """`received_at` in microseconds since 1970 UTC."""
        self.source = entry
        self.received_at = received_at
        self.ip = ip
        self.origin = headers.get(b"origin")
        if entry.looks_closer or b"sp-anonymous" in headers or b"x-ip-policy" in headers:
            self.visitor = entry.visitors.of(headers)
            if self.visitor.address != "whole":
                self.ip = None if self.visitor.address == "removed" else _shortened(ip)

    def head(self, type_: str | None, sent_at: object) -> bytes:
        return envelope.header(
            self.source.name, self.received_at, sent_at=sent_at, type=type_, ip=self.ip, request=self.visitor.request
        )

    def refused(self, text: bytes, reason: str, type_: str | None, sent_at: object = None) -> bytes:
        return envelope.refused(self.source.name, self.received_at, text, reason, sent_at=sent_at, type=type_, ip=self.ip)

    def checked(self, message: bytes, type_: str) -> tuple[bytes, messages.Message]:
        """The message, completed, and its checked fields. Raises RefusedMessageError with the reason."""
        most = self.source.spec.max_event_bytes
        if self.visitor.cookie_id is None:
            return message, messages.check(message, type_, most)
        # What has an anonymousId needs no other: most messages are read once.
        found = messages.check(message, type_, most, is_anybody_ok=True)
        if found.anonymousId not in (None, ""):
            return message, found
        message = self.completed(message)
        return message, messages.check(message, type_, most)

    def completed(self, message: bytes) -> bytes:
        """The message, with the cookie's id where there is one and the message has no anonymousId."""
        cookie_id = self.visitor.cookie_id
        return message if cookie_id is None else messages.with_anonymous_id(message, cookie_id)

    def answer_headers(self) -> Headers:
        """What belongs to every answer: readable for the page that asked, with the id cookie."""
        if self.visitor.set_cookie is None:
            return cross_origin(self.origin)
        return [*cross_origin(self.origin), (b"set-cookie", self.visitor.set_cookie)]

    async def succeed(self, send: Send) -> int:
        """Say that everything is on disk."""
        return await respond(send, 200, _SUCCESS, [JSON, *self.answer_headers()])

    def success(self) -> bytes:
        """The same as bytes, headers and body, as they follow the status line."""
        set_cookie = self.visitor.set_cookie
        cookie = b"" if set_cookie is None else b"set-cookie: " + set_cookie + b"\r\n"
        return _header_lines(self.origin) + cookie + _END


@lru_cache(maxsize=1024)
def _header_lines(origin: bytes | None) -> bytes:
    """The headers of a success up to the cookie. Pages of a site are of few origins."""
    return b"".join(b"%b: %b\r\n" % each for each in (JSON, *cross_origin(origin)))


def _shortened(ip: str | None) -> str | None:
    """The address without its last byte (IPv4) or its last ten (IPv6)."""
    if ip is None:
        return None
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False).network_address)


class Proxies:
    """Networks whose X-Forwarded-* headers are believed."""

    def __init__(self, networks: Collection[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._client_of = lru_cache(maxsize=10_000)(self._client)

    def client_ip(self, peer: str | None, sent: Headers, headers: Mapping[bytes, bytes]) -> str | None:
        """The peer's address; behind trusted proxies, the last address of X-Forwarded-For that is not one of them.

        `headers` are the ones `sent`, by name.
        """
        if not self._networks or peer is None:
            return peer
        forwarded = headers.get(b"x-forwarded-for", b"")
        if len(headers) != len(sent):  # some name stands twice: perhaps this one
            forwarded = b",".join([value for name, value in sent if name == b"x-forwarded-for"])
        return self._client_of(peer, forwarded)

    def _client(self, peer: str, forwarded: bytes) -> str:
        """Parsing and comparing addresses takes as long as all else that is done for a request, and most clients come again."""
        if not self._has(peer):
            return peer
        hops = forwarded.decode("latin-1").split(",")
        for hop in reversed([hop.strip() for hop in hops]):
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                return peer
            peer = address
            if not self._has(address):
                return address
        return peer

    def _has(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)
