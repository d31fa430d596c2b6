"""Storing what a protocol's mapping made of a request: each message checked as one that came as JSON, each refusal kept with its text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cdp_resources import envelope, messages
from cdp_resources.messages import RefusedMessageError
from cdp_resources.protocols import Mapped
from cdp_server.call import Call
from cdp_server.collector import Collector

PIXEL = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
"""A transparent image of one pixel."""
PIXEL_HEADERS = [(b"content-type", b"image/gif"), (b"cache-control", b"no-store")]


async def store(collector: Collector, call: Call, items: Sequence[Mapped], *, is_anybody_ok: bool = False) -> int:
    """Return how many were accepted once all of them are on disk. Raises HttpError as `Collector.commit` does.

    `is_anybody_ok`: the protocol has an anonymous mode, in which a message names nobody.
    """
    lines: list[bytes] = []
    accepted = 0
    for number, item in enumerate(items):
        line = _line(call, item, number, is_anybody_ok)
        accepted += line[1]
        lines.append(line[0])
    await collector.commit(call, b"".join(lines), accepted, len(items) - accepted)
    return accepted


def _line(call: Call, item: Mapped, number: int, is_anybody_ok: bool) -> tuple[bytes, bool]:
    spec = call.source.spec
    reason = item.reason
    if number >= spec.max_batch_events:
        reason = f"batch of more than {spec.max_batch_events} messages"
    if reason is None:
        message = call.completed(msgspec.json.encode(item.message))
        try:
            messages.check(message, None, spec.max_event_bytes, is_anybody_ok=is_anybody_ok)
            return call.head(None, item.sent_at) + envelope.one_line(message) + envelope.END, True
        except RefusedMessageError as error:
            reason = str(error)
    return call.refused(item.text, reason, None, item.sent_at), False
