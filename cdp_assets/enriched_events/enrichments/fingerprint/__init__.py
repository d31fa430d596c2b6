"""fingerprint: one number for what an event says, so that the same thing said twice is seen whatever its ids and times.

Duplicates of one message id are left out before, in raw_events; nothing is left out here.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_resources import hashing

Part = Literal[
    "source",
    "type",
    "event",
    "user_id",
    "anonymous_id",
    "group_id",
    "ip",
    "page_url",
    "referrer",
    "user_agent",
    "properties",
    "traits",
]

INPUTS = {
    "source": "column:source",
    "type": "column:type",
    "event": "column:event",
    "user_id": "column:user_id",
    "anonymous_id": "column:anonymous_id",
    "group_id": "column:group_id",
    "ip": "column:ip",
    "page_url": "context.page.url",
    "referrer": "context.page.referrer",
    "user_agent": "context.userAgent",
    "properties": "column:properties",
    "traits": "column:traits",
}

OUTPUTS = {"event_fingerprint": Output(pl.Int64(), "Hash (xxh3, 64 bits) of what the event says without its ids and times.")}

PER_EVENT = True

_MISSING, _NEXT = "\x1e", "\x1f"  # control characters: JSON texts escape them, and names and ids have none


class Settings(Declaration):
    """Settings of fingerprint."""

    parts: tuple[Part, ...] = Field(
        default=("type", "event", "user_id", "anonymous_id", "page_url", "user_agent", "properties", "traits"), min_length=1
    )
    """What counts. Two events with equal parts have the same fingerprint."""
    ignored: tuple[str, ...] = ()
    """Keys of `properties` and `traits` that do not count, such as `sent_at`. With any, the order of keys does not count either."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The parts -> their hash."""
    said = distinct.select(settings.parts)
    if settings.ignored:
        keys = frozenset(settings.ignored)
        objects = [name for name in ("properties", "traits") if name in settings.parts]
        said = said.with_columns(
            pl.Series(name, [_without(text, keys) for text in said.get_column(name)], dtype=pl.String) for name in objects
        )
    texts = said.select(pl.concat_str(pl.all().fill_null(_MISSING), separator=_NEXT)).to_series()
    return hashing.xxh3_64(texts).to_frame("event_fingerprint")


def _without(text: str | None, keys: frozenset[str]) -> str | None:
    if text is None:
        return None
    try:
        told: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    if not isinstance(told, dict):
        return text
    return msgspec.json.encode({key: value for key, value in told.items() if key not in keys}, order="deterministic").decode()
