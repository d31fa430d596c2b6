"""What the counts of events warn of: hours over a threshold, planned events that stay away, unplanned ones that rise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from cdp_assets.enriched_events.schema import EVENT_COUNTS
from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
from cdp_assets.enriched_events.watch import Rise, not_seen, over_thresholds, unplanned_rise

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _counts(*rows: dict[str, object]) -> pl.DataFrame:
    blank = {"batch_seq": 1, "hour": NOON, "source": "web", "type": "track", "event": "Bought", "event_version": 1}
    blank |= {"is_unplanned": False, "event_count": 100, "violating_count": 0, "quarantined_count": 0}
    return pl.DataFrame([blank | row for row in rows], EVENT_COUNTS.schema)


def _plan(**more: object) -> TrackingPlan:
    return TrackingPlan.model_validate({"events": [{"event": "Bought", "description": "x"} | more]})


def test_an_hour_is_over_when_the_batches_of_its_source_together_are() -> None:
    counts = _counts(
        {"violating_count": 3},
        {"batch_seq": 2, "violating_count": 0, "event": None},
        {"hour": NOON - timedelta(hours=1), "violating_count": 2},
        {"source": "server", "violating_count": 100},
    )
    policies = {"web": ViolationPolicy(alert_above=0.018), "server": ViolationPolicy()}
    over = over_thresholds(counts, _plan(), policies)
    assert over.rows() == [(NOON - timedelta(hours=1), "source web", 100, 2, 0.02, 0.018)]
    assert over_thresholds(counts, _plan(), {"web": ViolationPolicy(alert_above=0.014)})["share"].to_list() == [0.02, 0.015]


def test_an_events_own_threshold_holds_over_all_sources_and_for_its_version_alone() -> None:
    counts = _counts({"violating_count": 6}, {"source": "server"}, {"event_version": 2, "violating_count": 50})
    assert over_thresholds(counts, _plan(alert_above=0.03), {}).is_empty()
    assert over_thresholds(counts, _plan(alert_above=0.02), {})["of"].to_list() == ["Bought, version 1"]


def test_a_planned_event_that_stays_away_longer_than_expected_is_told() -> None:
    counts = _counts({"hour": NOON - timedelta(days=9)}, {"event": "Other"})
    assert not_seen(counts, _plan(expected_within="8d"))["event"].to_list() == ["Bought"]
    assert not_seen(counts, _plan(expected_within="9d")).is_empty()
    assert not_seen(counts, _plan()).is_empty()


def test_an_event_that_never_came_is_told_when_events_were_received_for_that_long() -> None:
    plan = _plan(expected_within="3d")
    assert not_seen(_counts({"event": "Other"}), plan).is_empty()
    old = _counts({"event": "Other", "hour": NOON - timedelta(days=4)}, {"event": "Other"})
    assert not_seen(old, plan)["last_seen"].to_list() == [None]
    assert not_seen(_counts(), plan).is_empty()


def test_unplanned_events_rise_when_their_share_more_than_doubles_and_is_worth_telling() -> None:
    def rise(now: int, before: int) -> Rise:
        week = {"hour": NOON - timedelta(days=2)}
        return unplanned_rise(
            _counts(
                {"event_count": 1000 - now},
                {"event_count": now, "is_unplanned": True},
                {**week, "event_count": 1000 - before},
                {**week, "event_count": before, "is_unplanned": True},
                {"hour": NOON - timedelta(days=9), "event_count": 10_000, "is_unplanned": True},
            )
        )

    assert rise(50, 20).is_rising
    assert not rise(40, 20).is_rising
    assert not rise(9, 1).is_rising
    assert rise(11, 0).is_rising
    assert not unplanned_rise(_counts({"is_unplanned": True})).is_rising  # there is nothing to compare with
    assert not unplanned_rise(_counts()).is_rising
