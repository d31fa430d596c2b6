"""Versions of an event, common rules, context, nested objects and lists, and JSON Schemas: what each finds, and what is omitted for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.plan_formats import File, plan_formats
from cdp_assets.enriched_events.spec import CommonRule, EventSpec, PropertySpec, TrackingPlan, ViolationPolicy
from cdp_assets.enriched_events.transform import enrich_batch
from cdp_assets.project import Project, ProjectError
from cdp_resources.protocols.snowplow import mapped
from tests.unit.test_plan import _events
from tests.unit.test_project import config as config

NUMBER, TEXT = {"type": "number"}, {"type": "string"}


def _plan(*events: dict[str, Any], common: tuple[dict[str, Any], ...] = ()) -> TrackingPlan:
    return TrackingPlan.model_validate(
        {"events": [{"event": "Bought", "description": "x"} | each for each in events], "common": common}
    )


def _noted(event: dict[str, Any], plan: TrackingPlan, **policy: str) -> list[tuple[str, str, str, str]]:
    verdict = judge(_events({"event": "Bought"} | event), plan, {"web": ViolationPolicy.model_validate(policy)})
    assert verdict.blocked.is_empty()
    found = [each for text in verdict.noted["violations"] for each in json.loads(text)]
    return [(each["kind"], each["field"], each["rule"], each["action"]) for each in found]


def _patches(event: dict[str, Any], plan: TrackingPlan, **policy: str) -> dict[str, Any]:
    noted = judge(_events({"event": "Bought"} | event), plan, {"web": ViolationPolicy.model_validate(policy)}).noted
    row = noted.drop("row", "violations").row(0, named=True)
    return {name.removeprefix("patch."): json.loads(text) for name, text in row.items() if text is not None}


VERSIONS = _plan(
    {"properties": {"old": TEXT | {"required": True}}},
    {"version": 2, "properties": {"new": TEXT | {"required": True}}},
    {"version": 10, "properties": {"ten": TEXT | {"required": True}}},
)


@pytest.mark.parametrize(
    ("version", "field"),
    [(1, "old"), (2, "new"), ("2", "new"), (10, "ten"), (3, "old"), ("x", "old"), (None, "old"), ({}, "old"), (-2, "old")],
)
def test_an_event_is_judged_by_the_version_it_names_and_else_by_the_oldest(version: Any, field: str) -> None:
    raw = _events({"event": "Bought", "context": {"protocols": {"event_version": version}}})
    assert judge(raw, VERSIONS, {}).blocked["field"].to_list() == [f"properties.{field}"]


def test_the_oldest_version_is_the_lowest_number_and_not_the_first_file() -> None:
    turned = TrackingPlan(events=VERSIONS.events[::-1])
    assert judge(_events({"event": "Bought"}), turned, {}).blocked["field"].to_list() == ["properties.old"]


def test_a_version_that_is_not_planned_for_the_source_is_unplanned() -> None:
    plan = _plan({}, {"version": 2, "sources": ["server"]})
    assert _noted({"context": {"protocols": {"event_version": 2}}}, plan)[0][0] == "Unplanned-Event"


def test_common_rules_hold_for_every_event_of_their_types_also_unplanned_ones() -> None:
    common = {"types": ["track"], "context": {"app.version": TEXT | {"required": True}}, "properties": {"price": NUMBER}}
    plan = _plan({}, common=(common,))
    raw = _events(
        {"event": "Bought", "properties": {"price": "5"}, "context": {"app": {"version": "1"}}},
        {"event": "Unheard of", "properties": {"price": "5"}},
        {"type": "identify", "traits": {"price": "5"}},
    )
    verdict = judge(raw, plan, {})
    assert verdict.blocked.rows() == [(1, "Required-Missing", "context.app.version")]
    assert verdict.noted["row"].to_list() == [0]
    assert verdict.counts.select("event", "kind", "action").rows() == [
        ("Bought", "Datatype-Mismatch", "omit"),
        (None, "Datatype-Mismatch", "omit"),
        (None, "Required-Missing", "block"),
        (None, "Unplanned-Event", "allow"),
    ]


def test_common_properties_are_planned_and_traits_where_the_call_has_traits() -> None:
    plan = _plan({}, {"event": "Known", "type": "identify"}, common=({"properties": {"brand": TEXT}, "sources": ["server"]},))
    assert _noted({"properties": {"brand": 5}}, plan) == []
    raw = _events({"type": "identify", "source": "server", "traits": {"brand": 5}})
    assert json.loads(judge(raw, plan, {}).noted["violations"][0])[0]["field"] == "traits.brand"


def test_what_the_event_and_a_common_rule_both_say_is_one_violation() -> None:
    plan = _plan({"properties": {"price": NUMBER}}, common=({"properties": {"price": NUMBER | {"required": True}}},))
    assert _noted({"properties": {"price": "5"}}, plan, required_missing="allow") == [
        ("Datatype-Mismatch", "properties.price", "type", "omit")
    ]


REQUIRED = TEXT | {"required": True}
CODE = {"type": "object", "required": True, "properties": {"b": TEXT}}


@pytest.mark.parametrize(
    ("own", "common", "properties", "field"),
    [
        ({"properties": {"v": TEXT}}, {"properties": {"v": REQUIRED}}, {"v": 5}, "v"),
        ({"properties": {"v": TEXT | {"pattern": "@"}}}, {"properties": {"v": REQUIRED}}, {"v": "y"}, "v"),
        ({"properties": {"v": REQUIRED}}, {"properties": {"v": TEXT | {"enum": ["x"]}}}, {"v": "y"}, "v"),
        ({"properties": {"v": REQUIRED}}, {"schema": {"properties": {"v": {"maxLength": 1}}}}, {"v": "long"}, "v"),
        ({"properties": {"v": NUMBER}, "schema": {"required": ["v"]}}, {}, {"v": "5"}, "v"),
        ({"properties": {"v": NUMBER}}, {"schema": {"required": ["v"]}}, {"v": "5"}, "v"),
        (
            {"properties": {"v": NUMBER}},
            {"schema": {"if": {"required": ["w"]}, "then": {"required": ["v"]}}},
            {"v": "5", "w": 1},
            "v",
        ),
        ({"schema": {"properties": {"v": {"minProperties": 2}}}}, {"properties": {"v.b": REQUIRED}}, {"v": {"b": "x"}}, "v"),
        ({"properties": {"v": CODE | {"properties": {}}}}, {"properties": {"v": CODE}}, {"v": 5}, "v"),
        ({"properties": {"v": CODE | {"required": False}}}, {"properties": {"v.c": REQUIRED}}, {"v": {"c": "x"}}, "v.c"),
        ({"properties": {"v": {"type": "array", "items": TEXT}}}, {"schema": {"required": ["v"]}}, {"v": [5]}, "v[]"),
    ],
)
def test_what_any_rule_of_an_event_requires_is_not_omitted_for_breaking_another(
    own: dict[str, Any], common: dict[str, Any], properties: dict[str, Any], field: str
) -> None:
    plan = _plan(own, common=(common,))
    omitting = ViolationPolicy(additional_properties="omit")
    event = {"event": "Bought", "properties": properties}
    verdict = judge(_events(event), plan, {"web": omitting})
    assert verdict.blocked["field"].to_list() == [f"properties.{field}"]
    assert verdict.noted.is_empty()
    assert _patches(event, plan, additional_properties="omit", required_missing="allow") != {}


@pytest.mark.parametrize(
    "common",
    [
        {"properties": {"v": REQUIRED}, "types": ["page"]},
        {"properties": {"v": REQUIRED}, "sources": ["server"]},
        {"context": {"v": TEXT}, "schema": {"properties": {"w": {"required": ["v"]}}}},
        {"schema": {"if": {"required": ["w"]}, "then": {"required": ["v"]}}},
    ],
)
def test_what_no_rule_of_the_event_requires_is_omitted(common: dict[str, Any]) -> None:
    plan = _plan({"properties": {"v": TEXT, "o": {"type": "object", "properties": {"v": REQUIRED}}}}, common=(common,))
    assert _patches({"properties": {"v": 5}}, plan) == {"properties": {"v": None}}
    assert _patches({"properties": {"o": 5}}, plan) == {"properties": {"o": None}}


def test_traits_and_context_are_required_by_the_rules_of_their_own_column() -> None:
    plan = _plan(
        {"event": "Known", "type": "identify", "properties": {"v": TEXT}, "context": {"c.d": TEXT}},
        common=({"schema": {"required": ["v"]}, "context": {"c.d": REQUIRED}, "types": ["identify"]},),
    )
    known = {"type": "identify", "traits": {"v": "x"}, "context": {"c": {"d": "x"}}}
    raw = _events(known, known | {"traits": {"v": 5}}, known | {"context": {"c": {"d": 5}}}, {"event": "Bought"})
    assert judge(raw, plan, {}).blocked.rows() == [
        (1, "Datatype-Mismatch", "traits.v"),
        (2, "Datatype-Mismatch", "context.c.d"),
    ]


def test_fields_of_the_context_are_omitted_from_the_context() -> None:
    plan = _plan({"context": {"app.build": {"type": "integer"}}})
    event = {"context": {"app": {"build": "x", "name": "shop"}, "more": 1}}
    assert _patches(event, plan) == {"context": {"app": {"build": None}}}
    raw = _events({"event": "Bought"} | event)
    full = (
        raw.with_columns(
            pl.lit(None, pl.String).alias(name)
            for name in ("offset", "batch_id", "message_id", "message_key", "user_id", "anonymous_id", "previous_id", "group_id")
        )
        .with_columns(
            pl.lit(None, pl.String).alias(name)
            for name in ("timestamp", "sent_at", "is_timestamp_adjusted", "ip", "request", "received_date", "payload")
        )
        .with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("received_at"))
    )
    assert json.loads(enrich_batch(full, plan, {}, ()).enriched["context"][0]) == {"app": {"name": "shop"}, "more": 1}


NESTED = _plan(
    {
        "properties": {
            "address": {"type": "object", "properties": {"city": TEXT | {"required": True}, "geo.lat": NUMBER}},
            "products": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"sku": TEXT | {"required": True}, "tags": {"type": "array", "items": TEXT}},
                },
            },
        }
    }
)


def test_a_required_field_of_an_object_is_asked_only_where_the_object_is() -> None:
    assert _noted({"properties": {}}, NESTED) == []
    assert _noted({"properties": {"address": {}}}, NESTED, required_missing="allow") == [
        ("Required-Missing", "properties.address.city", "required", "allow")
    ]
    assert _noted({"properties": {"address": 5}}, NESTED) == [("Datatype-Mismatch", "properties.address", "type", "omit")]


def test_fields_in_objects_and_lists_are_judged_and_named() -> None:
    event = {
        "properties": {
            "address": {"city": "Graz", "geo": {"lat": "x"}, "zip": 1},
            "products": [{"sku": "a", "tags": ["x", 5, 6]}, {"sku": 5, "colour": "red"}, "text"],
        }
    }
    found = _noted(event, NESTED, datatype_mismatch="allow")
    assert [(kind, field) for kind, field, _, _ in found] == [
        ("Datatype-Mismatch", "properties.address.geo.lat"),
        ("Additional-Properties", "properties.address.zip"),
        ("Datatype-Mismatch", "properties.products[]"),
        ("Datatype-Mismatch", "properties.products[].sku"),
        ("Datatype-Mismatch", "properties.products[].tags[]"),
        ("Additional-Properties", "properties.products[].colour"),
    ]


def test_what_lies_in_a_list_is_omitted_with_the_list() -> None:
    event = {"properties": {"address": {"city": "Graz", "geo": {"lat": "x"}}, "products": [{"sku": "a", "tags": [5]}]}}
    assert _patches(event, NESTED) == {"properties": {"address": {"geo": {"lat": None}}, "products": None}}


def test_a_list_that_events_must_have_is_not_omitted_where_events_without_it_are_blocked() -> None:
    plan = _plan({"properties": {"sizes": {"type": "array", "required": True, "items": {"type": "integer"}}}})
    raw = _events({"event": "Bought", "properties": {"sizes": [1, "x"]}})
    assert judge(raw, plan, {}).blocked.rows() == [(0, "Datatype-Mismatch", "properties.sizes[]")]


def test_a_null_in_a_list_is_missing() -> None:
    plan = _plan(
        {"properties": {"a": {"type": "array", "items": TEXT}, "b": {"type": "array", "items": TEXT | {"required": True}}}}
    )
    assert _noted({"properties": {"a": [None], "b": ["x", None]}}, plan, required_missing="allow") == [
        ("Required-Missing", "properties.b[]", "required", "allow")
    ]


SCHEMA = _plan(
    {
        "schema": {
            "type": "object",
            "required": ["total"],
            "properties": {"total": {"type": "number", "minimum": 0}, "email": {"format": "email"}, "lines": {"maxItems": 1}},
            "if": {"properties": {"kind": {"const": "gift"}}, "required": ["kind"]},
            "then": {"required": ["note"]},
            "propertyNames": {"maxLength": 9},
        }
    }
)


def test_a_schema_says_what_properties_cannot_and_names_the_field_and_the_keyword() -> None:
    event = {"properties": {"total": 1, "email": "no", "lines": [1, 2], "kind": "gift", "much_too_long": 1}}
    assert sorted(_noted(event, SCHEMA, required_missing="allow")) == [
        ("Required-Missing", "properties.note", "required", "allow"),
        ("Rule", "properties", "propertyNames", "allow"),
        ("Rule", "properties.email", "format", "omit"),
        ("Rule", "properties.lines", "maxItems", "omit"),
    ]


def test_what_a_schema_requires_is_not_omitted_where_events_without_it_are_blocked() -> None:
    raw = _events({"event": "Bought", "properties": {"total": -1}})
    assert judge(raw, SCHEMA, {}).blocked.rows() == [(0, "Rule", "properties.total")]
    assert _noted({"properties": {"total": -1}}, SCHEMA, required_missing="allow") == [
        ("Rule", "properties.total", "minimum", "omit")
    ]


@pytest.mark.parametrize("text", [None, "[]", "null", "{broken", '{"total":1,"total":"x"}'])
def test_a_schema_reads_texts_as_the_rest_of_the_plan_does(text: str | None) -> None:
    raw = _events({"event": "Bought", "text": text})
    blocked = judge(raw, SCHEMA, {}).blocked.rows()
    assert blocked == ([] if text and text.startswith('{"') else [(0, "Required-Missing", "properties.total")])


def test_a_value_too_deep_to_be_judged_breaks_the_schema_and_fails_nothing() -> None:
    text = '{"total":1,"x":' + "[" * 5000 + "]" * 5000 + "}"
    verdict = judge(_events({"event": "Bought", "text": text}), SCHEMA, {"web": ViolationPolicy(rule="block")})
    assert verdict.blocked["violation"].to_list() in (["Rule"], [])


def test_a_reference_inside_the_schema_is_followed_and_draft_7_is_kept() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"code": {"type": "string", "pattern": "^[A-Z]+$"}},
        "properties": {"code": {"$ref": "#/definitions/code"}, "pair": {"items": [{"type": "string"}, {"type": "integer"}]}},
    }
    event = {"properties": {"code": "x", "pair": ["a", "b"]}}
    assert sorted(_noted(event, _plan({"schema": schema}))) == [
        ("Datatype-Mismatch", "properties.pair[]", "type", "omit"),
        ("Rule", "properties.code", "pattern", "omit"),
    ]


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "nope"}, "no JSON Schema: type"),
        ({"properties": {"a": {"pattern": "("}}}, "no JSON Schema: properties.a.pattern"),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "Retrieval is disabled"),
        ({"$ref": "file:///etc/hostname"}, "Retrieval is disabled"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$schema": "http://127.0.0.1:1/meta"}, "meta-schema"),
        (5, "schema"),
    ],
)
def test_what_is_no_schema_or_would_have_to_be_fetched_is_refused(schema: Any, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        EventSpec.model_validate({"event": "E", "description": "x", "schema": schema})


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"type": "string", "properties": {"a": TEXT}}, "properties belong to type object, not string"),
        ({"type": "object", "items": TEXT}, "items belongs to type array, not object"),
        ({"type": "object", "properties": {"a..b": TEXT}}, "empty part"),
    ],
)
def test_nested_properties_that_cannot_be_meant_are_refused(spec: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        PropertySpec.model_validate(spec)


def test_common_rules_are_read_beside_the_events_and_their_mistakes_have_lines(config: Path) -> None:
    file = config / "tracking_plan" / "_common.yaml"
    file.write_text("- types: [track]\n  context:\n    app.version: {type: string}\n", encoding="utf-8")
    assert Project.load(config).plan.common == (
        CommonRule(types=("track",), context={"app.version": PropertySpec(type="string")}),
    )
    file.write_text("- types: [track]\n  sources: [nowhere]\n- types: [trick]\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"tracking_plan/_common.yaml:3: \[2\].types\[1\]: no choice 'trick'"):
        Project.load(config)
    file.write_text("- sources: [nowhere]\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"_common.yaml:1: \[1\].sources\[1\]: no source 'nowhere'"):
        Project.load(config)


def test_versions_are_files_of_their_own_and_change_the_digest(config: Path) -> None:
    before = Project.load(config).digest("enriched")
    text = (config / "tracking_plan" / "order_completed.yaml").read_text(encoding="utf-8")
    (config / "tracking_plan" / "order_completed.v2.yaml").write_text(f"version: 2\n{text}", encoding="utf-8")
    project = Project.load(config)
    assert sorted(each.version for each in project.plan.events if each.event == "Order Completed") == [1, 2]
    assert project.digest("enriched") != before


def test_a_snowplow_event_is_judged_by_the_model_of_its_schema() -> None:
    def schema(version: str, field: str) -> dict[str, Any]:
        itself = {"vendor": "com.acme", "name": "bought", "format": "jsonschema", "version": version}
        return {"self": itself, "type": "object", "properties": {field: {"type": "string"}}, "required": [field]}

    files = [File(version, (schema(version, field),)) for version, field in (("1-0-0", "old"), ("2-0-3", "new"))]
    plan = TrackingPlan.model_validate({"events": plan_formats()["iglu"].read(files).events})

    def found(version: str) -> list[str]:
        data = {"schema": f"iglu:com.acme/bought/jsonschema/{version}", "data": {}}
        message = mapped({"e": "ue", "ue_pr": json.dumps({"schema": "x", "data": data}), "duid": "d"}, None).message
        assert message is not None
        return judge(_events(message), plan, {}).blocked["field"].to_list()

    assert (found("1-0-0"), found("2-0-0")) == (["properties.old"], ["properties.new"])
