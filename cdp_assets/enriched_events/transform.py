"""From a batch of raw_events to enriched_events and quarantined_events: the tracking plan, then the enrichments in their order.

Pure but for what the LookUps that are handed in reach. Judging is in plan.py, running the enrichments in enrich.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import xxhash

from cdp_assets.enriched_events.enrich import EnrichmentError, enrich
from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.schema import QUARANTINED_COLUMNS, RAW_COLUMNS
from cdp_assets.enriched_events.spec import EnrichmentSpec, TrackingPlan, ViolationPolicy, with_consent
from cdp_resources import json_paths
from cdp_resources.lake import in_order
from cdp_resources.look_ups import LookUpError, LookUps

RULES = 1
"""Version of the code of this layer outside the enrichments' folders: raised when it gives other rows."""

FAILED_KIND = "Enrichment-Failed"
"""Kind of violation of an event that an enrichment could not enrich."""


@dataclass(frozen=True)
class EnrichedBatch:
    """What becomes of one batch. Rows keep the batch's order; each event is in exactly one of the first two."""

    enriched: pl.DataFrame
    """raw_events' columns without payload, `violations`, then the enrichments' columns."""
    quarantined: pl.DataFrame
    """The events that the plan blocks, or that could not be enriched and must be, with the payload."""
    violations: pl.DataFrame
    """batch_seq, event, source, kind, action, violation_count; safe to show."""
    told: tuple[str, ...] = ()
    """Why enrichments failed, without values."""


def enrich_batch(
    raw: pl.DataFrame,
    plan: TrackingPlan,
    policies: Mapping[str, ViolationPolicy],
    enrichments: Sequence[EnrichmentSpec],
    consent: Mapping[str, tuple[str, ...]] | None = None,
    look_ups: LookUps | None = None,
) -> EnrichedBatch:
    """Judge and enrich the rows of raw_events of one batch.

    `policies` maps a source to what happens to its violations (the default policy without one); `consent` maps a purpose to the
    consent manager's categories that must all be given; without `look_ups` only what needs no files is looked up. Raises EnrichmentError.
    """
    verdict = judge(raw, plan, policies)
    is_blocked = pl.int_range(pl.len(), dtype=pl.UInt32).is_in(verdict.blocked.get_column("row").implode())
    quarantined = raw.filter(is_blocked).with_columns(verdict.blocked.select("violation", "field")).select(QUARANTINED_COLUMNS)
    enriched = raw.select(*RAW_COLUMNS)
    enriched = enriched.with_columns(_noted(enriched, verdict.noted))
    if quarantined.height:
        raw, enriched = raw.filter(~is_blocked), enriched.filter(~is_blocked)
    done = enrich(enriched, with_consent(tuple(enrichments), consent or {}), look_ups)
    if done.failures.is_empty():
        return EnrichedBatch(done.rows, quarantined, verdict.counts, done.told)
    planned = [each.matched_name for each in plan.events if each.matched_name is not None]
    counts = _counted(done.failures, raw, planned)
    first = done.failures.filter(pl.col("action") == "quarantine").unique("row", keep="first", maintain_order=True).sort("row")
    failed = raw[first.get_column("row")].with_columns(violation=pl.lit(FAILED_KIND), field=first.get_column("entry"))
    is_failed = pl.int_range(pl.len(), dtype=pl.UInt32).is_in(first.get_column("row").implode())
    rows = done.rows.with_columns(_with_failures(done.rows.get_column("violations"), done.failures)).filter(~is_failed)
    together = in_order(pl.concat([quarantined, failed.select(QUARANTINED_COLUMNS)]))
    return EnrichedBatch(rows, together, pl.concat([verdict.counts, counts.select(verdict.counts.columns)]), done.told)


def rules_version(
    plan: TrackingPlan,
    policies: Mapping[str, ViolationPolicy],
    enrichments: Sequence[EnrichmentSpec],
    consent: Mapping[str, tuple[str, ...]] | None = None,
    look_ups: LookUps | None = None,
) -> str:
    """Hash of all that decides what becomes of an event: declarations, code and reference data. Equal versions give equal rows.

    The entries whose columns others answer for, so that this does not hold, stand after it. Raises EnrichmentError when reference data
    cannot be read.
    """
    versions = {each.label: _reference(each, look_ups or LookUps()) for each in enrichments if each.plugin.reference is not None}
    answered = ", ".join(label for label, version in versions.items() if version is None)
    told = {
        "rules": RULES,
        "plan": plan.model_dump(mode="json"),
        "policies": {source: policy.model_dump(mode="json") for source, policy in policies.items()},
        "enrichments": [
            [each.model_dump(mode="json"), each.plugin.version(each.settings), versions.get(each.label)] for each in enrichments
        ],
        "consent": {purpose: list(categories) for purpose, categories in (consent or {}).items()},
    }
    digest = xxhash.xxh3_128_hexdigest(json.dumps(told, sort_keys=True).encode())
    return f"{digest} and answers for {answered}" if answered else digest


def _reference(each: EnrichmentSpec, look_ups: LookUps) -> str | None:
    assert each.plugin.reference is not None
    try:
        return each.plugin.reference(each.settings, look_ups)
    except LookUpError as error:
        raise EnrichmentError(f"enrichment {each.label}: {error}") from None


def _counted(failures: pl.DataFrame, raw: pl.DataFrame, planned: Sequence[str]) -> pl.DataFrame:
    """Failures as violations are counted: batch_seq, event (null when the plan does not name it), source, kind, action, violation_count."""
    rows = raw[failures.get_column("row")].select(
        "batch_seq", "source", event=pl.when(pl.col("event").is_in(planned)).then("event"), action=failures.get_column("action")
    )
    by = ["batch_seq", "event", "source", pl.lit(FAILED_KIND).alias("kind"), "action"]
    return rows.group_by(by).agg(violation_count=pl.len()).sort("batch_seq", "event", "source", "action", nulls_last=True)


def _with_failures(violations: pl.Series, failures: pl.DataFrame) -> pl.Series:
    """`violations` with a note for each failure that is skipped."""
    skipped = failures.filter(pl.col("action") == "skip")
    if skipped.is_empty():
        return violations
    entries = skipped.get_column("entry").unique().to_list()
    notes = {
        entry: json.dumps({"kind": FAILED_KIND, "field": entry, "rule": "enrichment", "action": "skip"}) for entry in entries
    }
    noted = skipped.group_by("row", maintain_order=True).agg(pl.col("entry").replace_strict(notes).str.join(",").alias("note"))
    before = violations.gather(noted.get_column("row")).str.strip_suffix("]")
    note = noted.with_columns(before=before).select(
        pl.concat_str(pl.coalesce(pl.col("before") + ",", pl.lit("[")), "note", pl.lit("]"))
    )
    return violations.scatter(noted.get_column("row"), note.to_series())


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
