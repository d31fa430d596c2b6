"""Checks of enriched_events: what rows promise, and that every raw event is either enriched or quarantined."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import polars as pl

from cdp_assets.assets import rows_through
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.enriched_events.layer import EnrichedReport
from cdp_assets.enriched_events.schema import (
    ENRICHED_EVENTS,
    QUARANTINED_EVENTS,
    EnrichedEvents,
    enriched_table,
)
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_assets.run import Run
from cdp_assets.validation import rule

ACCOUNTED = "raw_events_are_accounted_for"
QUARANTINED = "few_events_are_quarantined"
QUARANTINED_SHARE = 0.05

enriched_events = EnrichedEvents.to_schema()
checked = enriched_events.remove_columns(["properties", "context", "traits", "violations"])
checked.unique = ["batch_seq", "offset"]
checked.checks = [*checked.checks, rule("happened_before_it_was_received", pl.col("timestamp") <= pl.col("received_at"))]

SPECS = (
    promises_spec(ENRICHED_EVENTS),
    dg.AssetCheckSpec(
        ACCOUNTED,
        asset=dg.AssetKey([ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]),
        blocking=True,
        description="Every raw event is in exactly one of enriched_events and quarantined_events.",
    ),
    dg.AssetCheckSpec(
        QUARANTINED,
        asset=dg.AssetKey([QUARANTINED_EVENTS.layer, QUARANTINED_EVENTS.name]),
        description=f"Of the events of this run at most {QUARANTINED_SHARE:.0%} are quarantined; more is mostly a release "
        "that the tracking plan does not know.",
    ),
)


def check(run: Run, project: Project, report: EnrichedReport) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run."""
    yield check_promises(run, enriched_table(project.enrichments), checked)
    raw, enriched, quarantined = (run.lake.table(spec) for spec in (RAW_EVENTS, ENRICHED_EVENTS, QUARANTINED_EVENTS))
    through = enriched.cursor
    rows = {table.spec.name: rows_through(table, through) for table in (raw, enriched, quarantined)}
    is_whole = rows[RAW_EVENTS.name] == rows[ENRICHED_EVENTS.name] + rows[QUARANTINED_EVENTS.name]
    yield result(ENRICHED_EVENTS, ACCOUNTED, is_whole, {**rows, "through_batch": through})
    events = report.events + report.quarantined
    share = report.quarantined / events if events else 0.0
    yield result(
        QUARANTINED_EVENTS,
        QUARANTINED,
        share <= QUARANTINED_SHARE,
        {"events": events, "quarantined": report.quarantined, "share": share},
        warns=True,
    )
