"""Beside its events, what Segment's browser SDK needs: the settings that it asks for before it starts."""

from __future__ import annotations

import json
import re

from cdp_server.collector import Collector
from cdp_server.config import ServerConfig
from cdp_server.http import HttpError, Receive, Route, Scope, Send, header, respond_json
from cdp_server.protocols import Routes

_PATH = re.compile(r"/v1/projects/([^/]+)/settings/?")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:]+\](:[0-9]+)?")


def routes(collector: Collector, config: ServerConfig) -> Routes:
    return Routes(prefixes={"/v1/projects/": Route("GET", _Settings(collector, config.consent_categories))})


class _Settings:
    """`GET /v1/projects/KEY/settings`, as analytics-next reads it."""

    def __init__(self, collector: Collector, categories: tuple[str, ...]) -> None:
        self._collector = collector
        self._categories = categories

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> int:
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            raise HttpError(404, "not_found", "no such path")
        self._collector.entry(match[1])
        segment: dict[str, object] = {"apiKey": match[1], "addBundledMetadata": False, "unbundledIntegrations": []}
        host = (header(scope, b"host") or b"").decode("latin-1")
        if _HOST.fullmatch(host):
            segment["apiHost"] = f"{host}{scope.get('root_path', '')}/v1"
        origin = header(scope, b"origin") or header(scope, b"referer") or b""
        if scope.get("scheme") == "http" and origin.startswith(b"http:"):  # the SDK takes https unless it is told
            segment["protocol"] = "http"
        settings = {
            "integrations": {"Segment.io": segment},
            "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}, "identify": {"__default": {"enabled": True}}},
            "edgeFunction": {},
            "middlewareSettings": {},
            "enabledMiddleware": {},
            "metrics": {"sampleRate": 0},
            "legacyVideoPluginsEnabled": False,
            "remotePlugins": [],
            "consentSettings": {"allCategories": list(self._categories), "hasUnmappedDestinations": False},
        }
        return await respond_json(scope, send, 200, json.dumps(settings).encode())
