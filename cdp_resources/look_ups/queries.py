"""A query of the user's over reference tables, answered by DuckDB in memory, without files, network or extensions of its own."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import polars as pl

from cdp_resources.json_paths import ArrowStream
from cdp_resources.look_ups.tables import LookUpError

INPUTS = "inputs"
"""The table that holds what is asked for: one row for each distinct combination of inputs."""


class Query:
    """One query, its tables loaded once."""

    def __init__(self, sql: str, tables: Mapping[str, pl.DataFrame]) -> None:
        closed: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
            "temp_directory": "",
        }
        self._sql = sql
        self._connection = duckdb.connect(":memory:", config=closed)
        for name, frame in tables.items():
            self._connection.from_arrow(ArrowStream(frame)).create(name)

    def ask(self, inputs: pl.DataFrame) -> pl.DataFrame:
        """What the query gives. Raises LookUpError when it cannot be understood, and duckdb.Error when it fails for these inputs."""
        self._connection.execute(f'drop table if exists "{INPUTS}"')
        self._connection.from_arrow(ArrowStream(inputs)).create(INPUTS)
        try:
            return pl.DataFrame(self._connection.sql(f"select * from ({self._sql}\n) as answer"))  # noqa: S608 - the user's own query
        except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
            # These come before any row is read: they name tables and columns.
            raise LookUpError(f"the query cannot be understood: {str(error).splitlines()[0]}") from None
        finally:
            self._connection.execute(f'drop table if exists "{INPUTS}"')
