"""The layers in the order of the data, without Dagster: what `cdp bench`, the property tests and the assets all run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdp_assets import contract
from cdp_assets.attribution import layer as attribution
from cdp_assets.attribution import schema as attribution_schema
from cdp_assets.consent import layer as consent
from cdp_assets.consent import schema as consent_schema
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.enriched_events import schema as enriched_schema
from cdp_assets.identity_graph import layer as identity_graph
from cdp_assets.identity_graph import schema as identity_schema
from cdp_assets.manifest import manifest_table
from cdp_assets.money import exponent
from cdp_assets.privacy import schema as privacy_schema
from cdp_assets.profiles import layer as profiles
from cdp_assets.profiles import schema as profiles_schema
from cdp_assets.profiles.schema import TraitColumn
from cdp_assets.profiles.transform import counting_column, trait_column
from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events import schema as raw_schema
from cdp_assets.run import Run
from cdp_assets.segments import layer as segments
from cdp_assets.segments import schema as segments_schema
from cdp_assets.segments.transform import counted
from cdp_resources.dbt_project import mart_views
from cdp_resources.home import Home
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.sync_log import SYNC_LOG_TABLE
from cdp_resources.warehouse import View, Warehouse


def profile_columns(project: Project) -> tuple[TraitColumn, ...]:
    """The columns of profiles: the declared traits, then what the segments' conditions count."""
    keep_days = {source: each.keep_days for source, each in project.profile_data.items()}
    traits = (trait_column(each, exponent, keep_days) for each in project.traits)
    conditions = (counting_column(measure, window) for measure, window in counted(project.segments))
    return (*traits, *conditions)


def tables(project: Project) -> Iterator[TableSpec]:
    """Every table of the lake under these declarations."""
    yield from raw_schema.TABLES
    for spec in enriched_schema.TABLES:
        yield enriched_schema.enriched_table(project.enrichments) if spec is enriched_schema.ENRICHED_EVENTS else spec
    yield from identity_schema.TABLES
    yield from consent_schema.TABLES
    for spec in profiles_schema.TABLES:
        yield profiles_schema.profiles_table(profile_columns(project)) if spec is profiles_schema.PROFILES else spec
    yield from segments_schema.TABLES
    yield from attribution_schema.TABLES
    yield SYNC_LOG_TABLE
    yield from privacy_schema.TABLES
    yield from (manifest_table(layer) for layer in (raw_schema.LAYER, enriched_schema.LAYER))


def warehouse(home: Home, project: Project) -> Warehouse:
    """The tables of the contract as they are now, to be asked in SQL."""
    return Warehouse(home, tables(project), contract.views(project, profile_columns(project)), mart_views())


def contract_tables(project: Project) -> tuple[View, ...]:
    """Every table of the contract, the marts included, in order of the data."""
    return (*contract.views(project, profile_columns(project)), *mart_views())


def prepare(lake: Lake, project: Project) -> None:
    """Create every table that is not there yet, empty."""
    for spec in tables(project):
        lake.keyed(spec) if spec.keys else lake.table(spec)


def update_all(run: Run, redo_hours: Sequence[str] = ()) -> None:
    """Bring every layer up to the inbox, in order."""
    columns = profile_columns(run.project)
    raw_events.update(run, redo_hours)
    enriched_events.update(run, redo_hours)
    identity_graph.update(run)
    consent.update(run)
    profiles.update(run, columns)
    segments.update(run, columns)
    attribution.update(run)
