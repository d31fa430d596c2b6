"""The one writer of segment_changes: evaluates the people whose profile changed, and everybody when the rules did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cdp_assets.by_profile import AS_OF_DAY, RULES, UnfinishedRebuildError, day_number
from cdp_assets.profiles.schema import PROFILES, TraitColumn, profiles_table
from cdp_assets.run import Run
from cdp_assets.segments.schema import LAYER, SEGMENT_CHANGES
from cdp_assets.segments.transform import changes, looks_at_the_clock, members
from cdp_resources.lake import KeyedTable

PROFILES_SEEN = "profiles_version"


@dataclass(frozen=True)
class SegmentsReport:
    """What a run did: people evaluated, and [segment, size, entered, left] of every declared segment."""

    evaluated: int
    sizes: pl.DataFrame


def update(run: Run, columns: Sequence[TraitColumn]) -> SegmentsReport:
    """Bring the segments up to profiles and to the day of `run.as_of`.

    Raises UnfinishedRebuildError while profiles are half built, or were made under other declarations, as by a run beside this one: people would leave
    every segment whose conditions count what is not there.
    """
    segments = run.project.segments
    under = run.project.digest("profiles")
    day = run.as_of.date()
    with run.writing(LAYER):
        profiles = run.lake.keyed(profiles_table(columns))
        if profiles.mark(RULES, under) != under:
            raise UnfinishedRebuildError(
                f"{LAYER}: {PROFILES.layer} is being built again, or was under other declarations; run {PROFILES.layer} first"
            )
        log = run.lake.keyed(SEGMENT_CHANGES)
        marks = {RULES: run.project.digest("segments"), AS_OF_DAY: day_number(day)}
        is_later = log.mark(AS_OF_DAY) != marks[AS_OF_DAY] and looks_at_the_clock(segments)
        everybody = run.full or log.mark(PROFILES_SEEN) < 0 or log.mark(RULES) != marks[RULES] or is_later
        touched = None if everybody else profiles.changed_since(log.mark(PROFILES_SEEN))
        now = members(profiles.current(touched), segments, day)
        before = current_members(log, touched)
        rows = changes(before, now).with_columns(at=pl.lit(run.as_of, pl.Datetime("us", "UTC")))
        log.put(rows, rows.select("profile_id", "segment"), run.as_of, {**marks, PROFILES_SEEN: profiles.newest_version})
        run.checkpoint("segment_changes")
        log.tidy()
        counted = rows.group_by("segment").agg(
            entered=(pl.col("change") == "entered").sum(), left=(pl.col("change") == "left").sum()
        )
        sizes = current_members(log).group_by("segment").agg(size=pl.len())
        names = pl.DataFrame({"segment": [each.segment for each in segments]}, schema={"segment": pl.String})
        report = names.join(sizes, on="segment", how="left", maintain_order="left").join(
            counted, on="segment", how="left", maintain_order="left"
        )
        evaluated = profiles.current()["profile_id"].len() if touched is None else touched.height
        run.say(f"segments: {evaluated:,} people evaluated, {rows.height:,} changes")
        return SegmentsReport(evaluated, report.with_columns(pl.col("size", "entered", "left").fill_null(0)))


def current_members(log: KeyedTable, profiles: pl.DataFrame | None = None) -> pl.DataFrame:
    """Who is in which segment, [profile_id, segment, at]; of some profiles only when given."""
    keys = None
    if profiles is not None:
        wanted = pl.col("profile_id").is_in(profiles["profile_id"].implode())
        keys = log.scan(tiers=["base", "delta"]).filter(wanted).select("profile_id", "segment").unique().collect()
    return log.current(keys).filter(pl.col("change") == "entered").select("profile_id", "segment", "at")
