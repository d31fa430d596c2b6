"""What the checks of all layers share: the promises of rows that nobody has checked yet, and how far each table was checked.

How far is recorded in the table itself, so that a failed check keeps stopping what follows until the rows are mended, whichever
run comes next, and a check never reads the same rows twice. The rules of each table are in its layer's checks.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import shown
from cdp_assets.by_profile import CHUNK_EVENTS, pending
from cdp_assets.run import Run, chunks
from cdp_assets.validation import broken
from cdp_resources.lake import KeyedTable, Table, TableSpec

CHECKED = "checked"
"""Mark of the batch, or of the version of a keyed table, up to which every promise was kept."""
CHECKED_EPOCH = "checked_epoch"
PROMISES = "rows_keep_their_promises"


@dataclass
class Verdict:
    """What was found in the rows that were not checked before."""

    rows: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    def add(self, frame: pl.DataFrame, schema: pa.DataFrameSchema) -> None:
        """Check some rows."""
        self.rows += frame.height
        if frame.height:
            self.broken += broken(frame, schema)


def promises_spec(spec: TableSpec, of: str | None = None) -> dg.AssetCheckSpec:
    """The check of a table's promises; `of` names the asset when it is not called like the table."""
    return dg.AssetCheckSpec(
        PROMISES,
        asset=dg.AssetKey([spec.layer, of or spec.name]),
        blocking=True,
        description="Types, ranges, uniqueness and presence of values in the rows that no check has passed yet. Counts only.",
    )


def check_promises(run: Run, spec: TableSpec, schema: pa.DataFrameSchema, of: str | None = None) -> dg.AssetCheckResult:
    """Check what was not checked before, and record it in the table when every promise is kept."""
    verdict = Verdict()
    marks: dict[str, int]
    if spec.keys:
        keyed = run.lake.keyed(spec)
        marks = {CHECKED: keyed.newest_version}
        if is_unchecked(keyed):
            before = keyed.mark(CHECKED, 0)
            keys = keyed.changed_since(before) if before > 0 else None
            verdict.add(keyed.current(keys).select(list(schema.columns)), schema)
        table: Table = keyed
    else:
        table = run.lake.table(spec)
        marks = {CHECKED: table.cursor, CHECKED_EPOCH: table.epoch}
        # A rewritten batch does not say which it was.
        begin = table.mark(CHECKED) if table.mark(CHECKED_EPOCH, 0) == table.epoch else -1
        for seqs in chunks(pending(table, begin, table.cursor), CHUNK_EVENTS):
            verdict.add(table.scan(seqs).select(list(schema.columns)).collect(), schema)
    if not verdict.broken and is_unchecked(table):
        with run.writing(spec.layer):
            fresh = run.lake.keyed(spec) if spec.keys else run.lake.table(spec)
            fresh.write(pl.DataFrame(schema=fresh.spec.schema), marks)
    return result(spec, PROMISES, not verdict.broken, {"rows_checked": verdict.rows, **_broken(verdict.broken)}, of=of)


def is_unchecked(table: Table) -> bool:
    """Whether the table holds rows that no check has passed."""
    if isinstance(table, KeyedTable):
        return table.newest_version > table.mark(CHECKED, 0)
    return table.cursor > table.mark(CHECKED) or table.epoch != table.mark(CHECKED_EPOCH, 0)


def unchecked(run: Run, specs: Sequence[TableSpec]) -> list[str]:
    """The names of those tables that hold rows which no check has passed."""
    tables = [run.lake.keyed(spec) if spec.keys else run.lake.table(spec) for spec in specs]
    return [table.spec.full_name for table in tables if is_unchecked(table)]


def _broken(counts: Counter[str]) -> dict[str, object]:
    if not counts:
        return {}
    rows = pl.DataFrame(counts.most_common(), schema={"promise": pl.String, "rows": pl.Int64}, orient="row")
    return {"broken": shown(rows), "rows_broken": sum(counts.values())}


def result(
    spec: TableSpec,
    name: str,
    passed: bool,
    metadata: Mapping[str, Any],
    *,
    of: str | None = None,
    warns: bool = False,
    description: str | None = None,
) -> dg.AssetCheckResult:
    """The outcome of a check of a table's asset; a failed one that only warns stops nothing."""
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey([spec.layer, of or spec.name]),
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
        description=description,
    )
