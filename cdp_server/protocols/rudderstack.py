"""What RudderStack's browser SDK needs beside the Segment HTTP API: its source's configuration, and the path of its beacon."""

from __future__ import annotations

import json

from cdp_server.collector import Collector
from cdp_server.config import ServerConfig
from cdp_server.http import HttpError, Receive, Route, Scope, Send, respond_json
from cdp_server.protocols import Routes


def routes(collector: Collector, _config: ServerConfig) -> Routes:
    config = Route("GET", _SourceConfig(collector))
    return Routes({"/sourceConfig": config, "/beacon/v1/batch": collector.batch()})


class _SourceConfig:
    """`GET /sourceConfig/?p=…`, as analytics-js reads it: no destinations in the browser, no reports to anybody."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> int:
        entry = self._collector.entry_before_body(dict(scope["headers"]), scope)
        if entry is None:
            raise HttpError(401, "no_write_key", "no write key: Basic authorization or ?writeKey=")
        nothing = {"enabled": False}
        source = {
            "id": entry.name,
            "name": entry.name,
            "workspaceId": "",
            "enabled": True,
            "config": {"statsCollection": {"errors": nothing, "metrics": nothing}},
            "destinations": [],
            "dataplanes": {},
        }
        return await respond_json(scope, send, 200, json.dumps({"source": source, "updatedAt": None}).encode())
