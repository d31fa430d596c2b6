"""lookup: columns of the row of a reference table whose key the event holds, such as the category of a product."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.enrichments.declared_columns import Columns, outputs, source_name, typed
from cdp_resources.look_ups import LookUpError, LookUps, TableRef


class Settings(Declaration):
    """Settings of lookup."""

    table: TableRef
    """The reference table: `{file: tables/products.csv}`, `{home: …}` or `{lake: …}`."""
    columns: Columns
    """The columns that are added."""
    keys: dict[str, str] = Field(default_factory=dict)
    """Input -> key column of the table, where that is called otherwise."""


def columns(settings: Settings) -> Mapping[str, Output]:
    """The declared columns."""
    return outputs(settings.columns, f"Of {settings.table.name}")


def reference(settings: Settings, look_ups: LookUps) -> str:
    """The table's version."""
    return look_ups.table(settings.table).version


def look_up(distinct: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """Inputs, which are keys compared as text -> columns of the row with these keys; a null is no key.

    Raises LookUpError when the table has not these columns, or a key stands in it more than once.
    """
    key = ("lookup", settings.model_dump_json(), *distinct.columns)
    table = look_ups.once(key, lambda: _table(distinct.columns, settings, look_ups))
    asked = distinct.select(pl.all().cast(pl.String).name.prefix("key "))
    return asked.join(table, on=asked.columns, how="left", maintain_order="left").select(list(settings.columns))


def _table(inputs: list[str], settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    table = look_ups.table(settings.table)
    keys = pl.DataFrame([table.column(settings.keys.get(each, each)).cast(pl.String).alias(f"key {each}") for each in inputs])
    values = {name: table.column(source_name(name, each)) for name, each in settings.columns.items()}
    rows = keys.hstack(typed(values, settings.columns)).drop_nulls(keys.columns)
    if count := rows.select(keys.columns).is_duplicated().sum():
        raise LookUpError(f"{table.name}: {count} rows share their key with another one")
    return rows
