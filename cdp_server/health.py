"""Is it alive, can it store, what has it counted: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from cdp_server.http import HttpError, Receive, Route, Scope, Send, respond, respond_json
from cdp_server.metrics import Metrics

_PROOF_SECONDS = 1.0


class Health:
    """The routes for those who watch the server."""

    def __init__(self, metrics: Metrics, has_room: Callable[[], bool], prove: Callable[[], None]) -> None:
        """`has_room` says whether the disk has the declared minimum free; `prove` raises OSError when a durable write fails."""
        self._has_room = has_room
        self._prove = prove
        self._metrics = metrics
        self._probing = asyncio.Lock()
        self._proven_at = float("-inf")

    def routes(self) -> Mapping[str, Route]:
        return {
            "/healthz": Route("GET", self._alive),
            "/readyz": Route("GET", self._ready),
            "/metrics": Route("GET", self._measured),
        }

    async def _alive(self, scope: Scope, _receive: Receive, send: Send) -> int:
        return await respond_json(scope, send, 200, b'{"status": "alive"}')

    async def _ready(self, scope: Scope, _receive: Receive, send: Send) -> int:
        """200 only when a write was made durable just now, or within the last second, and the disk is not nearly full."""
        if not self._has_room():
            raise HttpError(503, "disk_nearly_full", "the disk is nearly full", retry_after=10)
        async with self._probing:
            if time.monotonic() - self._proven_at > _PROOF_SECONDS:
                try:
                    await asyncio.to_thread(self._prove)
                except OSError:
                    raise HttpError(503, "not_ready", "a durable write fails", retry_after=5) from None
                self._proven_at = time.monotonic()
        return await respond_json(scope, send, 200, b'{"status": "ready"}')

    async def _measured(self, _scope: Scope, _receive: Receive, send: Send) -> int:
        return await respond(send, 200, self._metrics.text(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])
