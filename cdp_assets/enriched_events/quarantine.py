"""Looking into quarantined_events and replaying them: counting, sampling, and judging their batches again by the present plan.

A replay is nothing but enriching the batches again that hold what is asked for, so an event is in exactly one table, whatever happens.
What is shown of a person's values is decided by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import polars as pl

from cdp_assets.enriched_events.layer import update
from cdp_assets.enriched_events.schema import QUARANTINED_EVENTS
from cdp_assets.run import Run

GROUPS = ("event", "source", "violation", "field", "hour")
"""What quarantined events can be counted by."""

_PLACE = ["batch_seq", "offset"]
_KINDS = {"NoneType": "null", "bool": "boolean", "int": "number", "float": "number", "str": "string", "list": "list", "dict": "object"}


@dataclass(frozen=True)
class Wanted:
    """Which quarantined events; None is any."""

    event: str | None = None
    source: str | None = None
    violation: str | None = None
    field: str | None = None
    since: datetime | None = None
    """Received then or later."""
    until: datetime | None = None
    """Received before then."""

    def rows(self) -> pl.Expr:
        """Whether a row of quarantined_events is meant."""
        meant = pl.lit(True)
        for name in ("event", "source", "violation", "field"):
            value = getattr(self, name)
            if value is not None:
                meant &= pl.col(name) == value
        if self.since is not None:
            meant &= (pl.col("received_at") >= self.since) & (pl.col("received_date") >= self.since.date())
        if self.until is not None:
            meant &= (pl.col("received_at") < self.until) & (pl.col("received_date") <= self.until.date())
        return meant

    def __str__(self) -> str:
        return " ".join(f"{each.name}={value}" for each in fields(self) if (value := getattr(self, each.name)) is not None)


@dataclass(frozen=True)
class Replayed:
    """What came of a replay."""

    batches: int
    """Batches that were judged again, with all their events."""
    events: int
    """Quarantined events that were asked for."""
    entered: int
    """Of these, now in enriched_events."""
    left: int
    """Of these, still in quarantine."""
    newly_quarantined: int
    """Events of the same batches that the present plan blocks and the former did not."""


def counts(run: Run, wanted: Wanted, by: Sequence[str] = GROUPS[:-1]) -> pl.DataFrame:
    """The columns `by` (of GROUPS), event_count, first_received_at, last_received_at; the most frequent first."""
    rows = run.lake.table(QUARANTINED_EVENTS).scan().filter(wanted.rows())
    hour = pl.col("received_at").dt.truncate("1h").alias("hour")
    return (
        rows.select("event", "source", "violation", "field", "received_at", hour)
        .group_by(by)
        .agg(
            event_count=pl.len().cast(pl.Int64),
            first_received_at=pl.col("received_at").min(),
            last_received_at=pl.col("received_at").max(),
        )
        .collect()
        .sort("event_count", *by, descending=[True, *(False for _ in by)], nulls_last=True)
    )


def samples(run: Run, wanted: Wanted, most: int) -> pl.DataFrame:
    """The newest of them: every column of quarantined_events, and `found`: what kind of value stands in the field."""
    rows = run.lake.table(QUARANTINED_EVENTS).scan().filter(wanted.rows())
    newest = rows.sort(*_PLACE, descending=True).head(most).collect()
    found = [_kind_at(payload, field) for payload, field in newest.select("payload", "field").iter_rows()]
    return newest.with_columns(found=pl.Series(found, dtype=pl.String))


def _kind_at(payload: str | None, field: str) -> str:
    """The JSON kind of what a message has in a field: `nothing` when it is not there, `several` within a list."""
    try:
        value = json.loads(payload or "null")
    except (ValueError, RecursionError):
        return "nothing"
    if "[]" in field:
        return "several"
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            return "nothing"
        value = value[key]
    return _KINDS[type(value).__name__]


def replay(run: Run, wanted: Wanted) -> Replayed:
    """Judge the batches again that hold these events. Later layers follow with the next run, as after any backfill."""
    before = _quarantined(run).filter(wanted.rows()).select(_PLACE).collect()
    seqs = before.get_column("batch_seq").unique().sort().to_list()
    if not seqs:
        return Replayed(0, 0, 0, 0, 0)
    all_before = _quarantined(run, seqs).select(_PLACE).collect()
    update(run, redo_batches=seqs)
    after = _quarantined(run, seqs).select(_PLACE).collect()
    left = before.join(after, on=_PLACE, how="semi").height
    fresh = after.join(all_before, on=_PLACE, how="anti").height
    return Replayed(len(seqs), before.height, before.height - left, left, fresh)


def _quarantined(run: Run, seqs: Sequence[int] | None = None) -> pl.LazyFrame:
    return run.lake.table(QUARANTINED_EVENTS).scan(seqs)
