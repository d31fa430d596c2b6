"""The live debugger: `GET /v1/debug/events` shows as server-sent events what arrives at every collector of the inbox, and what becomes of it.

Only for who has the token. The inbox is followed while somebody looks, and only then; the judging is in live_events.py.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cdp_resources import clock
from cdp_resources.refusals import RefusalTeller
from cdp_server.config import DebugConfig, ServerConfig
from cdp_server.http import HttpError, Receive, Route, Scope, Send, cross_origin, header, respond

if TYPE_CHECKING:
    from cdp_server.live_events import LiveEvents, Look, Wanted

PATH = "/v1/debug/events"
MAX_LISTENERS = 8
MAX_WAITING = 2_000
"""Events that wait for a listener who reads slowly; of more the oldest are dropped, and their number is told."""
_LOOK_BYTES = 2 * 1024 * 1024
_ALIVE_SECONDS = 15.0
_STOP_SECONDS = 5
_FILTERS = ("source", "event", "status", "show_values")
_log = logging.getLogger(__name__)


class _Listener:
    """One who looks: what they want, and what waits for them."""

    def __init__(self, wanted: Wanted, *, with_values: bool) -> None:
        self.wanted = wanted
        self.with_values = with_values
        self.waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self.dropped = 0
        self.changed = asyncio.Event()
        self.is_over = False

    def put(self, look: Look) -> None:
        for event in look.events:
            if self.wanted.takes(event):
                self.dropped += len(self.waiting) == MAX_WAITING
                self.waiting.append(_sent(event.shown(with_values=self.with_values)))
        if look.skipped_bytes:
            self.waiting.append(_sent({"bytes": look.skipped_bytes}, "skipped"))
        self.changed.set()

    def take(self) -> bytes:
        """Everything that waits, as server-sent events."""
        if self.dropped:
            self.waiting.appendleft(_sent({"events": self.dropped}, "skipped"))
            self.dropped = 0
        taken = b"".join(self.waiting)
        self.waiting.clear()
        return taken

    def end(self) -> None:
        self.is_over = True
        self.changed.set()


class Debugger:
    """The route of the debugger, when it is configured, and the notes about refused requests, for `cdp tail` too."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._teller = RefusalTeller(config.inbox)
        self._listeners: list[_Listener] = []
        self._following: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        """That task and those before it that have not ended."""
        self._started: asyncio.Future[None] | None = None

    def routes(self) -> Mapping[str, Route]:
        return {PATH: Route("GET", self._answer)} if self._config.debug is not None else {}

    async def start(self) -> None:
        """Nothing is followed before somebody looks."""

    async def stop(self) -> None:
        """Wait until what follows the inbox has left nothing behind there."""
        self.end_streams()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_STOP_SECONDS)

    def tell_refused(self, route: str, error: HttpError) -> None:
        """Tell who follows the inbox of a request that was turned away; what was kept of others they see there."""
        if not error.kept and route != PATH:
            at = clock.instant(self._config.now()).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            known = {} if error.source is None else {"source": error.source}
            self._teller.tell({"at": at, **known, "path": route, "reason": f"{error.status} {error.code}: {error}"})

    def end_streams(self) -> None:
        """End every answer that is under way, so that the server can stop; called on the running loop."""
        for listener in self._listeners:
            listener.end()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        assert self._config.debug is not None
        sent = header(scope, b"authorization") or b""
        if not hmac.compare_digest(sent, b"Bearer " + self._config.debug.token.encode()):
            raise HttpError(401, "unknown_token", "the debugger answers to `Authorization: Bearer <token>` alone")
        listener = await asyncio.to_thread(_listener, scope.get("query_string", b""))
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        headers += cross_origin(header(scope, b"origin"))
        if scope["method"] == "HEAD":
            return await respond(send, 200, b"", headers)
        if len(self._listeners) >= MAX_LISTENERS:
            raise HttpError(429, "too_many_listeners", f"{MAX_LISTENERS} are listening already", retry_after=10)
        self._listeners.append(listener)
        leaving = asyncio.create_task(_gone(receive))
        try:
            await self._follow(self._config.debug)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b": following\n\n", "more_body": True})
            await self._stream(listener, leaving, send)
            if not leaving.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self._listeners.remove(listener)
        return 200

    async def _stream(self, listener: _Listener, leaving: asyncio.Task[None], send: Send) -> None:
        leaving.add_done_callback(lambda _: listener.end())
        while not listener.is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ALIVE_SECONDS):
                    await listener.changed.wait()
            listener.changed.clear()
            body = listener.take() or (b"" if listener.is_over else b": alive\n\n")
            if body and not leaving.done():
                await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _follow(self, debug: DebugConfig) -> None:
        """See to it that the inbox is followed from now on."""
        if self._following is None:
            started = asyncio.get_running_loop().create_future()
            self._following = asyncio.create_task(self._look_while_wanted(debug, started))
            self._ending.add(self._following)
            self._following.add_done_callback(self._ending.discard)
            self._started = started
        assert self._started is not None
        await asyncio.shield(self._started)

    async def _look_while_wanted(self, debug: DebugConfig, started: asyncio.Future[None]) -> None:
        """In a worker thread, as long as somebody listens; the requests of others are answered meanwhile."""
        try:
            live = await asyncio.to_thread(_live_events, self._config, debug)
        except OSError as error:
            self._following = None
            started.set_exception(HttpError(503, "not_ready", f"the inbox cannot be followed: {error.strerror}", retry_after=5))
            return
        from cdp_server.live_events import LOOK_EVERY

        started.set_result(None)
        try:
            while self._listeners:
                look = await asyncio.to_thread(live.look)
                if look.events or look.skipped_bytes:
                    for listener in self._listeners:
                        listener.put(look)
                await asyncio.sleep(LOOK_EVERY)
            self._following = None  # before anything is waited for: who comes now is followed anew
        except Exception as error:  # whatever it was: it ends the looking, never the collecting; its text may hold values
            _log.error("the live debugger ended: %s", type(error).__name__)
            self._following = None
            self.end_streams()
        finally:
            await asyncio.to_thread(live.close)


def _live_events(config: ServerConfig, debug: DebugConfig) -> LiveEvents:
    from cdp_server.live_events import LiveEvents  # Polars and DuckDB, which receiving needs not

    return LiveEvents(config.inbox, debug.plan, debug.violations, _LOOK_BYTES)


def _listener(query: bytes) -> _Listener:
    """Raises HttpError for a filter that there is not."""
    from cdp_server.live_events import STATUSES, Wanted

    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    unknown = next((name for name in asked if name not in _FILTERS), None)
    if unknown is not None:
        raise HttpError(400, "unknown_filter", f"there is {', '.join(_FILTERS)}")
    if not set(asked.get("status", ())) <= set(STATUSES):
        raise HttpError(400, "unknown_status", f"a status is one of {', '.join(STATUSES)}")
    wanted = Wanted(asked.get("source", ()), asked.get("event", ()), asked.get("status", ()))
    return _Listener(wanted, with_values=asked.get("show_values", [""])[-1] in ("1", "true"))


def _sent(data: Mapping[str, Any], kind: str | None = None) -> bytes:
    named = f"event: {kind}\n" if kind else ""
    return f"{named}data: {json.dumps(data)}\n\n".encode()


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
