"""The one writer of consents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from cdp_assets import by_profile
from cdp_assets.by_profile import AS_OF_DAY, ByProfile, ByProfileReport, day_number, of_subjects
from cdp_assets.consent.schema import CONSENT_FACTS, CONSENTS, LAYER
from cdp_assets.consent.transform import consent_facts, consents, is_out_of_date
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import with_profile
from cdp_assets.run import Run
from cdp_resources.lake import KeyedTable, Table

_COLUMNS = {
    "batch_seq": pl.Int64(),
    "offset": pl.Int64(),
    "received_date": pl.Date(),
    "consent": pl.String(),
    "allowed_purposes": pl.String(),
}
EVENTS = replace(ENRICHED_EVENTS, columns=_COLUMNS)


def update(run: Run) -> ByProfileReport:
    """Bring consents up to the identity layer, and where they expire to the day of `run.as_of`."""
    spec = run.project.consent
    day = run.as_of.date()
    marks = {AS_OF_DAY: day_number(day)} if spec.expiries() else {}

    def contribute(events: pl.DataFrame, subjects: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
        return [consent_facts(events, subjects[0])]

    def compute(owned: pl.DataFrame, tables: Sequence[Table], subjects: Sequence[Table]) -> pl.DataFrame:
        _ = subjects
        rows = of_subjects(tables[0], owned, ["batch_seq", "offset", "subject_id", "at", "message_key", "consent"])
        mine = with_profile(rows, owned).join(owned.select("profile_id").unique(), on="profile_id", how="semi")
        return consents(mine, spec, day)

    def expired(primary: KeyedTable, tables: Sequence[Table], subjects: Sequence[Table]) -> pl.Series:
        _ = tables, subjects
        if all(primary.mark(name) == value for name, value in marks.items()):
            return pl.Series("profile_id", [], dtype=pl.Int64)
        candidates = primary.scan(tiers=["base", "delta"]).filter(is_out_of_date(day)).select("profile_id").unique().collect()
        return primary.current(candidates).filter(is_out_of_date(day))["profile_id"]  # the id is an identifier of the profile

    return by_profile.update(
        run,
        ByProfile(
            layer=LAYER,
            rules=run.project.digest("consent"),
            events=EVENTS,
            per_batch=(CONSENT_FACTS,),
            contribute=contribute,
            primary=CONSENTS,
            compute=compute,
            expired=expired,
            marks=marks,
        ),
    )
