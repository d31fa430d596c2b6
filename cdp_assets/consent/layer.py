"""The one writer of consents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from cdp_assets import by_profile
from cdp_assets.by_profile import ByProfile, ByProfileReport, of_subjects
from cdp_assets.consent.schema import CONSENT_FACTS, CONSENTS, LAYER
from cdp_assets.consent.transform import consent_facts, consents
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import with_profile
from cdp_assets.run import Run
from cdp_resources.lake import Table

_COLUMNS = {
    "batch_seq": pl.Int64(),
    "offset": pl.Int64(),
    "received_date": pl.Date(),
    "consent": pl.String(),
    "allowed_purposes": pl.String(),
}
EVENTS = replace(ENRICHED_EVENTS, columns=_COLUMNS)


def update(run: Run) -> ByProfileReport:
    """Bring consents up to the identity layer."""
    spec = run.project.consent
    purposes = [each.purpose for each in spec.purposes]

    def contribute(events: pl.DataFrame, subjects: pl.DataFrame) -> Sequence[pl.DataFrame]:
        return [consent_facts(events, subjects)]

    def compute(owned: pl.DataFrame, tables: Sequence[Table], subjects: Table) -> pl.DataFrame:
        _ = subjects
        rows = of_subjects(tables[0], owned, ["batch_seq", "offset", "subject_id", "at", "message_key", "consent"])
        mine = with_profile(rows, owned).join(owned.select("profile_id").unique(), on="profile_id", how="semi")
        return consents(mine, purposes, spec.conflict)

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
        ),
    )
