"""enriched_events and quarantined_events as assets, by hour of receipt. What they hold is computed in layer.py."""

from collections.abc import Iterator, Sequence

import dagster as dg

from cdp_assets.assets import (
    HOURS,
    HOURS_IN_ONE_RUN,
    Declared,
    hours_to_redo,
    open_run,
    row_count,
    safely_told,
    shown,
    table_asset,
    views_of,
)
from cdp_assets.enriched_events import checks
from cdp_assets.enriched_events.layer import update
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, LAYER, QUARANTINED_EVENTS
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_resources.resources import CdpResource


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    version = f"{project.digest('enriched'):x}"
    views = views_of(project)
    downloads = (name for name, each in project.sources.items() if each.kind == "download" and each.enabled)
    deps = [[RAW_EVENTS.layer, RAW_EVENTS.name], *(["sources", name, "file"] for name in downloads)]
    specs = [
        table_asset(
            LAYER,
            ENRICHED_EVENTS.name,
            "Every event that the tracking plan allows, with what the enrichments add: campaign, channel, referrer, device, "
            "consent. The table for analyses of behaviour.",
            view=views[ENRICHED_EVENTS.name],
            deps=deps,
            code_version=version,
            partitions_def=HOURS,
        ),
        table_asset(
            LAYER,
            QUARANTINED_EVENTS.name,
            "Events that the tracking plan blocks, with the violation and the whole message. Once the plan is mended, materialise "
            "the partitions of their hours again, or run the job replay_quarantine or `cdp quarantine replay`: the events are judged "
            "by the present plan, and those that it allows move to enriched_events with their ids.",
            view=views[QUARANTINED_EVENTS.name],
            deps=deps,
            code_version=version,
            partitions_def=HOURS,
        ),
    ]

    @dg.multi_asset(
        name=LAYER,
        specs=specs,
        check_specs=checks.SPECS,
        backfill_policy=dg.BackfillPolicy.multi_run(HOURS_IN_ONE_RUN),
    )
    def enriched_events(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            report = update(run, hours_to_redo(context))
            enriched, quarantined = run.lake.table(ENRICHED_EVENTS), run.lake.table(QUARANTINED_EVENTS)
            violations = report.violations.sort("violation_count", descending=True)
            yield dg.MaterializeResult(
                asset_key=[LAYER, ENRICHED_EVENTS.name],
                metadata={
                    "dagster/row_count": row_count(enriched),
                    "new_events": report.events,
                    "batches_changed_when_read_again": report.changed,
                    "through_batch": enriched.cursor,
                    **({"violations": shown(violations)} if violations.height else {}),
                },
            )
            yield dg.MaterializeResult(
                asset_key=[LAYER, QUARANTINED_EVENTS.name],
                metadata={"dagster/row_count": row_count(quarantined), "new_quarantined": report.quarantined},
            )
            yield from checks.check(run, project, report)

    return [enriched_events]
