"""Which revision of each batch a table holds, and under which rules and code it was made.

Written after the commit that it tells of; a crash between is made good when the layer is next written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from cdp_assets.run import Run
from cdp_resources.lake import CURSOR, Table, TableSpec

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
    run: Run, layer: str, tables: Sequence[Table], seqs: Sequence[int], rules: str, changed: Mapping[str, Collection[int]]
) -> None:
    """Note what tables hold of these batches now; `changed` names by table the batches whose rows became others."""
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
        manifest.write(fresh, {CURSOR: max(manifest.cursor, *seqs)})
        manifest.tidy()


def make_good(run: Run, layer: str, tables: Sequence[Table], primary: Table, known_seqs: Sequence[int], rules: str) -> None:
    """Note the batches that were committed when a crash kept their manifest from being written."""
    manifest = run.lake.table(manifest_table(layer))
    missed = [seq for seq in known_seqs if manifest.cursor < seq <= primary.cursor]
    if missed:
        record(run, layer, tables, missed, rules, {})
