"""quarantined_events, what remains of the others, and event_counts: section 3 of docs/semantics.md, one event at a time.

JSON Schemas are judged by the library jsonschema, an engine that the pipeline does not use.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jsonschema

from cdp_assets.enriched_events.spec import EventSpec, PropertySpec, TrackingPlan, ViolationPolicy
from tests.property.reference.history import Declarations
from tests.property.reference.values import Number, Row, compact

KINDS = {
    "required": "Required-Missing",
    "type": "Datatype-Mismatch",
    "additional": "Additional-Properties",
    "unplanned": "Unplanned-Event",
}
_ACTIONS = {
    "required": "required_missing",
    "type": "datatype_mismatch",
    "enum": "enum",
    "pattern": "pattern",
    "additional": "additional_properties",
    "unplanned": "unplanned_event",
}


class Violation(NamedTuple):
    """`path`: what is omitted for it, keys from the event down; None when nothing can be."""

    check: str
    field: str
    path: tuple[str, ...] | None = None


class Place(NamedTuple):
    """Where values lie: as fields are called, the path that is omitted, and whether a list is around them."""

    field: str
    path: tuple[str, ...]
    is_in_list: bool = False


def judged(raw: list[Row], declarations: Declarations) -> tuple[list[Row], list[Row], list[Row]]:
    """The raw rows that pass, with `violations` and without what is omitted; the rows of quarantined_events; those of event_counts."""
    passed, quarantined = [], []
    counts: dict[tuple[Any, ...], Counter[str]] = {}
    for row in raw:
        plan = declarations.tracking_plan
        spec = _planned(row, plan)
        found = violations(row, spec, plan)
        policy = _policy(spec, declarations.violations.get(row["source"], ViolationPolicy()))
        acted = [(each, _action(policy, each)) for each in found]
        if policy["required_missing"] == "block":
            acted = [
                (each, "block" if action == "omit" and _is_required(row, each.path, spec, plan) else action)
                for each, action in acted
            ]
        blocking = next((each for each, action in acted if action == "block"), None)
        if blocking is not None:
            kept = {name: row[name] for name in ("batch_seq", "offset", "message_id", "source", "type", "event", "received_at")}
            quarantined.append(kept | {"violation": KINDS.get(blocking.check, "Rule"), "field": blocking.field})
        else:
            passed.append(_without(row, acted))
        key = (row["batch_seq"], row["source"], row["type"], *((spec.event, spec.version) if spec else (None, None)))
        count = counts.setdefault((*key, any(each.check == "unplanned" for each in found)), Counter())
        is_violating = any(each.check != "additional" or action != "allow" for each, action in acted)
        count.update(event_count=1, violating_count=int(is_violating), quarantined_count=int(blocking is not None))
    names = ("batch_seq", "source", "type", "event", "event_version", "is_unplanned")
    return passed, quarantined, [dict(zip(names, key, strict=True)) | dict(count) for key, count in counts.items()]


def _policy(spec: EventSpec | None, of_source: ViolationPolicy) -> dict[str, str]:
    chosen: dict[str, str] = {name: getattr(of_source, name) for name in _ACTIONS.values()} | {"rule": of_source.rule}
    for name in chosen:
        own = getattr(spec.violations, name, None) if spec else None
        chosen[name] = own or chosen[name]
    return chosen


def _action(policy: Mapping[str, str], violation: Violation) -> str:
    action = policy[_ACTIONS.get(violation.check, "rule")]
    return "allow" if action == "omit" and violation.path is None else action


def _is_required(row: Row, path: tuple[str, ...] | None, spec: EventSpec | None, plan: TrackingPlan) -> bool:
    """Whether the event without what lies there misses it, or something in it, by any of its rules."""
    left = violations(_left(row, [path or ()]), spec, plan)
    return any(each.check == "required" and (each.path or ())[: len(path or ())] == path for each in left)


def _without(row: Row, acted: list[tuple[Violation, str]]) -> Row:
    left = _left(row, [violation.path or () for violation, action in acted if action == "omit"])
    notes = [{"kind": KINDS.get(v.check, "Rule"), "field": v.field, "rule": v.check, "action": a} for v, a in acted]
    left["violations"] = "[" + ",".join(json.dumps(each, ensure_ascii=False) for each in notes) + "]" if notes else None
    return left


def _left(row: Row, omitted: list[tuple[str, ...]]) -> Row:
    left = row | {name: copy.deepcopy(row[name]) for name in ("properties", "traits", "context")}
    for path in omitted:
        holder: Any = left
        for key in path[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
    return left


def violations(row: Row, spec: EventSpec | None, plan: TrackingPlan) -> list[Violation]:
    """What an event that is planned so breaks, in the plan's order, each once."""
    found: list[Violation] = []
    common = [rule for rule in plan.common if (not rule.types or row["type"] in rule.types)]
    if spec is not None:
        column = spec.column
        also = {name for rule in common for name in rule.properties}
        place = Place(column, (column,))
        found += _of_object(row[column] or {}, spec.properties, place, also if spec.json_schema is None else None)
        found += _of_schema(row[column] or {}, spec, place)
        found += _of_object(row["context"] or {}, spec.context, Place("context", ("context",)), None)
    elif row["type"] in {each.type for each in plan.events}:
        found.append(Violation("unplanned", "event"))
    for rule in common:
        if rule.sources and row["source"] not in rule.sources:
            continue
        column = "traits" if row["type"] in ("identify", "group") else "properties"
        if row["type"] != "alias":
            found += _of_object(row[column] or {}, rule.properties, Place(column, (column,)), None)
            found += _of_schema(row[column] or {}, rule, Place(column, (column,)))
        found += _of_object(row["context"] or {}, rule.context, Place("context", ("context",)), None)
    first: dict[tuple[str, str], Violation] = {}
    for each in found:
        first.setdefault((each.field, each.check), each)
    return list(first.values())


def _planned(row: Row, plan: TrackingPlan) -> EventSpec | None:
    named = [e for e in plan.events if e.type == row["type"] and e.matched_name is not None and e.matched_name == row["event"]]
    versions = {e.version: e for e in named or [e for e in plan.events if e.type == row["type"] and e.matched_name is None]}
    if not versions:
        return None
    protocols = (row["context"] or {}).get("protocols")
    asked = protocols.get("event_version") if isinstance(protocols, dict) else None
    chosen = {str(version): each for version, each in versions.items()}.get(str(asked), versions[min(versions)])
    return None if chosen.sources and row["source"] not in chosen.sources else chosen


def _of_object(value: Row, properties: Mapping[str, PropertySpec], place: Place, also: set[str] | None) -> Iterator[Violation]:
    """`also`: other names that are planned; None where what is not named is no violation."""
    for name, spec in properties.items():
        here = Place(
            f"{place.field}.{name}", place.path if place.is_in_list else (*place.path, *name.split(".")), place.is_in_list
        )
        inner: Any = value
        for key in name.split("."):
            inner = inner.get(key) if isinstance(inner, dict) else None
        yield from _of_value(inner, spec, here)
    if also is not None:
        planned = {name.split(".")[0] for name in (*properties, *also)}
        for key in sorted(value, key=str.encode):
            if key not in planned:
                path = place.path if place.is_in_list else (*place.path, key)
                yield Violation("additional", f"{place.field}.{key}", path)


def _of_value(value: Any, spec: PropertySpec, place: Place) -> Iterator[Violation]:
    check = _failed(value, spec)
    if check is not None:
        yield Violation(check, place.field, place.path)
    if spec.properties and isinstance(value, dict):
        yield from _of_object(value, spec.properties, place, set())
    if spec.items is not None and isinstance(value, list):
        inner = Place(f"{place.field}[]", place.path, is_in_list=True)
        told = [list(_of_value(each, spec.items, inner)) for each in value]
        own = [each for one in told for each in one if each.field == inner.field]
        yield from sorted(own, key=lambda each: ("required", "type", "enum", "pattern").index(each.check))
        yield from (each for one in told for each in one if each.field != inner.field)


def _failed(value: Any, spec: PropertySpec) -> str | None:
    if value is None:
        return "required" if spec.required else None
    if not _is_of(spec.type, value):
        return "type"
    if spec.enum and not any(_is_same(value, each) for each in spec.enum):
        return "enum"
    if spec.pattern is not None and not re.search(re.sub(r"\$$", r"\\Z", spec.pattern), value):
        return "pattern"
    return None


def _is_of(type_: str, value: Any) -> bool:
    is_number = isinstance(value, Number)
    match type_:
        case "any":
            return True
        case "string":
            return isinstance(value, str) and not is_number
        case "number":
            return is_number
        case "integer":
            return is_number and (value.lstrip("-").isdigit() or (math.isfinite(float(value)) and float(value).is_integer()))
        case other:
            return isinstance(value, {"boolean": bool, "object": dict, "array": list}[other])


def _is_same(value: Any, declared: object) -> bool:
    if isinstance(value, Number):
        return isinstance(declared, int | float) and not isinstance(declared, bool) and float(value) == float(declared)
    return type(value) is type(declared) and value == declared


def _of_schema(value: Row, rules: Any, place: Place) -> list[Violation]:
    """By the order of fields and checks: a schema has no order of its own."""
    if rules.json_schema is None:
        return []
    validator = jsonschema.Draft202012Validator(rules.json_schema)
    plain = _plain(value)
    found = []
    for error in validator.iter_errors(plain):
        (key,) = error.absolute_path or (None,)
        if error.validator == "required":
            found += [
                Violation("required", f"{place.field}.{name}", (*place.path, name))
                for name in error.validator_value
                if name not in plain
            ]
        else:
            field = place.field if key is None else f"{place.field}.{key}"
            found.append(Violation(error.validator, field, None if key is None else (*place.path, key)))
    return sorted(
        set(found), key=lambda each: (each.field.encode(), ("required", "type", "minProperties", "minimum").index(each.check))
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        text = compact(value)
        return int(text) if text.lstrip("-").isdigit() else float(text)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
