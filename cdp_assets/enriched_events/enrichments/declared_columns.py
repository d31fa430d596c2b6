"""Columns that the user declares, for enrichments that look things up: their names, their types, and values brought to these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import polars as pl
from pydantic import BeforeValidator, Field, WithJsonSchema

from cdp_assets.declaration import Declaration, Name
from cdp_assets.enriched_events.enrichments import Output

ColumnType = Literal["string", "integer", "number", "boolean", "date", "date-time"]

_DTYPES: Mapping[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "date-time": pl.Datetime("us", "UTC"),
}


class Column(Declaration):
    """One column that is looked up."""

    type: ColumnType = "string"
    """What its values are; one that is none of these is null."""
    from_: str | None = Field(default=None, alias="from", min_length=1)
    """What it is called where it is looked up: a column, or in an answer of a web service a path such as `company.names.0`. Left out:
    the same."""
    description: str = ""
    """What it means."""


def _columns(value: object) -> object:
    if isinstance(value, list | tuple):
        return {each: {} for each in value}
    if isinstance(value, dict):
        return {name: {"type": each} if isinstance(each, str) else each for name, each in value.items()}
    return value


_AS_WRITTEN = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [{"enum": list(_DTYPES)}, {"type": "object", "properties": {
                "type": {"enum": list(_DTYPES)}, "from": {"type": "string"}, "description": {"type": "string"}
            }, "additionalProperties": False}]},
        },
    ]
}  # fmt: skip

Columns = Annotated[dict[Name, Column], BeforeValidator(_columns), Field(min_length=1), WithJsonSchema(_AS_WRITTEN)]
"""Column -> type, or type, `from` and description; a list of names means text."""


def outputs(columns: Mapping[str, Column], what: str) -> dict[str, Output]:
    """What an enrichment with these columns promises."""
    return {
        name: Output(_DTYPES[each.type], each.description or f"{what}: {each.from_ or name}.") for name, each in columns.items()
    }


def source_name(name: str, column: Column) -> str:
    """What a column is called where it is looked up."""
    return column.from_ or name


def typed(values: Mapping[str, pl.Series], columns: Mapping[str, Column]) -> pl.DataFrame:
    """Column -> its values, brought to the declared types; null where that cannot be."""
    return pl.DataFrame([_typed(values[name], each.type).alias(name) for name, each in columns.items()])


def _typed(values: pl.Series, wanted: ColumnType) -> pl.Series:
    dtype = _DTYPES[wanted]
    if values.dtype == dtype:
        return values
    if values.dtype != pl.String:
        if dtype == pl.Datetime("us", "UTC") and isinstance(values.dtype, pl.Datetime):
            return (
                values.dt.replace_time_zone("UTC") if values.dtype.time_zone is None else values.dt.convert_time_zone("UTC")
            ).cast(dtype)
        if dtype == pl.Date() and isinstance(values.dtype, pl.Datetime):
            return values.cast(dtype)
        if dtype == pl.Float64() and values.dtype.is_numeric():
            return values.cast(dtype, strict=False)
        values = values.cast(pl.String, strict=False)
    text = values.to_frame("v").select(pl.when(pl.col("v") != "").then(pl.col("v").str.strip_chars())).to_series()
    match wanted:
        case "string":
            return values
        case "integer":
            return text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        case "number":
            number = text.cast(pl.Float64, strict=False)
            return number.to_frame("v").select(pl.when(pl.col("v").is_finite()).then("v")).to_series()
        case "boolean":
            return text.str.to_lowercase().replace_strict(
                {"true": True, "false": False, "1": True, "0": False}, default=None, return_dtype=pl.Boolean
            )
        case "date":
            return text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        case "date-time":
            return _instants(text)


def _instants(text: pl.Series) -> pl.Series:
    """ISO 8601 with an offset, or without one as UTC; a day alone is its first instant."""
    whole = pl.col("v").str.replace(" ", "T").str.replace("Z$", "+00:00")
    day = pl.when(whole.str.len_chars() == 10).then(whole + "T00:00:00+00:00").otherwise(whole)
    offset = pl.when(day.str.contains(r"[+-]\d\d:?\d\d$")).then(day).otherwise(day + "+00:00")
    return text.to_frame("v").select(offset.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)).to_series()
