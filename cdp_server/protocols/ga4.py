"""GA4's Measurement Protocol: `POST /mp/collect` stores, `POST /debug/mp/collect` says what it would be told. The write key is `api_secret`.

How events become messages is in cdp_resources/protocols/ga4.
"""

from __future__ import annotations

import json

from cdp_resources.protocols import UnreadableError
from cdp_resources.protocols.ga4 import findings, mapped, read
from cdp_server.body import ClientGoneError
from cdp_server.collector import Collector, query_value
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.http import HttpError, Receive, Route, Scope, Send, respond_json
from cdp_server.mapped import store
from cdp_server.protocols import Routes


def routes(collector: Collector, _config: ServerConfig) -> Routes:
    protocol = _MeasurementProtocol(collector)
    return Routes({"/mp/collect": Route("POST", protocol.collect), "/debug/mp/collect": Route("POST", protocol.validate)})


class _MeasurementProtocol:
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def collect(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            call, body = await self._collector.read(scope, receive, None, lambda: self._entry(scope))
        except ClientGoneError:
            return 499
        try:
            given = read(body)
        except UnreadableError as error:
            await self._collector.keep_malformed(call, body, str(error), None, "malformed")
        stream = query_value(scope, "measurement_id") or query_value(scope, "firebase_app_id")
        await store(self._collector, call, mapped(given, body, stream))
        return await call.succeed(send)

    async def validate(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer as GA4's validation server does; nothing is stored."""
        try:
            _, body = await self._collector.read(scope, receive, None, lambda: self._entry(scope))
        except ClientGoneError:
            return 499
        try:
            found = findings(read(body))
        except UnreadableError as error:
            found = [{"fieldPath": "", "description": str(error), "validationCode": "VALUE_INVALID"}]
        return await respond_json(scope, send, 200, json.dumps({"validationMessages": found}).encode())

    def _entry(self, scope: Scope) -> SourceEntry:
        key = query_value(scope, "api_secret")
        if key is None:
            raise HttpError(401, "no_write_key", "no write key: ?api_secret=")
        return self._collector.entry(key)
