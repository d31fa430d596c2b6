"""Rows of a table from a cursor's value on, in its order, through dlt: a few thousand at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cdp_resources.secrets import SecretRef
from cdp_resources.sources.cursors import CursorValue
from cdp_resources.sources.dlt_library import make_ready
from cdp_resources.sources.extract import Extracted
from cdp_resources.sources.unavailable import SourceUnavailableError

_ROWS = 5_000


class Table(Extracted, Protocol):
    """A table that is read."""

    @property
    def table(self) -> str | None: ...


def rows(url: SecretRef, name: str, declared: Table, start: CursorValue | None, folder: Path) -> Generator[Mapping[str, Any]]:
    """The rows whose cursor is at `start` or above, in the cursor's order; without a cursor all rows.

    Rows without a value of the cursor are left out. `folder` is dlt's. Raises MissingSecretError, SourceUnavailableError.
    """
    make_ready(folder)
    import dlt
    import sqlalchemy as sa
    from dlt.common.exceptions import DltException
    from dlt.sources.sql_database import sql_table
    from dlt.sources.sql_database.helpers import TableLoader

    from cdp_resources.sources.database.connection import engine_of, told_safely

    engine = engine_of(url)
    schema, _, table_name = (declared.table or name).rpartition(".")
    try:
        with told_safely():
            if not sa.inspect(engine).has_table(table_name, schema or None):
                raise SourceUnavailableError(f"no table or view {declared.table or name}")
            table = sa.Table(table_name, sa.MetaData(), schema=schema or None, autoload_with=engine, resolve_fks=False)
            lacking = [column for column in declared.used_columns if column not in table.columns]
            if lacking:
                choices = ", ".join(column.name for column in table.columns)
                raise SourceUnavailableError(
                    f"table {declared.table or name}: no column {', '.join(lacking)}; there is {choices}"
                )
            incremental = None
            if declared.cursor is not None:
                incremental = dlt.sources.incremental(
                    declared.cursor,
                    initial_value=_as_the_column(table.columns[declared.cursor].type, start),
                    row_order="asc",
                    range_start="closed",
                    on_cursor_value_missing="exclude",
                    primary_key=(),
                )
            with engine.connect() as connection:

                class OwnConnection(TableLoader):
                    """dlt closes its connection only at the end of the rows; this one is closed with whoever reads them."""

                    def _load_rows(self, query: Any, backend_kwargs: Any) -> Iterator[Any]:
                        answer = connection.execution_options(yield_per=self.chunk_size).execute(query)
                        yield from self._convert_result(answer, backend_kwargs)

                yield from sql_table(
                    credentials=engine,
                    table=table_name,
                    schema=schema or None,
                    incremental=incremental,
                    chunk_size=_ROWS,
                    backend="sqlalchemy",
                    reflection_level="minimal",
                    table_adapter_callback=lambda found: _only(found, declared.used_columns),
                    table_loader_class=OwnConnection,
                )
    except DltException as error:
        raise SourceUnavailableError(f"table {declared.table or name} cannot be read: {type(error).__name__}") from None
    finally:
        engine.dispose()


def _only(table: Any, columns: tuple[str, ...]) -> Any:
    """Leave the columns that nobody asked for at the database."""
    for column in list(table.columns):
        if column.name not in columns:
            table._columns.remove(column)
    return table


def _as_the_column(kind: Any, start: CursorValue | None) -> CursorValue | None:
    """A declared start as the column has it: text becomes a time where the column is one, in UTC."""
    import sqlalchemy as sa

    if not isinstance(start, str) or not isinstance(kind, sa.Date | sa.DateTime):
        return start
    with suppress(ValueError):
        moment = datetime.fromisoformat(start)
        if isinstance(kind, sa.Date) and not isinstance(kind, sa.DateTime):
            return moment.date()
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment if getattr(kind, "timezone", False) else moment.astimezone(UTC).replace(tzinfo=None)
    raise SourceUnavailableError("start: the cursor is a time; write it as 2026-11-22 or 2026-11-22T18:30:00Z")
