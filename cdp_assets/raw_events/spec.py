"""What a user declares about a source: `config/sources/<source>.yaml`, whose file name is the source's name.

A source is where events come from: HTTP (SDKs, servers), or what has a spec in a file of its own (`<kind>_source.py`).
Reading and receiving are not here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.field_mapping import ColumnValue, ConstantValue, FieldValue, MessageType
from cdp_assets.raw_events.files_source import DelimitedSource, FilesSource, JsonLinesSource, ParquetSource
from cdp_resources.secrets import SecretRef

__all__ = [
    "ApiSource",
    "ColumnValue",
    "ConstantValue",
    "DatabaseSource",
    "DelimitedSource",
    "FieldValue",
    "FilesSource",
    "HttpSource",
    "JsonLinesSource",
    "MessageType",
    "ParquetSource",
    "Source",
]


class HttpSource(Declaration):
    """Events that SDKs and servers post to the collector, known by their write key."""

    kind: Literal["http"]
    """Events arrive over HTTP."""
    description: str = ""
    """What sends these events, for people."""
    write_key: SecretRef
    """The key that senders authenticate with, by reference: `{env: CDP_WEB_WRITE_KEY}`. Two sources never share one."""
    enabled: bool = True
    """A source that is not enabled answers 404, and its SDKs drop what they hold."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""
    max_batch_bytes: int = Field(default=4_194_304, ge=1_024, le=67_108_864)
    """Longest request body after decompression, in bytes. A longer one is answered 413."""
    max_batch_events: int = Field(default=2_500, ge=1, le=100_000)
    """Most messages in one batch request. The messages beyond it are refused and kept in rejected_events."""


Source = Annotated[
    HttpSource | FilesSource | DatabaseSource | ApiSource,
    Field(discriminator="kind"),
]
"""A source as declared; parse with `pydantic.TypeAdapter(Source)`."""
