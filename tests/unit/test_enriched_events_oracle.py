"""Random batches: the plan's verdicts equal a slow judge of one event at a time, and enriching does not depend on how rows are cut."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.enriched_events import schema
from cdp_assets.enriched_events.spec import EnrichmentList, EventSpec, PropertySpec, TrackingPlan, ViolationPolicy
from cdp_assets.enriched_events.transform import EnrichedBatch, enrich_batch

ENRICHMENTS = EnrichmentList.model_validate(
    [{"enrichment": name} for name in ("page_url", "campaign", "referrer", "channel", "user_agent", "consent")]
).root
KINDS = {
    "required": "Required-Missing",
    "type": "Datatype-Mismatch",
    "enum": "Rule",
    "pattern": "Rule",
    "additional": "Additional-Properties",
    "unplanned": "Unplanned-Event",
}
FIELDS = {
    "required": "required_missing",
    "type": "datatype_mismatch",
    "additional": "additional_properties",
    "unplanned": "unplanned_event",
}

NAMES = ["a", "b", "A", "n", "n.x", "n.y", "it's", "p0"]
TEXTS = st.sampled_from(["", "x", "p1", "p1\n", "5", "ü", '"', "2026-11-01T00:00:00Z", "2026-02-30T00:00:00Z"])
NUMBERS = st.sampled_from([0, 1, 2.0, 1.5, -3, 10**25, 1e300, 0.1])
VALUES = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS, st.just({}), st.just([]), st.just({"x": 1, "y": "q"}))
OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "A", "n", "n.x", "it's", "p0", "é"]), VALUES | st.dictionaries(st.sampled_from("xyz"), VALUES)
)
TYPES = ["string", "integer", "number", "boolean", "object", "array", "date-time"]


@st.composite
def properties(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"type": draw(st.sampled_from(TYPES)), "required": draw(st.booleans())}
    if spec["type"] == "string" and draw(st.booleans()):
        spec["pattern"] = "^p[0-9]$"
    if draw(st.booleans()):
        choices = {"string": ["x", "p1", "ü"], "integer": [1, 2], "number": [0.1, 2], "boolean": [True]}
        spec["enum"] = choices.get(spec["type"], [])
    return spec


COMMON = st.builds(
    lambda types, sources, props, context: {"types": types, "sources": sources, "properties": props, "context": context},
    st.lists(st.sampled_from(["track", "identify", "page", "alias"]), max_size=2, unique=True),
    st.sampled_from([[], [], ["web"]]),
    st.dictionaries(st.sampled_from(["a", "n.x"]), properties(), max_size=2),
    st.dictionaries(st.sampled_from(["page.url", "userAgent", "app"]), properties(), max_size=2),
)
PLANS = st.builds(
    lambda events, common: TrackingPlan.model_validate({"events": events, "common": common}),
    st.lists(
        st.builds(
            lambda event, type_, version, props, context, sources: {
                "event": event,
                "type": type_,
                "version": version,
                "description": "x",
                "properties": props,
                "context": context,
                "sources": sources,
            },
            st.sampled_from(["E", "F"]),
            st.sampled_from(["track", "identify", "page"]),
            st.sampled_from([1, 1, 2, 11]),
            st.dictionaries(st.sampled_from(NAMES), properties(), max_size=4),
            st.dictionaries(st.sampled_from(["userAgent", "consent"]), properties(), max_size=1),
            st.sampled_from([[], [], ["web"]]),
        ),
        max_size=5,
        unique_by=lambda each: (each["type"], each["event"] if each["type"] == "track" else None, each["version"]),
    ),
    st.lists(COMMON, max_size=2),
)

ACTIONS = st.sampled_from(["allow", "omit", "block"])
POLICIES = st.dictionaries(
    st.sampled_from(["web", "server"]),
    st.builds(
        ViolationPolicy,
        unplanned_event=st.sampled_from(["allow", "block"]),
        required_missing=st.sampled_from(["allow", "block"]),
        datatype_mismatch=ACTIONS,
        enum=ACTIONS,
        pattern=ACTIONS,
        additional_properties=ACTIONS,
        rule=ACTIONS,
    ),
)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "page": st.fixed_dictionaries(
            {},
            optional={
                "url": st.sampled_from(
                    ["https://shop.example/a?utm_source=google&utm_medium=cpc", "https://shop.example/?gclid=1", "/x", 5]
                ),
                "referrer": st.sampled_from(["https://www.google.com/", "https://shop.example/", ""]),
            },
        ),
        "userAgent": st.sampled_from(["curl/8.4.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0 Safari/537.36"]),
        "protocols": st.sampled_from([{"event_version": 2}, {"event_version": "2"}, {"event_version": 9}, {}, 2]),
        "consent": st.sampled_from([{"categoryPreferences": {"ads": True}}, {"categoryPreferences": {}}, {}]),
    },
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["web", "server"]),
            "type": st.sampled_from(["track", "track", "identify", "page", "alias"]),
            "event": st.sampled_from(["E", "F", "G", None]),
            "properties": OBJECTS | st.none(),
            "traits": OBJECTS | st.none(),
            "context": CONTEXTS | st.none(),
        }
    ),
    max_size=8,
)


def _raw(events: list[dict[str, Any]]) -> pl.DataFrame:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    instant = pl.Datetime("us", "UTC")
    dtypes: dict[str, Any] = {"batch_seq": pl.Int64, "offset": pl.Int64, "message_key": pl.Int64, "received_date": pl.Date}
    dtypes |= {"is_timestamp_adjusted": pl.Boolean, "timestamp": instant, "received_at": instant, "sent_at": instant}
    rows = [
        {
            "batch_seq": 1,
            "offset": offset * 3,
            "batch_id": "b",
            "message_id": f"m{offset}",
            "message_key": offset,
            "timestamp": at,
        }
        | {"received_at": at, "is_timestamp_adjusted": False, "received_date": at.date(), "payload": f"p{offset}"}
        | {key: json.dumps(value) if isinstance(value, dict) else value for key, value in event.items()}
        for offset, event in enumerate(events)
    ]
    return pl.DataFrame(rows, {name: dtypes.get(name, pl.String) for name in (*schema.RAW_COLUMNS, "payload")})


def _is_of(type_: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match type_:
        case "integer":
            return is_number and float(value).is_integer()
        case "number":
            return is_number
        case "date-time":
            return value == "2026-11-01T00:00:00Z" and bool(date.fromisoformat(value[:10]))
        case other:
            return isinstance(value, {"string": str, "boolean": bool, "object": dict, "array": list}[other])


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


Fails = list[tuple[str, list[str], str]]
"""(check, path, field) in the plan's order."""


def _fails(rules: dict[str, PropertySpec], values: dict[str, Any], column: str) -> Fails:
    found: Fails = []
    for name, each in rules.items():
        value, check = _at(values, name), None
        if value is None:
            check = "required" if each.required else None
        elif not _is_of(each.type, value):
            check = "type"
        elif each.enum and value not in each.enum:
            check = "enum"
        elif each.pattern and not re.fullmatch("p[0-9]", value):
            check = "pattern"
        if check:
            found.append((check, [column, *name.split(".")], f"{column}.{name}"))
    return found


def _additional(event: dict[str, Any], spec: EventSpec, plan: TrackingPlan) -> Fails:
    common = [name for rule in plan.common if not rule.types or event["type"] in rule.types for name in rule.properties]
    planned = {name.split(".")[0] for name in (*spec.properties, *common)}
    surplus = (key for key in sorted(event[spec.column] or {}, key=str.encode) if key not in planned)
    return [("additional", [spec.column, key], f"{spec.column}.{key}") for key in surplus]


def _planned(event: dict[str, Any], plan: TrackingPlan) -> EventSpec | None:
    versions = {e.version: e for e in plan.events if e.type == event["type"] and e.matched_name in (None, event["event"])}
    asked = _at(event["context"] or {}, "protocols.event_version")
    spec = versions.get(int(asked or 0), versions[min(versions)]) if versions else None
    return None if spec is None or (spec.sources and event["source"] not in spec.sources) else spec


def _all_fails(event: dict[str, Any], spec: EventSpec | None, plan: TrackingPlan) -> Fails:
    found: Fails = []
    context = event["context"] or {}
    if spec is not None:
        found += _fails(spec.properties, event[spec.column] or {}, spec.column)
        found += [*_additional(event, spec, plan), *_fails(spec.context, context, "context")]
    elif event["type"] in {each.type for each in plan.events}:
        found.append(("unplanned", [], "event"))
    for rule in plan.common:
        if (rule.types and event["type"] not in rule.types) or (rule.sources and event["source"] not in rule.sources):
            continue
        if event["type"] != "alias":
            column = "traits" if event["type"] == "identify" else "properties"
            found += _fails(rule.properties, event[column] or {}, column)
        found += _fails(rule.context, context, "context")
    first: dict[tuple[str, str], tuple[str, list[str], str]] = {}
    for each in found:
        first.setdefault((each[0], each[2]), each)
    return list(first.values())


def _is_required(event: dict[str, Any], path: list[str], spec: EventSpec | None, plan: TrackingPlan) -> bool:
    """Whether the event without what lies there misses it, or something in it, by any of its rules."""
    left = _without(event, [path])
    return any(check == "required" and other[: len(path)] == path for check, other, _ in _all_fails(left, spec, plan))


def _without(event: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    left = event | {column: json.loads(json.dumps(event[column])) for column in ("properties", "traits", "context")}
    for path in paths:
        holder: Any = left
        for key in path[:-1]:
            holder = holder.get(key, {})
        holder.pop(path[-1], None)
    return left


def _judge(
    event: dict[str, Any], plan: TrackingPlan, policies: dict[str, ViolationPolicy]
) -> tuple[Any, list[Any], dict[str, Any]]:
    """(blocking violation or None, noted violations, properties, traits and context that remain), one event at a time."""
    spec = _planned(event, plan)
    policy = policies.get(event["source"], ViolationPolicy())
    noted, removed = [], []
    for check, path, field in _all_fails(event, spec, plan):
        name = FIELDS.get(check, check)
        action = getattr(policy, name)
        if action == "omit" and policy.required_missing == "block" and _is_required(event, path, spec, plan):
            action = "block"
        if action == "block":
            return (KINDS[check], field), [], event
        noted.append((KINDS[check], field, action))
        if action == "omit":
            removed.append(path)
    return None, noted, _without(event, removed)


@settings(max_examples=150, deadline=None)
@given(EVENTS, PLANS, POLICIES)
def test_verdicts_equal_those_of_a_slow_judge(
    events: list[dict[str, Any]], plan: TrackingPlan, policies: dict[str, ViolationPolicy]
) -> None:
    _assert_judged(events, plan, policies)


FEW_RULES = st.dictionaries(st.sampled_from(["a", "n", "n.x"]), properties(), max_size=3)
FEW_VALUES = st.sampled_from(["x", "p1", 1, 1.5, True, {"x": 1, "y": "q"}, {"x": "p1"}])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("an"), FEW_VALUES), min_size=1, max_size=4),
    FEW_RULES,
    st.lists(FEW_RULES, max_size=3),
)
def test_rules_that_name_the_same_fields_are_judged_as_by_a_slow_judge(
    objects: list[dict[str, Any]], own: dict[str, Any], common: list[dict[str, Any]]
) -> None:
    plan = {
        "events": [{"event": "E", "description": "x", "properties": own}],
        "common": [{"properties": each} for each in common],
    }
    event = {"source": "web", "type": "track", "event": "E", "traits": None, "context": None}
    events = [event | {"properties": each} for each in objects]
    omitting = ViolationPolicy(datatype_mismatch="omit", enum="omit", pattern="omit", additional_properties="omit")
    _assert_judged(events, TrackingPlan.model_validate(plan), {"web": omitting})


def _assert_judged(events: list[dict[str, Any]], plan: TrackingPlan, policies: dict[str, ViolationPolicy]) -> None:
    done = enrich_batch(_raw(events), plan, policies, ())
    passed = {row["message_id"]: row for row in done.enriched.iter_rows(named=True)}
    stopped = {row["message_id"]: (row["violation"], row["field"]) for row in done.quarantined.iter_rows(named=True)}
    assert passed.keys().isdisjoint(stopped)
    for offset, event in enumerate(events):
        blocked, noted, left = _judge(event, plan, policies)
        assert stopped.get(f"m{offset}") == blocked
        if blocked is None:
            row = passed[f"m{offset}"]
            got = [(each["kind"], each["field"], each["action"]) for each in json.loads(row["violations"] or "[]")]
            assert got == noted
            for column in ("properties", "traits", "context"):
                assert (None if row[column] is None else json.loads(row[column])) == left[column]


def _pieces(raw: pl.DataFrame, cuts: list[int], plan: TrackingPlan, policies: dict[str, ViolationPolicy]) -> list[EnrichedBatch]:
    places = [0, *sorted(min(cut, raw.height) for cut in cuts), raw.height]
    parts = [raw.slice(start, end - start) for start, end in itertools.pairwise(places)]
    return [enrich_batch(part, plan, policies, ENRICHMENTS, {"marketing": ("ads",)}) for part in parts]


@settings(max_examples=30, deadline=None)
@given(EVENTS, PLANS, POLICIES, st.lists(st.integers(0, 8), max_size=2))
def test_every_event_lands_in_one_place_in_order_however_the_batch_is_cut(
    events: list[dict[str, Any]], plan: TrackingPlan, policies: dict[str, ViolationPolicy], cuts: list[int]
) -> None:
    raw = _raw(events)
    done = enrich_batch(raw, plan, policies, ENRICHMENTS, {"marketing": ("ads",)})
    assert sorted(done.enriched["offset"].to_list() + done.quarantined["offset"].to_list()) == raw["offset"].to_list()
    for table in (done.enriched, done.quarantined):
        assert table["offset"].is_sorted()
        same = [name for name in table.columns if name in raw.columns and name not in ("properties", "traits", "context")]
        assert table.select(same).equals(raw.filter(pl.col("offset").is_in(table["offset"].implode())).select(same))
    parts = _pieces(raw, cuts, plan, policies)
    assert pl.concat([part.enriched for part in parts]).equals(done.enriched)
    assert pl.concat([part.quarantined for part in parts]).equals(done.quarantined)
    by = ["batch_seq", "event", "source", "kind", "action"]
    counts = pl.concat([part.violations for part in parts]).group_by(by).agg(pl.col("violation_count").sum())
    assert counts.sort(by, nulls_last=True).rows() == done.violations.sort(by, nulls_last=True).rows()
