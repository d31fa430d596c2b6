"""Judging a batch of events by the tracking plan: which fields break it, and what the policies do about it.

Vectorised over columns, event by event; applying the verdict (quarantine, removal of fields) is in transform.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from cdp_assets.enriched_events.spec import EventSpec, PropertySpec, TrackingPlan, ViolationPolicy
from cdp_resources import json_paths

CHECKS = ("required", "type", "enum", "pattern", "additional", "unplanned")
"""What is checked, by name; a field fails at most one of the first four, the first in this order."""

KIND = {
    "required": "Required-Missing",
    "type": "Datatype-Mismatch",
    "enum": "Rule",
    "pattern": "Rule",
    "additional": "Additional-Properties",
    "unplanned": "Unplanned-Event",
}
"""Check -> kind of violation, in the words of Segment and RudderStack."""

_RFC3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)

_CHECK = pl.Enum(CHECKS)


@dataclass(frozen=True)
class Verdict:
    """What the plan says about a batch; `row` is the row's number in it."""

    blocked: pl.DataFrame
    """row, violation, field: one row for each event to quarantine, with the first violation that blocks it. Sorted by row."""
    noted: pl.DataFrame
    """row, violations, patch: for each event with violations that passes, their JSON list, and the JSON merge patch that removes
    the omitted fields (null when none are). Sorted by row."""
    counts: pl.DataFrame
    """batch_seq, event, source, kind, action, violation_count. `event` is null for unplanned events: their names are not ours."""


def judge(raw: pl.DataFrame, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]) -> Verdict:
    """The verdict on a batch of raw_events. A source without a policy has the default one."""
    keyed = _planned(raw, plan)
    found = [_unplanned(keyed)]
    present = keyed.get_column("spec").drop_nulls().unique().sort().to_list()
    for number in present:
        spec = plan.events[number]
        rows = raw.select("source", json=spec.column).with_columns(keyed.select("row"))
        if len(present) > 1 or keyed.get_column("spec").null_count():
            rows = rows.filter(keyed.get_column("spec") == number)
        found += _violations(rows, spec)
    return _verdict(pl.concat(found), policies, raw.get_column("batch_seq"))


def _planned(raw: pl.DataFrame, plan: TrackingPlan) -> pl.DataFrame:
    """row, source, spec (number in the plan, null without one), is_governed (the plan has events of this type)."""
    events = list(enumerate(plan.events))
    names = {"type": pl.String, "event": pl.String, "spec": pl.UInt32}
    named = pl.DataFrame([(e.type, e.matched_name, n) for n, e in events if e.matched_name is not None], names, orient="row")
    unnamed = {e.type: n for n, e in events if e.matched_name is None}
    spec = pl.coalesce("spec", pl.col("type").replace_strict(unnamed, default=None, return_dtype=pl.UInt32))
    keyed = (
        raw.select("source", "type", "event")
        .with_row_index("row")
        .join(named, on=["type", "event"], how="left", maintain_order="left")
        .select("row", "source", spec.alias("spec"), pl.col("type").is_in({e.type for e in plan.events}).alias("is_governed"))
    )
    for number, event in events:
        if event.sources:
            elsewhere = (pl.col("spec") == number) & ~pl.col("source").is_in(event.sources)
            keyed = keyed.with_columns(pl.when(~elsewhere.fill_null(False)).then("spec").alias("spec"))
    return keyed


def _unplanned(keyed: pl.DataFrame) -> pl.DataFrame:
    rows = keyed.filter(pl.col("spec").is_null() & pl.col("is_governed"))
    return _found(rows, event=None, order=0, field="event", check="unplanned", is_required=False)


def _found(
    rows: pl.DataFrame, *, event: str | None, order: int, field: str | pl.Expr, check: str | pl.Expr, is_required: bool
) -> pl.DataFrame:
    return rows.select(
        "row",
        "source",
        event=pl.lit(event, pl.String),
        order=pl.lit(order, pl.UInt32),
        field=pl.lit(field) if isinstance(field, str) else field,
        check=(pl.lit(check) if isinstance(check, str) else check).cast(_CHECK),
        is_required=pl.lit(is_required),
    )


def _violations(rows: pl.DataFrame, spec: EventSpec) -> list[pl.DataFrame]:
    """Rows (row, source, json) of one planned event -> what they break."""
    keys = {f"p{number}": name for number, name in enumerate(spec.properties)}  # own names: a property may be called anything
    fields = list(zip(keys, keys.values(), spec.properties.values(), strict=True))
    texts = [key for key, _, each in fields if each.pattern is not None or each.type == "date-time"]
    values = json_paths.extract_json(rows, "json", keys, texts=texts, key_count="keys")
    failed = values.select(_failed_check(key, each).alias(key) for key, _, each in fields)
    found = []
    for order, (key, name, each) in enumerate(fields, start=1):
        fails = failed.get_column(key)
        if fails.null_count() == fails.len():
            continue
        hit = rows.with_columns(fails.alias("check")).filter(pl.col("check").is_not_null())
        field, check = f"{spec.column}.{name}", pl.col("check")
        found.append(_found(hit, event=spec.event, order=order, field=field, check=check, is_required=each.required))
    return [*found, _additional(rows, values, keys, spec)]


def _failed_check(key: str, spec: PropertySpec) -> pl.Expr:
    """The first check that the value fails; null when it passes."""
    json_text = pl.col(key)
    fails = [(json_text.is_null(), "required" if spec.required else None), (~_is_of_type(key, spec), "type")]
    if spec.enum:
        fails.append((~_is_in_enum(json_text, spec), "enum"))
    if spec.pattern is not None:
        fails.append((~pl.col(f"{key}.text").str.contains(spec.pattern), "pattern"))
    check = pl.lit(None, _CHECK)
    for fail, name in reversed(fails):
        check = pl.when(fail).then(pl.lit(name, _CHECK)).otherwise(check)
    return check


def _is_of_type(key: str, spec: PropertySpec) -> pl.Expr:
    json_text, text = pl.col(key), pl.col(f"{key}.text")
    match spec.type:
        case "string":
            return json_text.str.starts_with('"')
        case "boolean":
            return json_text.is_in(["true", "false"])
        case "object":
            return json_text.str.starts_with("{")
        case "array":
            return json_text.str.starts_with("[")
        case "number":
            return json_text.str.contains(r"^-?\d")
        case "integer":
            double = json_text.cast(pl.Float64, strict=False)
            whole = (double.is_finite() & (double == double.floor())).fill_null(False)
            return json_text.str.contains(r"^-?\d+$") | (json_text.str.contains(r"^-?\d") & whole)
        case "date-time":
            is_day = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).is_not_null()
            return json_text.str.starts_with('"') & text.str.contains(_RFC3339) & is_day


def _is_in_enum(json_text: pl.Expr, spec: PropertySpec) -> pl.Expr:
    exact = json_text.is_in(_enum_texts(spec))
    if spec.type in ("integer", "number"):  # 1 and 1.0 are one value
        double = json_text.cast(pl.Float64, strict=False)
        return exact | double.is_in([float(value) for value in spec.enum])
    return exact


@lru_cache(maxsize=4096)
def _enum_texts(spec: PropertySpec) -> list[str]:
    return json_paths.canonical(spec.enum)


def _additional(rows: pl.DataFrame, values: pl.DataFrame, keys: Mapping[str, str], spec: EventSpec) -> pl.DataFrame:
    """Keys of the object that the plan does not name, in alphabetical order."""
    outer: dict[str, list[str]] = {}
    for key, name in keys.items():
        outer.setdefault(name.split(".")[0], []).append(key)
    seen = [pl.any_horizontal(pl.col(inner).is_not_null()) for inner in outer.values()]
    seen_count = pl.sum_horizontal(seen) if seen else pl.lit(0)
    # Counting is cheap and misses no surplus key; the keys themselves are read only where the counts differ.
    suspects = rows.filter(values.select((pl.col("keys") > seen_count).fill_null(False)).to_series())
    surplus = (
        suspects.select("row", "source", key=json_paths.object_keys(suspects, "json"))
        .explode("key")
        .filter(pl.col("key").is_not_null() & ~pl.col("key").is_in(list(outer)))
        .unique()
        .sort("row", "key")
    )
    field = pl.lit(f"{spec.column}.") + pl.col("key")
    return _found(surplus, event=spec.event, order=len(keys) + 1, field=field, check="additional", is_required=False)


def _verdict(found: pl.DataFrame, policies: Mapping[str, ViolationPolicy], batches: pl.Series) -> Verdict:
    acted = found.join(_actions(found, policies), on=["source", "check", "is_required"], how="left").sort("row", "order", "field")
    blocked = acted.filter(pl.col("action") == "block").unique("row", keep="first", maintain_order=True)
    passing = acted.join(blocked.select("row"), on="row", how="anti", maintain_order="left")
    notes = passing.join(_notes(passing), on=["field", "check", "action"], how="left", maintain_order="left")
    noted = notes.group_by("row", maintain_order=True).agg(
        violations=pl.concat_str(pl.lit("["), pl.col("note").str.join(","), pl.lit("]")),
        omitted=pl.col("path").filter(pl.col("action") == "omit"),
    )
    acted = acted.with_columns(batch_seq=batches.gather(acted.get_column("row")))
    counts = acted.group_by(
        "batch_seq", "event", "source", kind=pl.col("check").cast(pl.String).replace_strict(KIND), action="action"
    )
    return Verdict(
        blocked.select("row", violation=pl.col("check").cast(pl.String).replace_strict(KIND), field="field"),
        noted.join(_patches(noted), on="omitted", how="left", maintain_order="left").select("row", "violations", "patch"),
        counts.agg(violation_count=pl.len()).sort("batch_seq", "event", "source", "kind", "action", nulls_last=True),
    )


def _actions(found: pl.DataFrame, policies: Mapping[str, ViolationPolicy]) -> pl.DataFrame:
    """source, check, is_required -> action."""
    rows = [
        (source, check, is_required, _action(policies.get(source, ViolationPolicy()), check, is_required))
        for source in found.get_column("source").unique().to_list()
        for check in CHECKS
        for is_required in (False, True)
    ]
    return pl.DataFrame(
        rows, {"source": pl.String, "check": _CHECK, "is_required": pl.Boolean, "action": pl.String}, orient="row"
    )


def _action(policy: ViolationPolicy, check: str, is_required: bool) -> str:
    chosen: Mapping[str, str] = {
        "required": policy.required_missing,
        "type": policy.datatype_mismatch,
        "enum": policy.enum,
        "pattern": policy.pattern,
        "additional": policy.additional_properties,
        "unplanned": policy.unplanned_event,
    }
    if chosen[check] == "omit" and is_required and policy.required_missing == "block":
        return "block"
    return chosen[check]


def _notes(passing: pl.DataFrame) -> pl.DataFrame:
    """field, check, action -> note (a JSON object), path (the field's keys below its column, as a JSON list)."""
    different = passing.select("field", "check", "action").unique()
    notes, paths = [], []
    for field, check, action in different.iter_rows():
        notes.append(json.dumps({"kind": KIND[check], "field": field, "rule": check, "action": action}, ensure_ascii=False))
        below = field.partition(".")[2]
        paths.append(json.dumps([below] if check == "additional" else below.split(".")))
    return different.with_columns(note=pl.Series(notes, dtype=pl.String), path=pl.Series(paths, dtype=pl.String))


def _patches(noted: pl.DataFrame) -> pl.DataFrame:
    """omitted (list of paths) -> patch, a JSON merge patch that removes them; null for an empty list."""
    different = noted.select("omitted").unique()
    return different.with_columns(patch=pl.Series([_patch(each) for each in different.get_column("omitted")], dtype=pl.String))


def _patch(paths: pl.Series) -> str | None:
    if paths.is_empty():
        return None
    root: dict[str, object] = {}
    for path in map(json.loads, paths):
        node = root
        for key in path[:-1]:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):  # the object around it is removed already
                break
            node = child
        else:
            node[path[-1]] = None
    return json.dumps(root, ensure_ascii=False)
