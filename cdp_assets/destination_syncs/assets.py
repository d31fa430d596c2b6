"""One asset for each declared sync, beside sync_log and sync_runs. What is sent is decided in layer.py."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from cdp_assets.assets import Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.checks import unchecked
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.destination_syncs import checks
from cdp_assets.destination_syncs.layer import LAYER, SyncsReport, not_ready, update
from cdp_assets.destination_syncs.spec import SyncSpec
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.pipeline import profile_columns
from cdp_assets.profiles.schema import PROFILES, profiles_table
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources.resources import CdpResource
from cdp_resources.sync_log import EXPORTED, SYNC_LOG_TABLE

RUNS = checks.RUNS
SEEN_SEGMENTS = "segments_version"
SEEN_PROFILES = "profiles_version"
SEEN_CONSENTS = "consents_version"
SEEN_DECLARED = "declarations"
LEFT_BEHIND = "records_left_behind"
FAILED = "failed_syncs"
_TABLES = (SYNC_LOG_TABLE.name, RUNS)


class Activation(dg.Config):
    """What a person may allow once."""

    allow_removals: list[str] = Field(
        default=[], description="Syncs that may remove more records than their declaration's max_removal_share lets them."
    )


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    columns = profile_columns(project)
    views = views_of(project)
    named = [each for each in project.syncs if each.sync not in _TABLES]
    keys = [dg.AssetKey([LAYER, each.sync]) for each in named]
    specs = [
        *(_sync_asset(project, each) for each in named),
        table_asset(
            LAYER,
            SYNC_LOG_TABLE.name,
            "Everything that was sent to a destination or left out, record by record, with what came of it.",
            view=views[SYNC_LOG_TABLE.name],
            deps=[key.path for key in keys],
        ),
        table_asset(
            LAYER,
            RUNS,
            "Every run of every sync in numbers: how many records were wanted, written, removed, refused and left out.",
            view=views[RUNS],
            deps=[key.path for key in keys],
        ),
    ]

    @dg.multi_asset(name=LAYER, specs=specs, check_specs=checks.SPECS, can_subset=True)
    def destination_syncs(
        context: dg.AssetExecutionContext, cdp: CdpResource, config: Activation
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            wanted = [each.sync for each, key in zip(named, keys, strict=True) if key in context.selected_asset_keys]
            _refuse_unless_ready(run, wanted, config.allow_removals)
            versions: dict[str, Any] = {
                SEEN_SEGMENTS: run.lake.keyed(SEGMENT_CHANGES).newest_version,
                SEEN_PROFILES: run.lake.keyed(PROFILES).newest_version,
                SEEN_CONSENTS: run.lake.keyed(CONSENTS).newest_version,
                SEEN_DECLARED: f"{project.digest('syncs'):x}",
            }
            before = run.lake.table(SYNC_LOG_TABLE).mark(EXPORTED, 0)
            only = None if len(wanted) == len(named) else wanted
            report = update(
                run,
                columns,
                context.run.run_id,
                only,
                allow_removals=config.allow_removals,
                retires=only is None,
            )
            yield from _synced(report, wanted)
            log = run.lake.table(SYNC_LOG_TABLE)
            told: dict[str, dict[str, Any]] = {
                SYNC_LOG_TABLE.name: {"dagster/row_count": row_count(log), "new_rows": report.log_rows},
                # A run of some syncs does not say that all destinations have these versions: the sensor counts on that.
                RUNS: {
                    **_numbers(report),
                    **(versions if only is None else {}),
                    LEFT_BEHIND: int(checks.left_behind(report)["records"].sum()),
                },
            }
            for name, metadata in told.items():
                if dg.AssetKey([LAYER, name]) in context.selected_asset_keys:
                    yield dg.MaterializeResult(asset_key=[LAYER, name], metadata=metadata)
            new = log.scan().filter(pl.col("log_id") > before).collect() if report.log_rows else log.read().clear()
            selected = {key.name for key in context.selected_asset_check_keys}
            for found in checks.check(run, report, new, context.run.run_id):
                if found.check_name in selected:
                    yield found
            if report.failures:
                said = [f"sync {each.sync} ({each.reason}): {each.told}" for each in report.failures]
                raise dg.Failure(description="; ".join(said), metadata={FAILED: len(said)}, allow_retries=False)

    def _refuse_unless_ready(run: Run, wanted: Collection[str], allowed: Collection[str]) -> None:
        unknown = set(allowed) - {each.sync for each in named}
        if unknown:
            raise dg.Failure(f"allow_removals: no sync {sorted(unknown)}; there are {[each.sync for each in named]}")
        if not wanted:
            return
        if stale := not_ready(run, columns):
            raise dg.Failure(
                f"nothing was sent: {', '.join(stale)} is not computed under today's declarations yet; `cdp run` does it"
            )
        if wrong := unchecked(run, [IDENTITY_MAP, CONSENTS, profiles_table(columns), SEGMENT_CHANGES]):
            raise dg.Failure(
                f"nothing was sent: {', '.join(wrong)} holds rows that no check has passed; see the table's checks, mend what "
                "they name, and run again"
            )

    return [destination_syncs]


def _sync_asset(project: Project, sync: SyncSpec) -> dg.AssetSpec:
    source = [SEGMENT_CHANGES.layer, sync.source.segment] if sync.source.segment else [PROFILES.layer, PROFILES.name]
    purposes = sync.required_purposes(project.destinations[sync.destination])
    told = f"Asks for consent to {', '.join(purposes)}." if purposes else "Asks for no consent."
    tables = ([each.layer, each.name] for each in (PROFILES, CONSENTS, IDENTITY_MAP, SEGMENT_CHANGES))
    deps = dict.fromkeys(tuple(path) for path in (source, *tables))
    kind = project.destinations[sync.destination].kind
    spec = table_asset(
        LAYER,
        sync.sync,
        f"{' '.join(sync.description.split())} To {sync.destination}, mode {sync.mode}. {told}",
        deps=[list(path) for path in deps],
        tags={"cdp/destination": sync.destination},
        owners=("team:data", "team:marketing"),
    )
    return spec.replace_attributes(kinds={kind})


def _synced(report: SyncsReport, wanted: Collection[str]) -> Iterator[dg.MaterializeResult[None]]:
    """A materialisation for each sync that ran and whose destination took what it was given."""
    for each in report.summaries:
        if each.sync in wanted and not report.is_failed(each.sync):
            seconds = (each.ended_at - each.started_at).total_seconds()
            yield dg.MaterializeResult(
                asset_key=[LAYER, each.sync],
                metadata={
                    "dagster/row_count": each.counts.desired,
                    "status": each.status,
                    **asdict(each.counts),
                    "resumed": each.resumed,
                    "seconds": seconds,
                },
            )


def _numbers(report: SyncsReport) -> dict[str, Any]:
    rows = [
        {"sync": each.sync, "destination": each.destination, "status": each.status, **asdict(each.counts)}
        for each in report.summaries
    ]
    total = {name: sum(int(row[name]) for row in rows) for name in ("delivered", "refused", "uncertain", "pending", "skipped")}
    return {FAILED: len(report.failures), **total, **({"runs": shown(pl.DataFrame(rows))} if rows else {})}
