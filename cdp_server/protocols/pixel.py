"""`GET /v1/pixel/{type}?data=…`: one message as base64 of its JSON, from where only an image can be asked for, such as an e-mail."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec

from cdp_resources import envelope, messages
from cdp_resources.messages import RefusedMessageError
from cdp_server.collector import Collector, query_value
from cdp_server.config import ServerConfig
from cdp_server.http import HttpError, Receive, Route, Scope, Send, respond
from cdp_server.mapped import PIXEL, PIXEL_HEADERS
from cdp_server.protocols import Routes


def routes(collector: Collector, _config: ServerConfig) -> Routes:
    return Routes({f"/v1/pixel/{type_}": Route("GET", _Pixel(collector, type_)) for type_ in messages.MESSAGE_TYPES})


@dataclass(frozen=True)
class _Pixel:
    collector: Collector
    type: str

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> int:
        data = query_value(scope, "data")
        if not data:
            raise HttpError(400, "no_data", "?data= holds the message, base64 of its JSON")
        entry = self.collector.entry_before_body(dict(scope["headers"]), scope)
        try:
            body = _decoded(data)
        except ValueError as error:
            if entry is None:
                raise HttpError(400, "malformed", str(error)) from None
            await self.collector.keep_malformed(
                self.collector.call(scope, entry), data.encode(), str(error), self.type, "malformed"
            )
        call = self.collector.call(scope, entry or self.collector.entry_in(body))
        body = call.completed(body)
        try:
            checked = messages.check(body, self.type, call.source.spec.max_event_bytes)
        except RefusedMessageError as error:
            await self.collector.commit(call, call.refused(body, str(error), self.type), 0, 1)
            raise HttpError(400, "refused", str(error)) from None
        line = call.head(self.type, checked.sentAt) + envelope.one_line(body) + envelope.END
        await self.collector.commit(call, line, 1, 0)
        return await respond(send, 200, PIXEL, [*PIXEL_HEADERS, *call.answer_headers()])


def _decoded(data: str) -> bytes:
    """base64 in its usual or its URL form, with or without padding; a `+` may have become a blank on its way. Raises ValueError."""
    text = data.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        msgspec.json.decode(body)
    except (ValueError, RecursionError):  # all of base64, Unicode and msgspec raise ValueErrors
        raise ValueError("?data= is not base64 of JSON") from None
    return body
