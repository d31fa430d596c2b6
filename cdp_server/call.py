"""One authenticated request: whose it is, when it came, from where, and what it says about its sender beside the message.

Cookies that are set, headers that are kept, and signals that ask not to be tracked are here; the message is not.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie

from cdp_assets.raw_events.http_visitor import IdCookie
from cdp_resources import envelope, messages
from cdp_server.config import SourceEntry
from cdp_server.http import Headers, Scope, cross_origin

_KEPT_LENGTH = 1024
"""Characters of a kept header or cookie; what is longer is cut."""
_ID = re.compile(r"[A-Za-z0-9._-]{8,100}")
_DAY = 86_400


class Call:
    """One authenticated request."""

    request: str | None = None
    """JSON of the headers and cookies that the source keeps."""
    cookie_id: str | None = None
    """The visitor's id by the source's own cookie."""
    is_dropped = False
    """The sender asked not to be tracked, and the source does as told: nothing is stored."""
    set_cookie: bytes | None = None
    """The header that sets it."""

    def __init__(self, entry: SourceEntry, received_at: int, ip: str | None, headers: Mapping[bytes, bytes]) -> None:
        """`received_at` in microseconds since 1970 UTC."""
        self.source = entry
        self.received_at = received_at
        self.ip = ip
        self.origin = headers.get(b"origin")
        if entry.looks_closer or b"sp-anonymous" in headers or b"x-ip-policy" in headers:
            self._look_closer(headers)

    def head(self, type_: str | None, sent_at: object) -> bytes:
        return envelope.header(self.source.name, self.received_at, sent_at=sent_at, type=type_, ip=self.ip, request=self.request)

    def refused(self, text: bytes, reason: str, type_: str | None, sent_at: object = None) -> bytes:
        return envelope.refused(self.source.name, self.received_at, text, reason, sent_at=sent_at, type=type_, ip=self.ip)

    def completed(self, message: bytes) -> bytes:
        """The message, with the cookie's id where there is one and the message has no anonymousId."""
        return message if self.cookie_id is None else messages.with_anonymous_id(message, self.cookie_id)

    def answer_headers(self) -> Headers:
        """What belongs to every answer: readable for the page that asked, with the id cookie."""
        if self.set_cookie is None:
            return cross_origin(self.origin)
        return [*cross_origin(self.origin), (b"set-cookie", self.set_cookie)]

    def _look_closer(self, headers: Mapping[bytes, bytes]) -> None:
        spec = self.source.spec
        asked = {
            spec.signals.sp_anonymous if b"sp-anonymous" in headers else "ignore",
            spec.signals.do_not_track if headers.get(b"dnt") == b"1" else "ignore",
            spec.signals.global_privacy_control if headers.get(b"sec-gpc") == b"1" else "ignore",
        }
        self.is_dropped = "drop" in asked
        is_anonymous = self.is_dropped or "anonymous" in asked
        policy = headers.get(b"x-ip-policy", b"").lower()
        if is_anonymous or policy == b"remove":
            self.ip = None
        elif policy == b"striplastoctet":
            self.ip = _shortened(self.ip)
        cookies: Mapping[str, str] = {}
        if not is_anonymous and (spec.keep_cookies or spec.id_cookie):
            cookies = _cookies(headers.get(b"cookie", b""))
        if spec.id_cookie is not None and not is_anonymous:
            self.cookie_id = self._known_or_new(cookies.get(spec.id_cookie.name), spec.id_cookie)
        self.request = _kept(headers, spec.keep_headers, cookies, spec.keep_cookies)

    def _known_or_new(self, value: str | None, cookie: IdCookie) -> str:
        found = value if value is not None and _ID.fullmatch(value) else str(uuid.uuid4())
        parts = [f"{cookie.name}={found}", f"Max-Age={cookie.max_age_days * _DAY}", "Path=/", "HttpOnly"]
        parts.append(f"SameSite={cookie.same_site.capitalize()}")
        if cookie.secure:
            parts.append("Secure")
        if cookie.domain is not None:
            parts.append(f"Domain={cookie.domain}")
        self.set_cookie = "; ".join(parts).encode("ascii")
        return found


def _kept(
    headers: Mapping[bytes, bytes], names: Collection[str], cookies: Mapping[str, str], wanted: Collection[str]
) -> str | None:
    said = {name: headers[name.encode()].decode("latin-1")[:_KEPT_LENGTH] for name in names if name.encode() in headers}
    held = {name: cookies[name][:_KEPT_LENGTH] for name in wanted if name in cookies}
    return json.dumps({"headers": said, "cookies": held}, separators=(",", ":")) if said or held else None


def _cookies(header: bytes) -> dict[str, str]:
    """Name -> value, each cookie by itself, since one that is broken must not hide the others."""
    found: dict[str, str] = {}
    for part in header.decode("latin-1").split(";"):
        name, equals, text = part.strip().partition("=")
        if not equals or name in found:
            continue
        if text.startswith('"'):
            try:
                text = SimpleCookie(f"quoted={text}")["quoted"].value
            except (CookieError, KeyError):
                continue
        found[name] = text.replace("\0", "")
    return found


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

    def client_ip(self, scope: Scope) -> str | None:
        """The peer's address; behind trusted proxies, the last address of X-Forwarded-For that is not one of them."""
        client = scope.get("client")
        peer: str | None = client[0] if client else None
        if not self._networks or peer is None or not self._has(peer):
            return peer
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1").split(",")
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
