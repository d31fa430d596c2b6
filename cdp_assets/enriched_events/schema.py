"""What the rows of enriched_events and quarantined_events promise: their fixed columns, checked by pandera.

The columns that the configured enrichments add come from `enriched_columns`. A person is found in both tables by the identifiers
of the event: user_id, anonymous_id, previous_id and what properties, context, traits or payload hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import pandera.polars as pa
import polars as pl

from cdp_assets.raw_events.schema import DISTINCT
from cdp_resources.lake import TableSpec

if TYPE_CHECKING:
    from cdp_assets.enriched_events.spec import EnrichmentSpec

SCHEMA_VERSION = 1

TYPES = ("track", "page", "screen", "identify", "group", "alias", "profile_data")
KINDS = ("Unplanned-Event", "Required-Missing", "Datatype-Mismatch", "Rule", "Additional-Properties", "Enrichment-Failed")

Moment = Annotated[pl.Datetime, "us", "UTC"]


class EnrichedEvents(pa.DataFrameModel):
    """One row for each accepted event that the tracking plan does not block; the enrichments' columns follow these."""

    batch_seq: pl.Int64 = pa.Field(ge=0, description="Number of the batch; batches are numbered in the order of sealing.")
    offset: pl.Int64 = pa.Field(ge=0, description="Place in the batch. (batch_seq, offset) is the row's place.")
    batch_id: str = pa.Field(description="Name of the batch.")
    source: str = pa.Field(description="The declared source that sent the event.")
    message_id: str = pa.Field(description="The sender's id of the message, unique for each source.")
    message_key: pl.Int64 = pa.Field(description="Low half of xxh3_128(source, message_id): settles ties of one instant.")
    type: str = pa.Field(isin=TYPES, description="Kind of call: track, page, screen, identify, group, alias or profile_data.")
    event: str = pa.Field(nullable=True, description="Name of the tracked event, or of the page or screen.")
    user_id: str = pa.Field(nullable=True, description="The customer's id in the company's own systems.")
    anonymous_id: str = pa.Field(nullable=True, description="The device's or browser's random id.")
    previous_id: str = pa.Field(nullable=True, description="For alias: the id known before.")
    group_id: str = pa.Field(nullable=True, description="The account or group that the event belongs to.")
    timestamp: Moment = pa.Field(description="When it happened, corrected for the sender's clock.")
    received_at: Moment = pa.Field(description="When it was received.")
    sent_at: Moment = pa.Field(nullable=True, description="When the sender says that it sent the message.")
    is_timestamp_adjusted: bool = pa.Field(description="Whether the time was corrected or was later than its receipt.")
    ip: str = pa.Field(nullable=True, description="Address that the request came from.")
    request: str = pa.Field(
        nullable=True, description="JSON object of the request's headers and cookies that the source declares to keep."
    )
    properties: str = pa.Field(nullable=True, description="JSON object of the event's properties, without omitted fields.")
    context: str = pa.Field(nullable=True, description="JSON object of the event's context.")
    traits: str = pa.Field(nullable=True, description="JSON object of the traits, without omitted fields.")
    received_date: pl.Date = pa.Field(description="UTC day of receipt; the table is partitioned by it.")
    violations: str = pa.Field(
        nullable=True,
        description="JSON list of violations that did not block the event: kind, field, rule, action. Null if none.",
    )

    class Config:
        strict = False


class QuarantinedEvents(pa.DataFrameModel):
    """One row for each event that the tracking plan blocks, with the first violation that blocks it and the whole message."""

    batch_seq: pl.Int64 = pa.Field(ge=0, description="Number of the batch.")
    offset: pl.Int64 = pa.Field(ge=0, description="Place in the batch.")
    batch_id: str = pa.Field(description="Name of the batch.")
    source: str = pa.Field(description="The declared source that sent the event.")
    message_id: str = pa.Field(description="The sender's id of the message.")
    type: str = pa.Field(isin=TYPES, description="Kind of call.")
    event: str = pa.Field(nullable=True, description="Name of the event, page or screen.")
    violation: str = pa.Field(
        isin=KINDS, description="Kind of the first violation, in the plan's order, that blocks the event, or Enrichment-Failed."
    )
    field: str = pa.Field(
        description="The field it is about, such as properties.price; `event` for an unplanned event; or the enrichment."
    )
    payload: str = pa.Field(nullable=True, description="The message as it was received, to be replayed after a fix.")
    received_at: Moment = pa.Field(description="When it was received.")
    received_date: pl.Date = pa.Field(description="UTC day of receipt; the table is partitioned by it.")

    class Config:
        strict = True


@dataclass(frozen=True)
class Column:
    """A column of a table, for metadata and documentation."""

    name: str
    dtype: pl.DataType
    description: str


def fixed_columns(model: type[pa.DataFrameModel]) -> tuple[Column, ...]:
    """The columns that a model declares, in order."""
    columns: Mapping[str, pa.Column] = model.to_schema().columns
    return tuple(Column(name, column.dtype.type, column.description or "") for name, column in columns.items())


def enriched_columns(enrichments: Iterable[EnrichmentSpec]) -> tuple[Column, ...]:
    """All columns of enriched_events under these enrichments, in order."""
    added = (Column(name, output.dtype, output.description) for each in enrichments for name, output in each.columns.items())
    return (*fixed_columns(EnrichedEvents), *added)


RAW_COLUMNS = tuple(column.name for column in fixed_columns(EnrichedEvents) if column.name != "violations")
"""The columns of raw_events that go on."""

QUARANTINED_COLUMNS = tuple(column.name for column in fixed_columns(QuarantinedEvents))
"""The columns of quarantined_events, in order."""

LAYER = "enriched_events"


def _dtypes(columns: Iterable[Column]) -> dict[str, pl.DataType]:
    return {
        column.name: pl.Datetime("us", "UTC")
        if column.dtype == pl.Datetime
        else column.dtype()
        if isinstance(column.dtype, type)
        else column.dtype
        for column in columns
    }


ENRICHED_EVENTS = TableSpec(
    LAYER,
    "enriched_events",
    _dtypes(fixed_columns(EnrichedEvents)),
    partition_by="received_date",
    distinct=DISTINCT,
    loose=True,
    person="rows whose place is among the person's events",
)
"""With the columns that are always there; the enrichments add theirs."""
QUARANTINED_EVENTS = TableSpec(
    LAYER,
    "quarantined_events",
    _dtypes(fixed_columns(QuarantinedEvents)),
    partition_by="received_date",
    person="rows whose payload holds one of the person's identifiers",
)
EVENT_VIOLATIONS = TableSpec(
    LAYER,
    "event_violations",
    {
        "batch_seq": pl.Int64(),
        "event": pl.String(),
        "source": pl.String(),
        "kind": pl.String(),
        "action": pl.String(),
        "violation_count": pl.Int64(),
    },
    person="holds counts only",
)

EVENT_COUNTS = TableSpec(
    LAYER,
    "event_counts",
    {
        "batch_seq": pl.Int64(),
        "hour": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        "type": pl.String(),
        "event": pl.String(),
        "event_version": pl.Int64(),
        "is_unplanned": pl.Boolean(),
        "event_count": pl.Int64(),
        "violating_count": pl.Int64(),
        "quarantined_count": pl.Int64(),
    },
    person="holds counts only",
)
COUNTS_ONLY = (EVENT_VIOLATIONS.name, EVENT_COUNTS.name)
"""Tables that go on counting what was received, also after an erasure."""


def enriched_table(enrichments: Iterable[EnrichmentSpec]) -> TableSpec:
    """enriched_events with the columns of these enrichments."""
    return replace(ENRICHED_EVENTS, columns=_dtypes(enriched_columns(enrichments)))


TABLES = (ENRICHED_EVENTS, QUARANTINED_EVENTS, EVENT_VIOLATIONS, EVENT_COUNTS)
