"""JSON Schema (draft 2020-12) of what each event's properties or traits must be, one file an event.

`$id` is left out: the files have no address. What only policies decide (surplus properties) is not in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cdp_assets.enriched_events.plan_exports import Received, named
from cdp_assets.enriched_events.spec import EventSpec, PropertySpec, TrackingPlan

DESCRIPTION = "JSON Schema (draft 2020-12) of each event's properties or traits"


def write(plan: TrackingPlan, seen: Received) -> dict[str, str]:
    """One file for each event and version."""
    _ = seen
    return {
        f"{name}.schema.json": json.dumps(event_schema(event), indent=2, ensure_ascii=False) + "\n"
        for name, event in named(plan).items()
    }


def event_schema(event: EventSpec) -> dict[str, Any]:
    """The schema of one event's properties or traits."""
    head: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event.event,
        "description": event.description,
    }
    own = object_schema(event.properties)
    if event.json_schema is not None:  # it may be of another draft, so it stays whole
        return head | {"allOf": [own, event.json_schema]}
    return head | own


def object_schema(properties: Mapping[str, PropertySpec]) -> dict[str, Any]:
    """An object with these properties; a dot in a name goes into a nested object."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    for path, spec in properties.items():
        *above, name = path.split(".")
        node = schema
        for key in above:
            node = node["properties"].setdefault(key, {"type": "object"})
            node.setdefault("properties", {})
        node["properties"][name] = node["properties"].get(name, {}) | property_schema(spec)
        if spec.required:
            node.setdefault("required", []).append(name)
            # A required value in an object makes the object required too.
            node = schema
            for key in above:
                if key not in node.setdefault("required", []):
                    node["required"].append(key)
                node = node["properties"][key]
    return schema


def property_schema(spec: PropertySpec) -> dict[str, Any]:
    """The schema of one value; where it is not required, null counts as missing."""
    schema: dict[str, Any] = {}
    if spec.type == "object":
        schema = object_schema(spec.properties)
        if not spec.properties:
            del schema["properties"]
    elif spec.type == "array":
        schema = {"type": "array"} | ({"items": property_schema(spec.items)} if spec.items is not None else {})
    elif spec.type == "date-time":
        schema = {"type": "string", "format": "date-time"}
    elif spec.type != "any":
        schema = {"type": spec.type}
    if not spec.required and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if spec.enum:
        schema["enum"] = [*spec.enum, *([] if spec.required else [None])]
    if spec.pattern is not None:
        schema["pattern"] = spec.pattern
    if spec.description:
        schema["description"] = spec.description
    return schema
