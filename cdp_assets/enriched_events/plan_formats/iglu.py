"""Iglu: self-describing JSON Schemas. The schema's name is the event's; of its version MODEL-REVISION-ADDITION the model is ours.

Of several schemas of one model the newest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdp_assets.enriched_events.plan_formats import Declared, File, Found, PlanFormatError, member
from cdp_assets.enriched_events.plan_formats._from_schema import rules

DESCRIPTION = "Self-describing schemas of an Iglu registry (self: vendor, name, format, version)"

_OWN_META_SCHEMA = "/com.snowplowanalytics.self-desc/schema/jsonschema/"
"""In the address that `$schema` is in a registry. It is that of draft-04 with `self` added, and lies where nothing is fetched from."""
_DRAFT = "http://json-schema.org/draft-04/schema#"


def read(files: Sequence[File]) -> Found:
    """A track event for each name and model. Raises PlanFormatError."""
    newest: dict[tuple[str, str, int], tuple[tuple[int, ...], Declared]] = {}
    found = Found()
    for file in files:
        for schema in file.documents:
            itself = member(schema, "self", dict, file.where)
            vendor, name, version = (member(itself, part, str, f"{file.where}: self") for part in ("vendor", "name", "version"))
            numbers = _version(version, file.where)
            # A context is described in the same way as an event; which of the two a schema is, it does not say.
            declared = {
                "event": name,
                "version": numbers[0],
                "description": str(schema.get("description") or f"Imported from iglu:{vendor}/{name}/jsonschema/{version}."),
                **rules(_of_its_draft(schema)),
            }
            key = (vendor, name, numbers[0])
            if key not in newest or numbers > newest[key][0]:
                newest[key] = (numbers, declared)
    taken: dict[tuple[str, int], str] = {}
    for (vendor, name, model), (_, declared) in newest.items():
        other = taken.setdefault((name, model), vendor)
        if other == vendor:
            found.events.append(declared)
        else:
            found.left_out.append(f"{name}, model {model}, of {vendor}: {other} has an event of this name")
    return found


def _of_its_draft(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the draft of JSON Schema that it is written in: Iglu's, unless it names another."""
    named = schema.get("$schema", _OWN_META_SCHEMA)
    return schema | {"$schema": _DRAFT} if _OWN_META_SCHEMA in str(named) else schema


def _version(text: str, where: str) -> tuple[int, ...]:
    parts: list[Any] = text.split("-")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or int(parts[0]) < 1:
        raise PlanFormatError(f"{where}: self: version {text!r} is not MODEL-REVISION-ADDITION, such as 1-0-0")
    return tuple(int(part) for part in parts)
