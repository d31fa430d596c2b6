"""What requests to a source say about their sender beside the message: cookies, headers that are kept, signals that ask not to be tracked.

The message is not here, and nothing is stored.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Literal, NamedTuple

import msgspec

from cdp_assets.raw_events.http_visitor import Answer, IdCookie
from cdp_assets.raw_events.spec import HttpSource

_KEPT_LENGTH = 1024
"""Characters of a kept header or cookie; what is longer is cut."""
_ASKING = (b"sp-anonymous", b"dnt", b"sec-gpc", b"x-ip-policy")
"""Headers by which a sender asks for less."""
_POLICIES: dict[bytes, Literal["shortened", "removed"]] = {b"remove": "removed", b"striplastoctet": "shortened"}
_ID = re.compile(r"[A-Za-z0-9._-]{8,100}")
_DAY = 86_400
REMEMBERED = 4_096
"""Senders whose headers are not read anew each time."""
_REMEMBERED_BYTES = 4_096
"""Longest headers that are remembered, so that all senders take at most some 16 MB."""


class Visitor(NamedTuple):
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
    """Reads that out of the headers. A browser says the same each time, so what was read of the last ones is remembered."""

    def __init__(self, spec: HttpSource) -> None:
        self._signals, self._cookie = spec.signals, spec.id_cookie
        self._kept_headers, self._kept_cookies = spec.keep_headers, spec.keep_cookies
        own = () if self._cookie is None else (self._cookie.name,)
        names = "|".join(map(re.escape, (*spec.keep_cookies, *own)))
        self._cookies = re.compile(rf"(?:^|;)\s*({names})=([^;]*)") if names else None
        self._attributes = "" if self._cookie is None else _attributes(self._cookie)
        kept = [name.encode() for name in spec.keep_headers]
        self._read = (*_ASKING, *kept, *([b"cookie"] if names else []))
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._look)

    def of(self, headers: Mapping[bytes, bytes]) -> Visitor:
        """The visitor of a request; one without a good id cookie gets a new id where the source sets one."""
        values = tuple(map(headers.get, self._read))
        is_long = sum(map(len, filter(None, values))) > _REMEMBERED_BYTES
        found = self._look(values) if is_long else self._remembered(values)
        if self._cookie is None or found.cookie_id is not None or found.is_anonymous:
            return found
        cookie_id = str(uuid.uuid4())
        return found._replace(cookie_id=cookie_id, set_cookie=self._set_cookie(cookie_id))

    def _look(self, values: tuple[bytes | None, ...]) -> Visitor:
        """Most visitors are new to a busy collector, so this is done once per request: whatever is not there is passed over early."""
        sp_anonymous, do_not_track, privacy_control, policy = values[: len(_ASKING)]
        is_anonymous = is_dropped = False
        if sp_anonymous is not None or do_not_track == b"1" or privacy_control == b"1":
            is_anonymous, is_dropped = self._asked(sp_anonymous is not None, do_not_track == b"1", privacy_control == b"1")
        cookies: Mapping[str, str] = {}
        if self._cookies is not None and not is_anonymous and (sent := values[-1]) is not None:
            cookies = _cookies(sent, self._cookies)
        cookie_id = None if self._cookie is None else cookies.get(self._cookie.name)
        if cookie_id is not None and not _ID.fullmatch(cookie_id):
            cookie_id = None
        return Visitor(
            is_anonymous,
            is_dropped,
            "removed" if is_anonymous else "whole" if policy is None else _POLICIES.get(policy.lower(), "whole"),
            cookie_id,
            None if cookie_id is None else self._set_cookie(cookie_id),
            self._request(values[len(_ASKING) :], cookies),
        )

    def _asked(self, sp_anonymous: bool, do_not_track: bool, privacy_control: bool) -> tuple[bool, bool]:
        """Whether a visitor who asks so is given no id, and whether nothing at all is stored."""
        answers: set[Answer] = set()
        if sp_anonymous:
            answers.add(self._signals.sp_anonymous)
        if do_not_track:
            answers.add(self._signals.do_not_track)
        if privacy_control:
            answers.add(self._signals.global_privacy_control)
        return not answers.isdisjoint(("drop", "anonymous")), "drop" in answers

    def _set_cookie(self, cookie_id: str) -> bytes:
        assert self._cookie is not None
        return f"{self._cookie.name}={cookie_id}{self._attributes}".encode("ascii")

    def _request(self, values: Iterable[bytes | None], cookies: Mapping[str, str]) -> str | None:
        """`values` begin with those of the headers that are kept."""
        said = {
            name: value.decode("latin-1")[:_KEPT_LENGTH]
            for name, value in zip(self._kept_headers, values, strict=False)
            if value is not None
        }
        held = {name: cookies[name][:_KEPT_LENGTH] for name in self._kept_cookies if name in cookies}
        if not (said or held):
            return None
        text = msgspec.json.encode({"headers": said, "cookies": held})
        # Lines of the inbox are ASCII up to the message.
        return text.decode() if text.isascii() else json.dumps({"headers": said, "cookies": held}, separators=(",", ":"))


def _attributes(cookie: IdCookie) -> str:
    """What follows the value of the cookie in its header."""
    parts = ["", f"Max-Age={cookie.max_age_days * _DAY}", "Path=/", "HttpOnly", f"SameSite={cookie.same_site.capitalize()}"]
    parts += ["Secure"] if cookie.secure else []
    parts += [f"Domain={cookie.domain}"] if cookie.domain is not None else []
    return "; ".join(parts)


def _cookies(header: bytes, wanted: re.Pattern[str]) -> dict[str, str]:
    """Name -> value of those that are wanted, each by itself, since one that is broken must not hide the others."""
    found: dict[str, str] = {}
    for name, text in wanted.findall(header.decode("latin-1")):
        if name in found:
            continue
        value = text.rstrip()
        if value.startswith('"'):
            try:
                value = SimpleCookie(f"quoted={value}")["quoted"].value
            except (CookieError, KeyError):
                continue
        found[name] = value.replace("\0", "")
    return found
