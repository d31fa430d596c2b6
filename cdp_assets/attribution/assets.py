"""touchpoints, conversions and attribution_credit as assets. What they hold is computed in layer.py."""

from collections.abc import Iterator, Sequence

import dagster as dg
import polars as pl

from cdp_assets.assets import NEW_EVENTS, Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.attribution import checks
from cdp_assets.attribution.layer import update
from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT, CONVERSION_EVENTS, LAYER, TOUCH_EVENTS
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.money import LARGEST
from cdp_resources.resources import CdpResource

TOUCHPOINTS = "touchpoints"
CONVERSIONS = "conversions"


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    version = f"{project.digest('attribution'):x}"
    deps: list[Sequence[str] | dg.AssetDep] = [NEW_EVENTS, [IDENTITY_MAP.layer, IDENTITY_MAP.name]]
    views = views_of(project)
    specs = [
        table_asset(
            LAYER,
            TOUCHPOINTS,
            "Every visit that came through a marketing channel, with campaign and source.",
            view=views[TOUCHPOINTS],
            deps=deps,
            code_version=version,
        ),
        table_asset(
            LAYER,
            CONVERSIONS,
            "What counts as success, such as an order, with its value; refunds are negative.",
            view=views[CONVERSIONS],
            deps=deps,
            code_version=version,
        ),
        table_asset(
            LAYER,
            ATTRIBUTION_CREDIT.name,
            "Which touch earned how much of which conversion, by every model in use. Add up `value` by channel to compare what "
            "channels are worth.",
            view=views[ATTRIBUTION_CREDIT.name],
            deps=[[LAYER, TOUCHPOINTS], [LAYER, CONVERSIONS]],
            code_version=version,
        ),
    ]

    @dg.multi_asset(name=LAYER, specs=specs, check_specs=checks.SPECS)
    def attribution(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            before = run.lake.keyed(ATTRIBUTION_CREDIT).newest_version
            report = update(run)
            table = run.lake.keyed(ATTRIBUTION_CREDIT)
            new_touches, new_conversions = report.contributions
            yield dg.MaterializeResult(
                asset_key=[LAYER, TOUCHPOINTS],
                metadata={"dagster/row_count": row_count(run.lake.table(TOUCH_EVENTS)), "new_touchpoints": new_touches},
            )
            yield dg.MaterializeResult(
                asset_key=[LAYER, CONVERSIONS],
                metadata={"dagster/row_count": row_count(run.lake.table(CONVERSION_EVENTS)), "new_conversions": new_conversions},
            )
            by_channel = _by_channel(table.current()) if table.newest_version > before else None
            yield dg.MaterializeResult(
                asset_key=[LAYER, ATTRIBUTION_CREDIT.name],
                metadata={
                    "dagster/row_count": row_count(table),
                    "people_computed": report.computed,
                    "people_changed": report.changed,
                    "is_rebuild": report.is_rebuild,
                    **({"minor_units_by_channel": shown(by_channel)} if by_channel is not None and by_channel.height else {}),
                },
            )
            yield from checks.check(run, project.attribution, before)

    return [attribution]


def _by_channel(credit: pl.DataFrame) -> pl.DataFrame:
    """[channel, currency, <model>…]: minor units that each model gives to each channel; at most, either way, what 64 bits hold."""
    total = pl.col("value").cast(pl.Int128).sum().clip(-LARGEST, LARGEST).cast(pl.Int64)
    sums = credit.group_by("channel", "currency", "model").agg(value=total)
    wide = sums.sort("model").pivot(on="model", index=["channel", "currency"], values="value", aggregate_function="sum")
    return wide.sort("channel", "currency")
