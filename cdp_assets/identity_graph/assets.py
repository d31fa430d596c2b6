"""The identity tables as assets, with pictures of what a person's identifiers look like. What they hold is computed in layer.py."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl

from cdp_assets.assets import Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph import checks
from cdp_assets.identity_graph.explain import LARGEST_EXAMINED, explained, graph
from cdp_assets.identity_graph.layer import update
from cdp_assets.identity_graph.schema import EDGES, IDENTIFIERS, IDENTITY_MAP, IDENTITY_MERGES, LAYER
from cdp_assets.run import Run
from cdp_resources.resources import CdpResource

EDGES_ASSET = "identity_edges"
MOST_EDGES = 20_000_000
"""With more edges than this no component is drawn: finding one would take longer than the run."""


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    version = f"{project.digest('identity'):x}"
    views = views_of(project)
    specs = [
        table_asset(
            LAYER,
            EDGES_ASSET,
            "Which identifiers came together in one event: the evidence behind every person.",
            view=views[EDGES_ASSET],
            deps=[[ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]],
            code_version=version,
        ),
        table_asset(
            LAYER,
            IDENTITY_MAP.name,
            "Whose each identifier is. Join it to events to count people instead of devices; a shared device has a row for each "
            "time that it belonged to somebody.",
            view=views[IDENTITY_MAP.name],
            deps=[[LAYER, EDGES_ASSET]],
            code_version=version,
        ),
        table_asset(
            LAYER,
            IDENTITY_MERGES.name,
            "Which profiles turned out to be one person, when, and by which event.",
            view=views[IDENTITY_MERGES.name],
            deps=[[LAYER, EDGES_ASSET]],
            code_version=version,
        ),
    ]

    @dg.multi_asset(name=LAYER, specs=specs, check_specs=checks.SPECS)
    def identity_graph(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            before = run.lake.keyed(IDENTITY_MAP).newest_version
            report = update(run)
            table, edges = run.lake.keyed(IDENTITY_MAP), run.lake.table(EDGES)
            found = checks.health(table)
            is_new = table.newest_version > before
            # New identifiers always change, and are no sign of anything.
            known = max(report.changed_identifiers - report.new_identifiers, 0)
            yield dg.MaterializeResult(
                asset_key=[LAYER, EDGES_ASSET],
                metadata={"dagster/row_count": row_count(edges), "events_observed": report.events},
            )
            yield dg.MaterializeResult(
                asset_key=[LAYER, IDENTITY_MAP.name],
                metadata={
                    "dagster/row_count": row_count(table),
                    "identifiers": found.identifiers,
                    "profiles": found.profiles,
                    "shared_identifiers": found.shared,
                    "new_identifiers": report.new_identifiers,
                    "changed_identifiers": report.changed_identifiers,
                    "is_rebuild": report.is_rebuild,
                    "largest_components": shown(found.largest.select("size").with_row_index("rank", 1)),
                    **(_pictures(run, found, before) if is_new else {}),
                },
            )
            yield dg.MaterializeResult(
                asset_key=[LAYER, IDENTITY_MERGES.name],
                metadata={"dagster/row_count": row_count(run.lake.keyed(IDENTITY_MERGES))},
            )
            yield from checks.check(run, report, found, 0 if report.is_rebuild else known)

    return [identity_graph]


def _pictures(run: Run, found: checks.Health, before: int) -> dict[str, Any]:
    """The largest component of all and the largest of those that this run changed."""
    table, edges = run.lake.keyed(IDENTITY_MAP), run.lake.table(EDGES)
    if found.largest.is_empty() or int(edges.files()["num_records"].sum()) > MOST_EDGES:
        return {}
    wanted = {"largest_person": int(found.largest["component"][0])}
    rows = table.current(table.changed_since(before)) if before else table.current().clear()
    changed = rows.filter(~pl.col("is_shared")).group_by("component").agg(size=pl.len()).sort("size", "component")
    if changed.height:
        wanted["newest_change"] = int(changed["component"][-1])
    current = table.current().filter(pl.col("component").is_in(list(wanted.values())) & ~pl.col("is_shared"))
    types = run.lake.table(IDENTIFIERS).scan().select("identifier_id", "identifier_type")
    nodes = types.join(current.lazy().select("identifier_id", "component"), on="identifier_id", how="inner").collect()
    links = (
        edges.scan().filter(pl.col("centre_id").is_in(nodes["identifier_id"].implode())).select("centre_id", "leaf_id").collect()
    )
    pictures = {}
    for name, component in wanted.items():
        mine = nodes.filter(pl.col("component") == component)
        if 0 < mine.height <= LARGEST_EXAMINED:
            pictures[name] = dg.MetadataValue.md(explained(graph(links, mine)))
    return pictures
