"""A stored table gets the columns that a newer program knows. What the columns are is declared by the layers."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError

_ADDED = "cdp.added"
"""Mark of a column in the table's schema: files from before it lack it."""


def has_added_columns(handle: DeltaTable) -> bool:
    """Whether files of the table may lack some of its columns."""
    return any(_ADDED in each.metadata for each in handle.schema().fields)


def add_columns(handle: DeltaTable, columns: Mapping[str, pl.DataType]) -> None:
    """Give a table that was made before them the columns that this code knows; its rows hold null there. Every new column may be null."""
    stored = {each.name for each in handle.schema().fields}
    missing = [name for name in columns if name not in stored]
    if not missing:
        return
    known = {each.name: each for each in Schema.from_arrow(pl.Schema(columns)).fields}
    try:
        handle.alter.add_columns([Field(name, known[name].type, metadata={_ADDED: True}) for name in missing])
    except DeltaError:
        handle.update_incremental()
        if {each.name for each in handle.schema().fields} < set(
            columns
        ):  # otherwise another process added them at the same moment
            raise
