"""Checks of consents: what rows promise, and how many people were asked at all."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import shown
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.consent.schema import CONSENTS, STATUSES
from cdp_assets.consent.spec import ConsentSpec
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.run import Run
from cdp_assets.validation import promises

COVERAGE = "people_were_asked"
COVERED_SHARE = 0.1

consents = promises(
    CONSENTS,
    checks={"status": pa.Check.isin(STATUSES)},
    unique=["profile_id", "purpose"],
    nullable=["expires_at"],
)
SPECS = (
    promises_spec(CONSENTS),
    dg.AssetCheckSpec(
        COVERAGE,
        asset=dg.AssetKey([CONSENTS.layer, CONSENTS.name]),
        description=f"At least {COVERED_SHARE:.0%} of the people answered for each purpose; fewer is mostly a consent banner "
        "that does not send its answers.",
    ),
)


def statuses(current: pl.DataFrame, spec: ConsentSpec) -> pl.DataFrame:
    """[purpose, granted, denied]: people by their answer in force."""
    names = pl.DataFrame({"purpose": [each.purpose for each in spec.purposes]}, schema={"purpose": pl.String})
    counted = current.group_by("purpose").agg((pl.col("status") == status).sum().alias(status) for status in STATUSES)
    return names.join(counted, on="purpose", how="left", maintain_order="left").with_columns(pl.col(STATUSES).fill_null(0))


def check(run: Run, answers: pl.DataFrame) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run. `answers`: as `statuses` gives them."""
    yield check_promises(run, CONSENTS, consents)
    identity = run.lake.keyed(IDENTITY_MAP)
    people = identity.scan(tiers=["base", "delta"]).select(pl.col("profile_id").n_unique()).collect().item()
    shares = answers.select("purpose", share=(pl.sum_horizontal(STATUSES) / people) if people else pl.lit(1.0))
    is_fine = bool((shares["share"] >= COVERED_SHARE).all())
    yield result(CONSENTS, COVERAGE, is_fine, {"people": people, "answered": shown(shares)}, warns=True)
