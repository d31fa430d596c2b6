"""The tracking plan's verdicts, kind by kind, and what may be declared."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.spec import EventSpec, PropertySpec, TrackingPlan, ViolationPolicy

SCHEMA = {
    "source": pl.String,
    "type": pl.String,
    "event": pl.String,
    "properties": pl.String,
    "traits": pl.String,
    "context": pl.String,
}


def _events(*events: dict[str, Any]) -> pl.DataFrame:
    rows = [
        {
            "source": each.get("source", "web"),
            "type": each.get("type", "track"),
            "event": each.get("event"),
            "properties": json.dumps(each["properties"]) if "properties" in each else each.get("text"),
            "traits": json.dumps(each["traits"]) if "traits" in each else None,
            "context": json.dumps(each["context"]) if "context" in each else None,
        }
        for each in events
    ]
    return pl.DataFrame(rows, SCHEMA).with_columns(batch_seq=pl.lit(0, pl.Int64))


def _plan(properties: dict[str, Any], **more: Any) -> TrackingPlan:
    return TrackingPlan.model_validate({"events": [{"event": "Bought", "description": "x", "properties": properties} | more]})


def _noted(raw: pl.DataFrame, plan: TrackingPlan, **policy: str) -> list[tuple[str, str, str]]:
    """(kind, field, action) of the only event."""
    verdict = judge(raw, plan, {"web": ViolationPolicy.model_validate(policy)})
    assert verdict.blocked.is_empty()
    return [(each["kind"], each["field"], each["action"]) for text in verdict.noted["violations"] for each in json.loads(text)]


def test_an_event_that_keeps_the_plan_is_not_mentioned() -> None:
    plan = _plan({"price": {"type": "number", "required": True}, "at": {"type": "date-time"}})
    verdict = judge(_events({"event": "Bought", "properties": {"price": 1.5}}), plan, {})
    assert [verdict.blocked.height, verdict.noted.height, verdict.counts.height] == [0, 0, 0]


GOOD: dict[str, list[Any]] = {
    "string": ["", "x", "5", "null", "ü💡"],
    "integer": [0, -3, 2.0, 1e3, 12345678901234567890123],
    "number": [0, 1.5, -2e-9, 10**30],
    "boolean": [True, False],
    "object": [{}, {"a": 1}],
    "array": [[], [1]],
    "date-time": ["2026-11-01T00:00:00Z", "2024-02-29t23:59:60.123456789+05:30"],
}
BAD: dict[str, list[Any]] = {
    "string": [5, True, [], {}],
    "integer": ["5", 1.5, True, [], 0.1],
    "number": ["1.5", False, {}],
    "boolean": ["true", 0, 1],
    "object": [[], "{}", 5],
    "array": [{}, "[]", 5],
    "date-time": [
        "2026-11-01", "2026-11-01T00:00:00", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-01T24:00:00Z", "now", 1793000000,
        "2026-11-01T00:00:00.Z", "２０２６-11-01T00:00:00Z", "2026-11-01T00:00:00+0100",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("type_", "value"), [(type_, value) for type_, values in GOOD.items() for value in values])
def test_a_value_of_the_declared_type_passes(type_: str, value: Any) -> None:
    assert _noted(_events({"event": "Bought", "properties": {"v": value}}), _plan({"v": {"type": type_}})) == []


@pytest.mark.parametrize(("type_", "value"), [(type_, value) for type_, values in BAD.items() for value in values])
def test_a_value_of_another_type_is_a_datatype_mismatch(type_: str, value: Any) -> None:
    found = _noted(_events({"event": "Bought", "properties": {"v": value}}), _plan({"v": {"type": type_}}))
    assert found == [("Datatype-Mismatch", "properties.v", "omit")]


@pytest.mark.parametrize("text", ['{"v":1e400}', '{"v":NaN}', '{"v":-Infinity}'])
def test_a_number_beyond_doubles_is_no_integer(text: str) -> None:
    assert _noted(_events({"event": "Bought", "text": text}), _plan({"v": {"type": "integer"}}))


@pytest.mark.parametrize("text", ["{}", '{"v":null}', None, "[]", "null", "{broken"])
def test_a_missing_or_null_value_is_required_missing_and_blocks_by_default(text: str | None) -> None:
    verdict = judge(_events({"event": "Bought", "text": text}), _plan({"v": {"type": "string", "required": True}}), {})
    assert verdict.blocked.rows() == [(0, "Required-Missing", "properties.v")]


def test_a_missing_optional_value_is_nothing() -> None:
    assert _noted(_events({"event": "Bought", "properties": {"v": None}}), _plan({"v": {"type": "string"}})) == []


@pytest.mark.parametrize(
    ("spec", "value", "passes"),
    [
        ({"type": "string", "enum": ["a", 'q"uote', "ü"]}, 'q"uote', True),
        ({"type": "string", "enum": ["a", "ü"]}, "ü", True),
        ({"type": "string", "enum": ["a"]}, "A", False),
        ({"type": "string", "enum": ["1"]}, "1", True),
        ({"type": "integer", "enum": [1, 2]}, 2.0, True),
        ({"type": "number", "enum": [0.5]}, 0.5, True),
        ({"type": "number", "enum": [0.5]}, 0.25, False),
        ({"type": "boolean", "enum": [True]}, False, False),
        ({"type": "string", "pattern": "^p[0-9]+$"}, "p12", True),
        ({"type": "string", "pattern": "^p[0-9]+$"}, "xp12", False),
        ({"type": "string", "pattern": "b"}, "abc", True),
        ({"type": "string", "pattern": '^"$'}, '"', True),
        ({"type": "string", "pattern": "^é\n$"}, "é\n", True),
    ],
)
def test_enum_and_pattern_are_rules(spec: dict[str, Any], value: Any, passes: bool) -> None:
    found = _noted(_events({"event": "Bought", "properties": {"v": value}}), _plan({"v": spec}))
    assert found == ([] if passes else [("Rule", "properties.v", "omit")])


def test_a_wrong_type_is_told_before_the_rules() -> None:
    plan = _plan({"v": {"type": "string", "enum": ["a"], "pattern": "^a"}})
    assert _noted(_events({"event": "Bought", "properties": {"v": 5}}), plan) == [("Datatype-Mismatch", "properties.v", "omit")]


def test_unnamed_fields_are_additional_properties_in_alphabetical_order() -> None:
    raw = _events({"event": "Bought", "properties": {"z": 1, "v": "x", "a.b": None, "é": []}})
    found = _noted(raw, _plan({"v": {"type": "string"}}))
    assert found == [("Additional-Properties", f"properties.{key}", "allow") for key in ("a.b", "z", "é")]


def test_a_repeated_planned_key_is_not_additional() -> None:
    assert _noted(_events({"event": "Bought", "text": '{"v":"a","v":"b"}'}), _plan({"v": {"type": "string"}})) == []


def test_a_dotted_name_goes_into_a_nested_object() -> None:
    plan = _plan({"address.city": {"type": "string", "required": True}, "address.zip": {"type": "string"}})
    good = {"event": "Bought", "properties": {"address": {"city": "Graz", "zip": "8010", "street": "x"}}}
    assert _noted(_events(good), plan) == []
    bad = _events({"event": "Bought", "properties": {"address": 5}})
    assert judge(bad, plan, {}).blocked.rows() == [(0, "Required-Missing", "properties.address.city")]


def test_an_object_and_a_field_in_it_may_both_be_planned() -> None:
    plan = _plan({"a": {"type": "object"}, "a.b": {"type": "integer"}, "A": {"type": "string"}})
    assert _noted(_events({"event": "Bought", "properties": {"a": {"b": "x"}, "A": 5}}), plan) == [
        ("Datatype-Mismatch", "properties.a.b", "omit"),
        ("Datatype-Mismatch", "properties.A", "omit"),
    ]


def test_properties_may_have_any_name() -> None:
    names = ["keys", "p0", "p0 text", "row", "source", "json", "it's", 'say "x"', "check", "💡"]
    plan = _plan({name: {"type": "string", "pattern": "."} for name in names})
    assert _noted(_events({"event": "Bought", "properties": dict.fromkeys(names, "x")}), plan) == []
    assert len(_noted(_events({"event": "Bought", "properties": dict.fromkeys(names, 5)}), plan)) == len(names)


def test_an_unplanned_event_is_noted_or_blocked_and_its_name_is_not_counted() -> None:
    plan, raw = _plan({}), _events({"event": "ada@example.org"}, {"event": None})
    assert _noted(raw, plan) == [("Unplanned-Event", "event", "allow")] * 2
    verdict = judge(raw, plan, {"web": ViolationPolicy(unplanned_event="block")})
    assert verdict.blocked.rows() == [(0, "Unplanned-Event", "event"), (1, "Unplanned-Event", "event")]
    assert verdict.counts.drop("batch_seq").rows() == [(None, "web", "Unplanned-Event", "block", 2)]


def test_a_type_of_call_that_the_plan_does_not_have_is_not_judged() -> None:
    raw = _events(
        {"type": "identify", "traits": {"x": 1}}, {"type": "page", "event": "Home"}, {"type": "alias"}, {"type": "group"}
    )
    assert judge(raw, _plan({}), {"web": ViolationPolicy(unplanned_event="block")}).counts.is_empty()
    assert judge(raw, TrackingPlan(), {"web": ViolationPolicy(unplanned_event="block")}).counts.is_empty()


def test_traits_of_identify_and_group_are_judged() -> None:
    plan = TrackingPlan.model_validate(
        {"events": [{"event": "Known", "type": "identify", "description": "x", "properties": {"email": {"type": "string"}}}]}
    )
    raw = _events({"type": "identify", "traits": {"email": 5}}, {"type": "track", "event": "Known", "properties": {"email": 5}})
    assert _noted(raw, plan) == [("Datatype-Mismatch", "traits.email", "omit")]


def test_a_named_page_is_judged_by_its_own_file_and_others_by_the_general_one() -> None:
    def page(event: str, name: str | None, field: str) -> dict[str, Any]:
        return {
            "event": event,
            "type": "page",
            "name": name,
            "description": "x",
            "properties": {field: {"type": "string", "required": True}},
        }

    raw = _events({"type": "page", "event": "Checkout"}, {"type": "page", "event": "Home"}, {"type": "page", "event": None})
    both = TrackingPlan.model_validate({"events": [page("Page", None, "general"), page("Checkout page", "Checkout", "own")]})
    assert judge(raw, both, {}).blocked["field"].to_list() == ["properties.own", "properties.general", "properties.general"]
    named = TrackingPlan.model_validate({"events": [page("Checkout page", "Checkout", "own")]})
    strict = judge(raw, named, {"web": ViolationPolicy(unplanned_event="block")})
    assert strict.blocked["violation"].to_list() == ["Required-Missing", "Unplanned-Event", "Unplanned-Event"]


def test_an_event_from_a_source_it_is_not_planned_for_is_unplanned() -> None:
    plan = _plan({}, sources=["server"])
    raw = _events({"event": "Bought", "source": "server"}, {"event": "Bought", "source": "web"})
    assert judge(raw, plan, {}).counts.drop("batch_seq").rows() == [(None, "web", "Unplanned-Event", "allow", 1)]


def test_each_source_has_its_policy_and_a_source_without_one_the_default() -> None:
    plan = _plan({"v": {"type": "string"}})
    raw = _events(*({"event": "Bought", "source": source, "properties": {"v": 5}} for source in ("web", "server", "files")))
    policies = {"web": ViolationPolicy(datatype_mismatch="allow"), "server": ViolationPolicy(datatype_mismatch="block")}
    verdict = judge(raw, plan, policies)
    assert verdict.blocked.rows() == [(1, "Datatype-Mismatch", "properties.v")]
    assert verdict.noted["row"].to_list() == [0, 2]
    assert verdict.noted["patch.properties"].to_list() == [None, '{"v": null}']


def test_an_event_with_a_policy_of_its_own_follows_it_whatever_the_source_says() -> None:
    fields = {"v": {"type": "string"}, "w": {"type": "string", "required": True}}
    strict = {"event": "Paid", "description": "x", "properties": fields, "violations": {"datatype_mismatch": "block"}}
    lenient = {"event": "Seen", "description": "x", "properties": fields, "violations": {"required_missing": "allow"}}
    usual = {"event": "Bought", "description": "x", "properties": fields}
    common = [{"properties": {"c": {"type": "string"}}}]
    plan = TrackingPlan.model_validate({"events": [strict, usual, lenient], "common": common})
    names = ("Paid", "Bought", "Seen", "Other")
    raw = _events(*({"event": name, "properties": {"v": 5, "w": "there"}} for name in names))
    policies = {"web": ViolationPolicy(datatype_mismatch="allow", unplanned_event="block")}
    verdict = judge(raw, plan, policies)
    assert verdict.blocked.rows() == [(0, "Datatype-Mismatch", "properties.v"), (3, "Unplanned-Event", "event")]
    assert verdict.noted["patch.properties"].to_list() == [None, None]

    lacking = judge(_events(*({"event": name, "properties": {}} for name in ("Paid", "Bought", "Seen"))), plan, policies)
    assert lacking.blocked["row"].to_list() == [0, 1]
    by_common = judge(
        _events(*({"event": name, "properties": {"c": 5, "w": "x"}} for name in ("Paid", "Bought"))), plan, policies
    )
    assert by_common.blocked.rows() == [(0, "Datatype-Mismatch", "properties.c")]


def test_of_two_versions_of_an_event_only_the_one_that_says_so_is_strict() -> None:
    old = {"event": "Bought", "description": "x", "properties": {"v": {"type": "string"}}}
    plan = TrackingPlan.model_validate({"events": [old, old | {"version": 2, "violations": {"datatype_mismatch": "block"}}]})
    wrong = {"event": "Bought", "properties": {"v": 5}}
    raw = _events(wrong, wrong | {"context": {"protocols": {"event_version": 2}}})
    assert judge(raw, plan, {}).blocked["row"].to_list() == [1]


@pytest.mark.parametrize(("required_missing", "action"), [("block", "block"), ("allow", "omit")])
def test_a_required_field_is_omitted_only_where_events_may_lack_it(required_missing: str, action: str) -> None:
    plan = _plan({"v": {"type": "string", "required": True}})
    policy = ViolationPolicy.model_validate({"required_missing": required_missing, "datatype_mismatch": "omit"})
    counts = judge(_events({"event": "Bought", "properties": {"v": 5}}), plan, {"web": policy}).counts
    assert counts.drop("batch_seq").rows() == [("Bought", "web", "Datatype-Mismatch", action, 1)]


def test_the_first_blocking_violation_in_the_plans_order_is_the_reason() -> None:
    plan = _plan({"z": {"type": "string"}, "b": {"type": "string", "required": True}, "a": {"type": "string", "required": True}})
    verdict = judge(_events({"event": "Bought", "properties": {"z": 5, "y": 1}}), plan, {})
    assert verdict.blocked.rows() == [(0, "Required-Missing", "properties.b")]
    assert verdict.noted.is_empty()
    assert verdict.counts["kind"].to_list() == ["Additional-Properties", "Datatype-Mismatch", "Required-Missing"]
    assert verdict.counts["violation_count"].to_list() == [1, 1, 2]


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"type": "text"}, "type"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"type": "string", "pattern": "("}, "regular expression"),
        ({"type": "string", "pattern": r"(a)\1"}, "back-references"),
        ({"type": "integer", "pattern": "1"}, "pattern belongs to type string, not integer"),
        ({"type": "object", "enum": ["x"]}, "enum belongs to types string, integer, number, boolean"),
        ({"type": "integer", "enum": [1, "2"]}, "enum value '2' is no integer"),
        ({"type": "integer", "enum": [True]}, "enum value True is no integer"),
        ({"type": "boolean", "enum": [1]}, "enum value 1 is no boolean"),
        ({"type": "string", "requird": True}, "requird"),
        ({"type": "string", "pii": "yes"}, "sensitive"),
    ],
)
def test_a_property_that_cannot_be_meant_is_refused(spec: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        PropertySpec.model_validate(spec)


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        ({"event": "E"}, "description"),
        ({"event": "E", "description": "x", "name": "n"}, "name belongs to types page and screen"),
        (
            {"event": "E", "description": "x", "type": "alias", "properties": {"a": {"type": "string"}}},
            "alias carries no properties",
        ),
        ({"event": "E", "description": "x", "properties": {"a..b": {"type": "string"}}}, "empty part"),
    ],
)
def test_an_event_that_cannot_be_meant_is_refused(event: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        EventSpec.model_validate(event)


def test_two_files_for_the_same_calls_are_refused() -> None:
    twice = [EventSpec(event="A", type="identify", description="x"), EventSpec(event="B", type="identify", description="x")]
    with pytest.raises(ValidationError, match="'B' and 'A' describe the same identify calls"):
        TrackingPlan(events=tuple(twice))
