"""Judging a batch of events by the tracking plan: which fields break it, and what the policies do about it.

Which rules an event is judged by, and in which order; how a rule is tested is in plan_rules.py, and applying the verdict (quarantine,
removal of fields) in transform.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from cdp_assets.enriched_events.plan_required import required
from cdp_assets.enriched_events.plan_rules import (
    CHECK,
    CHECKS,
    FOUND,
    Declared,
    Scope,
    broken_properties,
    broken_schema,
    broken_together,
    violations,
)
from cdp_assets.enriched_events.spec import TRAIT_TYPES, CommonRule, EventSpec, OwnPolicy, TrackingPlan, ViolationPolicy
from cdp_resources import json_paths

COLUMNS = ("properties", "traits", "context")
"""The columns whose fields the plan describes."""

KIND = {
    "required": "Required-Missing",
    "type": "Datatype-Mismatch",
    "additional": "Additional-Properties",
    "unplanned": "Unplanned-Event",
}
"""Check -> kind of violation, in the words of Segment and RudderStack; every other check is a Rule."""

_COMMON = 1_000_000
"""Order of the first common rule: they come after the event's own."""

_FEW_TEXTS = 1_000
"""Up to so many texts of an event are read in one query with those of other events: a query costs as much as reading some thousand texts."""


@dataclass(frozen=True)
class Verdict:
    """What the plan says about a batch; `row` is the row's number in it."""

    blocked: pl.DataFrame
    """row, violation, field: one row for each event to quarantine, with the first violation that blocks it. Sorted by row."""
    noted: pl.DataFrame
    """row, violations, and for each of COLUMNS `patch.<column>`: for each event with violations that passes, their JSON list, and the
    JSON merge patches that remove the omitted fields (null where none are). Sorted by row."""
    counts: pl.DataFrame
    """batch_seq, event, source, kind, action, violation_count. `event` is null for unplanned events: their names are not ours."""
    violating: pl.Series
    """The rows with a violation, each once; an Additional-Properties that is allowed is none here."""
    planned: pl.Series
    """For each event of the batch the number in the plan of what it was judged by; null for an unplanned one."""


def judge(raw: pl.DataFrame, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]) -> Verdict:
    """The verdict on a batch of raw_events. A source without a policy has the default one."""
    keyed = _planned(raw, plan)
    unplanned = keyed.filter(pl.col("spec").is_null() & pl.col("is_governed"))
    found = [violations(unplanned, "event", None, order=0, check="unplanned")]
    orders = {number: itertools.count(1) for number in keyed.get_column("spec").drop_nulls().unique().sort()}
    for column in COLUMNS:
        found += _broken_own(raw, keyed, plan, column, orders)
    order = itertools.count(_COMMON)
    for rule in plan.common:
        found += _broken_common(raw, rule, order)
    whole = pl.concat([each.select(list(FOUND)) for each in found]).join(_told(raw, keyed, plan), on="row", how="left")
    # An event's own rule and a common one may say the same.
    once = whole.sort("row", "order", "field", "check").unique(["row", "field", "check"], keep="first", maintain_order=True)
    spec = keyed.get_column("spec")
    return _verdict(_acted(once, raw, spec, plan, policies), raw.get_column("batch_seq"), spec)


def _planned(raw: pl.DataFrame, plan: TrackingPlan) -> pl.DataFrame:
    """row, spec (number in the plan of the event's version, null without one), is_governed (the plan has events of this type)."""
    versions = _versions(plan)
    oldest = [(type_, name, next(iter(numbers.values()))) for (type_, name), numbers in versions.items()]
    names = {"type": pl.String, "event": pl.String, "spec": pl.UInt32}
    named = pl.DataFrame([each for each in oldest if each[1] is not None], names, orient="row")
    unnamed = {type_: number for type_, name, number in oldest if name is None}
    spec = pl.coalesce("spec", pl.col("type").replace_strict(unnamed, default=None, return_dtype=pl.UInt32))
    keyed = (
        raw.select("source", "type", "event")
        .with_row_index("row")
        .join(named, on=["type", "event"], how="left", maintain_order="left")
        .select("row", "source", spec.alias("spec"), pl.col("type").is_in({e.type for e in plan.events}).alias("is_governed"))
    )
    keyed = keyed.with_columns(_of_their_version(raw, keyed.get_column("spec"), versions))
    pairs = keyed.select("spec", "source").unique().drop_nulls()
    elsewhere = [
        (number, source)
        for number, source in pairs.iter_rows()
        if plan.events[number].sources and source not in plan.events[number].sources
    ]
    if elsewhere:
        elsewhere_frame = pl.DataFrame(elsewhere, pairs.schema, orient="row").with_columns(is_elsewhere=True)
        keyed = keyed.join(elsewhere_frame, on=["spec", "source"], how="left", maintain_order="left")
        keyed = keyed.with_columns(pl.when(pl.col("is_elsewhere").is_null()).then("spec").alias("spec"))
    return keyed.select("row", "spec", "is_governed")


def _versions(plan: TrackingPlan) -> dict[tuple[str, str | None], dict[int, int]]:
    """Type and matched name -> version -> number in the plan, the oldest first."""
    found: dict[tuple[str, str | None], dict[int, int]] = {}
    for number, event in sorted(enumerate(plan.events), key=lambda each: each[1].version):
        found.setdefault((event.type, event.matched_name), {})[event.version] = number
    return found


def _of_their_version(
    raw: pl.DataFrame, spec: pl.Series, versions: Mapping[tuple[str, str | None], Mapping[int, int]]
) -> pl.Series:
    """`spec` with the versions that the events name, where there are several."""
    newer = [
        (next(iter(numbers.values())), str(version), number)
        for numbers in versions.values()
        for version, number in list(numbers.items())[1:]
    ]
    if not newer:
        return spec
    rows = spec.is_in([each[0] for each in newer]).fill_null(False).arg_true()
    asked = json_paths.extract(raw.select(pl.col("context").gather(rows)), "context", {"version": "protocols.event_version"})
    table = pl.DataFrame(newer, {"spec": pl.UInt32, "version": pl.String, "newer": pl.UInt32}, orient="row")
    chosen = asked.with_columns(spec.gather(rows)).join(table, on=["spec", "version"], how="left", maintain_order="left")
    return spec.scatter(rows, chosen.select(pl.coalesce("newer", "spec")).to_series())


def _common_names(plan: TrackingPlan, type_: str) -> tuple[str, ...]:
    """The properties that common rules name for this type of call: they are planned, whatever the source."""
    return tuple(dict.fromkeys(name for rule in plan.common if not rule.types or type_ in rule.types for name in rule.properties))


def _broken_own(
    raw: pl.DataFrame, keyed: pl.DataFrame, plan: TrackingPlan, column: str, orders: Mapping[int, Iterator[int]]
) -> list[pl.DataFrame]:
    """What the planned events break of their own rules on a column. Of each event every different text is judged once."""
    declared = {
        number: (each, Scope(column, (column,), order))
        for number, order in orders.items()
        if (each := _declared(plan, plan.events[number], column)) is not None
    }
    rows = _objects(raw, keyed.select("row", "spec").filter(pl.col("spec").is_in(list(declared))), column)
    texts = rows.select("spec", "json").unique().with_row_index("row")
    heights = dict(texts.get_column("spec").value_counts().iter_rows())
    few = {number: each for number, each in declared.items() if heights[number] <= _FEW_TEXTS}
    found = broken_together(texts.filter(pl.col("spec").is_in(list(few))), few)
    for number, (each, scope) in declared.items():
        mine = texts if len(declared) == 1 else texts.filter(pl.col("spec") == number)
        if number not in few:
            found += broken_properties(mine, each, scope)
        schema = plan.events[number].json_schema
        if schema is not None and column != "context":
            found += broken_schema(mine, schema, scope)
    if not found:
        return []
    broken = pl.concat(found).rename({"row": "text"})
    hit = texts.rename({"row": "text"}).filter(pl.col("text").is_in(broken.get_column("text").implode()))
    places = rows.join(hit, on=["spec", "json"], nulls_equal=True).select("row", "text")
    return [places.join(broken, on="text").select(list(FOUND))]


def _declared(plan: TrackingPlan, event: EventSpec, column: str) -> Declared | None:
    """What an event's own rules say of a column; None where they say nothing."""
    if column == "context":
        return Declared(event.context, is_closed=False) if event.context else None
    if column != event.column:
        return None
    also = tuple(name for name in _common_names(plan, event.type) if name not in event.properties)
    return Declared(event.properties, event.json_schema is None, also)


def _broken_common(raw: pl.DataFrame, rule: CommonRule, order: Iterator[int]) -> list[pl.DataFrame]:
    """What the events that a common rule is for break of it."""
    is_meant = pl.lit(True)
    if rule.types:
        is_meant &= pl.col("type").is_in(rule.types)
    if rule.sources:
        is_meant &= pl.col("source").is_in(rule.sources)
    rows = raw.select("type", "source").with_row_index("row").filter(is_meant).select("row", "type")
    has_traits = pl.col("type").is_in(TRAIT_TYPES)
    of_column = {"properties": ~has_traits & (pl.col("type") != "alias"), "traits": has_traits}
    found: list[pl.DataFrame] = []
    for column, is_mine in of_column.items():
        scope = Scope(column, (column,), order)
        mine = rows.filter(is_mine).select("row")
        if rule.properties:
            found += broken_properties(_objects(raw, mine, column), Declared(rule.properties, is_closed=False), scope)
        if rule.json_schema is not None:
            found += broken_schema(_objects(raw, mine, column), rule.json_schema, scope)
    if rule.context:
        scope = Scope("context", ("context",), order)
        found += broken_properties(_objects(raw, rows.select("row"), "context"), Declared(rule.context, is_closed=False), scope)
    return found


def _objects(raw: pl.DataFrame, rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """row, json."""
    texts = raw.get_column(column) if rows.height == raw.height else raw.get_column(column).gather(rows.get_column("row"))
    return rows.with_columns(texts.alias("json"))


def _told(raw: pl.DataFrame, keyed: pl.DataFrame, plan: TrackingPlan) -> pl.DataFrame:
    """row, source, event, own: whose violation it is; a planned event by its name in the plan, an unplanned one without. `own` is the
    event's number in the plan when it has a policy of its own."""
    names = pl.Series([event.event for event in plan.events], dtype=pl.String)
    spec = keyed.get_column("spec")
    event = names.gather(spec) if plan.events else pl.repeat(None, keyed.height, dtype=pl.String, eager=True)
    with_own = [number for number, each in enumerate(plan.events) if each.violations != OwnPolicy()]
    own = pl.when(pl.col("spec").is_in(with_own)).then("spec").alias("own")
    return keyed.select("row", raw.get_column("source"), event.alias("event"), own)


def _acted(
    found: pl.DataFrame, raw: pl.DataFrame, spec: pl.Series, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]
) -> pl.DataFrame:
    """The violations with what is done about each."""
    found = found.with_columns(can_omit=pl.col("path").is_not_null())
    actions = _actions(found, plan, policies)
    same = ["source", "own", "check", "can_omit"]
    acted = found.join(actions, on=same, how="left", maintain_order="left", nulls_equal=True)
    # What is not omitted anyway need not be asked about.
    doubtful = (acted.get_column("action") != acted.get_column("if_required")).arg_true()
    if not doubtful.is_empty():
        needed = doubtful.filter(required(acted[doubtful], raw, spec, plan))
        chosen = acted.get_column("action").scatter(needed, acted.get_column("if_required").gather(needed))
        acted = acted.with_columns(chosen)
    return acted.drop("if_required")


def _verdict(acted: pl.DataFrame, batches: pl.Series, planned: pl.Series) -> Verdict:
    blocked = acted.filter(pl.col("action") == "block").unique("row", keep="first", maintain_order=True)
    passing = acted.join(blocked.select("row"), on="row", how="anti", maintain_order="left")
    same = ["field", "check", "action", "path", "key"]
    notes = passing.join(_notes(passing.select(same)), on=same, how="left", maintain_order="left", nulls_equal=True)
    noted = notes.group_by("row", maintain_order=True).agg(
        violations=pl.concat_str(pl.lit("["), pl.col("note").str.join(","), pl.lit("]")),
        omitted=pl.col("omits").filter(pl.col("action") == "omit"),
    )
    is_minor = (pl.col("check") == "additional") & (pl.col("action") == "allow")
    violating = acted.filter(~is_minor).get_column("row").unique()
    acted = acted.with_columns(batch_seq=batches.gather(acted.get_column("row")))
    counts = acted.group_by("batch_seq", "event", "source", kind=_kind(), action="action")
    patches = [f"patch.{column}" for column in COLUMNS]
    return Verdict(
        blocked.select("row", violation=_kind(), field="field"),
        noted.join(_patches(noted), on="omitted", how="left", maintain_order="left").select("row", "violations", *patches),
        counts.agg(violation_count=pl.len()).sort("batch_seq", "event", "source", "kind", "action", nulls_last=True),
        violating,
        planned,
    )


def _kind() -> pl.Expr:
    return pl.col("check").cast(pl.String).replace_strict(KIND, default="Rule")


def _actions(found: pl.DataFrame, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]) -> pl.DataFrame:
    """source, own, check, can_omit -> action, if_required (the action where events must have what would be omitted)."""
    rows = []
    for source, own in found.select("source", "own").unique().iter_rows():
        policy = policies.get(source, ViolationPolicy())
        if own is not None:
            policy = plan.events[own].violations.over(policy)
        for check, can_omit in itertools.product(CHECKS, (False, True)):
            action = _action(policy, check, can_omit)
            is_kept = action == "omit" and policy.required_missing == "block"
            rows.append((source, own, check, can_omit, action, "block" if is_kept else action))
    columns: dict[str, pl.DataType] = {
        "source": pl.String(),
        "own": pl.UInt32(),
        "check": CHECK,
        "can_omit": pl.Boolean(),
        "action": pl.String(),
        "if_required": pl.String(),
    }
    return pl.DataFrame(rows, columns, orient="row")


def _action(policy: ViolationPolicy, check: str, can_omit: bool) -> str:
    chosen: Mapping[str, str] = {
        "required": policy.required_missing,
        "type": policy.datatype_mismatch,
        "enum": policy.enum,
        "pattern": policy.pattern,
        "additional": policy.additional_properties,
        "unplanned": policy.unplanned_event,
    }
    action = chosen.get(check, policy.rule)
    return "allow" if action == "omit" and not can_omit else action


def _notes(passing: pl.DataFrame) -> pl.DataFrame:
    """field, check, action, path, key -> note (a JSON object), omits (the keys from the event to what is omitted, as a JSON list)."""
    different = passing.unique()
    notes, omits = [], []
    for field, check, action, path, key in different.iter_rows():
        kind = KIND.get(check, "Rule")
        notes.append(json.dumps({"kind": kind, "field": field, "rule": check, "action": action}, ensure_ascii=False))
        omits.append(path if path is None or key is None else json.dumps([*json.loads(path), key]))
    return different.with_columns(note=pl.Series(notes, dtype=pl.String), omits=pl.Series(omits, dtype=pl.String))


def _patches(noted: pl.DataFrame) -> pl.DataFrame:
    """omitted (list of paths) -> for each of COLUMNS a JSON merge patch that removes what lies in it; null where nothing does."""
    different = noted.select("omitted").unique()
    patches = [_patch(each) for each in different.get_column("omitted")]
    return different.with_columns(
        pl.Series(
            f"patch.{column}",
            [json.dumps(each[column], ensure_ascii=False) if column in each else None for each in patches],
            pl.String,
        )
        for column in COLUMNS
    )


def _patch(paths: pl.Series) -> dict[str, object]:
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
    return root
