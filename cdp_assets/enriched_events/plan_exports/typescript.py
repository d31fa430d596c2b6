"""A typed TypeScript client: an interface for each event, and a function that sends it through any SDK with Segment's methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cdp_assets.enriched_events.plan_exports import Received, free, named, pascal, words
from cdp_assets.enriched_events.plan_exports.json_schema import object_schema
from cdp_assets.enriched_events.spec import EventSpec, TrackingPlan

DESCRIPTION = "Typed TypeScript functions for the events, over any SDK with Segment's methods"

_HEAD = """// Written by `cdp plan-export typescript` from the tracking plan; do not edit.

/** Any SDK with Segment's methods: analytics-next, RudderStack's, Jitsu's. */
export interface Analytics {
  track(event: string, properties?: object, options?: object): unknown;
  page(category?: string, name?: string, properties?: object, options?: object): unknown;
  identify(userId: string | undefined, traits?: object, options?: object): unknown;
  group(groupId: string, traits?: object, options?: object): unknown;
  screen?(category?: string, name?: string, properties?: object, options?: object): unknown;
}
"""
_TYPES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_RESERVED = (
    "arguments", "await", "break", "case", "catch", "class", "const", "continue", "debugger", "default", "delete", "do", "else",
    "enum", "eval", "export", "exports", "extends", "false", "finally", "for", "function", "if", "implements", "import", "in",
    "instanceof", "interface", "let", "new", "null", "package", "private", "protected", "public", "require", "return", "static",
    "super", "switch", "this", "throw", "true", "try", "typeof", "undefined", "var", "void", "while", "with", "yield",
)  # fmt: skip
"""What no function of a module may be called; `exports` and `require` because TypeScript may compile to CommonJS."""
_OTHER_TYPES = frozenset({"Analytics", "Array", "Record"})
"""The types that the module names itself: an interface of the same name would take their place in it."""


def write(plan: TrackingPlan, seen: Received) -> dict[str, str]:
    """One module with everything."""
    _ = seen
    parts = [_HEAD]
    functions, interfaces = set(_RESERVED), set(_OTHER_TYPES)
    for name, event in named(plan).items():
        if event.type == "alias":
            continue
        interface = free(pascal(name), interfaces)
        parts.append(_interface(interface, event))
        parts.append(_function(free(_camel(name), functions), interface, event))
    return {"events.ts": "\n".join(parts)}


def _camel(text: str) -> str:
    """`Order Completed` -> orderCompleted; never begins with a digit."""
    first, *rest = words(text)
    name = first.lower() + "".join(word[0].upper() + word[1:].lower() for word in rest)
    return f"_{name}" if name[0].isdigit() else name


def _interface(name: str, event: EventSpec) -> str:
    body = _object(object_schema(event.properties), "")
    return f"/** {_comment(event.description)} */\nexport interface {name} {body}\n"


def _function(name: str, kind: str, event: EventSpec) -> str:
    options = _options(event)
    optional = "" if any(spec.required for spec in event.properties.values()) else "?"
    match event.type:
        case "track":
            arguments, call = f"properties{optional}: {kind}", f"track({json.dumps(event.event)}, properties, {options})"
        case "page" | "screen":
            method = "page" if event.type == "page" else "screen?."
            title = json.dumps(event.name) if event.name else "name"
            arguments = f"{'' if event.name else 'name: string, '}properties{optional}: {kind}"
            call = f"{method}(undefined, {title}, properties, {options})"
        case "identify":
            arguments, call = f"userId: string | undefined, traits{optional}: {kind}", f"identify(userId, traits, {options})"
        case _:
            arguments, call = f"groupId: string, traits{optional}: {kind}", f"group(groupId, traits, {options})"
    return (
        f"/** {_comment(event.description)} */\n"
        f"export function {name}(analytics: Analytics, {arguments}, options: object = {{}}): unknown {{\n"
        f"  return analytics.{call};\n}}\n"
    )


def _options(event: EventSpec) -> str:
    return "options" if event.version == 1 else f"{{ ...options, protocols: {{ event_version: {event.version} }} }}"


def _object(schema: Mapping[str, Any], indent: str) -> str:
    required = schema.get("required", [])
    lines = ["{"]
    for name, each in schema.get("properties", {}).items():
        if each.get("description"):
            lines.append(f"{indent}  /** {_comment(each['description'])} */")
        mark = "" if name in required else "?"
        lines.append(f"{indent}  {json.dumps(name, ensure_ascii=False)}{mark}: {_type(each, indent + '  ')};")
    lines.append(f"{indent}  [other: string]: unknown;")
    return "\n".join([*lines, f"{indent}}}"])


def _type(schema: Mapping[str, Any], indent: str) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    kinds = schema.get("type", [])
    told = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "object":
            told.append(_object(schema, indent) if schema.get("properties") else "Record<string, unknown>")
        elif kind == "array":
            told.append(f"Array<{_type(schema['items'], indent)}>" if "items" in schema else "unknown[]")
        else:
            told.append(_TYPES[kind])
    return " | ".join(told) or "unknown"


def _comment(text: str) -> str:
    return " ".join(text.replace("*/", "* /").split())
