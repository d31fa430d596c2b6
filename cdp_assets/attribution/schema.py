"""What a row of touchpoints, conversions and attribution_credit promises: column types for Polars, rules for pandera."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

INSTANT = pl.Datetime("us", "UTC")

PLACE = {"batch_seq": pl.Int64(), "offset": pl.Int64()}
"""Where the event stands that a row was made of."""

TOUCHES = pl.Schema(
    {
        "touchpoint_id": pl.String(),
        "at": INSTANT,
        "channel": pl.String(),
        "campaign": pl.String(),
        "source": pl.String(),
        "medium": pl.String(),
        "click_id_type": pl.String(),
        **PLACE,
    }
)
"""Touches of a batch, before their subject is joined."""

CONVERSIONS = pl.Schema(
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
        **PLACE,
    }
)
"""Conversions and refunds of a batch, before their subject is joined. `value` is in minor units, negative for a refund."""

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
"""The part a touch had in a conversion, by model; `at` is the conversion's. `value` is in minor units."""


def _column(schema: pl.Schema, name: str, *checks: pa.Check, nullable: bool = False) -> pa.Column:
    return pa.Column(schema[name], list(checks), nullable=nullable)


_PERSON = {"subject_id": pa.Column(pl.Int64, description="How a person is found in the table: the subject of the event.")}

touchpoints = pa.DataFrameSchema(
    {
        **_PERSON,
        **{name: _column(TOUCHES, name) for name in ("touchpoint_id", "at", "channel", "batch_seq", "offset")},
        **{name: _column(TOUCHES, name, nullable=True) for name in ("campaign", "source", "medium", "click_id_type")},
    },
    name="touchpoints",
    unique=["batch_seq", "offset"],
)

conversions = pa.DataFrameSchema(
    {
        **_PERSON,
        **{name: _column(CONVERSIONS, name) for name in CONVERSIONS if name not in ("currency", "order_id")},
        **{name: _column(CONVERSIONS, name, nullable=True) for name in ("currency", "order_id")},
    },
    checks=[
        pa.Check(
            lambda data: data.lazyframe.select(~pl.col("is_refund") | (pl.col("value") <= 0)),
            name="refunds_are_not_positive",
        ),
        pa.Check(
            lambda data: data.lazyframe.select(~pl.col("is_value_missing") | (pl.col("value") == 0)),
            name="a_missing_value_is_zero",
        ),
    ],
    name="conversions",
    unique=["batch_seq", "offset", "name", "is_refund"],
)

attribution_credit = pa.DataFrameSchema(
    {
        **{name: _column(CREDIT, name) for name in ("model", "conversion_id", "profile_id", "channel", "at", "value")},
        **{name: _column(CREDIT, name, nullable=True) for name in ("touchpoint_id", "campaign", "currency")},
        "position": _column(CREDIT, "position", pa.Check.ge(1), nullable=True),
        "path_length": _column(CREDIT, "path_length", pa.Check.ge(0)),
        "credit": _column(CREDIT, "credit", pa.Check.in_range(0, 1, include_min=False)),
    },
    checks=[
        pa.Check(
            lambda data: data.lazyframe.select(
                pl.when(pl.col("path_length") == 0)
                .then(pl.col("position").is_null() & pl.col("touchpoint_id").is_null() & (pl.col("credit") == 1))
                .otherwise(pl.col("touchpoint_id").is_not_null() & (pl.col("position") <= pl.col("path_length")))
            ),
            name="a_row_is_a_touch_of_its_path_or_stands_for_an_empty_path",
        )
    ],
    name="attribution_credit",
)
