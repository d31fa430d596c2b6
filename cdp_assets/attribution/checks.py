"""Checks of attribution: what rows promise, and that the credit of every conversion adds up to its value, to the cent."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import polars as pl

from cdp_assets.attribution import schema
from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT, CONVERSION_EVENTS, LAYER
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.attribution.transform import distinct_conversions
from cdp_assets.by_profile import IDENTITY, moved, of_subjects
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.identity_graph.schema import IDENTITY_MAP, with_profile
from cdp_assets.run import Run

EXACT = "credit_adds_up_to_the_value"

SPECS = (
    promises_spec(ATTRIBUTION_CREDIT),
    dg.AssetCheckSpec(
        EXACT,
        asset=dg.AssetKey([ATTRIBUTION_CREDIT.layer, ATTRIBUTION_CREDIT.name]),
        blocking=True,
        description="For every model and every conversion of the people whom this run changed, the values of the credit add up "
        "to the conversion's value in minor units, and the shares to one.",
    ),
)


def check(run: Run, spec: AttributionSpec | None, before: int) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run. `before`: the version of attribution_credit before it."""
    yield check_promises(run, ATTRIBUTION_CREDIT, schema.attribution_credit)
    with run.writing(LAYER):  # another run commits one table after the other
        table = run.lake.keyed(ATTRIBUTION_CREDIT)
        identity = run.lake.keyed(IDENTITY_MAP)
        # Whom another run's identity has moved meanwhile has credit again when attribution follows it.
        is_moved = pl.col("profile_id").is_in(moved(identity, table.mark(IDENTITY)).drop_nulls().implode())
        keys = table.changed_since(before).filter(~is_moved)
        credit = table.current(keys)
        owned = identity.current().join(keys, on="profile_id", how="semi")
        events = run.lake.table(CONVERSION_EVENTS)
        mine = with_profile(of_subjects(events, owned, list(CONVERSION_EVENTS.columns)), owned).join(
            keys, on="profile_id", how="semi"
        )
    models = [each.name for each in spec.models] if spec is not None else []
    wrong = unequal(credit, distinct_conversions(mine), models)
    metadata = {"people": keys.height, "credits": credit.height, "conversions_that_do_not_add_up": wrong}
    yield result(ATTRIBUTION_CREDIT, EXACT, not wrong, metadata)


def unequal(credit: pl.DataFrame, conversions: pl.DataFrame, models: list[str]) -> int:
    """How many pairs of model and conversion have credit that is not the conversion's value, or shares that are not one."""
    key = ["profile_id", "conversion_id", "at", "model"]
    sums = credit.group_by(key).agg(given=pl.col("value").sum(), share=pl.col("credit").sum())
    worth = conversions.group_by(key[:3]).agg(value=pl.col("value").sum(), count=pl.len())
    expected = worth.join(pl.DataFrame({"model": models}, schema={"model": pl.String}), how="cross")
    both = expected.join(sums, on=key, how="full", coalesce=True)
    is_equal = (pl.col("given") == pl.col("value")) & ((pl.col("share") - pl.col("count")).abs() < 1e-6)
    return both.filter(~is_equal.fill_null(False)).height
