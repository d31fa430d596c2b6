"""RudderStack: the YAML of its command line (`kind: events`, `properties`, `custom-types` and `tracking-plan`), which refer to each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cdp_assets.enriched_events.plan_formats import Declared, File, Found, PlanFormatError
from cdp_assets.enriched_events.plan_formats._from_schema import rules

DESCRIPTION = "YAML of RudderStack's command line: events, properties, custom types and a tracking plan"

_REFERENCE = re.compile(r"#(?:/?[a-z-]+)(?::|/(?:[^/]+/)?)(?P<id>[^/]+)")
_CONFIG = {
    "min_length": "minLength", "max_length": "maxLength", "minLength": "minLength", "maxLength": "maxLength", "pattern": "pattern",
    "format": "format", "enum": "enum", "minimum": "minimum", "maximum": "maximum", "exclusive_minimum": "exclusiveMinimum",
    "exclusive_maximum": "exclusiveMaximum", "multiple_of": "multipleOf", "min_items": "minItems", "max_items": "maxItems",
    "unique_items": "uniqueItems",
}  # fmt: skip


def read(files: Sequence[File]) -> Found:
    """The events of the tracking plans. Raises PlanFormatError for a reference to nothing."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for document in file.documents:
            if not isinstance(document, dict) or not isinstance(document.get("spec"), dict) or "kind" not in document:
                raise PlanFormatError(f"{file.where}: no kind and spec")
            kinds.setdefault(str(document["kind"]), []).append(document["spec"])
    catalogue = _Catalogue(
        events=_by_id(kinds.get("events", []), "events"),
        properties=_by_id(kinds.get("properties", []), "properties"),
        types=_by_id(kinds.get("custom-types", []), "types"),
    )
    found = Found()
    for plan in [*kinds.get("tracking-plan", []), *kinds.get("tp", [])]:
        for rule in plan.get("rules") or []:
            found.events.append(_event(rule, catalogue))
    if not found.events:
        raise PlanFormatError("no document of kind tracking-plan with rules; there is " + (", ".join(sorted(kinds)) or "nothing"))
    for kind in sorted(set(kinds) - {"events", "properties", "custom-types", "tracking-plan", "tp", "categories"}):
        found.left_out.append(f"documents of kind {kind}")
    return found


class _Catalogue:
    """What rules refer to."""

    def __init__(self, events: Mapping[str, Any], properties: Mapping[str, Any], types: Mapping[str, Any]) -> None:
        self._of = {"event": events, "property": properties, "custom type": types}

    def get(self, kind: str, reference: object) -> dict[str, Any]:
        """What `#event:signup`, or the older `{$ref: '#/events/group/signup'}`, refers to."""
        text = reference.get("$ref") if isinstance(reference, dict) else reference
        match = _REFERENCE.fullmatch(str(text))
        known = self._of[kind]
        if match is None or match["id"] not in known:
            raise PlanFormatError(f"no {kind} {text}; there is {', '.join(sorted(known)) or 'none'}")
        found: dict[str, Any] = known[match["id"]]
        return found


def _by_id(specs: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    return {str(each["id"]): each for spec in specs for each in spec.get(name) or [] if isinstance(each, dict) and "id" in each}


def _event(rule: dict[str, Any], catalogue: _Catalogue) -> Declared:
    event = catalogue.get("event", rule.get("event"))
    type_ = str(event.get("event_type") or "track")
    name = str(event.get("name") or event["id"])
    declared: Declared = {"event": name if type_ == "track" else type_}
    if type_ != "track":
        declared["type"] = type_
    declared["description"] = str(event.get("description") or f"Imported from RudderStack: {name}.")
    return declared | rules(_object(rule.get("properties") or [], catalogue))


def _object(listed: Sequence[dict[str, Any]], catalogue: _Catalogue) -> dict[str, Any]:
    """The schema of an object with these references to properties."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for each in listed:
        spec = catalogue.get("property", each.get("property") or each)
        name = str(spec.get("name") or spec["id"])
        schema = _schema(spec, catalogue)
        if each.get("properties"):  # an object's own properties stand where it is used
            schema |= _object(each["properties"], catalogue)
        properties[name] = schema
        if each.get("required"):
            required.append(name)
    return {"properties": properties, **({"required": required} if required else {})}


def _schema(spec: dict[str, Any], catalogue: _Catalogue, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a property or custom type."""
    kinds = spec.get("types") or spec.get("type") or "any"
    if (isinstance(kinds, str) and kinds.startswith("#")) or isinstance(kinds, dict):
        own = catalogue.get("custom type", kinds)
        if own["id"] in within:
            raise PlanFormatError(f"custom type {own['id']} refers to itself")
        return _schema(own, catalogue, (*within, str(own["id"]))) | _described(spec)
    listed = [each.strip() for each in kinds.split(",")] if isinstance(kinds, str) else [str(each) for each in kinds]
    schema: dict[str, Any] = {} if listed == ["any"] else {"type": listed[0] if len(listed) == 1 else listed}
    config = spec.get("config") or spec.get("propConfig") or {}
    schema |= {_CONFIG[name]: value for name, value in config.items() if name in _CONFIG}
    items = spec.get("item_types") or spec.get("item_type") or config.get("item_types") or config.get("itemTypes")
    if items and "array" in listed:
        types = [items] if isinstance(items, str) else list(items)
        schema["items"] = _schema({"types": types if len(types) > 1 else types[0]}, catalogue, within)
    if isinstance(spec.get("properties"), list):  # of a custom type that is an object
        schema |= _object(spec["properties"], catalogue)
    return schema | _described(spec)


def _described(spec: dict[str, Any]) -> dict[str, Any]:
    return {"description": str(spec["description"])} if spec.get("description") else {}
