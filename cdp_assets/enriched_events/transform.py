"""From a batch of raw_events to enriched_events and quarantined_events: the tracking plan, then the enrichments in their order.

Pure: frames and declarations in, frames out. Judging is in plan.py, what an enrichment does in its folder.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import xxhash

from cdp_assets.enriched_events.enrichments import COLUMN, Enrichment
from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.schema import QUARANTINED_COLUMNS, RAW_COLUMNS
from cdp_assets.enriched_events.spec import EnrichmentSpec, TrackingPlan, ViolationPolicy, with_consent
from cdp_resources import json_paths

RULES = 1
"""Version of the code of this layer outside the enrichments' folders: raised when it gives other rows."""


class EnrichmentError(RuntimeError):
    """An enrichment failed, or gave other rows or columns than it promises. Names the enrichment, never a value."""


@dataclass(frozen=True)
class EnrichedBatch:
    """What becomes of one batch. Rows keep the batch's order; each event is in exactly one of the first two."""

    enriched: pl.DataFrame
    """raw_events' columns without payload, `violations`, then the enrichments' columns."""
    quarantined: pl.DataFrame
    """The events that the plan blocks, with the payload."""
    violations: pl.DataFrame
    """batch_seq, event, source, kind, action, violation_count; safe to show."""


def enrich_batch(
    raw: pl.DataFrame,
    plan: TrackingPlan,
    policies: Mapping[str, ViolationPolicy],
    enrichments: Sequence[EnrichmentSpec],
    consent: Mapping[str, tuple[str, ...]] | None = None,
) -> EnrichedBatch:
    """Judge and enrich the rows of raw_events of one batch.

    `policies` maps a source to what happens to its violations (the default policy without one); `consent` maps a purpose to the
    consent manager's categories that must all be given. Raises EnrichmentError.
    """
    verdict = judge(raw, plan, policies)
    is_blocked = pl.int_range(pl.len(), dtype=pl.UInt32).is_in(verdict.blocked.get_column("row").implode())
    quarantined = raw.filter(is_blocked).with_columns(verdict.blocked.select("violation", "field")).select(QUARANTINED_COLUMNS)
    enriched = raw.select(*RAW_COLUMNS)
    enriched = enriched.with_columns(_noted(enriched, verdict.noted))
    if quarantined.height:
        enriched = enriched.filter(~is_blocked)
    return EnrichedBatch(enrich(enriched, with_consent(tuple(enrichments), consent or {})), quarantined, verdict.counts)


def rules_version(
    plan: TrackingPlan,
    policies: Mapping[str, ViolationPolicy],
    enrichments: Sequence[EnrichmentSpec],
    consent: Mapping[str, tuple[str, ...]] | None = None,
) -> str:
    """Hash of all that decides what becomes of an event: declarations, code and reference data. Equal versions give equal rows."""
    told = {
        "rules": RULES,
        "plan": plan.model_dump(mode="json"),
        "policies": {source: policy.model_dump(mode="json") for source, policy in policies.items()},
        "enrichments": [[each.model_dump(mode="json"), each.plugin.version(each.settings)] for each in enrichments],
        "consent": {purpose: list(categories) for purpose, categories in (consent or {}).items()},
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(told, sort_keys=True).encode())


def _noted(rows: pl.DataFrame, noted: pl.DataFrame) -> list[pl.Series]:
    """`properties` and `traits` without the omitted fields, and `violations`."""
    violations = pl.repeat(None, rows.height, dtype=pl.String, eager=True).alias("violations")
    if noted.is_empty():
        return [violations]
    changed = [violations.scatter(noted.get_column("row"), noted.get_column("violations"))]
    patches = noted.filter(pl.col("patch").is_not_null())
    at = patches.get_column("row")
    is_traits = rows.get_column("type").gather(at).is_in(["identify", "group"])
    for column, mine in (("properties", ~is_traits), ("traits", is_traits)):
        where = at.filter(mine)
        if where.len():
            values = rows.get_column(column)
            texts = pl.DataFrame({"text": values.gather(where), "patch": patches.get_column("patch").filter(mine)})
            changed.append(values.scatter(where, json_paths.merge_patch(texts, "text", "patch")))
    return changed


def enrich(rows: pl.DataFrame, enrichments: Sequence[EnrichmentSpec]) -> pl.DataFrame:
    """`rows` with the columns of the enrichments added in their order.

    Each enrichment sees every distinct combination of its inputs once, whatever the number of rows. Raises EnrichmentError.
    """
    inputs = _json_inputs(rows, [each.plugin for each in enrichments])
    for each in enrichments:
        keys = pl.DataFrame({name: _input(source, rows, inputs) for name, source in each.plugin.inputs.items()})
        distinct = keys if each.plugin.per_event else keys.unique(maintain_order=True)
        outputs = _run(each, distinct)
        if distinct.height < rows.height:
            numbered = distinct.with_row_index(" place")
            place = keys.join(numbered, on=keys.columns, how="left", nulls_equal=True, maintain_order="left").get_column(" place")
            outputs = outputs.select(pl.all().gather(place))
        rows = rows.hstack(outputs)
    return rows


def _json_inputs(rows: pl.DataFrame, plugins: Sequence[Enrichment]) -> dict[str, pl.Series]:
    """Source path -> its values, every JSON column parsed once for all enrichments."""
    paths = dict.fromkeys(source for plugin in plugins for source in plugin.inputs.values() if not source.startswith(COLUMN))
    inputs: dict[str, pl.Series] = {}
    for column in ("properties", "context", "traits"):
        below = {path: path.removeprefix(f"{column}.") for path in paths if path.startswith(f"{column}.")}
        if below:
            found = json_paths.extract(rows, column, below)
            inputs.update((path, found.get_column(path)) for path in below)
    return inputs


def _input(source: str, rows: pl.DataFrame, inputs: Mapping[str, pl.Series]) -> pl.Series:
    return rows.get_column(source.removeprefix(COLUMN)) if source.startswith(COLUMN) else inputs[source]


def _run(each: EnrichmentSpec, distinct: pl.DataFrame) -> pl.DataFrame:
    plugin = each.plugin
    try:
        outputs = plugin.enrich(distinct, each.settings)
    except Exception as error:  # its message may hold values of people: only type and place are told
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if str(plugin.folder) in frame.filename]
        raise EnrichmentError(f"enrichment {plugin.name} failed with {type(error).__name__} in its lines {lines}") from None
    promised = {name: output.dtype for name, output in each.columns.items()}
    if dict(outputs.schema) != promised or outputs.columns != list(promised):
        raise EnrichmentError(f"enrichment {plugin.name} gave the columns {dict(outputs.schema)}; it promises {promised}")
    if outputs.height != distinct.height:
        raise EnrichmentError(f"enrichment {plugin.name} gave {outputs.height} rows for {distinct.height}")
    return outputs
