"""What the counts of events say about the tracking plan: too many violations, planned events that no longer come, unplanned ones that rise.

Pure: rows of event_counts and declarations in, findings out. The checks that tell of them are in checks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy

RISE = 2.0
"""Unplanned events rise when their share of a day is more than this many times that of the week before..."""
WORTH_TELLING = 0.01
"""...and more than this."""

OVER: dict[str, pl.DataType] = {
    "hour": pl.Datetime("us", "UTC"),
    "of": pl.String(),
    "events": pl.Int64(),
    "violating": pl.Int64(),
    "share": pl.Float64(),
    "alert_above": pl.Float64(),
}


@dataclass(frozen=True)
class Rise:
    """Unplanned events of the last day beside those of the seven days before."""

    share: float
    share_before: float | None
    """None when nothing was received then."""

    @property
    def is_rising(self) -> bool:
        return self.share_before is not None and self.share > max(WORTH_TELLING, RISE * self.share_before)


def over_thresholds(counts: pl.DataFrame, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]) -> pl.DataFrame:
    """Hours in which more events broke the plan than their source or their event declares with `alert_above`; columns OVER."""
    sources = {source: policy.alert_above for source, policy in policies.items() if policy.alert_above is not None}
    events = [(each.type, each.event, each.version, each.alert_above) for each in plan.events if each.alert_above is not None]
    by_source = pl.DataFrame(list(sources.items()), {"source": pl.String, "alert_above": pl.Float64}, orient="row")
    keys = ["type", "event", "event_version"]
    schema = {"type": pl.String, "event": pl.String, "event_version": pl.Int64, "alert_above": pl.Float64}
    by_event = pl.DataFrame(events, schema, orient="row")
    parts = [
        _over(counts.join(by_source, on="source"), ["source"], pl.format("source {}", "source")),
        _over(counts.join(by_event, on=keys), keys, pl.format("{}, version {}", "event", "event_version")),
    ]
    return pl.concat(parts).sort("hour", "of")


def _over(counts: pl.DataFrame, keys: list[str], of: pl.Expr) -> pl.DataFrame:
    return (
        counts.group_by("hour", *keys, "alert_above")
        .agg(events=pl.col("event_count").sum(), violating=pl.col("violating_count").sum())
        .with_columns(of=of, share=pl.col("violating") / pl.col("events"))
        .filter(pl.col("share") > pl.col("alert_above"))
        .select(pl.col(name).cast(dtype) for name, dtype in OVER.items())
    )


def not_seen(counts: pl.DataFrame, plan: TrackingPlan) -> pl.DataFrame:
    """Planned events that were not received for longer than `expected_within`, up to the newest hour: type, event, last_seen, expected_within.

    `last_seen` is null when the event never came; that is told once as long a time was received. Of an event's versions any will do.
    """
    schema = {"type": pl.String, "event": pl.String, "expected_within": pl.Int64}
    planned = pl.DataFrame([(each.type, each.event, each.expected_within) for each in plan.events], schema, orient="row")
    planned = planned.group_by("type", "event").agg(pl.col("expected_within").max())
    seen = counts.group_by("type", "event").agg(last_seen=pl.col("hour").max())
    first, newest = counts.get_column("hour").min(), counts.get_column("hour").max()
    since = pl.coalesce("last_seen", pl.lit(first, pl.Datetime("us", "UTC")))
    return (
        planned.join(seen, on=["type", "event"], how="left")
        .filter(pl.lit(newest, pl.Datetime("us", "UTC")) - since > pl.duration(days=pl.col("expected_within")))
        .select("type", "event", "last_seen", "expected_within")
        .sort("type", "event")
    )


def unplanned_rise(counts: pl.DataFrame) -> Rise:
    """The share of unplanned events in the 24 hours up to the newest one, and in the seven days before those."""
    newest = counts.get_column("hour").max()
    day, week = timedelta(days=1), timedelta(days=7)
    edge = pl.lit(newest, pl.Datetime("us", "UTC")) - day
    share = _share(counts.filter(pl.col("hour") > edge))
    return Rise(share or 0.0, _share(counts.filter((pl.col("hour") <= edge) & (pl.col("hour") > edge - week))))


def _share(counts: pl.DataFrame) -> float | None:
    events = counts.get_column("event_count").sum()
    unplanned = counts.filter("is_unplanned").get_column("event_count").sum()
    return unplanned / events if events else None
