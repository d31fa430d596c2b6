"""A stored table gets the columns that a newer program knows. What the columns are is declared by the layers."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError


def add_columns(handle: DeltaTable, columns: Mapping[str, pl.DataType]) -> None:
    """Give a table that was made before them the columns that this code knows; its rows hold null there. Every new column may be null."""
    stored = {each.name for each in handle.schema().fields}
    missing = [name for name in columns if name not in stored]
    if not missing:
        return
    known = {each.name: each for each in Schema.from_arrow(pl.Schema(columns)).fields}
    try:
        handle.alter.add_columns([known[name] for name in missing])
    except DeltaError:
        handle.update_incremental()
        if {each.name for each in handle.schema().fields} < set(
            columns
        ):  # otherwise another process added them at the same moment
            raise
