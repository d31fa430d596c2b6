"""The data files of a Delta table: which there are, their rows, and new ones, written by Polars and described as Delta's log wants them. Committing them is lake.py's.

Polars takes a quarter less processor time than `write_deltalake`, which copies every row to split by partition. A crash before the commit leaves files that no
version of the table names; vacuum removes them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

_GROUP_ROWS = 32_768
"""Rows of a group: of events some 40 MB before compression. Whole files as one group took a quarter longer to write, for as many bytes."""


def held_files(handle: DeltaTable, partition: str | None) -> pl.DataFrame:
    """The files of the version in hand, in order of their batches: [path, num_records, size_bytes, batch_seq_min, batch_seq_max, version_max, partition].

    The log has the newest first. Read in the order in which they were written, most rows need no sorting.
    """
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    wanted = {
        "path": "path",
        "num_records": "num_records",
        "size_bytes": "size_bytes",
        "min.batch_seq": "batch_seq_min",
        "max.batch_seq": "batch_seq_max",
        "max.version": "version_max",
        f"partition.{partition}": "partition",
    }
    order = [name for name in ("min.batch_seq", "modification_time") if name in actions.columns]
    columns = ((pl.col(name) if name in actions.columns else pl.lit(None)).alias(alias) for name, alias in wanted.items())
    return actions.sort(order).select(columns)


def rows_of(root: Path, files: pl.DataFrame, schema: Mapping[str, pl.DataType], partition: str | None) -> pl.LazyFrame:
    """The rows of some of a table's files, lazily, in the columns of `schema`; what a file does not hold is null. `files`: as `held_files` gives them."""
    if files.is_empty():
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        [str(root / path) for path in files["path"]],
        hive_partitioning=partition is not None,
        hive_schema={partition: schema[partition]} if partition else None,
        missing_columns="insert",
        extra_columns="ignore",
        schema=schema,
    ).select(list(schema))


def new_files(root: Path, rows: pl.DataFrame, partition: str | None, statistics: Sequence[str]) -> list[AddAction | RemoveAction]:
    """The rows as new files below the table's folder, one for each value of the partition column; none without rows.

    `statistics` are the columns whose least and greatest value are told to the log, and nothing of any other.
    """
    parts = rows.partition_by(partition, maintain_order=True) if partition else [rows]
    return [_new_file(root, part, partition, statistics) for part in parts if part.height]


def _new_file(root: Path, rows: pl.DataFrame, partition: str | None, statistics: Sequence[str]) -> AddAction:
    values: dict[str, str | None] = {}
    folder = ""
    if partition is not None:
        value = rows[partition][0]
        values[partition] = None if value is None else str(value)
        folder = f"{partition}={'__HIVE_DEFAULT_PARTITION__' if value is None else value}/"
        rows = rows.drop(partition)
    path = f"{folder}part-{uuid.uuid4()}.zstd.parquet"
    target = root / path
    target.parent.mkdir(exist_ok=True)
    rows.write_parquet(target, compression="zstd", compression_level=1, row_group_size=_GROUP_ROWS)
    status = target.stat()
    told: dict[str, object] = {"numRecords": rows.height}
    if statistics:
        counted = rows.select(statistics)
        named = {"minValues": counted.min(), "maxValues": counted.max(), "nullCount": counted.null_count()}
        told |= {name: frame.to_dicts()[0] for name, frame in named.items()}
    return AddAction(path, status.st_size, values, status.st_mtime_ns // 1_000_000, True, json.dumps(told))
