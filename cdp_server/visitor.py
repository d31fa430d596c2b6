"""What requests to a source say about their sender beside the message: cookies, headers that are kept, signals that ask not to be tracked.

The message is not here, and nothing is stored.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Literal

import msgspec

from cdp_assets.raw_events.http_visitor import Answer, IdCookie
from cdp_assets.raw_events.spec import HttpSource

_KEPT_LENGTH = 1024
"""Characters of a kept header or cookie; what is longer is cut."""
_POLICIES: dict[bytes, Literal["shortened", "removed"]] = {b"remove": "removed", b"striplastoctet": "shortened"}
_ID = re.compile(r"[A-Za-z0-9._-]{8,100}")
_DAY = 86_400


class Visitor(msgspec.Struct, frozen=True, gc=False):
    """What one request says about its sender."""

    is_anonymous: bool = False
    """It asks not to be tracked, and the source does as told: it is given no id."""
    is_dropped: bool = False
    """Nothing of it is stored at all."""
    address: Literal["whole", "shortened", "removed"] = "whole"
    """What is kept of its address."""
    cookie_id: str | None = None
    """Its id by the source's own cookie."""
    set_cookie: bytes | None = None
    """The header that sets it."""
    request: str | None = None
    """JSON of the headers and cookies that the source keeps."""


class Visitors:
    """Reads that out of the headers. Nothing is remembered: to a busy collector most visitors are new, and cookies are theirs."""

    def __init__(self, spec: HttpSource) -> None:
        self._signals, self._cookie = spec.signals, spec.id_cookie
        self._kept_headers = [(name, name.encode()) for name in spec.keep_headers]
        self._kept_cookies = spec.keep_cookies
        own = () if self._cookie is None else (self._cookie.name,)
        names = "|".join(map(re.escape, (*spec.keep_cookies, *own)))
        self._cookies = re.compile(rf";\s*({names})=([^;]*)") if names else None
        self._attributes = "" if self._cookie is None else _attributes(self._cookie)

    def of(self, headers: Mapping[bytes, bytes]) -> Visitor:
        """The visitor of a request; one without a good id cookie gets a new id where the source sets one."""
        is_anonymous, is_dropped = self._asked(headers)
        cookies: Mapping[str, str] = {}
        if self._cookies is not None and not is_anonymous and (sent := headers.get(b"cookie")) is not None:
            cookies = _cookies(sent, self._cookies)
        cookie_id = set_cookie = None
        if self._cookie is not None and not is_anonymous:
            cookie_id = cookies.get(self._cookie.name)
            if cookie_id is None or not _ID.fullmatch(cookie_id):
                cookie_id = str(uuid.uuid4())
            set_cookie = f"{self._cookie.name}={cookie_id}{self._attributes}".encode("ascii")
        policy = headers.get(b"x-ip-policy")
        return Visitor(
            is_anonymous,
            is_dropped,
            "removed" if is_anonymous else "whole" if policy is None else _POLICIES.get(policy.lower(), "whole"),
            cookie_id,
            set_cookie,
            self._request(headers, cookies),
        )

    def _asked(self, headers: Mapping[bytes, bytes]) -> tuple[bool, bool]:
        """Whether the sender asks for no id, and whether for nothing to be stored at all."""
        answers: list[Answer] = []
        if b"sp-anonymous" in headers:
            answers.append(self._signals.sp_anonymous)
        if headers.get(b"dnt") == b"1":
            answers.append(self._signals.do_not_track)
        if headers.get(b"sec-gpc") == b"1":
            answers.append(self._signals.global_privacy_control)
        is_dropped = "drop" in answers
        return is_dropped or "anonymous" in answers, is_dropped

    def _request(self, headers: Mapping[bytes, bytes], cookies: Mapping[str, str]) -> str | None:
        said: dict[str, str] = {}
        for name, sent in self._kept_headers:
            if (value := headers.get(sent)) is not None:
                said[name] = value[:_KEPT_LENGTH].decode("latin-1")
        held: dict[str, str] = {}
        for name in self._kept_cookies:
            if (text := cookies.get(name)) is not None:
                held[name] = text[:_KEPT_LENGTH]
        if not (said or held):
            return None
        encoded = msgspec.json.encode({"headers": said, "cookies": held})
        # Lines of the inbox are ASCII up to the message.
        return encoded.decode() if encoded.isascii() else json.dumps({"headers": said, "cookies": held}, separators=(",", ":"))


def _attributes(cookie: IdCookie) -> str:
    """What follows the value of the cookie in its header."""
    parts = ["", f"Max-Age={cookie.max_age_days * _DAY}", "Path=/", "HttpOnly", f"SameSite={cookie.same_site.capitalize()}"]
    parts += ["Secure"] if cookie.secure else []
    parts += [f"Domain={cookie.domain}"] if cookie.domain is not None else []
    return "; ".join(parts)


def _cookies(header: bytes, wanted: re.Pattern[str]) -> dict[str, str]:
    """Name -> value of those that are wanted, each by itself, since one that is broken must not hide the others."""
    text = ";" + header.decode("latin-1")  # a pattern that begins with one character is searched several times as fast
    pairs = wanted.findall(text)
    if '"' not in text and "\0" not in text and "\t" not in text and " ;" not in text and text[-1] != " ":
        return dict(pairs[::-1])  # of two with one name the first counts
    found: dict[str, str] = {}
    for name, rest in pairs:
        if name in found:
            continue
        value = rest.rstrip(" \t")
        if value.startswith('"'):
            try:
                value = SimpleCookie(f"quoted={value}")["quoted"].value
            except (CookieError, KeyError):
                continue
        found[name] = value.replace("\0", "")
    return found
