"""How a table of the contract is made of a physical one."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from cdp_resources.lake import TableSpec
from cdp_resources.lake_views import named, physical, sql_type
from cdp_resources.warehouse import View, ViewColumn


def view(name: str, description: str, described: Mapping[str, tuple[pl.DataType, str]], person: str, source: str) -> View:
    """A view in the columns of `described` (name -> type, meaning) over `source`, SQL that follows FROM."""
    columns = tuple(ViewColumn(column, sql_type(dtype), text) for column, (dtype, text) in described.items())
    return View(name, description, columns, person, f"SELECT {', '.join(map(named, described))} FROM {source}")  # noqa: S608


def projection(spec: TableSpec, description: str, described: Mapping[str, str]) -> View:
    """Columns of one physical table, under its own name."""
    return view(
        spec.name,
        description,
        {name: (spec.columns[name], text) for name, text in described.items()},
        spec.person,
        physical(spec),
    )
