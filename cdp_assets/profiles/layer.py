"""The one writer of profiles: facts by batch, and the rows of the people whom a run touches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from cdp_assets import by_profile
from cdp_assets.by_profile import ByProfile, ByProfileReport, of_subjects
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import with_profile
from cdp_assets.profiles.measures import facts
from cdp_assets.profiles.schema import FACTS, LAYER, TraitColumn, profiles_table
from cdp_assets.profiles.transform import expiring, profiles
from cdp_assets.run import Run
from cdp_resources.lake import KeyedTable, Table

AS_OF_DAY = "as_of_day"
"""Mark of the UTC day, as days since 1970, whose end the traits are as of."""
_EPOCH = date(1970, 1, 1).toordinal()


def update(run: Run, columns: Sequence[TraitColumn]) -> ByProfileReport:
    """Bring profiles up to the identity layer and to the day of `run.as_of`."""
    day = run.as_of.date()
    measures = {column.measure.id: column.measure for column in columns}

    def contribute(events: pl.DataFrame, subjects: pl.DataFrame) -> Sequence[pl.DataFrame]:
        return [facts(events, subjects, measures.values())]

    def compute(owned: pl.DataFrame, tables: Sequence[Table], subjects: Table) -> pl.DataFrame:
        people = owned["profile_id"].unique()
        wanted = people.to_frame()
        seen = with_profile(of_subjects(subjects, owned, ["subject_id", "at"]), owned).join(wanted, on="profile_id", how="semi")
        rows = of_subjects(
            tables[0], owned, ["batch_seq", "offset", "subject_id", "at", "message_key", "measure", "number", "text"]
        )
        mine = with_profile(rows, owned).join(wanted, on="profile_id", how="semi")
        return profiles(people, seen, mine, columns, day)

    def expired(primary: KeyedTable, tables: Sequence[Table], subjects: Table) -> pl.Series:
        before = date.fromordinal(primary.mark(AS_OF_DAY) + _EPOCH)
        if before == day:
            return pl.Series("subject_id", [], dtype=pl.Int64)
        crossed = [expiring(tables[0].scan(), columns, before, day), expiring(subjects.scan(), (), before, day)]
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
            expired=expired,
            marks={AS_OF_DAY: day.toordinal() - _EPOCH},
        ),
    )
