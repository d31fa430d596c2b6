"""Which revision of each batch a table holds, and under which rules and code it was made.

Written after the commit that it tells of; a crash between is made good when the layer is next written. For that a manifest keeps, as marks of its
own commits, the version of each table of which it has told everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from cdp_assets.run import Run
from cdp_resources.lake import CURSOR, REDO_LAST, Table, TableSpec
from cdp_resources.row_changes import replaced_batches

COLUMNS: dict[str, pl.DataType] = {
    "batch_seq": pl.Int64(),
    "table": pl.String(),
    "rows": pl.Int64(),
    "revision": pl.Int64(),
    "rules": pl.String(),
    "written_at": pl.Datetime("us", "UTC"),
}


def manifest_table(layer: str) -> TableSpec:
    """The manifest of a layer: a row for each table, batch and revision."""
    return TableSpec(layer, "manifest", COLUMNS, person="holds counts only")


def record(
    run: Run,
    layer: str,
    tables: Sequence[Table],
    seqs: Sequence[int],
    rules: str,
    changed: Mapping[str, Collection[int]],
    *,
    is_all: bool = True,
) -> None:
    """Note what tables hold of these batches now; `changed` names by table the batches whose rows became others.

    `is_all`: with this everything is told that was committed to the tables so far.
    """
    manifest = run.lake.table(manifest_table(layer))
    known = manifest.read(seqs) if min(seqs) <= manifest.cursor else manifest.read(()).clear()
    latest = known.group_by("batch_seq", "table").agg(pl.col("revision").max())
    of_table = {table.spec.name: table.scan(seqs).group_by("batch_seq").agg(rows=pl.len()) for table in tables}
    counted = pl.concat([counts.with_columns(table=pl.lit(name)) for name, counts in of_table.items()])
    pairs = [(name, seq) for name in of_table for seq in seqs]
    again = [(name, seq) for name, batches in changed.items() for seq in batches]
    which = {"table": pl.String, "batch_seq": pl.Int64}
    fresh = (
        pl.LazyFrame(pairs, which, orient="row")
        .join(counted, on=list(which), how="left", maintain_order="left")
        .join(latest.lazy(), on=list(which), how="left", maintain_order="left")
        .join(
            pl.LazyFrame(again, which, orient="row").with_columns(is_again=True),
            on=list(which),
            how="left",
            maintain_order="left",
        )
        .filter(pl.col("revision").is_null() | pl.col("is_again"))
        .select(
            "batch_seq",
            "table",
            pl.col("rows").fill_null(0).cast(pl.Int64),
            pl.col("revision").fill_null(0) + 1,
            rules=pl.lit(rules),
            written_at=pl.lit(run.as_of, pl.Datetime("us", "UTC")),
        )
        .collect()
    )
    if fresh.height:
        versions = {_version_of(table): table.version for table in tables} if is_all else {}
        manifest.write(fresh, {CURSOR: max(manifest.cursor, *seqs), **versions})
        manifest.tidy()


def make_good(run: Run, layer: str, tables: Sequence[Table], primary: Table, known_seqs: Sequence[int], rules: str) -> None:
    """Note the batches that were committed, for the first time or again, when a crash kept their manifest from being written."""
    manifest = run.lake.table(manifest_table(layer))
    missed = {seq for seq in known_seqs if manifest.cursor < seq <= primary.cursor}
    again: dict[str, frozenset[int]] = {}
    if primary.mark(REDO_LAST) >= 0:  # which is what a run leaves that died while it made batches again
        told = {table: manifest.mark(_version_of(table)) for table in tables}
        # A manifest of an older program does not say how far it has told, and then nothing can be said.
        replaced = {table.spec.name: replaced_batches(table.handle, version) for table, version in told.items() if version >= 0}
        again = {
            name: frozenset(seq for seq in known_seqs if seq in batches and seq <= primary.cursor)
            for name, batches in replaced.items()
        }
    seqs = sorted(missed.union(*again.values()))
    if seqs:
        record(run, layer, tables, seqs, rules, again)


def _version_of(table: Table) -> str:
    return f"{table.spec.name}_version"
