"""What rows promise, as pandera schemas, and broken promises turned into counts that are safe to show: never a value.

pandera's own errors repeat offending values, and check nothing but types on lazy frames: everything here takes collected rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from cdp_resources.lake import TableSpec

_LONGEST = 100


def rule(name: str, holds: pl.Expr) -> pa.Check:
    """A promise about whole rows."""
    return pa.Check(lambda data: data.lazyframe.select(holds), name=name)


def promises(
    spec: TableSpec,
    *,
    nullable: Sequence[str] = (),
    checks: Mapping[str, pa.Check] | None = None,
    rules: Sequence[pa.Check] = (),
    unique: Sequence[str] = (),
) -> pa.DataFrameSchema:
    """The schema of a table: its columns, none of which is null unless `nullable`, with these checks, rules and unique columns."""
    columns = {
        name: pa.Column(dtype, (checks or {}).get(name), nullable=name in nullable) for name, dtype in spec.columns.items()
    }
    return pa.DataFrameSchema(columns, checks=list(rules), unique=list(unique) or None, name=spec.name)


def broken(rows: pl.DataFrame, schema: pa.DataFrameSchema) -> Counter[str]:
    """How many rows break each promise, `column: check`; empty when all are kept."""
    try:
        schema.validate(rows, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases.select("column", "check").group_by("column", "check").agg(rows=pl.len())
        return Counter({f"{column}: {check}"[:_LONGEST]: count for column, check, count in cases.iter_rows()})
    return Counter()
