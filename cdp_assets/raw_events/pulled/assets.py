"""An asset for each resource of each source that is pulled. Rows land in the inbox, and raw_events takes them from there; a download is a file that
enrichments read.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from cdp_assets.assets import DECLARATIONS, OWNERS, SHOWN_ROWS, Declared, open_run, safely_told, shown
from cdp_assets.project import Project
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.download_source import FILE, DownloadSource
from cdp_assets.raw_events.files_source import FILES_SOURCES
from cdp_assets.raw_events.kafka_source import KafkaSource
from cdp_assets.raw_events.pulling import Pulled, pull, pulled_sources
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.resources import CdpResource
from cdp_resources.sources import download

GROUP = "sources"
READABLE = "everything_could_be_read"
FRESH = "file_is_fresh"
MISSED_READINGS = 3
"""A resource that was not read for so many intervals is not fresh; one less is a warning."""
_LEAST_WARNING = timedelta(minutes=5)

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
    is_download = isinstance(spec, DownloadSource)
    specs = [
        dg.AssetSpec(
            key(source, resource),
            deps=[DECLARATIONS],
            description=_description(spec, resource),
            group_name=GROUP,
            kinds={spec.kind},
            owners=list(OWNERS),
            freshness_policy=_rhythm(spec),
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
                yield from events(run, spec, pulled)
                if pulled.failure is not None:
                    failures.append(f"{pulled.resource}: {pulled.failure}")
        if failures:
            raise dg.Failure(f"{source}/{'; '.join(failures)}", allow_retries=False)

    return pull_source


def _description(spec: Source, resource: str) -> str:
    """What is read, how it is known what is new, and where it goes."""
    told = " ".join(spec.description.split())
    if isinstance(spec, DatabaseSource):
        table = spec.resources[resource].table or resource
        new = "every change" if spec.replication else f"rows by {spec.resources[resource].cursor or 'their content'}"
        told += f" Table {table}: {new}."
    elif isinstance(spec, ApiSource):
        told += f" Endpoint {resource}: rows by {spec.resources[resource].cursor or 'their content'}."
    elif isinstance(spec, KafkaSource):
        told += f" Topic {spec.resources[resource].topic or resource}: every message."
    elif isinstance(spec, FILES_SOURCES) and spec.watch is not None:
        told += f" Files {spec.watch.pattern} of the watched folder."
    elif isinstance(spec, DownloadSource):
        return f"{told} Kept as {spec.to} for look-ups.".strip()
    return f"{told} What is new lands in the inbox as batches.".strip()


def _rhythm(spec: Source) -> dg.FreshnessPolicy | None:
    """For what is read at intervals. A folder may be empty for long."""
    if not isinstance(spec, DatabaseSource | ApiSource | KafkaSource):
        return None
    late = max(timedelta(seconds=(MISSED_READINGS - 1) * spec.every), _LEAST_WARNING)
    missing = max(timedelta(seconds=MISSED_READINGS * spec.every), 2 * _LEAST_WARNING)
    return dg.FreshnessPolicy.time_window(fail_window=missing, warn_window=late)


def events(run: Run, spec: Source, pulled: Pulled) -> Iterator[Event]:
    """What Dagster is told of a resource that was pulled; of one that could not be read only how old its file is."""
    if pulled.failure is None:
        yield from _told(pulled)
    if isinstance(spec, DownloadSource):
        yield _freshness(run, pulled.source, spec)


def report(instance: dg.DagsterInstance, told: Iterable[Event]) -> None:
    """Tell it to Dagster outside of a run. Raises what the instance's storage raises."""
    for each in told:
        assert each.asset_key is not None
        if isinstance(each, dg.MaterializeResult):
            instance.report_runless_asset_event(dg.AssetMaterialization(each.asset_key, metadata=each.metadata))
            continue
        assert each.check_name is not None
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(each.asset_key, each.check_name, each.passed, each.metadata, severity=each.severity)
        )


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
            **({"batch_ids": list(pulled.batches[:SHOWN_ROWS])} if pulled.batches else {}),
            **({"goes_on_from": pulled.position} if pulled.position else {}),
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
