"""What a user declares about a source: `config/sources/<source>.yaml`, whose file name is the source's name.

A source is where events come from: HTTP (SDKs, servers), or what has a spec in a file of its own (`<kind>_source.py`).
Reading and receiving are not here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cdp_assets.declaration import Declaration
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.download_source import DownloadSource
from cdp_assets.raw_events.field_mapping import ColumnValue, ConstantValue, FieldValue, MessageType
from cdp_assets.raw_events.files_source import DelimitedSource, FilesSource, JsonLinesSource, ParquetSource
from cdp_assets.raw_events.http_visitor import SECRET_HEADERS, IdCookie, Kept, Signals
from cdp_assets.raw_events.kafka_source import KafkaSource
from cdp_assets.raw_events.profile_data import ProfileDataSpec
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_resources.secrets import SecretRef

__all__ = [
    "ApiSource",
    "ColumnValue",
    "ConstantValue",
    "DatabaseSource",
    "DelimitedSource",
    "DownloadSource",
    "FieldValue",
    "FilesSource",
    "HttpSource",
    "JsonLinesSource",
    "KafkaSource",
    "MessageType",
    "ParquetSource",
    "ProfileDataSpec",
    "Source",
    "WebhookSource",
]


class HttpSource(Declaration):
    """Events that SDKs and servers post to the collector, known by their write key."""

    kind: Literal["http"]
    """Events arrive over HTTP."""
    description: str = ""
    """What sends these events, for people."""
    write_key: SecretRef | tuple[SecretRef, ...]
    """The key that senders authenticate with, by reference: `{env: CDP_WEB_WRITE_KEY}`. Two sources never share one. A list of references
    is several keys that are good at the same time, so that one can be replaced without a gap."""
    enabled: bool = True
    """A source that is not enabled answers 404, and its SDKs drop what they hold."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""
    max_batch_bytes: int = Field(default=4_194_304, ge=1_024, le=67_108_864)
    """Longest request body after decompression, in bytes. A longer one is answered 413."""
    max_batch_events: int = Field(default=2_500, ge=1, le=100_000)
    """Most messages in one batch request. The messages beyond it are refused and kept in rejected_events."""
    max_events_per_second: float | None = Field(default=None, gt=0)
    """Most events a second that each collector process lets in, over time; beyond it requests are answered 429 with Retry-After.
    Null for no limit."""

    app_ids: tuple[str, ...] = ()
    """App ids of Snowplow trackers that send through this source, since they know no write key; `*` for those that no source names."""
    keep_headers: Kept = ()
    """Request headers that are kept with each event, in the column `request`: lower-case names, such as `accept-language`."""
    keep_cookies: Kept = ()
    """Cookies of the request that are kept with each event, in the column `request`. Names as the site sets them."""
    id_cookie: IdCookie | None = None
    """A cookie with a visitor's id that the collector sets itself. By default none is set."""
    signals: Signals = Signals()
    """What is done when a visitor asks not to be tracked."""

    @field_validator("keep_headers")
    @classmethod
    def _lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != name.lower() or name in SECRET_HEADERS:
                raise ValueError(f"{name!r} is not kept: names are lower-case, and none of {', '.join(SECRET_HEADERS)}")
        return value

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.write_keys:
            raise ValueError("write_key: at least one is needed, such as {env: CDP_WEB_WRITE_KEY}")
        return self

    @property
    def write_keys(self) -> tuple[SecretRef, ...]:
        """The keys, in the order of the declaration."""
        return (self.write_key,) if isinstance(self.write_key, SecretRef) else self.write_key


Source = Annotated[
    HttpSource | FilesSource | DatabaseSource | ApiSource | WebhookSource | DownloadSource | KafkaSource,
    Field(discriminator="kind"),
]
"""A source as declared; parse with `pydantic.TypeAdapter(Source)`."""
