"""Generated declarations and values: the columnar judge, the plan's JSON Schemas and the library jsonschema find the same violations."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy

Violation = tuple[str, str]

NAMES = st.sampled_from(["a", "b", "it's", "é"])
SCALARS = st.one_of(st.booleans(), st.sampled_from(["", "x", "p1", "5", "ü", '"']), st.sampled_from([0, 1, 2.0, 1.5, -3, 10**25]))
VALUES = st.recursive(
    st.none() | SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def _spec(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("object"), "required": st.booleans(), "properties": fields}),
        st.fixed_dictionaries({"type": st.just("array"), "required": st.booleans(), "items": inner}),
    )


LEAVES = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["any", "string", "integer", "number", "boolean", "object", "array"]),
            "required": st.booleans(),
        }
    ),
    st.fixed_dictionaries({"type": st.just("string"), "required": st.booleans(), "pattern": st.just("^p[0-9]$")}),
    st.fixed_dictionaries({"type": st.just("string"), "required": st.booleans(), "enum": st.just(["x", "ü"])}),
    st.fixed_dictionaries({"type": st.just("number"), "required": st.booleans(), "enum": st.just([1, 1.5])}),
    st.fixed_dictionaries({"type": st.just("any"), "required": st.booleans(), "enum": st.just([1, "x", True])}),
)
PROPERTIES = st.dictionaries(NAMES, st.recursive(LEAVES, _spec, max_leaves=6), max_size=3)


def _schema(spec: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of one declared value that is there."""
    made: dict[str, Any] = {} if spec["type"] == "any" else {"type": spec["type"]}
    made |= {name: spec[name] for name in ("pattern", "enum") if name in spec}
    if spec.get("properties"):
        made |= _object_schema(spec["properties"])
    if "items" in spec:
        made["items"] = _schema(spec["items"])
    return made


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "properties": {name: _schema(each) for name, each in properties.items()},
        "required": [name for name, each in properties.items() if each["required"]],
        "additionalProperties": False,
    }


def _without_nulls(value: Any, spec: dict[str, Any], field: str, missing: set[Violation]) -> Any:
    """The value as JSON Schema takes it, in which null is a value: nulls of what is declared are gone, those of lists noted as missing."""
    if isinstance(value, dict) and spec.get("properties"):
        inner = spec["properties"]
        return {
            name: _without_nulls(each, inner[name], f"{field}.{name}", missing) if name in inner else each
            for name, each in value.items()
            if each is not None or name not in inner
        }
    if isinstance(value, list) and "items" in spec:
        if None in value and spec["items"]["required"]:
            missing.add((f"{field}[]", "required"))
        return [_without_nulls(each, spec["items"], f"{field}[]", missing) for each in value if each is not None]
    return value


_ORDER = ("type", "enum", "pattern")


def _by_jsonschema(schema: dict[str, Any], value: Any, *, is_first_alone: bool = True) -> set[Violation]:
    """Field and check of each violation; of a value that fails several of _ORDER only the first, when that is asked."""
    failed: dict[tuple[Any, ...], set[str]] = {}
    found: set[Violation] = set()
    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        path = tuple(error.absolute_path)
        field = "properties" + "".join("[]" if isinstance(step, int) else f".{step}" for step in path)
        if error.validator == "required":
            (name,) = (each for each in error.validator_value if each not in error.instance and repr(each) in error.message)
            found.add((f"{field}.{name}", "required"))
        elif error.validator == "additionalProperties":
            surplus = set(error.instance) - set(error.schema["properties"])
            found |= {(f"{field}.{name}", "additional") for name in surplus}
        else:
            failed.setdefault(path, set()).add(error.validator)
    for path, checks in failed.items():
        field = "properties" + "".join("[]" if isinstance(step, int) else f".{step}" for step in path)
        found |= {(field, check) for check in ([min(checks, key=_ORDER.index)] if is_first_alone else checks)}
    return found


def _judged(event: dict[str, Any], values: list[Any]) -> list[set[Violation]]:
    """What the plan notes on each event, under a policy that allows everything."""
    plan = TrackingPlan.model_validate({"events": [{"event": "E", "description": "x", **event}]})
    raw = pl.DataFrame(
        {
            "batch_seq": 1,
            "source": "web",
            "type": "track",
            "event": "E",
            "properties": [json.dumps(each) for each in values],
            "traits": pl.Series([None] * len(values), dtype=pl.String),
            "context": pl.Series([None] * len(values), dtype=pl.String),
        }
    )
    fields = [name for name in ViolationPolicy.model_fields if name != "alert_above"]
    verdict = judge(raw, plan, {"web": ViolationPolicy.model_validate(dict.fromkeys(fields, "allow"))})
    assert verdict.blocked.is_empty()
    told = dict(verdict.noted.select("row", "violations").iter_rows())
    return [{(each["field"], each["rule"]) for each in json.loads(told.get(row, "[]"))} for row in range(len(values))]


OBJECTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(PROPERTIES, OBJECTS)
def test_declared_properties_find_what_jsonschema_finds(properties: dict[str, Any], values: list[Any]) -> None:
    expected = []
    for value in values:
        missing: set[Violation] = set()
        plain = _without_nulls(value, {"properties": properties}, "properties", missing) if properties else value
        expected.append(_by_jsonschema(_object_schema(properties), plain) | missing)
    assert _judged({"properties": properties}, values) == expected


@settings(max_examples=100, deadline=None)
@given(PROPERTIES, OBJECTS)
def test_a_schema_finds_what_jsonschema_finds(properties: dict[str, Any], values: list[Any]) -> None:
    schema = _object_schema(properties)
    assert _judged({"schema": schema}, values) == [_by_jsonschema(schema, value, is_first_alone=False) for value in values]
