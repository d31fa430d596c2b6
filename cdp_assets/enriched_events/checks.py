"""Checks of enriched_events: what rows promise, that every raw event is enriched or quarantined, and what the tracking plan's counts warn of."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import polars as pl

from cdp_assets.assets import rows_through, shown
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.enriched_events.layer import EnrichedReport
from cdp_assets.enriched_events.schema import (
    ENRICHED_EVENTS,
    EVENT_COUNTS,
    QUARANTINED_EVENTS,
    EnrichedEvents,
    enriched_table,
)
from cdp_assets.enriched_events.watch import RISE, WORTH_TELLING, not_seen, over_thresholds, unplanned_rise
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_assets.run import Run
from cdp_assets.validation import rule

ACCOUNTED = "raw_events_are_accounted_for"
QUARANTINED = "few_events_are_quarantined"
QUARANTINED_SHARE = 0.05
THRESHOLDS = "violations_stay_below_their_thresholds"
SEEN = "planned_events_are_seen"
UNPLANNED = "unplanned_events_do_not_rise"

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
    dg.AssetCheckSpec(
        THRESHOLDS,
        asset=dg.AssetKey([ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]),
        description="In no hour of receipt that this run took events of, nor in the newest, did more events break the tracking plan than "
        "their source or their event declares with alert_above.",
    ),
    dg.AssetCheckSpec(
        SEEN,
        asset=dg.AssetKey([ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]),
        description="Every event of the tracking plan was received within its expected_within, counted back from the newest hour.",
    ),
    dg.AssetCheckSpec(
        UNPLANNED,
        asset=dg.AssetKey([ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]),
        description=f"The share of unplanned events in the last day is at most {RISE:g} times that of the week before, "
        f"or {WORTH_TELLING:.0%}.",
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
    yield from _watch(run, project, report)


def _watch(run: Run, project: Project, report: EnrichedReport) -> Iterator[dg.AssetCheckResult]:
    counts = run.lake.table(EVENT_COUNTS).read()
    looked_at = pl.col("hour").is_in(report.hours.implode()) | (pl.col("hour") == pl.col("hour").max())
    over = over_thresholds(counts.filter(looked_at), project.plan, project.violations)
    told = {"over": shown(over)} if over.height else {}
    yield result(ENRICHED_EVENTS, THRESHOLDS, over.is_empty(), {"over_count": over.height, **told}, warns=True)
    missing = not_seen(counts, project.plan)
    told = {"not_seen": shown(missing)} if missing.height else {}
    yield result(ENRICHED_EVENTS, SEEN, missing.is_empty(), {"not_seen_count": missing.height, **told}, warns=True)
    rise = unplanned_rise(counts)
    before = {} if rise.share_before is None else {"share_before": rise.share_before}
    yield result(ENRICHED_EVENTS, UNPLANNED, not rise.is_rising, {"share": rise.share, **before}, warns=True)
