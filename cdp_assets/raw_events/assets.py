"""raw_events, rejected_events and import_batches as assets, by hour of receipt. What they hold is computed in layer.py."""

from collections.abc import Iterator, Sequence

import dagster as dg
import polars as pl

from cdp_assets.assets import (
    DECLARATIONS,
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
from cdp_assets.raw_events import checks
from cdp_assets.raw_events.layer import update
from cdp_assets.raw_events.pulled.assets import keys_of_events
from cdp_assets.raw_events.schema import IMPORT_BATCHES, LAYER, RAW_EVENTS, REJECTED_EVENTS
from cdp_resources.resources import CdpResource

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    version = f"dedupe-{project.settings.dedupe_window_hours}h"
    views = views_of(project)
    after = [DECLARATIONS.path, *(each.path for each in keys_of_events(project))]
    specs = [
        table_asset(
            LAYER,
            RAW_EVENTS.name,
            "Every message that was received and accepted, once: parsed, with its time corrected for the sender's clock, and "
            "with the original kept byte for byte. What all else is derived from.",
            view=views[RAW_EVENTS.name],
            deps=after,
            code_version=version,
            partitions_def=HOURS,
        ),
        table_asset(
            LAYER,
            REJECTED_EVENTS.name,
            "Messages that could not be accepted, each with the reason and as it was received. Look here when a count is too low.",
            view=views[REJECTED_EVENTS.name],
            deps=after,
            code_version=version,
            partitions_def=HOURS,
        ),
        table_asset(
            LAYER,
            IMPORT_BATCHES.name,
            "What became of every line, by batch and source: received = accepted + duplicates + rejected + erased.",
            view=views[IMPORT_BATCHES.name],
            deps=after,
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
    def raw_events(context: dg.AssetExecutionContext, cdp: CdpResource) -> Iterator[Event]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            report = update(run, hours_to_redo(context))
            counts = ["received", "accepted", "duplicates", "rejected", "erased"]
            by_source = report.counts.group_by("source").agg(pl.col(counts).sum()).sort("source")
            tables = [run.lake.table(spec) for spec in (RAW_EVENTS, REJECTED_EVENTS, IMPORT_BATCHES)]
            rows = {table.spec.name: row_count(table) for table in tables}
            yield dg.MaterializeResult(
                asset_key=[LAYER, RAW_EVENTS.name],
                metadata={
                    "dagster/row_count": rows[RAW_EVENTS.name],
                    "new_events": int(report.counts["accepted"].sum()),
                    "batches_taken": report.taken,
                    "batches_changed_when_read_again": report.changed,
                    "hours_gone_from_the_inbox": len(report.gone_hours),
                    "through_batch": tables[0].cursor,
                },
            )
            rejected = run.lake.table(REJECTED_EVENTS)
            new = report.counts.filter(pl.col("rejected") > 0)["batch_seq"].unique().sort().to_list()
            reasons = rejected.scan(new).group_by("source", "reason").agg(rows=pl.len()).sort("rows", descending=True).collect()
            yield dg.MaterializeResult(
                asset_key=[LAYER, REJECTED_EVENTS.name],
                metadata={
                    "dagster/row_count": rows[REJECTED_EVENTS.name],
                    "rejected": int(report.counts["rejected"].sum()),
                    **({"reasons": shown(reasons)} if reasons.height else {}),
                },
            )
            yield dg.MaterializeResult(
                asset_key=[LAYER, IMPORT_BATCHES.name],
                metadata={
                    "dagster/row_count": rows[IMPORT_BATCHES.name],
                    **({"by_source": shown(by_source)} if by_source.height else {}),
                },
            )
            yield from checks.check(run, report)

    return [raw_events]
