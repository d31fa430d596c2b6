"""The one writer of the attribution tables: touches and conversions by batch, credit of the people whom a run touches."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cdp_assets import by_profile
from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT, CONVERSION_EVENTS, EVENTS, LAYER, TOUCH_EVENTS
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.attribution.transform import conversion_events, conversion_paths, conversions, credit, touches
from cdp_assets.by_profile import ByProfile, ByProfileReport, of_subjects
from cdp_assets.identity_graph.schema import with_profile
from cdp_assets.run import Run
from cdp_resources import json_paths
from cdp_resources.lake import Table

NOTHING = AttributionSpec.model_validate({"conversions": (), "models": ("last",)})
"""Without config/attribution.yaml touches are kept, and nothing is attributed."""


def update(run: Run) -> ByProfileReport:
    """Bring attribution up to the identity layer."""
    spec = run.project.attribution or NOTHING

    def contribute(events: pl.DataFrame, subjects: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
        place = ["batch_seq", "offset"]
        subject = subjects[0].select(*place, "subject_id")
        names = list(conversion_events(spec))
        candidates = events.filter((pl.col("type") == "track") & pl.col("event").is_in(names))
        texts = json_paths.extract(candidates, "properties", conversion_paths(spec))
        found = touches(events), conversions(candidates, texts, spec)
        return [
            frame.join(subject, on=place, how="inner").select(list(table.columns)).sort(place)
            for frame, table in zip(found, (TOUCH_EVENTS, CONVERSION_EVENTS), strict=True)
        ]

    def compute(owned: pl.DataFrame, tables: Sequence[Table], subjects: Sequence[Table]) -> pl.DataFrame:
        _ = subjects
        mine = [
            with_profile(of_subjects(table, owned, table.spec.columns), owned)
            .join(owned.select("profile_id").unique(), on="profile_id", how="semi")
            .drop("subject_id")
            for table in tables
        ]
        converted = mine[0].join(mine[1].select("profile_id").unique(), on="profile_id", how="semi")
        return credit(converted, mine[1], spec)

    return by_profile.update(
        run,
        ByProfile(
            layer=LAYER,
            rules=run.project.digest("attribution"),
            events=EVENTS,
            per_batch=(TOUCH_EVENTS, CONVERSION_EVENTS),
            contribute=contribute,
            primary=ATTRIBUTION_CREDIT,
            compute=compute,
        ),
    )
