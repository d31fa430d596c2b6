"""Segment Protocols: a tracking plan as its Public API gives it (`rules`: key, type, version, jsonSchema), or its older Config API
(`rules`: events, global, identify, group)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cdp_assets.enriched_events.plan_formats import Declared, File, Found, PlanFormatError
from cdp_assets.enriched_events.plan_formats._from_schema import rules

DESCRIPTION = "Tracking plan of Segment Protocols, as JSON from its Public or Config API"

_TYPES = {"TRACK": "track", "IDENTIFY": "identify", "GROUP": "group", "PAGE": "page", "SCREEN": "screen"}


def read(files: Sequence[File]) -> Found:
    """The plan's events, and its common schema. Raises PlanFormatError."""
    found = Found()
    for file in files:
        for document in file.documents:
            for kind, name, rule in _rules(document, file.where):
                _take(found, kind, name, rule)
    return found


def _rules(document: object, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, name and rule; a rule has `version`, `description` and `jsonSchema`."""
    inner = document
    for name in ("data", "trackingPlan", "tracking_plan"):
        if isinstance(inner, dict) and isinstance(inner.get(name), dict):
            inner = inner[name]
    listed = inner.get("rules") if isinstance(inner, dict) else None
    if isinstance(listed, list):
        for number, rule in enumerate(listed):
            if not isinstance(rule, dict) or not isinstance(rule.get("type"), str):
                raise PlanFormatError(f"{where}: rules[{number}] has no type")
            yield rule["type"].upper(), str(rule.get("key") or ""), rule
    elif isinstance(listed, dict):
        for event in listed.get("events") or []:
            yield "TRACK", str(event.get("name") or ""), {**event, "jsonSchema": event.get("rules") or {}}
        for kind, names in {
            "COMMON": ("global",),
            "IDENTIFY": ("identify", "identify_traits"),
            "GROUP": ("group", "group_traits"),
        }.items():
            for name in names:
                if listed.get(name):
                    yield kind, "", {"jsonSchema": listed[name]}
    else:
        raise PlanFormatError(f"{where}: no rules; a plan of Segment has a list of them, or events, global, identify and group")


def _take(found: Found, kind: str, name: str, rule: dict[str, Any]) -> None:
    schema = rule.get("jsonSchema")
    if not isinstance(schema, dict):
        found.left_out.append(f"{kind} {name}: no jsonSchema")
        return
    if kind == "COMMON":
        declared = _declared(schema, "properties") | _declared(schema, "traits")
        if declared:
            found.common.append({"description": str(schema.get("description") or "Imported common rules."), **declared})
        return
    if kind not in _TYPES:
        found.left_out.append(f"{kind} {name}: no such kind of call here")
        return
    type_ = _TYPES[kind]
    described = str(rule.get("description") or schema.get("description") or f"Imported from Segment: {name or type_}.")
    event: Declared = {"event": name or type_, "description": described}
    if type_ != "track":
        event["type"] = type_
        if type_ in ("page", "screen") and name:
            event["name"] = name
    version = rule.get("version")
    if isinstance(version, int | float) and version > 1:
        event["version"] = int(version)
    found.events.append(event | _declared(schema, "traits" if type_ in ("identify", "group") else "properties"))


def _declared(schema: dict[str, Any], part: str) -> dict[str, Any]:
    """What the schema of a whole message says of its properties or traits, and of its context."""
    parts = schema.get("properties")
    parts = parts if isinstance(parts, dict) else {}
    declared = rules(parts[part]) if isinstance(parts.get(part), dict) and len(parts[part]) else {}
    context = rules(parts["context"]).get("properties") if isinstance(parts.get("context"), dict) else None
    return declared | ({"context": context} if context else {})
