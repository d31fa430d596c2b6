"""sql: what a query of the user's finds for the inputs, over reference tables here or in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
import polars as pl
import xxhash
from pydantic import Field, model_validator

from cdp_assets.declaration import Declaration, Name
from cdp_assets.enriched_events.enrichments import FAILED, Output
from cdp_assets.enriched_events.enrichments.declared_columns import Columns, outputs, source_name, typed
from cdp_resources.look_ups import Answered, Database, LookUpError, LookUps, TableRef


class Settings(Declaration):
    """Settings of sql."""

    sql: str = Field(min_length=1)
    """One SELECT. It reads the table `inputs`, with a row for each distinct combination of inputs, all text; it gives the inputs back, with
    the columns, and at most one row for each."""
    columns: Columns
    """The columns that are added."""
    tables: dict[Name, TableRef] = Field(default_factory=dict)
    """Name in the query -> reference table; DuckDB answers."""
    database: Database | None = None
    """The PostgreSQL database that answers instead."""

    @model_validator(mode="after")
    def _asks_somebody(self) -> Self:
        if bool(self.tables) == (self.database is not None):
            raise ValueError("a query asks either tables or a database")
        if "inputs" in self.tables:
            raise ValueError("the table `inputs` is what is asked for; give the reference table another name")
        return self


def columns(settings: Settings) -> Mapping[str, Output]:
    """The declared columns."""
    return outputs(settings.columns, "Of a query")


def reference(settings: Settings, look_ups: LookUps) -> str | None:
    """The versions of the tables; of a database there is none."""
    if settings.database is not None:
        return None
    versions = [look_ups.table(ref).version for ref in settings.tables.values()]
    return xxhash.xxh3_128_hexdigest(" ".join(versions).encode())


def look_up(distinct: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """Inputs -> columns; a row for which the query finds several rows, or which could not be asked for, has FAILED.

    Raises LookUpError when the query cannot be understood, or does not give inputs and columns.
    """
    asked = distinct.cast(pl.String)
    if settings.database is None:
        return _of_tables(asked, settings, look_ups)
    found = look_ups.database(settings.database, settings.sql, asked.to_dicts())
    return _of_database(found, settings)


def _of_tables(asked: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    inputs = asked.columns
    found = look_ups.query(settings.sql, settings.tables).ask(asked)
    for name in (*inputs, *(source_name(name, each) for name, each in settings.columns.items())):
        if name not in found.columns:
            raise LookUpError(f"the query does not give {name!r}; it gives {', '.join(found.columns)}")
    values = typed({name: found.get_column(source_name(name, each)) for name, each in settings.columns.items()}, settings.columns)
    keys = found.select(pl.col(inputs).cast(pl.String).name.prefix("key "))
    rows = keys.hstack(values).with_columns(pl.struct(keys.columns).is_duplicated().alias(FAILED))
    once = rows.unique(keys.columns, keep="first", maintain_order=True)
    given = asked.select(pl.all().name.prefix("key ")).join(
        once, on=keys.columns, how="left", nulls_equal=True, maintain_order="left"
    )
    failed = pl.col(FAILED).fill_null(False)
    return given.select(*(pl.when(~failed).then(name).alias(name) for name in settings.columns), failed)


def _of_database(found: Sequence[Answered | None], settings: Settings) -> pl.DataFrame:
    rows = [None if each is None or each.text is None else msgspec.json.decode(each.text) for each in found]
    single = [each[0] if each is not None and len(each) == 1 else {} for each in rows]
    for row in single:
        for name, column in settings.columns.items():
            if row and source_name(name, column) not in row:
                raise LookUpError(f"the query does not give {source_name(name, column)!r}; it gives {', '.join(row)}")
    values = {
        name: pl.Series([row.get(source_name(name, each)) for row in single], dtype=pl.String)
        for name, each in settings.columns.items()
    }
    failed = pl.Series(FAILED, [each is None or len(each) > 1 for each in rows], dtype=pl.Boolean)
    return typed(values, settings.columns).with_columns(failed)
