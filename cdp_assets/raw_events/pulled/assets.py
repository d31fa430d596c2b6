"""An asset for each resource of each source that is pulled. Rows land in the inbox, and raw_events takes them from there; a download is a file that
enrichments read.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from cdp_assets.assets import DECLARATIONS, OWNERS, Declared, open_run, safely_told, shown
from cdp_assets.project import Project
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.download_source import FILE, DownloadSource
from cdp_assets.raw_events.pulling import Pulled, pull, pulled_sources
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.resources import CdpResource
from cdp_resources.sources import download

GROUP = "sources"
READABLE = "everything_could_be_read"
FRESH = "file_is_fresh"

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


def key(source: str, resource: str) -> dg.AssetKey:
    """The asset of a resource."""
    return dg.AssetKey([GROUP, source, resource])


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """One multi-asset for each source that is pulled."""
    return [_source(declared, source, resources) for source, resources in pulled_sources(declared.project).items()]


def keys_of_events(project: Project) -> list[dg.AssetKey]:
    """The resources whose rows become events."""
    pulled = pulled_sources(project).items()
    events = ((source, names) for source, names in pulled if not isinstance(project.sources[source], DownloadSource))
    return [key(source, name) for source, names in events for name in names]


def _source(declared: Declared, source: str, resources: Sequence[str]) -> dg.AssetsDefinition:
    spec = declared.project.sources[source]
    told = " ".join(spec.description.split())
    is_download = isinstance(spec, DownloadSource)
    becomes = (
        f"Kept as {spec.to} for look-ups." if isinstance(spec, DownloadSource) else "What is new lands in the inbox as a batch."
    )
    specs = [
        dg.AssetSpec(
            key(source, resource),
            deps=[DECLARATIONS],
            description=f"{told} {becomes}".strip(),
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

    if is_download:
        checks += [
            dg.AssetCheckSpec(FRESH, asset=each.key, description="The content is not older than the source's `oldest`.")
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
                if isinstance(spec, DownloadSource):
                    yield _freshness(run, source, spec)
        if failures:
            raise dg.Failure(f"{source}/{'; '.join(failures)}", allow_retries=False)

    return pull_source


def _told(pulled: Pulled) -> Iterator[Event]:
    has_rows = pulled.table is not None and pulled.table.height > 0
    counts: dict[str, int | str] = {"batches": len(pulled.batches), "taken": pulled.taken, "refused": pulled.refused}
    if pulled.fetched is not None:
        changed_at = datetime.fromtimestamp(pulled.fetched.changed_at, UTC).isoformat()
        counts = {"rows": pulled.fetched.rows, "size_bytes": pulled.fetched.size_bytes, "changed_at": changed_at}
    yield dg.MaterializeResult(
        asset_key=key(pulled.source, pulled.resource),
        metadata={
            **counts,
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


def _freshness(run: Run, source: str, spec: DownloadSource) -> dg.AssetCheckResult:
    """How old the content is, also when it could not be fetched now."""
    found = download.stored(run.home.pulls / source, FILE)
    days = None if found is None else (clock.now().timestamp() - found.changed_at) / 86_400
    return dg.AssetCheckResult(
        asset_key=key(source, FILE),
        check_name=FRESH,
        passed=days is not None and (spec.oldest is None or days <= spec.oldest),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={} if days is None else {"days_since_it_changed": days},
    )
