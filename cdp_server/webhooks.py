"""Signed webhooks of vendors: `POST /v1/webhooks/<source>`, answered 200 only when what it brought is on disk.

How a delivery is proven and read is in cdp_resources/sources/webhooks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from cdp_resources import clock, envelope
from cdp_resources.sources.webhooks import Delivery, Receiver, RefusedDeliveryError
from cdp_server.body import ClientGoneError
from cdp_server.collector import Collector
from cdp_server.config import ServerConfig, WebhookEntry
from cdp_server.http import HttpError, Receive, Route, Scope, Send, respond, respond_json
from cdp_server.metrics import Metrics

_USUAL_TOLERANCE = 300
_MOST_REMEMBERED = 100_000


class Webhooks:
    """The addresses that vendors call, one for each source of kind webhook."""

    def __init__(self, config: ServerConfig, metrics: Metrics, collector: Collector) -> None:
        self._entries = config.webhooks
        self._metrics = metrics
        self._collector = collector

    def routes(self) -> Mapping[str, Route]:
        return {
            f"/v1/webhooks/{entry.name}": Route("POST", _Endpoint(entry, self._metrics, self._collector), is_probed=True)
            for entry in self._entries
        }


class _Endpoint:
    """One vendor's address."""

    def __init__(self, entry: WebhookEntry, metrics: Metrics, collector: Collector) -> None:
        webhook, spec = entry.spec.webhook, entry.spec
        self._name = entry.name
        self._spec = spec
        self._metrics = metrics
        self._collector = collector
        self._receiver = Receiver(webhook, spec.vendor, entry.secrets, spec.url, spec.max_event_bytes)
        time_ = webhook.signature.timestamp
        # A delivery signed as far ahead as is allowed can come again until it is as old as is allowed.
        self._stored = _Remembered(2 * (time_.tolerance_seconds if time_ is not None else _USUAL_TOLERANCE))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> int:
        if scope["method"] == "HEAD":
            return await respond(send, 200, b"", [])
        if not self._spec.enabled:
            await self._collector.reader.drain(receive)
            raise HttpError(404, "source_disabled", "the source of this address is disabled", source=self._name)
        headers = dict(scope["headers"])
        try:
            body = await self._collector.reader.read(headers, receive, self._spec.max_batch_bytes)
        except ClientGoneError:
            return 499
        self._metrics.received_bytes += len(body)
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        delivery = Delivery(scope["method"], scope.get("query_string", b"").decode("latin-1"), named, body)
        received_at = clock.microseconds()
        try:
            mapped = self._receiver.receive(delivery, clock.instant(received_at))
        except RefusedDeliveryError as error:
            self._metrics.refused_deliveries[self._name, error.code] += 1
            raise HttpError(401, error.code, str(error), source=self._name) from None
        fresh = [each for each in mapped if each.message_id not in self._stored]
        head = envelope.header(self._name, received_at)
        lines = [
            head + envelope.one_line(each.message) + envelope.END
            if each.reason is None
            else envelope.refused(self._name, received_at, each.message, each.reason)
            for each in fresh
        ]
        refused = sum(each.reason is not None for each in fresh)
        if lines:
            await self._collector.store(self._name, received_at, b"".join(lines), len(lines) - refused, refused)
        # Only now: what was not stored must be taken when the vendor sends it again.
        self._stored.add(each.message_id for each in fresh)
        self._metrics.replayed[self._name] += len(mapped) - len(fresh)
        answer = {"success": True, "accepted": len(lines) - refused, "refused": refused, "replayed": len(mapped) - len(fresh)}
        return await respond_json(scope, send, 200, msgspec.json.encode(answer))


class _Remembered:
    """Ids for a while. It spares the inbox what comes again at once; what comes later, raw_events knows by its message id."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, id_: str) -> bool:
        until = self._until.get(id_)
        return until is not None and until > time.monotonic()

    def add(self, ids: Iterable[str]) -> None:
        now = time.monotonic()
        for id_ in ids:
            self._until.pop(id_, None)
            self._until[id_] = now + self._seconds
        while self._until and (len(self._until) > _MOST_REMEMBERED or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)
