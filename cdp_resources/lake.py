"""The lake: Delta tables under one folder, and the commit protocol that keeps them exact.

`Table` is a table per batch (rows of a batch are replaced whole); `KeyedTable` holds versions of rows by key. What the columns mean is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from cdp_resources.row_changes import differing, other_batches
from cdp_resources.table_columns import add_columns
from cdp_resources.table_files import held_files, new_files, rows_of

CURSOR = "cursor"
REDO_FIRST, REDO_LAST = "redo_first", "redo_last"
"""Application transactions that name the first and last batch that are being made again; -1 when none are. A run that dies leaves them to the next."""
EPOCH = "epoch"
"""Application transaction that counts the rewrites of batches that were already there: a change tells the layers after to rebuild."""
SCHEMA = "schema"
VACUUM_HOURS = 1
"""Files that a newer version no longer needs stay this long, for readers that began before."""
CHECKPOINT_COMMITS = 10
"""Opening a table reads every commit since its last checkpoint, and a run opens some fifty. With 50 an increment cost a tenth more."""
SMALL_FILES = 48
TARGET_BYTES = 128 * 1024 * 1024
VERSION_COLUMNS: dict[str, pl.DataType] = {
    "version": pl.Int64(),
    "version_at": pl.Datetime("us", "UTC"),
    "is_deleted": pl.Boolean(),
    "tier": pl.String(),
}


class StaleCommitError(RuntimeError):
    """Another process committed to the table since it was read; nothing was written."""


class SchemaVersionError(RuntimeError):
    """The table on disk was written with another schema than this code reads."""


@dataclass(frozen=True)
class TableSpec:
    """One physical table: its place, its columns and the version of its schema."""

    layer: str
    name: str
    columns: Mapping[str, pl.DataType]
    """Column -> type, in order, without the bookkeeping columns of keyed tables."""
    partition_by: str | None = None
    keys: tuple[str, ...] = ()
    """For keyed tables: the columns whose rows are replaced together."""
    person: str = ""
    """How a person is found in it, for erasure and access."""
    distinct: tuple[str, ...] = ()
    """Columns whose values hardly repeat: they are written without a dictionary, and without statistics."""
    schema_version: int = 1
    loose: bool = field(default=False)
    """True where declared columns come and go (traits): columns are then unified with what is stored."""

    @property
    def writer(self) -> WriterProperties:
        plain = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
        return WriterProperties(
            compression="ZSTD", compression_level=1, column_properties=dict.fromkeys(self.distinct, plain) or None
        )

    @property
    def full_name(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def partition(self) -> str | None:
        """The column that the table is partitioned by."""
        return self.partition_by or ("tier" if self.keys else None)

    @property
    def statistics(self) -> list[str]:
        """Columns whose least and greatest value stand in the log; of others it would keep people's values, where no erasure finds them."""
        return [name for name in ("batch_seq", "version", *self.keys) if self.schema.get(name) == pl.Int64]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        return {**self.columns, **VERSION_COLUMNS} if self.keys else dict(self.columns)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in order of (batch_seq, offset). Tables are written in that order, so most often nothing moves."""
    place = frame["batch_seq"] * (1 << 32) + frame["offset"]
    return frame if place.is_sorted() else frame.sort("batch_seq", "offset")


class Lake:
    """A folder of Delta tables, found by layer and name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def table(self, spec: TableSpec) -> Table:
        """The table per batch of `spec`, created empty when it is not there yet."""
        return Table(self._open(spec), spec)

    def keyed(self, spec: TableSpec) -> KeyedTable:
        """The keyed table of `spec`, created empty when it is not there yet."""
        return KeyedTable(self._open(spec), spec)

    def path(self, spec: TableSpec) -> Path:
        return self.root / spec.layer / spec.name

    def _open(self, spec: TableSpec) -> DeltaTable:
        path = self.path(spec)
        try:
            handle = DeltaTable(str(path))
        except TableNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_deltalake(
                    str(path),
                    pl.DataFrame(schema=spec.schema),
                    partition_by=[spec.partition] if spec.partition else None,
                    mode="error",
                    configuration={
                        "delta.dataSkippingStatsColumns": ",".join(spec.statistics) or "none",
                        "delta.checkpointInterval": str(CHECKPOINT_COMMITS),
                        "delta.logRetentionDuration": "interval 1 hours",
                        "delta.deletedFileRetentionDuration": "interval 1 hours",
                    },
                    commit_properties=CommitProperties(app_transactions=[Transaction(SCHEMA, spec.schema_version)]),
                )
            except Exception:
                if not DeltaTable.is_deltatable(str(path)):  # otherwise another process created it at the same moment
                    raise
            handle = DeltaTable(str(path))
        stored = handle.transaction_version(SCHEMA)
        if stored != spec.schema_version:
            raise SchemaVersionError(
                f"table {spec.full_name} has schema version {stored}; this code reads {spec.schema_version}: "
                f"see docs/guides/upgrade.md"
            )
        if not spec.loose:
            add_columns(handle, spec.schema)
        return handle


class Table:
    """A table whose rows belong to batches; also the base of `KeyedTable`."""

    def __init__(self, handle: DeltaTable, spec: TableSpec) -> None:
        self.handle = handle
        self.spec = spec
        self._marks: tuple[int, dict[str, int | None]] = (-1, {})
        self._files: tuple[int, pl.DataFrame] = (-1, pl.DataFrame())

    def mark(self, name: str, default: int = -1) -> int:
        """The whole number that the last commit with this application transaction recorded."""
        if self._marks[0] != self.version:
            self._marks = (self.version, {})
        known = self._marks[1]
        if name not in known:  # each look goes through the whole log
            known[name] = self.handle.transaction_version(name)
        value = known[name]
        return default if value is None else value

    @property
    def cursor(self) -> int:
        """The highest batch_seq whose rows are in the table; -1 for none."""
        return self.mark(CURSOR)

    @property
    def epoch(self) -> int:
        return self.mark(EPOCH, 0)

    @property
    def version(self) -> int:
        return int(self.handle.version())

    def refresh(self) -> bool:
        """Take in what others committed since: whether there was anything. A tenth of what opening the table costs."""
        before = self.version
        self.handle.update_incremental()
        return self.version != before

    @property
    def root(self) -> Path:
        """The table's folder."""
        return Path(unquote(self.handle.table_uri.removeprefix("file://")))

    def files(self) -> pl.DataFrame:
        """The table's files in order of their batches, as `held_files` gives them."""
        if self._files[0] != self.version:
            self._files = (self.version, held_files(self.handle, self.spec.partition))
        return self._files[1]

    def scan(self, batch_seqs: Sequence[int] | None = None, tiers: Sequence[str] | None = None) -> pl.LazyFrame:
        """The rows, lazily; of some batches or tiers only, without opening the files of others."""
        files = self.files()
        if batch_seqs is not None:
            low, high = (min(batch_seqs), max(batch_seqs)) if batch_seqs else (1, 0)
            files = files.filter((pl.col("batch_seq_max") >= low) & (pl.col("batch_seq_min") <= high))
        if tiers is not None:
            files = files.filter(pl.col("partition").is_in(list(tiers)))
        frame = rows_of(self.root, files, self.spec.schema, self.spec.partition)
        return frame if batch_seqs is None else frame.filter(pl.col("batch_seq").is_in(list(batch_seqs)))

    def read(self, batch_seqs: Sequence[int] | None = None) -> pl.DataFrame:
        return self.scan(batch_seqs).collect()

    def write(
        self,
        frame: pl.DataFrame,
        marks: Mapping[str, int],
        *,
        replace: str | None = None,
        expected_cursor: int | None = None,
    ) -> None:
        """Commit rows and application transactions at once, through the handle that was read.

        `replace` is a predicate on whole numbers or partitions of rows to take out. Raises StaleCommitError when another process committed first.
        """
        if expected_cursor is not None and self.cursor != expected_cursor:
            raise StaleCommitError(f"table {self.spec.full_name} stands at batch {self.cursor}, not at {expected_cursor}")
        version, known = self.version, self._marks[1] if self._marks[0] == self.version else {}
        properties = CommitProperties(
            app_transactions=[Transaction(name, value) for name, value in marks.items()], max_commit_retries=0
        )
        mode: Any = "overwrite" if replace is not None else "append"
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in self.spec.schema.items())
        try:
            if replace is None and dict(pl.Schema(self.handle.schema())) == self.spec.schema:
                self._append(frame, properties)
            else:
                write_deltalake(
                    self.handle,
                    frame,
                    mode=mode,
                    predicate=replace if replace != "true" else None,
                    schema_mode=("overwrite" if replace == "true" else "merge") if self.spec.loose else None,
                    writer_properties=self.spec.writer,
                    commit_properties=properties,
                )
        except CommitFailedError as error:
            raise StaleCommitError(f"table {self.spec.full_name}: another process committed first ({error})") from None
        if self.version == version + 1:  # nobody's commit but this one has come
            self._marks = (self.version, {**known, **marks})

    def _append(self, frame: pl.DataFrame, properties: CommitProperties) -> None:
        version, partition = self.version, self.spec.partition
        files = new_files(self.root, frame, partition, self.spec.statistics)
        self.handle.create_write_transaction(
            files, "append", self.handle.schema(), [partition] if partition else None, commit_properties=properties
        )
        self.handle.update_incremental()
        if self.version != version + 1:  # what the other one wrote was not read
            raise StaleCommitError(f"table {self.spec.full_name}: another process committed right after")

    def put_batches(
        self, frame: pl.DataFrame, batch_seqs: Sequence[int], marks: Mapping[str, int] | None = None
    ) -> frozenset[int]:
        """Make `frame` the rows of these batches, zero rows included, and name the batches whose rows changed.

        New batches are appended and move the cursor; batches that were there before are replaced when their rows differ, which counts as a new epoch.
        """
        high = max(batch_seqs)
        if min(batch_seqs) > self.cursor:
            self.write(frame, {CURSOR: high, **(marks or {})})
            return frozenset(batch_seqs)
        new = frame.select(pl.col(name).cast(dtype) for name, dtype in self.spec.schema.items())
        changed = other_batches(self.read(batch_seqs), new)
        if not changed:
            if marks or high > self.cursor:
                self.write(frame.clear(), {CURSOR: max(high, self.cursor), **(marks or {})})
            return changed
        listed = ", ".join(str(each) for each in sorted(changed))
        self.write(
            new.filter(pl.col("batch_seq").is_in(list(changed))),
            {CURSOR: max(high, self.cursor), EPOCH: self.epoch + 1, **(marks or {})},
            replace=f"batch_seq in ({listed})",
        )
        return changed

    def note(self, marks: Mapping[str, int]) -> None:
        """Commit application transactions without a row; nothing when they stand there already."""
        if any(self.mark(name) != value for name, value in marks.items()):
            self.write(pl.DataFrame(schema=self.spec.schema), marks)

    def has_other_types(self) -> bool:
        """Whether a declared column is stored with another type, as when a trait changed its kind."""
        stored = pl.scan_delta(self.handle).collect_schema()
        return any(name in stored and stored[name] != dtype for name, dtype in self.spec.schema.items())

    def clear(self, marks: Mapping[str, int]) -> None:
        """Take all rows out and set application transactions, in one commit."""
        self.write(pl.DataFrame(schema=self.spec.schema), marks, replace="true")

    def tidy(self) -> None:
        """Fold small files when there are many, and drop files that nobody needs any more."""
        files = self.files()
        small = files.filter(pl.col("size_bytes") < TARGET_BYTES // 8)
        if small.height >= SMALL_FILES:
            self.handle.optimize.compact(target_size=TARGET_BYTES, writer_properties=self.spec.writer)
            self.drop_old()

    def drop_old(self, keep_hours: int = VACUUM_HOURS) -> None:
        """Delete files and log entries that no current version needs and that are older than `keep_hours`."""
        self.handle.vacuum(keep_hours, enforce_retention_duration=False, dry_run=False)
        self.handle.create_checkpoint()
        self.handle.cleanup_metadata()


class KeyedTable(Table):
    """Rows by key in append-only versions: `base` holds each key once, `delta` what came since, `history` what was superseded."""

    def current(self, keys: pl.DataFrame | None = None) -> pl.DataFrame:
        """The newest rows, [spec.columns]; of some keys only when given as a frame of the key columns."""
        base, delta = self._parts(keys)
        return pl.concat([base, delta.filter(~pl.col("is_deleted"))]).select(list(self.spec.columns))

    def _parts(self, keys: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        base, delta = self.scan(tiers=["base"]), self.scan(tiers=["delta"])
        names = list(self.spec.keys)
        if keys is not None:
            if len(names) == 1:
                wanted = pl.col(names[0]).is_in(keys[names[0]].unique().implode())
                base, delta = base.filter(wanted), delta.filter(wanted)
            else:
                base = base.join(keys.lazy(), on=names, how="semi")
                delta = delta.join(keys.lazy(), on=names, how="semi")
        newest = delta.filter(pl.col("version") == pl.col("version").max().over(names)).collect()
        if newest.is_empty():
            return base.collect(), newest
        return base.join(newest.lazy().select(names), on=names, how="anti").collect(), newest

    def changed_since(self, version: int) -> pl.DataFrame:
        """The keys with rows newer than `version`, removed ones included, also those whose last row was folded into `history` since.

        Only files that hold newer rows are opened.
        """
        files = self.files().filter((pl.col("version_max") > version).fill_null(True))
        fresh = rows_of(self.root, files, self.spec.schema, self.spec.partition).filter(pl.col("version") > version)
        return fresh.select(self.spec.keys).unique().collect()

    @property
    def newest_version(self) -> int:
        """The version that the last `put` wrote; 0 for none."""
        return self.mark("version", 0)

    def put(
        self,
        rows: pl.DataFrame,
        touched: pl.DataFrame | None,
        now: datetime,
        marks: Mapping[str, int] | None = None,
        *,
        is_first: bool = False,
    ) -> int:
        """Make `rows` the rows of the `touched` keys (None: of all keys) and say how many keys changed.

        `is_first` says that none of the keys was ever in the table.
        Only keys whose rows differ are written; a touched key without rows is marked as deleted. The marks are committed even when nothing changed.
        """
        names = list(self.spec.keys)
        new = rows.select(pl.col(name).cast(dtype) for name, dtype in self.spec.columns.items())
        old = new.clear() if is_first else self.current(touched)
        if old.is_empty():
            written, removed, count = new, new.clear(), new.select(names).n_unique()
        else:
            added, gone = differing(new, old, names, list(self.spec.columns))
            changed = pl.concat([added.select(names), gone.select(names)]).unique()
            written = new.join(changed, on=names, how="semi")
            removed = changed.join(new, on=names, how="anti")
            count = changed.height
        version = self.newest_version + 1
        stamp = {"version": pl.lit(version, pl.Int64), "version_at": pl.lit(now, pl.Datetime("us", "UTC"))}
        tier = "base" if is_first or self.newest_version == 0 else "delta"
        parts = [
            written.with_columns(**stamp, is_deleted=pl.lit(False), tier=pl.lit(tier)),
            removed.with_columns(**stamp, is_deleted=pl.lit(True), tier=pl.lit("delta")),
        ]
        advance = {"version": version} if count else {}
        if count or any(self.mark(name) != value for name, value in (marks or {}).items()):
            self.write(pl.concat(parts, how="diagonal"), {**advance, **(marks or {})})
        return count

    def remove_all(self, now: datetime, marks: Mapping[str, int]) -> None:
        """Take every row out, leave each key that ever had one marked as removed, and set application transactions, in one commit.

        For columns that get other types: of the rows nothing can stay, and whoever follows the table must hear of the keys that do not come back.
        """
        bare = KeyedTable(self.handle, replace(self.spec, columns={name: self.spec.columns[name] for name in self.spec.keys}))
        keys = bare.scan().select(self.spec.keys).unique().collect()
        version = self.newest_version + (1 if keys.height else 0)
        removed = keys.with_columns(
            *(pl.lit(None, dtype).alias(name) for name, dtype in self.spec.columns.items() if name not in self.spec.keys),
            version=pl.lit(version, pl.Int64),
            version_at=pl.lit(now, pl.Datetime("us", "UTC")),
            is_deleted=pl.lit(True),
            tier=pl.lit("delta"),
        )
        self.write(removed, {"version": version, **marks}, replace="true")

    def as_of(self, instant: datetime) -> pl.DataFrame:
        """The rows as they stood at an instant of processing, [spec.columns]."""
        names = list(self.spec.keys)
        seen = self.scan().filter(pl.col("version_at") <= instant)
        newest = seen.filter(pl.col("version") == pl.col("version").max().over(names), ~pl.col("is_deleted"))
        return newest.select(list(self.spec.columns)).unique().collect()

    def tidy(self) -> None:
        """Fold `delta` into `base` once it has grown to a quarter of it, keeping what was superseded in `history`."""
        files = self.files()
        rows = {tier: files.filter(pl.col("partition") == tier)["num_records"].sum() for tier in ("base", "delta")}
        count = files.filter(pl.col("partition") == "delta").height
        if count >= SMALL_FILES or (count > 1 and rows["delta"] > max(rows["base"] // 4, 50_000)):
            self.fold()
            if files.filter(pl.col("partition") == "history").height >= SMALL_FILES:
                self.handle.optimize.compact(
                    partition_filters=[("tier", "=", "history")], target_size=TARGET_BYTES, writer_properties=self.spec.writer
                )
            self.drop_old()

    def fold(self) -> None:
        """Rewrite `base` as the newest rows and move everything else to `history`."""
        base, newest = self._parts(None)
        names = list(self.spec.keys)
        kept = pl.concat([base, newest.filter(~pl.col("is_deleted"))])
        superseded_base = self.scan(tiers=["base"]).join(newest.lazy().select(names), on=names, how="semi").collect()
        old_delta = self.scan(tiers=["delta"]).filter(
            (pl.col("version") < pl.col("version").max().over(names)) | pl.col("is_deleted")
        )
        past = pl.concat([superseded_base, old_delta.collect()]).with_columns(tier=pl.lit("history"))
        # History first: a crash between leaves rows twice, which `as_of` folds, and never loses one.
        if past.height:
            self.write(past, {})
        self.write(kept.with_columns(tier=pl.lit("base")), {}, replace="tier in ('base', 'delta')")

    def forget(self, keys: Iterable[int]) -> None:
        """Take the rows of whole-number keys out of every tier; the files stay until `drop_old`."""
        listed = ", ".join(str(int(each)) for each in keys)
        if listed:
            self.handle.delete(f"{self.spec.keys[0]} in ({listed})")
