"""JSON Schema: one file for each event, a schema of its properties; the title is the event's name, else the file's name."""

from __future__ import annotations

from collections.abc import Sequence

from cdp_assets.enriched_events.plan_formats import File, Found, PlanFormatError
from cdp_assets.enriched_events.plan_formats._from_schema import rules

DESCRIPTION = "JSON Schema of an event's properties, one file an event; the title is its name"


def read(files: Sequence[File]) -> Found:
    """A track event for each file. Raises PlanFormatError."""
    found = Found()
    for file in files:
        for schema in file.documents:
            if not isinstance(schema, dict):
                raise PlanFormatError(f"{file.where}: no JSON Schema of an object")
            name = str(schema.get("title") or file.name)
            described = str(schema.get("description") or f"Imported from the JSON Schema {file.name}.")
            found.events.append({"event": name, "description": described, **rules(schema)})
    return found
