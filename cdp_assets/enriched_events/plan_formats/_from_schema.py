"""A JSON Schema of an object as the plan's own properties, as far as they can say it, and the schema itself where they cannot."""

from __future__ import annotations

from typing import Any

import polars as pl

Schema = dict[str, Any]

_TYPES = ("string", "integer", "number", "boolean", "object", "array")
_NOTES = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default", "self", "labels", "id"})
"""Keywords that ask for nothing."""


def rules(schema: Schema) -> dict[str, Any]:
    """`properties`, and `schema` when they do not say all that the schema asks."""
    properties, is_whole = _properties(schema)
    found: dict[str, Any] = {"properties": properties} if properties else {}
    return found if is_whole else found | {"schema": schema}


def _properties(schema: Schema) -> tuple[dict[str, Any], bool]:
    """The properties of an object's schema, and whether nothing else is asked of it."""
    declared = schema.get("properties")
    declared = declared if isinstance(declared, dict) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    # Without `additionalProperties: false` a surplus key is no violation there; here the source's policy decides about it.
    asked = set(schema) - _NOTES - {"properties", "required", "type", "additionalProperties"}
    is_whole = not asked and schema.get("type", "object") in ("object", ["object"]) and set(required) <= set(declared)
    if isinstance(schema.get("additionalProperties"), dict):
        is_whole = False
    found = {}
    for name, each in declared.items():
        if "." in name or not name:  # a dot goes into a nested object here
            is_whole = False
            continue
        spec, is_said = _property(each if isinstance(each, dict) else {}, is_required=name in required)
        is_whole &= is_said and isinstance(each, dict)
        found[name] = spec
    return found, is_whole


def _property(schema: Schema, *, is_required: bool) -> tuple[dict[str, Any], bool]:
    """One property, and whether it says all that the schema asks."""
    asked = set(schema) - _NOTES - {"type"}
    kinds = schema.get("type", "any")
    listed = [kinds] if isinstance(kinds, str) else [each for each in kinds if each != "null"] if isinstance(kinds, list) else []
    spec: dict[str, Any] = {"type": "any"}
    # A null counts as missing here: a required value that may be null is not required to be more.
    is_nullable = isinstance(kinds, list) and "null" in kinds
    is_whole = True
    if listed == ["any"] or (isinstance(kinds, list) and not listed):
        is_whole = "type" not in schema
    elif len(listed) == 1 and listed[0] in _TYPES:
        spec["type"] = listed[0]
    else:
        is_whole = False
    if is_required and is_nullable:
        is_whole = False
    elif is_required:
        spec["required"] = True
    if schema.get("description"):
        spec["description"] = str(schema["description"])
    if spec["type"] == "string" and schema.get("format") == "date-time":
        spec["type"] = "date-time"
        asked.discard("format")
    if "enum" in asked and _is_simple_enum(schema["enum"], spec["type"]):
        spec["enum"] = [value for value in schema["enum"] if value is not None]
        asked.discard("enum")
    if "pattern" in asked and spec["type"] == "string" and _compiles(schema["pattern"]):
        spec["pattern"] = schema["pattern"]
        asked.discard("pattern")
    if spec["type"] == "object" and "properties" in schema:
        inner, is_said = _properties({name: value for name, value in schema.items() if name != "type"})
        spec |= {"properties": inner} if inner else {}
        is_whole &= is_said
        asked -= {"properties", "required", "additionalProperties"}
    if spec["type"] == "array" and isinstance(schema.get("items"), dict):
        spec["items"], is_said = _property(schema["items"], is_required=False)
        is_whole &= is_said
        asked.discard("items")
    return spec, is_whole and not asked


def _is_simple_enum(values: object, kind: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
    if not isinstance(values, list) or kind not in kinds:
        return False
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(each, kinds[kind]) and (kind == "boolean") == isinstance(each, bool) for each in given)


def _compiles(pattern: object) -> bool:
    """Whether the plan's engine, of the RE2 family, knows the pattern."""
    if not isinstance(pattern, str):
        return False
    try:
        pl.Series([""]).str.contains(pattern, literal=False, strict=True)
    except pl.exceptions.ComputeError:
        return False
    return True
