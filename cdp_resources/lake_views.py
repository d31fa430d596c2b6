"""SQL over the lake's files for DuckDB: for each table a view of one snapshot, typed as its spec says, also when it has no files.

Views name the files of the snapshot, so what they answer never changes under a reader. Nothing is created or written in the lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from cdp_resources.lake import CURSOR, EPOCH, Lake, Table, TableSpec
from cdp_resources.table_columns import has_added_columns

SCHEMA = "lake"
"""Schema of the views by physical table."""
STATE_MARKS = (CURSOR, EPOCH, "version", "identity_version", "as_of_day")
_READERS = 2
_SQL_TYPES = {
    pl.String: "VARCHAR",
    pl.Int64: "BIGINT",
    pl.Int32: "INTEGER",
    pl.Float64: "DOUBLE",
    pl.Boolean: "BOOLEAN",
    pl.Date: "DATE",
    pl.Datetime: "TIMESTAMP WITH TIME ZONE",
}
_STORED_TYPES = {
    pl.String: "string",
    pl.Int64: "long",
    pl.Int32: "integer",
    pl.Float64: "double",
    pl.Boolean: "boolean",
    pl.Date: "date",
    pl.Datetime: "timestamp",
}
_EVERY_TIER = ("base", "delta", "history")


@dataclass(frozen=True)
class Snapshot:
    """A table at one version: its files, and how far its rows have come."""

    spec: TableSpec
    files: tuple[tuple[str | None, str], ...] = ()
    """(partition, path) of every file."""
    stored: frozenset[str] = frozenset()
    """Columns that the stored table has in the declared type."""
    is_even: bool = True
    """Whether every file has all declared columns, in the declared types."""
    state: dict[str, int | None] = field(default_factory=dict)
    """Columns of lake_tables after layer and table_name."""

    def paths(self, tiers: Sequence[str] | None = None) -> list[str]:
        """The files, of some tiers only when given."""
        return [path for partition, path in self.files if tiers is None or partition in tiers]


def quoted(text: str) -> str:
    """An SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """An SQL identifier, safe for any word."""
    return '"' + name.replace('"', '""') + '"'


def physical(spec: TableSpec) -> str:
    """The view of a physical table; of a keyed table its current rows, [spec.columns]."""
    return f"{SCHEMA}.{named(spec.full_name)}"


def versions(spec: TableSpec) -> str:
    """The view of every version of a keyed table's rows, [spec.schema]."""
    return f"{SCHEMA}.{named(f'{spec.full_name}/versions')}"


def sql_type(dtype: pl.DataType) -> str:
    """DuckDB's type for a Polars type of the lake. Raises KeyError for types that no table uses."""
    return _SQL_TYPES[dtype.base_type()]


def snapshots(root: Path, specs: Iterable[TableSpec]) -> list[Snapshot]:
    """The tables as they are now; a table that was never created counts as empty."""
    lake = Lake(root)
    with ThreadPoolExecutor(_READERS, "lake") as pool:
        return list(pool.map(lambda spec: _snapshot(lake, spec), specs))


def _snapshot(lake: Lake, spec: TableSpec) -> Snapshot:
    path = lake.path(spec)
    try:
        handle = DeltaTable(str(path))
    except TableNotFoundError:
        return Snapshot(spec, state=dict.fromkeys(STATE_COLUMNS))
    table = Table(handle, spec)
    files = table.files()
    types = {each.name: str(getattr(each.type, "type", each.type)) for each in handle.schema().fields}
    stored = frozenset(name for name, dtype in spec.schema.items() if types.get(name) == _STORED_TYPES[dtype.base_type()])
    marks = [handle.transaction_version(name) for name in STATE_MARKS]
    sums = [files["num_records"].sum(), files.height, files["size_bytes"].sum()]
    state = dict(zip(STATE_COLUMNS, [*marks, *map(int, sums)], strict=True))
    partitions = files["partition"].cast(pl.String)
    return Snapshot(
        spec,
        tuple((part, str(path / file)) for part, file in zip(partitions, files["path"], strict=True)),
        stored,
        not spec.loose and stored >= spec.schema.keys() and not has_added_columns(handle),
        state,
    )


STATE_COLUMNS = ("batch_seq", "epoch", "version", "identity_version", "as_of_day", "row_count", "file_count", "size_bytes")
"""What lake_tables says of a table: the marks of its last commit (STATE_MARKS), and its size. Null: not there yet, or not kept."""


def view_statements(snapshot: Snapshot) -> list[str]:
    """The SQL that creates the views of a snapshot in the schema `lake`."""
    spec = snapshot.spec
    if not spec.keys:
        return [_create(physical(spec), _rows(snapshot, list(spec.columns)))]
    return [
        _create(physical(spec), current_rows(snapshot)),
        _create(versions(spec), _rows(snapshot, list(spec.schema), _EVERY_TIER)),
    ]


def state_statement(found: Iterable[Snapshot]) -> str:
    """The SQL that creates `lake.lake_tables`: a row for each table."""
    rows = [
        ", ".join([quoted(each.spec.layer), quoted(each.spec.name), *(_number(each.state[name]) for name in STATE_COLUMNS)])
        for each in found
    ]
    names = ", ".join(("layer", "table_name", *STATE_COLUMNS))
    return _create(f"{SCHEMA}.lake_tables", f"SELECT * FROM (VALUES ({'), ('.join(rows)})) AS tables ({names})")  # noqa: S608


def current_rows(snapshot: Snapshot) -> str:
    """SELECT of the newest rows of each key of a keyed table: what `KeyedTable.current` gives, [spec.columns]."""
    spec = snapshot.spec
    columns, keys = _list(spec.columns), _list(spec.keys)
    base = _rows(snapshot, list(spec.schema), ("base",))
    if not snapshot.paths(("delta",)):
        return f"SELECT {columns} FROM ({base})"  # noqa: S608
    delta = _rows(snapshot, list(spec.schema), ("delta",))
    return (
        f"WITH newest AS (SELECT * FROM ({delta}) QUALIFY version = max(version) OVER (PARTITION BY {keys})) "  # noqa: S608
        f"SELECT {columns} FROM ({base}) AS base ANTI JOIN (SELECT DISTINCT {keys} FROM newest) AS moved USING ({keys}) "
        f"UNION ALL SELECT {columns} FROM newest WHERE NOT is_deleted"
    )


def _rows(snapshot: Snapshot, columns: list[str], tiers: Sequence[str] | None = None) -> str:
    """SELECT of columns of the stored rows, of some tiers only when given."""
    spec = snapshot.spec
    paths = snapshot.paths(tiers)
    nothing = f"SELECT {', '.join(_null(spec, name) for name in columns)} WHERE false"
    if not paths:
        return nothing
    partition = spec.partition_by or ("tier" if spec.keys else None)
    options = ""
    if partition is not None:
        kind = sql_type(spec.schema[partition])
        options += f", hive_partitioning = true, hive_types = {{{quoted(partition)}: {kind}}}"
    if snapshot.is_even:
        return f"SELECT {_list(columns)} FROM read_parquet([{', '.join(map(quoted, paths))}]{options})"  # noqa: S608
    # Columns come and go, or came with a newer program: the first part gives each declared one its type, also where no file holds it or holds another type.
    kept = ", ".join(quoted(name) for name in columns if name in snapshot.stored)
    scan = f"read_parquet([{', '.join(map(quoted, paths))}]{options}, union_by_name = true)"
    found = f"SELECT COLUMNS(held -> held IN ({kept})) FROM {scan}"  # noqa: S608
    return f"SELECT {_list(columns)} FROM ({nothing} UNION ALL BY NAME {found})"  # noqa: S608


def _create(name: str, select: str) -> str:
    return f"CREATE VIEW {name} AS {select}"


def _null(spec: TableSpec, name: str) -> str:
    return f"NULL::{sql_type(spec.schema[name])} AS {named(name)}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(named, names))


def _number(value: int | None) -> str:
    return "NULL::BIGINT" if value is None else f"{value}::BIGINT"
