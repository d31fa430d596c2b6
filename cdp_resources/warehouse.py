"""The tables of the contract in DuckDB: a connection in memory over one snapshot of the lake, to be asked in SQL and never written.

Which tables there are, and their SQL over the lake, is given as `View`s; how physical tables are read is in lake_views.py.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import polars as pl

from cdp_resources import lake_views, sync_log
from cdp_resources.home import Home
from cdp_resources.lake import TableSpec
from cdp_resources.lake_views import Snapshot, named, quoted, snapshots, state_statement, view_statements

CONTRACT = "cdp"
"""Schema of the contract's tables; the search path finds them without it."""
LEDGER = "ledger"
MARTS_FILE = "marts.duckdb"
"""The file in `home.marts` that holds the built marts. It is never written in place, only swapped."""
CHUNK_ROWS = 10_000
MEMORY_LIMIT = "2GB"
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
"""DuckDB loads nothing from anywhere."""
_numbers = itertools.count()


class QueryError(ValueError):
    """A query that cannot be answered; the message says why."""


@dataclass(frozen=True)
class ViewColumn:
    """A column that a query sees."""

    name: str
    type: str
    """DuckDB's name of the type."""
    description: str


@dataclass(frozen=True)
class View:
    """A table of the contract."""

    name: str
    description: str
    columns: tuple[ViewColumn, ...]
    person: str
    """How a person is found in it."""
    sql: str = ""
    """SELECT over the schemas `lake`, `ledger` and `cdp` (views given earlier), in these columns. Empty for a mart, which has a file."""


@dataclass(frozen=True)
class Answer:
    """What a query gives: names and types of the columns, and the rows as they come."""

    columns: tuple[str, ...]
    """Without doubles: a name that comes again gets `_1`, `_2`, …"""
    types: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


class Warehouse:
    """A connection for one thread. What it answers is the state of the lake when it was opened.

    `specs`: the physical tables; `views`: the contract's, each after those it reads; `marts`: those that dbt builds.
    """

    def __init__(
        self,
        home: Home,
        specs: Iterable[TableSpec],
        views: Sequence[View],
        marts: Sequence[View] = (),
        *,
        memory_limit: str = MEMORY_LIMIT,
        threads: int | None = None,
    ) -> None:
        self._spill = home.root / "tmp" / f"query-{os.getpid()}-{next(_numbers)}"
        spills = _made(self._spill.parent)
        self._names = sorted(view.name for view in (*views, *marts))
        self._connection = duckdb.connect(":memory:", config={**OFFLINE, "python_enable_replacements": "false"})
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET parquet_metadata_cache = true")
            self._connection.execute(f"SET temp_directory = {quoted(str(self._spill) if spills else '')}")
            self._connection.execute(f"SET memory_limit = {quoted(memory_limit)}")
            self._connection.execute(f"SET threads = {int(threads or os.cpu_count() or 1)}")
            found = create_views(self._connection, home, specs, views)
            self._names += create_marts(self._connection, home, marts)
            self._connection.execute(f"SET search_path = '{CONTRACT}'")
            self._lock(path for each in found for _, path in each.files)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and drop what it spilled to disk."""
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def query(self, sql: str) -> Answer:
        """The answer to one query that reads. Raises QueryError, also while rows are taken."""
        try:
            self._connection.execute(self._only_reading(sql))
        except duckdb.Error as error:
            raise QueryError(self._told(error)) from None
        about = self._connection.description or []
        return Answer(_distinct([each[0] for each in about]), tuple(str(each[1]) for each in about), self._rows())

    def frame(self, sql: str) -> pl.DataFrame:
        """The answer as a frame. Sums of whole numbers, which DuckDB widens, are Int64 where they fit. Raises QueryError."""
        try:
            found = pl.DataFrame(self._connection.sql(self._only_reading(sql)))
        except duckdb.Error as error:
            raise QueryError(self._told(error)) from None
        wide = [name for name, dtype in found.schema.items() if dtype == pl.Decimal(38, 0)]
        narrow = found.select(pl.col(wide).cast(pl.Int64, strict=False))
        kept = [name for name in wide if narrow[name].null_count() == found[name].null_count()]
        return found.with_columns(narrow.select(kept))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        while True:
            try:
                rows = self._connection.fetchmany(CHUNK_ROWS)
            except duckdb.Error as error:
                raise QueryError(self._told(error)) from None
            if not rows:
                return
            yield from rows

    def _lock(self, paths: Iterable[str]) -> None:
        """From here on only these files can be read, and no setting be changed."""
        self._connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, paths))}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def _only_reading(self, sql: str) -> str:
        """The query itself. Raises QueryError for anything but one statement that reads."""
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.ParserException:
            sql = quote_columns(sql)
            statements = self._connection.extract_statements(sql)
        if not statements:
            raise QueryError("there is no query")
        if len(statements) > 1:
            raise QueryError("one query at a time")
        text = str(statements[0].query).strip().rstrip(";")
        kind = statements[0].type
        if kind == duckdb.StatementType.EXPLAIN:
            inner = re.sub(r"(?is)\A\s*explain\s*(\([^)]*\)|analyze\b)?", "", text)
            kind = self._connection.extract_statements(inner)[0].type
        if kind != duckdb.StatementType.SELECT:
            raise QueryError(f"tables are only read here: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE or EXPLAIN, not {kind.name}")
        return text

    def _told(self, error: duckdb.Error) -> str:
        """DuckDB's words, with our tables' names where a table was not found."""
        text = str(error).strip()
        missing = re.search(r"Table with name (\S+) does not exist", text)
        if missing is None:
            return text
        close = difflib.get_close_matches(missing[1].lower(), self._names, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"there is no table {missing[1]}; {meant}there are {', '.join(sorted(self._names))}"


def _made(folder: Path) -> bool:
    """Whether queries can spill there. Who may only read does not: values of people are put nowhere else."""
    if folder.parent.exists() and not folder.exists():
        with suppress(PermissionError):
            folder.mkdir(exist_ok=True)
    return os.access(folder, os.W_OK | os.X_OK)


def create_views(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    specs: Iterable[TableSpec],
    views: Iterable[View],
    exported: Path | None = None,
) -> list[Snapshot]:
    """Create the schemas `lake`, `ledger` and `cdp` with their views, and say which snapshots they read.

    The ledger's rows are copied into the database, or with `exported` into Parquet files of that folder.
    """
    for schema in (lake_views.SCHEMA, LEDGER, CONTRACT):
        connection.execute(f"CREATE SCHEMA {schema}")
    # The ledger comes first: what is exported from it meanwhile is then in both, and counted once.
    _create_table(connection, "sync_log", sync_log.unexported(home), exported)
    _create_table(connection, "sync_runs", sync_log.runs(home), exported)
    found = snapshots(home.lake, specs)
    for snapshot in found:
        for statement in view_statements(snapshot):
            connection.execute(statement)
    connection.execute(state_statement(found))
    for view in views:
        connection.execute(f"CREATE VIEW {CONTRACT}.{named(view.name)} AS {view.sql}")
    return found


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, exported: Path | None) -> None:
    if exported is not None:
        frame.write_parquet(exported / f"{name}.parquet")
        source = f"VIEW {LEDGER}.{name} AS SELECT * FROM read_parquet({quoted(str(exported / f'{name}.parquet'))})"  # noqa: S608
        connection.execute(f"CREATE {source}")
        return
    columns = ", ".join(f"{named(column)} {lake_views.sql_type(dtype)}" for column, dtype in frame.schema.items())
    connection.execute(f"CREATE TABLE {LEDGER}.{name} ({columns})")
    if not frame.is_empty():
        connection.register("given_rows", Stream(frame))
        connection.execute(f"INSERT INTO {LEDGER}.{name} SELECT * FROM given_rows")  # noqa: S608
        connection.unregister("given_rows")


def create_marts(connection: duckdb.DuckDBPyConnection, home: Home, marts: Iterable[View]) -> list[str]:
    """Create views of the built marts, typed and empty where one was not built yet; the names of built ones not in `marts`."""
    built: list[str] = []
    if (home.marts / MARTS_FILE).exists():
        connection.execute(f"ATTACH {quoted(str(home.marts / MARTS_FILE))} AS marts (READ_ONLY)")
        rows = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'marts' ORDER BY 1").fetchall()
        built = [str(row[0]) for row in rows]
    for name in built:
        connection.execute(f"CREATE VIEW {CONTRACT}.{named(name)} AS SELECT * FROM marts.main.{named(name)}")  # noqa: S608
    for view in marts:
        if view.name not in built:
            columns = ", ".join(f"NULL::{column.type} AS {named(column.name)}" for column in view.columns)
            connection.execute(f"CREATE VIEW {CONTRACT}.{named(view.name)} AS SELECT {columns} WHERE false")
    declared = {view.name for view in marts}
    return [name for name in built if name not in declared]


_COLUMN_WORDS = re.compile(r"(?i)at(?!\s+time\b|\s*\()|offset(?!\s*[\d($?])")


def quote_columns(sql: str) -> str:
    """The query with bare `at` and `offset` quoted where they can be columns: both are our columns and DuckDB's keywords."""
    text = sql.encode()  # the tokenizer counts bytes
    for place, kind in reversed(duckdb.tokenize(sql)):
        if kind == duckdb.token_type.keyword:
            word = _COLUMN_WORDS.match(text[place:].decode())
            if word is not None and not text[place + word.end() : place + word.end() + 1].decode(errors="replace").isidentifier():
                text = text[:place] + b'"' + word[0].encode() + b'"' + text[place + word.end() :]
    return text.decode()


class Stream:
    """A frame as DuckDB takes it without pyarrow: it refuses a DataFrame, but reads any object with an Arrow stream."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        unique, number = name, 0
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return tuple(found)
