"""Checks of raw_events: what rows promise, and that every line that arrived is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import rows_through, shown
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.raw_events.layer import RawReport
from cdp_assets.raw_events.schema import (
    IMPORT_BATCHES,
    RAW_EVENTS,
    REJECTED_EVENTS,
    TYPES,
)
from cdp_assets.run import Run
from cdp_assets.validation import promises, rule

ACCOUNTED = "lines_are_accounted_for"
REFUSED = "few_lines_are_refused"
REFUSED_SHARE = 0.05

raw_events = promises(
    RAW_EVENTS,
    nullable=(
        *("event", "user_id", "anonymous_id", "previous_id", "group_id", "sent_at", "ip", "request"),
        *("properties", "context", "traits"),
    ),
    checks={"batch_seq": pa.Check.ge(0), "offset": pa.Check.ge(0), "type": pa.Check.isin(TYPES)},
    rules=[rule("happened_before_it_was_received", pl.col("timestamp") <= pl.col("received_at"))],
    unique=["batch_seq", "offset"],
)
checked = raw_events.remove_columns(["payload", "request", "properties", "context", "traits"])
"""The promises that are worth reading rows for."""

SPECS = (
    promises_spec(RAW_EVENTS),
    dg.AssetCheckSpec(
        ACCOUNTED,
        asset=dg.AssetKey([IMPORT_BATCHES.layer, IMPORT_BATCHES.name]),
        blocking=True,
        description="For every batch: received = accepted + duplicates + rejected + erased, and the tables hold as many rows.",
    ),
    dg.AssetCheckSpec(
        REFUSED,
        asset=dg.AssetKey([REJECTED_EVENTS.layer, REJECTED_EVENTS.name]),
        description=f"Of the lines of this run at most {REFUSED_SHARE:.0%} were refused; more is mostly a broken sender.",
    ),
)


def check(run: Run, report: RawReport) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run."""
    yield check_promises(run, RAW_EVENTS, checked)
    yield result(IMPORT_BATCHES, ACCOUNTED, **_accounts(run))
    counts = report.counts
    received, refused = int(counts["received"].sum()), int(counts["rejected"].sum())
    share = refused / received if received else 0.0
    yield result(
        REJECTED_EVENTS,
        REFUSED,
        share <= REFUSED_SHARE,
        {"received": received, "rejected": refused, "share": share},
        warns=True,
    )


def _accounts(run: Run) -> dict[str, Any]:
    """Counts per batch against themselves, and their sums against the rows of the tables."""
    tables = {spec.name: run.lake.table(spec) for spec in (IMPORT_BATCHES, RAW_EVENTS, REJECTED_EVENTS)}
    through = tables["raw_events"].cursor
    counts = tables["import_batches"].scan().filter(pl.col("batch_seq") <= through).collect()
    whole = pl.sum_horizontal("accepted", "duplicates", "rejected", "erased")
    unbalanced = counts.filter(pl.col("received") != whole).height
    stored = {name: rows_through(tables[name], through) for name in ("raw_events", "rejected_events")}
    counted = {"raw_events": int(counts["accepted"].sum()), "rejected_events": int(counts["rejected"].sum())}
    sums = pl.DataFrame(
        [(name, counted[name], stored[name]) for name in stored],
        schema={"table": pl.String, "counted": pl.Int64, "stored": pl.Int64},
        orient="row",
    )
    return {
        "passed": not unbalanced and counted == stored,
        "metadata": {"batches": counts.height, "batches_that_do_not_add_up": unbalanced, "rows": shown(sums)},
    }
