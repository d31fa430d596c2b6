"""consents as an asset. What it holds is computed in layer.py."""

from collections.abc import Iterator, Sequence

import dagster as dg

from cdp_assets.assets import NEW_EVENTS, Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.consent import checks
from cdp_assets.consent.layer import update
from cdp_assets.consent.schema import CONSENTS, LAYER
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_resources.resources import CdpResource


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    spec = table_asset(
        LAYER,
        CONSENTS.name,
        "What each person agreed to, and when. Nothing is sent to a destination for a purpose that is denied here.",
        view=views_of(project)[CONSENTS.name],
        deps=[NEW_EVENTS, [IDENTITY_MAP.layer, IDENTITY_MAP.name]],
        code_version=f"{project.digest('consent'):x}",
        owners=("team:data", "team:privacy"),
    )

    @dg.multi_asset(name=LAYER, specs=[spec], check_specs=checks.SPECS)
    def consent(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            report = update(run)
            table = run.lake.keyed(CONSENTS)
            answers = checks.statuses(table.current(), project.consent)
            yield dg.MaterializeResult(
                asset_key=[LAYER, CONSENTS.name],
                metadata={
                    "dagster/row_count": row_count(table),
                    "people_computed": report.computed,
                    "people_changed": report.changed,
                    "is_rebuild": report.is_rebuild,
                    **({"answers": shown(answers)} if answers.height else {}),
                },
            )
            yield from checks.check(run, answers)

    return [consent]
