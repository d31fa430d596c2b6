"""The one writer of profiles: facts by batch, and the rows of the people whom a run touches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from cdp_assets import by_profile
from cdp_assets.by_profile import AS_OF_DAY, ByProfile, ByProfileReport, day_number, of_subjects
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import PROFILE_DATA_SUBJECTS, with_profile
from cdp_assets.profiles.measures import facts
from cdp_assets.profiles.schema import FACTS, LAYER, TraitColumn, profiles_table
from cdp_assets.profiles.transform import expiring, expiring_data, profiles
from cdp_assets.run import Run
from cdp_resources.lake import KeyedTable, Table


def update(run: Run, columns: Sequence[TraitColumn]) -> ByProfileReport:
    """Bring profiles up to the identity layer and to the day of `run.as_of`."""
    day = run.as_of.date()
    measures = {measure.id: measure for column in columns for measure in column.measures}
    kept = {measure.source: days for column in columns for measure, days in column.takes if measure.source and days}

    def contribute(events: pl.DataFrame, about: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
        subjects, told = about
        return [facts(events, subjects, measures.values(), told)]

    def compute(owned: pl.DataFrame, tables: Sequence[Table], about: Sequence[Table]) -> pl.DataFrame:
        subjects, told = about
        people = owned["profile_id"].unique()
        wanted = people.to_frame()
        seen = with_profile(of_subjects(subjects, owned, ["subject_id", "at"]), owned).join(wanted, on="profile_id", how="semi")
        rows = of_subjects(
            tables[0], owned, ["batch_seq", "offset", "subject_id", "at", "message_key", "measure", "number", "text"]
        )
        mine = with_profile(rows, owned).join(wanted, on="profile_id", how="semi")
        if told.cursor >= 0:
            place = ["batch_seq", "offset"]
            receipt = of_subjects(told, owned, [*place, "subject_id", "received_at"])
            mine = mine.join(receipt, on=[*place, "subject_id"], how="left")
            # Several identifiers in one row may be those of one person.
            is_told = pl.col("received_at").is_not_null()
            mine = pl.concat([mine.filter(~is_told), mine.filter(is_told).unique(["profile_id", *place, "measure"])])
        return profiles(people, seen, mine, columns, day)

    def expired(primary: KeyedTable, tables: Sequence[Table], about: Sequence[Table]) -> pl.Series:
        subjects, told = about
        before = date(1970, 1, 1) + timedelta(days=primary.mark(AS_OF_DAY))
        if before == day:
            return pl.Series("subject_id", [], dtype=pl.Int64)
        crossed = [expiring(tables[0].scan(), columns, before, day), expiring(subjects.scan(), (), before, day)]
        if kept and told.cursor >= 0:
            crossed.append(expiring_data(told.scan(), kept, before, day))
        return pl.concat(crossed).unique().collect()["subject_id"]

    return by_profile.update(
        run,
        ByProfile(
            layer=LAYER,
            rules=run.project.digest("profiles"),
            events=ENRICHED_EVENTS,
            per_batch=(FACTS,),
            contribute=contribute,
            primary=profiles_table(columns),
            compute=compute,
            also_about=PROFILE_DATA_SUBJECTS,
            expired=expired,
            marks={AS_OF_DAY: day_number(day)},
        ),
    )
