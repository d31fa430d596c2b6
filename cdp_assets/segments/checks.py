"""Checks of the segments: what rows promise, and whether they changed more than segments do."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import shown
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.run import Run
from cdp_assets.segments.layer import SegmentsReport
from cdp_assets.segments.schema import CHANGES, SEGMENT_CHANGES
from cdp_assets.validation import promises

STEADY = "segments_change_little_at_once"
LEFT_SHARE = 0.5
_MANY = 50
"""Segments of fewer people change by large shares without a reason."""

segment_changes = promises(
    SEGMENT_CHANGES,
    checks={"change": pa.Check.isin(CHANGES)},
    unique=["profile_id", "segment"],
)
SPECS = (
    promises_spec(SEGMENT_CHANGES),
    dg.AssetCheckSpec(
        STEADY,
        asset=dg.AssetKey([SEGMENT_CHANGES.layer, SEGMENT_CHANGES.name]),
        description=f"No segment of at least {_MANY} people lost more than {LEFT_SHARE:.0%} of them in one run. One that did is "
        "mostly a source that stopped, or a trait that was changed.",
    ),
)


def check(run: Run, report: SegmentsReport) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run."""
    yield check_promises(run, SEGMENT_CHANGES, segment_changes)
    before = report.sizes.with_columns(before=pl.col("size") - pl.col("entered").cast(pl.Int64) + pl.col("left").cast(pl.Int64))
    moved = before.filter((pl.col("before") >= _MANY) & (pl.col("left") > LEFT_SHARE * pl.col("before")))
    metadata = {"segments": report.sizes.height, "emptied": moved.height, **({"which": shown(moved)} if moved.height else {})}
    yield result(SEGMENT_CHANGES, STEADY, moved.is_empty(), metadata, warns=True)
