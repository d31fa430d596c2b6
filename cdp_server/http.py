"""Raw ASGI: one application that finds the route, and the JSON answers. What routes do is in their own modules."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Handler(Protocol):
    """Answers the requests of one path, and returns the status it answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> int:
        """Answer one request. An HttpError raised before anything was sent becomes the answer."""


class HttpError(Exception):
    """An answer that is no success: a status, a `code` for programs and a `message` for people, without values of anybody."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        close: bool = False,
        kept: bool = False,
        source: str | None = None,
    ) -> None:
        """`kept`: what was sent is on disk all the same, with the reason why it is no event. `source`: whose it is, where that is known;
        the debugger tells it, the answer does not."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.close = close
        self.kept = kept
        self.source = source


JSON = (b"content-type", b"application/json")
_ALLOWED_HEADERS = b"authorization, content-type, content-encoding, anonymousid, sentat, x-write-key, x-ip-policy, sp-anonymous"
_HEADER_NAMES = re.compile(rb"[a-z0-9-]+(\s*,\s*[a-z0-9-]+)*", re.IGNORECASE)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def cross_origin(origin: bytes | None) -> Headers:
    """The headers that let a page of another origin, with its credentials, read the answer; none for a request without origin."""
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    ]


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> int:
    """Send a whole answer; `content-length` is added."""
    start = {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
    return status


async def respond_json(scope: Scope, send: Send, status: int, body: bytes) -> int:
    """Send JSON, readable from the page that asked."""
    return await respond(send, status, body, [JSON, *cross_origin(header(scope, b"origin"))])


async def respond_error(scope: Scope, send: Send, error: HttpError) -> int:
    """Send the answer that an error stands for."""
    headers = [JSON, *cross_origin(header(scope, b"origin"))]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.close:
        headers.append((b"connection", b"close"))
    return await respond(send, error.status, json.dumps({"code": error.code, "message": error.message}).encode(), headers)


async def respond_preflight(scope: Scope, send: Send, methods: str) -> int:
    """Answer OPTIONS: what a page of another origin may send.

    Whatever headers are asked for are allowed: SDKs say more from version to version, RudderStack's only when it sends again, and a header that
    is not allowed costs the event.
    """
    asked = header(scope, b"access-control-request-headers") or b""
    headers = [
        *cross_origin(header(scope, b"origin")),
        (b"access-control-allow-methods", f"{methods}, OPTIONS".encode()),
        (b"access-control-allow-headers", asked if _HEADER_NAMES.fullmatch(asked) else _ALLOWED_HEADERS),
        (b"access-control-max-age", b"86400"),
    ]
    return await respond(send, 200, b"{}", [JSON, *headers])


class Success(Protocol):
    """What a request that was taken at once is answered."""

    def success(self) -> bytes:
        """Headers and body of the answer, as they follow the status line."""


class AtOnce(Protocol):
    """Takes the good requests of one path without ASGI's messages."""

    def __call__(
        self, sent: Headers, headers: Mapping[bytes, bytes], peer: str | None, body: bytes, stored: Callable[[bool], None], /
    ) -> Success | None:
        """Begin to store what a whole request says; None, and nothing done, where the answer would not be the usual success.

        `headers` are the ones `sent`, by name. `stored` is called later, with whether it is on disk.
        """


class Route:
    """A handler and the method it answers; `is_probed` also answers HEAD, by which some senders look whether the path is there.

    `at_once` takes what it can of a POST before the handler is asked.
    """

    def __init__(self, method: str, handler: Handler, *, is_probed: bool = False, at_once: AtOnce | None = None) -> None:
        self.method = method
        self.handler = handler
        self.at_once = at_once
        self.is_probed = is_probed or method == "GET"


class Part(Protocol):
    """A piece of the server with a beginning and an end, such as the collector."""

    async def start(self) -> None:
        """Called once, before the first request."""

    async def stop(self) -> None:
        """Called once, after the last request."""


class App:
    """The ASGI application: exact paths first, then prefixes, longest first, then the same by the path that an alias stands for."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        prefixes: Mapping[str, Route],
        parts: Iterable[Part],
        count: Callable[[str, int], None],
        refused: Callable[[str, HttpError], None],
        end_streams: Callable[[], None],
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """`prefixes` are for paths that carry a value. `count` is told the route ("other" for none) and status of each answer,
        `refused` the route and what it was answered instead of success. `end_streams` ends answers that have no end of their own.
        `aliases`: other name of a path, or of the beginning of paths -> the path.
        """
        self.end_streams = end_streams
        self._routes = dict(routes)
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))
        self._aliases = sorted((aliases or {}).items(), key=lambda item: -len(item[0]))
        self._parts = list(parts)
        self._count = count
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"no answer to a scope of type {scope['type']!r}")
        name = scope["path"]
        route = self._routes.get(name)
        if route is None:
            name, route = self._search(name)
            if route is None and self._aliases:
                name, route = self._search(self._unaliased(scope))
        try:
            if route is None:
                raise HttpError(404, "not_found", "no such path")
            method = scope["method"]
            if method == route.method or (method == "HEAD" and route.is_probed):
                status = await route.handler(scope, receive, send)
            elif method == "OPTIONS":
                status = await respond_preflight(scope, send, route.method)
            else:
                raise HttpError(405, "method_not_allowed", f"this path answers {route.method}")
        except HttpError as error:
            self._refused(name, error)
            status = await respond_error(scope, send, error)
        self._count(name, status)

    def taken_at_once(self) -> dict[bytes, tuple[str, AtOnce]]:
        """Path -> the route's name and what takes good requests to it, also by the names that aliases give it."""
        own = {name: (name, route.at_once) for name, route in self._routes.items() if route.at_once is not None}
        found = dict(own)
        for alias, target in self._aliases:
            beginning = target.rstrip("/")
            for name, taken in own.items():
                path = alias + name[len(beginning) :]
                if (name == target or name.startswith(f"{beginning}/")) and self._search(path)[1] is None:
                    found.setdefault(path, taken)
        return {path.encode(): taken for path, taken in found.items()}

    def _search(self, path: str) -> tuple[str, Route | None]:
        trimmed = path.rstrip("/")
        if trimmed in self._routes:
            return trimmed, self._routes[trimmed]
        for prefix, route in self._prefixes:
            if path.startswith(prefix):
                return prefix, route
        return "other", None

    def _unaliased(self, scope: Scope) -> str:
        """The path that an alias stands for, also in the scope; an alias of all paths becomes the scope's `root_path`."""
        path: str = scope["path"]
        for alias, target in self._aliases:
            if path == alias or path.startswith(f"{alias}/"):
                scope["path"] = target.rstrip("/") + path[len(alias) :]
                if target == "/":
                    scope["root_path"] = alias
                return str(scope["path"])
        return path

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        started: list[Part] = []
        while True:
            message = await receive()
            try:
                if message["type"] == "lifespan.startup":
                    for part in self._parts:
                        await part.start()
                        started.append(part)
                    await send({"type": "lifespan.startup.complete"})
                elif message["type"] == "lifespan.shutdown":
                    while started:
                        await started.pop().stop()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
            except Exception as error:  # what escapes here uvicorn takes for an application that needs no start, and serves it
                phase = message["type"].removeprefix("lifespan.")
                reason = (
                    error if isinstance(error, OSError | RuntimeError) else type(error).__name__
                )  # others may quote what they read
                await send({"type": f"lifespan.{phase}.failed", "message": f"{phase} failed: {reason}"})
                return
