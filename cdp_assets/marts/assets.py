"""The dbt models as assets, and their tests as asset checks. What a build does is in layer.py, the SQL in dbt/.

Imported by the code location of the marts alone, since dagster_dbt costs every process seconds to import.
"""

# No `from __future__ import annotations`: Dagster compares the annotation of `context` itself, not its text.

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_asset_check_key_for_test

from cdp_assets import contract
from cdp_assets.assets import Declared, open_run, safely_told
from cdp_assets.marts.layer import FINE, LAYER, update
from cdp_assets.pipeline import profile_columns, tables
from cdp_resources.dbt_project import NodeResult
from cdp_resources.resources import CdpResource

KINDS = {"dbt", "duckdb"}
COMPILING = ("Parser Error", "Binder Error", "Catalog Error", "Compilation Error")
"""Errors of dbt whose words speak of the SQL, never of a row."""


class MartTranslator(DagsterDbtTranslator):
    """dbt's models as this graph's assets: key [marts, model], in the group marts."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        if not unique_id.startswith("model."):
            return spec
        return spec.replace_attributes(key=dg.AssetKey([LAYER, spec.key.path[-1]]), group_name=LAYER, kinds=KINDS)


def build(declared: Declared, manifest: Path) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer. `manifest` is dbt's, up to date."""
    project, translator = declared.project, MartTranslator()
    parsed: Mapping[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    checks = _checks(parsed, translator)

    @dbt_assets(manifest=parsed, dagster_dbt_translator=translator, name="build_marts")
    def marts(context: dg.AssetExecutionContext, cdp: CdpResource) -> Iterator[Any]:
        models = {key.path[-1]: key for key in context.selected_asset_keys}
        names: list[str] = []
        kept: set[str] = set()
        if context.is_subset:
            names = [
                *models,
                *(_name(unique_id) for unique_id, key in checks.items() if key in context.selected_asset_check_keys),
            ]
            kept = {str(node["name"]) for node in parsed["nodes"].values() if node["resource_type"] == "model"} - models.keys()
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            specs, views = tables(project), contract.views(project, profile_columns(project))
            report = update(run, specs, views, names, kept)
        for each in report.results:
            key = checks.get(each.unique_id)
            if key is not None and each.status != "skipped" and key in context.selected_asset_check_keys:
                yield _check_result(key, each)
        if not report.is_published:
            raise dg.Failure(
                f"{len(report.failed)} of {len(report.results)} models and tests failed; the marts stay as they were",
                metadata={"failed": dg.MetadataValue.md("\n".join(f"- {_told(each)}" for each in report.failed))},
                allow_retries=False,
            )
        for each in report.results:  # dbt's order is that of the graph, as Dagster wants it
            asset_key = models.get(_name(each.unique_id))
            if asset_key is not None:
                metadata = {"dagster/row_count": report.rows[asset_key.path[-1]], "seconds": round(each.seconds, 3)}
                yield dg.MaterializeResult(asset_key=asset_key, metadata=metadata)

    return [marts]


def _name(unique_id: str) -> str:
    """`model.cdp_marts.mart_sessions` is mart_sessions."""
    return unique_id.split(".")[2]


def _checks(parsed: Mapping[str, Any], translator: MartTranslator) -> dict[str, dg.AssetCheckKey]:
    """dbt's id of a test -> the asset check that it is."""
    found = {}
    for unique_id, node in parsed["nodes"].items():
        if node["resource_type"] == "test":
            key = get_asset_check_key_for_test(parsed, translator, unique_id, None)
            if key is not None:
                found[unique_id] = key
    return found


def _check_result(key: dg.AssetCheckKey, result: NodeResult) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.WARN if result.status == "warn" else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=result.status == "pass",
        asset_key=key.asset_key,
        check_name=key.name,
        severity=severity,
        metadata={"failing_rows": result.failures, "seconds": round(result.seconds, 3)},
    )


def _told(result: NodeResult) -> str:
    """A failure in words that hold no values of people."""
    name = _name(result.unique_id)
    if result.status in ("fail", *FINE):
        return f"`{name}`: {result.failures:,} rows"
    is_about_sql = any(each in result.message for each in COMPILING)
    return f"`{name}`: {' '.join(result.message.split()) if is_about_sql else 'an error while it ran'}"
