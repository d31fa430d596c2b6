"""What a row of touchpoints, conversions and attribution_credit promises: column types, and rules for pandera."""

from __future__ import annotations

from dataclasses import replace

import pandera.polars as pa
import polars as pl

from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_resources.lake import TableSpec

INSTANT = pl.Datetime("us", "UTC")
PERSON = "subject_id"
"""How a person is found in touchpoints and conversions: the subject of the event. In attribution_credit it is `profile_id`."""

TOUCHES = pl.Schema(
    {
        "touchpoint_id": pl.String(),
        "at": INSTANT,
        "channel": pl.String(),
        "campaign": pl.String(),
        "source": pl.String(),
        "medium": pl.String(),
        "click_id_type": pl.String(),
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
    }
)
"""Touches of a batch, before their subject is joined."""

TOUCHPOINTS = pl.Schema({PERSON: pl.Int64(), **TOUCHES})
"""Touches as they are stored."""

FOUND_CONVERSIONS = pl.Schema(
    {
        "conversion_id": pl.String(),
        "at": INSTANT,
        "value": pl.Int64(),
        "currency": pl.String(),
        "name": pl.String(),
        "order_id": pl.String(),
        "is_refund": pl.Boolean(),
        "message_id": pl.String(),
        "is_value_missing": pl.Boolean(),
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
    }
)
"""Conversions and refunds of a batch, before their subject is joined. `value` is in minor units, of a refund not positive."""

CONVERSIONS = pl.Schema({"conversion_id": pl.String(), PERSON: pl.Int64(), **FOUND_CONVERSIONS})
"""Conversions and refunds as they are stored."""

CREDIT = pl.Schema(
    {
        "model": pl.String(),
        "conversion_id": pl.String(),
        "profile_id": pl.Int64(),
        "touchpoint_id": pl.String(),
        "position": pl.Int64(),
        "path_length": pl.Int64(),
        "channel": pl.String(),
        "campaign": pl.String(),
        "at": INSTANT,
        "credit": pl.Float64(),
        "value": pl.Int64(),
        "currency": pl.String(),
    }
)
"""The part that a touch had in a conversion, by model. `value` is in minor units."""

DESCRIPTIONS = {
    "subject_id": "The subject of the event",
    "profile_id": "The person",
    "touchpoint_id": "Message id of the touch; null where no touch led to the conversion",
    "at": "When it happened, UTC; in attribution_credit when the conversion or refund happened",
    "channel": "Marketing channel",
    "campaign": "utm_campaign",
    "source": "utm_source",
    "medium": "utm_medium",
    "click_id_type": "Kind of advertising click id in the page's address",
    "batch_seq": "Number of the batch: with offset, the place of the event",
    "offset": "Line of the batch, from 0",
    "conversion_id": "Declared name and the conversion's own id, or the message's; for refunds name, `refund` and the message's",
    "value": "Minor units of the currency (cents); negative for what was given back",
    "currency": "ISO 4217 code; values of two currencies are never added",
    "name": "Name of the declared conversion",
    "order_id": "Id of the conversion as the event gave it",
    "is_refund": "It takes back (part of) a conversion",
    "message_id": "Message id of the event",
    "is_value_missing": "The event held no readable amount; the value is 0",
    "model": "Name of the attribution model in use",
    "position": "Position of the touch in the path, from 1; null where there was none",
    "path_length": "Number of touches in the path",
    "credit": "Share of the conversion, above 0 and up to 1",
}


def _columns(schema: pl.Schema, *checked: tuple[str, pa.Check], nullable: tuple[str, ...]) -> dict[str, pa.Column]:
    checks = dict(checked)
    return {
        name: pa.Column(dtype, checks.get(name), nullable=name in nullable, description=DESCRIPTIONS[name])
        for name, dtype in schema.items()
    }


def _rule(name: str, holds: pl.Expr) -> pa.Check:
    return pa.Check(lambda data: data.lazyframe.select(holds), name=name)


touchpoints = pa.DataFrameSchema(
    _columns(TOUCHPOINTS, nullable=("campaign", "source", "medium", "click_id_type")),
    name="touchpoints",
    unique=["batch_seq", "offset"],
    strict=True,
)

conversions = pa.DataFrameSchema(
    _columns(CONVERSIONS, nullable=("currency", "order_id")),
    checks=[
        _rule("refunds_are_not_positive", ~pl.col("is_refund") | (pl.col("value") <= 0)),
        _rule("missing_values_are_zero", ~pl.col("is_value_missing") | (pl.col("value") == 0)),
    ],
    name="conversions",
    unique=["batch_seq", "offset", "name"],
    strict=True,
)

attribution_credit = pa.DataFrameSchema(
    _columns(
        CREDIT,
        ("position", pa.Check.ge(1)),
        ("path_length", pa.Check.ge(0)),
        ("credit", pa.Check.in_range(0, 1, include_min=False)),
        nullable=("touchpoint_id", "position", "campaign", "currency"),
    ),
    checks=[
        _rule(
            "rows_are_touches_of_a_path_or_stand_for_an_empty_one",
            pl.when(pl.col("path_length") == 0)
            .then(pl.col("position").is_null() & pl.col("touchpoint_id").is_null() & (pl.col("credit") == 1))
            .otherwise(pl.col("touchpoint_id").is_not_null() & (pl.col("position") <= pl.col("path_length")).fill_null(False)),
        )
    ],
    name="attribution_credit",
    strict=True,
)

LAYER = "attribution"
_READ = (
    *("batch_seq", "offset", "message_id", "type", "event", "timestamp", "received_date", "properties"),
    *("channel", "utm_campaign", "utm_source", "utm_medium", "click_id_type"),
)
EVENTS = replace(ENRICHED_EVENTS, columns={name: dict(ENRICHED_EVENTS.columns).get(name, pl.String()) for name in _READ})
"""What attribution reads of enriched_events, with the columns of the enrichments `campaign` and `channel`."""
TOUCH_EVENTS = TableSpec(LAYER, "touch_events", dict(TOUCHPOINTS), person="rows whose subject_id belongs to the person's profile")
CONVERSION_EVENTS = TableSpec(
    LAYER, "conversion_events", dict(CONVERSIONS), person="rows whose subject_id belongs to the person's profile"
)
ATTRIBUTION_CREDIT = TableSpec(
    LAYER, "attribution_credit", dict(CREDIT), keys=("profile_id",), person="rows with the person's profile_id"
)
TABLES = (TOUCH_EVENTS, CONVERSION_EVENTS, ATTRIBUTION_CREDIT)
