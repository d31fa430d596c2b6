"""Snowplow's tracker protocol: `POST /com.snowplowanalytics.snowplow/tp2` with events, `GET /i` with one in its query.

Trackers know no write key: the source is the one that declares their app id. How events become messages is in cdp_resources/protocols/snowplow.
"""

from __future__ import annotations

from typing import Any

from cdp_resources.protocols import UnreadableError
from cdp_resources.protocols.snowplow import app_id, event_in, events, mapped
from cdp_server.body import ClientGoneError
from cdp_server.call import Call
from cdp_server.collector import Collector
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.http import HttpError, Receive, Route, Scope, Send, header, respond
from cdp_server.mapped import PIXEL, PIXEL_HEADERS, store
from cdp_server.protocols import Routes


def routes(collector: Collector, _config: ServerConfig) -> Routes:
    trackers = _Trackers(collector)
    return Routes({"/com.snowplowanalytics.snowplow/tp2": Route("POST", trackers.post), "/i": Route("GET", trackers.get)})


class _Trackers:
    """Answers trackers. What is not readable is kept and answered 400; single events that cannot be mapped are kept, and the rest taken."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def post(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            call, body = await self._collector.read(scope, receive, None, lambda: None, self._entry_in)
        except ClientGoneError:
            return 499
        try:
            given = events(body)
        except UnreadableError as error:
            await self._collector.keep_malformed(call, body, str(error), None, "malformed")
        await self._store(scope, call, given)
        return await call.succeed(send)

    async def get(self, scope: Scope, _receive: Receive, send: Send) -> int:
        event = event_in(scope.get("query_string", b"").decode("latin-1"))
        call = self._collector.call(scope, self._collector.entry_of_app(app_id(event)))
        if not await self._store(scope, call, [event]):
            raise HttpError(400, "refused", "the query is no event of Snowplow's tracker protocol")
        return await respond(send, 200, PIXEL, [*PIXEL_HEADERS, *call.answer_headers()])

    def _entry_in(self, body: bytes) -> SourceEntry:
        """The source of the first event; of a body that cannot be read, the source of all others."""
        try:
            return self._collector.entry_of_app(app_id(events(body)[0]))
        except UnreadableError as error:
            try:
                return self._collector.entry_of_app(None)
            except HttpError:
                raise HttpError(400, "malformed", str(error)) from None

    async def _store(self, scope: Scope, call: Call, given: list[dict[str, Any]]) -> int:
        agent = header(scope, b"user-agent")
        user_agent = None if agent is None else agent.decode("latin-1")
        own: list[dict[str, Any]] = []
        others: dict[str, tuple[SourceEntry, list[dict[str, Any]]]] = {}
        for event in given:
            entry = self._source_of(event, call)
            if entry is None:
                continue
            if entry is call.source:
                own.append(event)
            else:
                others.setdefault(entry.name, (entry, []))[1].append(event)
        accepted = 0
        for other, theirs in others.values():
            accepted += await store(
                self._collector,
                self._collector.call(scope, other),
                [mapped(each, user_agent) for each in theirs],
                is_anybody_ok=True,
            )
        return accepted + await store(self._collector, call, [mapped(each, user_agent) for each in own], is_anybody_ok=True)

    def _source_of(self, event: dict[str, Any], call: Call) -> SourceEntry | None:
        """One emitter may send for several trackers; what no source declares stays with the first of them. None: its source is disabled."""
        try:
            return self._collector.entry_of_app(app_id(event))
        except HttpError as error:
            return call.source if error.code == "unknown_app_id" else None
