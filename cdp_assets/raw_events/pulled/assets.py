"""An asset for each resource of each source that is pulled; what is pulled lands in the inbox, and raw_events takes it from there."""

from collections.abc import Iterator, Sequence

import dagster as dg

from cdp_assets.assets import DECLARATIONS, OWNERS, Declared, open_run, safely_told, shown
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.pulling import Pulled, pull, pulled_sources
from cdp_resources import clock
from cdp_resources.resources import CdpResource

GROUP = "sources"
READABLE = "everything_could_be_read"

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


def key(source: str, resource: str) -> dg.AssetKey:
    """The asset of a resource."""
    return dg.AssetKey([GROUP, source, resource])


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """One multi-asset for each source that is pulled."""
    return [_source(declared, source, resources) for source, resources in pulled_sources(declared.project).items()]


def _source(declared: Declared, source: str, resources: Sequence[str]) -> dg.AssetsDefinition:
    spec = declared.project.sources[source]
    told = " ".join(spec.description.split())
    specs = [
        dg.AssetSpec(
            key(source, resource),
            deps=[DECLARATIONS],
            description=f"{told} What is new lands in the inbox as a batch.".strip(),
            group_name=GROUP,
            kinds={spec.kind},
            owners=list(OWNERS),
        )
        for resource in resources
    ]
    checks = [
        dg.AssetCheckSpec(
            READABLE, asset=each.key, description="Nothing of this pull was damaged or of another format than declared."
        )
        for each in specs
    ]

    is_one_log = isinstance(spec, DatabaseSource) and spec.replication is not None

    @dg.multi_asset(name=f"pull_{source}", specs=specs, check_specs=checks, can_subset=not is_one_log)
    def pull_source(context: dg.AssetExecutionContext, cdp: CdpResource) -> Iterator[Event]:
        run = open_run(cdp, declared, context)
        wanted = [resource for resource in resources if key(source, resource) in context.selected_asset_keys]
        failures = []
        with safely_told(f"{GROUP}/{source}"):
            for pulled in pull(run, source, wanted, clock.now):
                if pulled.failure is None:
                    yield from _told(pulled)
                else:
                    failures.append(f"{pulled.resource}: {pulled.failure}")
        if failures:
            raise dg.Failure(f"{source}/{'; '.join(failures)}", allow_retries=False)

    return pull_source


def _told(pulled: Pulled) -> Iterator[Event]:
    has_rows = pulled.table is not None and pulled.table.height > 0
    yield dg.MaterializeResult(
        asset_key=key(pulled.source, pulled.resource),
        metadata={
            "batches": len(pulled.batches),
            "taken": pulled.taken,
            "refused": pulled.refused,
            **({"report": shown(pulled.table)} if has_rows and pulled.table is not None else {}),
        },
    )
    yield dg.AssetCheckResult(
        asset_key=key(pulled.source, pulled.resource),
        check_name=READABLE,
        passed=not pulled.problems,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"unreadable": len(pulled.problems)},
    )
