"""What a user declares about a source: `config/sources/<source>.yaml`, whose file name is the source's name.

A source is where events come from: HTTP (SDKs, servers), files (JSON lines, delimited text) or webhooks (webhook_source.py).
Reading and receiving are not here.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from cdp_assets.declaration import Declaration
from cdp_assets.raw_events.http_visitor import SECRET_HEADERS, IdCookie, Kept, Signals
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_resources.secrets import SecretRef

MessageType = Literal["identify", "track", "page", "screen", "group", "alias"]

# A path in a message that a column may fill: an identifier or a word of the message, or a place below an object.
_TARGET = re.compile(
    r"(userId|anonymousId|previousId|groupId|timestamp|event|name|category)|(properties|traits|context)(\.[A-Za-z0-9_$ -]+)+"
)
_TARGETS = "userId, anonymousId, previousId, groupId, timestamp, event, name, category, properties.*, traits.*, context.*"


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
                raise ValueError(
                    f"keep_headers: {name!r} is not kept: names are lower-case, and none of {', '.join(SECRET_HEADERS)}"
                )
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


class JsonLinesSource(Declaration):
    """Files of messages as the collector takes them: one JSON object with its `type` on each line, plain or gzip."""

    kind: Literal["files"]
    """Events arrive in files."""
    format: Literal["jsonl"]
    """One JSON message a line."""
    description: str = ""
    """What writes these files, for people."""
    enabled: bool = True
    """Files of a source that is not enabled are not imported."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""


class ColumnValue(Declaration):
    """A value taken from a column of the row."""

    column: str
    """Name of the column."""
    type: Literal["text", "integer", "number", "boolean", "timestamp"] = "text"
    """How the text is read. `text` keeps it as it stands, leading zeros included. A value that cannot be read refuses the row."""
    format: str | None = None
    """For timestamps: `iso` (default), `unix` (seconds), `unix_ms`, or a strptime pattern such as `%Y%m%d`."""
    timezone: str = "UTC"
    """For timestamps without an offset: the IANA zone they are meant in."""
    scale: Decimal | None = None
    """For integers and numbers: multiplied by this, exactly (`0.01` turns cents into units)."""
    required: bool = False
    """Refuse the row when the value is empty; else the path is left out of the message."""

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        if self.type != "timestamp" and (self.format is not None or self.timezone != "UTC"):
            raise ValueError(f"format and timezone belong to type timestamp; column {self.column!r} has type {self.type}")
        if self.scale is not None and self.type not in ("integer", "number"):
            raise ValueError(f"scale belongs to types integer and number; column {self.column!r} has type {self.type}")
        return self


class ConstantValue(Declaration):
    """The same value in every message."""

    constant: StrictBool | StrictInt | StrictStr | float
    """The value."""


FieldValue = ColumnValue | ConstantValue


class DelimitedSource(Declaration):
    """Files of delimited text, a message a row, by a mapping from columns to places in the message. Plain or gzip, LF or CRLF."""

    kind: Literal["files"]
    """Events arrive in files."""
    format: Literal["delimited"]
    """Rows of text."""
    description: str = ""
    """What writes these files, for people."""
    enabled: bool = True
    """Files of a source that is not enabled are not imported."""
    delimiter: str = ","
    """One character, or `whitespace`: any run of blanks and tabs, those at the edges of the row ignored."""
    quote: str | None = '"'
    """The character around values that hold a delimiter, doubled inside; null for none. Not used with `whitespace`."""
    header: bool = True
    """Whether the first line names the columns."""
    columns: tuple[str, ...] = ()
    """Names of the columns in order: needed without a header; with one, the header must name exactly these."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """How bytes become text. A byte order mark is ignored."""
    null_values: tuple[str, ...] = ("",)
    """Texts that mean no value."""
    type: MessageType = "track"
    """The messages' type."""
    event: str | None = None
    """The event's name in every message; or map `event` to a column."""
    fields: dict[str, FieldValue]
    """Place in the message -> where its value comes from. Places: userId, anonymousId, previousId, groupId, timestamp, event,
    name, category, properties.*, traits.*, context.*"""
    row_id: tuple[str, ...] = ()
    """Columns that together name a row for ever (an order number); equal names are one event. Empty: file content and line."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if value != "whitespace" and (len(value) != 1 or value in "\r\n"):
            raise ValueError(f"delimiter is one character or 'whitespace', not {value!r}")
        return value

    @field_validator("quote")
    @classmethod
    def _one_quote(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in "\r\n"):
            raise ValueError(f"quote is one character or null, not {value!r}")
        return value

    @field_validator("columns")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"columns name {', '.join(map(repr, twice))} more than once")
        return value

    @model_validator(mode="after")
    def _mapping_makes_messages(self) -> Self:
        if not self.header and not self.columns:
            raise ValueError("columns are needed when header is false")
        for target, value in self.fields.items():
            if not _TARGET.fullmatch(target):
                raise ValueError(f"fields: no place {target!r} in a message; there is {_TARGETS}")
            if isinstance(value, ColumnValue):
                self._known_column(f"fields.{target}", value.column)
                if target == "timestamp" and value.type != "timestamp":
                    raise ValueError("fields.timestamp: type is timestamp, with its format")
        targets = set(self.fields)
        for target in targets:
            above = [target[: dot.start()] for dot in re.finditer(r"\.", target)]
            inside = [name for name in above if name in targets]
            if inside:
                raise ValueError(f"fields: {inside[0]!r} holds a value, so {target!r} cannot stand below it")
        for column in self.row_id:
            self._known_column("row_id", column)
        if not targets & {"userId", "anonymousId"} and not (self.type == "alias" and "previousId" in targets):
            raise ValueError("fields: map userId or anonymousId")
        if self.type == "track" and (self.event is None) == ("event" not in targets):
            raise ValueError("a track message needs its event: either `event` or fields.event")
        return self

    def _known_column(self, place: str, column: str) -> None:
        if self.columns and column not in self.columns:
            raise ValueError(f"{place}: no column {column!r}; there is {', '.join(self.columns)}")


FilesSource = Annotated[JsonLinesSource | DelimitedSource, Field(discriminator="format")]
Source = Annotated[HttpSource | FilesSource | WebhookSource, Field(discriminator="kind")]
"""A source as declared; parse with `pydantic.TypeAdapter(Source)`."""
