"""A typed Python client: a TypedDict for each event, and a function that sends it through segment-analytics-python or rudder-sdk-python."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from typing import Any

from cdp_assets.enriched_events.plan_exports import Received, free, named, pascal
from cdp_assets.enriched_events.plan_exports.json_schema import object_schema
from cdp_assets.enriched_events.spec import EventSpec, TrackingPlan

DESCRIPTION = "Typed Python functions for the events, over segment-analytics-python or rudder-sdk-python"

_HEAD = '''"""Events of the tracking plan. Written by `cdp plan-export python`; do not edit."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Protocol, TypedDict


class Analytics(Protocol):
    """The module or client of an SDK with Segment's methods."""

    def track(self, user_id: Any = ..., event: Any = ..., properties: Any = ..., context: Any = ..., **more: Any) -> Any: ...
    def page(
        self, user_id: Any = ..., category: Any = ..., name: Any = ..., properties: Any = ..., context: Any = ..., **more: Any
    ) -> Any: ...
    def screen(
        self, user_id: Any = ..., category: Any = ..., name: Any = ..., properties: Any = ..., context: Any = ..., **more: Any
    ) -> Any: ...
    def identify(self, user_id: Any = ..., traits: Any = ..., context: Any = ..., **more: Any) -> Any: ...
    def group(self, user_id: Any = ..., group_id: Any = ..., traits: Any = ..., context: Any = ..., **more: Any) -> Any: ...
'''
_OTHERS = frozenset(
    {
        "Analytics",
        "Any",
        "Literal",
        "NotRequired",
        "Protocol",
        "TypedDict",
        "annotations",
        "bool",
        "dict",
        "float",
        "int",
        "list",
        "str",
    }
)
"""What the module names itself: an event of the same name would take its place in it."""
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def write(plan: TrackingPlan, seen: Received) -> dict[str, str]:
    """One module with everything."""
    _ = seen
    parts = [_HEAD]
    taken = {*keyword.kwlist, *_OTHERS}
    for name, event in named(plan).items():
        if event.type != "alias":
            kind = free(pascal(name), taken)
            parts.append(_dictionary(kind, object_schema(event.properties), taken))
            parts.append(_function(free(name, taken), kind, event))
    return {"events.py": "\n\n".join(parts)}


def _dictionary(name: str, schema: Mapping[str, Any], taken: set[str]) -> str:
    """A TypedDict in its functional form, since a property may be called anything; those of nested objects stand before it.

    `taken`: the names of the module so far.
    """
    before: list[str] = []
    required = schema.get("required", [])
    fields = []
    for key, each in schema.get("properties", {}).items():
        kind = _type(each, f"{name}{pascal(key)}", before, taken)
        fields.append(f"        {json.dumps(key)}: {json.dumps(kind if key in required else f'NotRequired[{kind}]')},\n")
    return "\n\n".join([*before, f"{name} = TypedDict(\n    {json.dumps(name)},\n    {{\n{''.join(fields)}    }},\n)\n"])


def _type(schema: Mapping[str, Any], name: str, before: list[str], taken: set[str]) -> str:
    if "enum" in schema:
        values = [value for value in schema["enum"] if not isinstance(value, float)]
        if len(values) == len(schema["enum"]):
            return f"Literal[{', '.join(repr(value) for value in values)}]"
    kinds = schema.get("type", [])
    told = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "object" and schema.get("properties"):
            told.append(free(name, taken))
            before.append(_dictionary(told[-1], schema, taken))
        elif kind == "object":
            told.append("dict[str, Any]")
        elif kind == "array":
            told.append(f"list[{_type(schema['items'], name, before, taken)}]" if "items" in schema else "list[Any]")
        else:
            told.append(_TYPES[kind])
    return " | ".join(told) or "Any"


def _function(name: str, kind: str, event: EventSpec) -> str:
    given = "traits" if event.type in ("identify", "group") else "properties"
    match event.type:
        case "track":
            extra, call = "", f"event={event.event!r}, "
        case "page" | "screen":
            extra, call = ("", f"name={event.name!r}, ") if event.name else ("name: str, ", "name=name, ")
        case "group":
            extra, call = "group_id: str, ", "group_id=group_id, "
        case _:
            extra, call = "", ""
    context = "context" if event.version == 1 else f'{{**(context or {{}}), "protocols": {{"event_version": {event.version}}}}}'
    return (
        f"def {name}(\n"
        f"    analytics: Analytics, {given}: {kind}, *, {extra}user_id: str | None = None, context: dict[str, Any] | None = None, **more: Any\n"
        f") -> Any:\n"
        f"    {json.dumps(' '.join(event.description.split()), ensure_ascii=False)}\n"
        f"    return analytics.{event.type}(user_id=user_id, {call}{given}={given}, context={context}, **more)\n"
    )
