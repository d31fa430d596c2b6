"""A page about the plan for people: why each event is tracked, what it carries, and what was received lately."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdp_assets.enriched_events.plan_exports import Received, named
from cdp_assets.enriched_events.spec import EventSpec, PropertySpec, TrackingPlan

DESCRIPTION = "A page about the plan: why each event is tracked, what it carries, and what was received lately"


def write(plan: TrackingPlan, seen: Received) -> dict[str, str]:
    """One page."""
    lines = ["# Tracking plan", "", "<!-- Written by `cdp plan-export markdown`; do not edit. -->", ""]
    lines += ["| event | call | owner | priority | captured | received | last |", "|---|---|---|---|---|---|---|"]
    for name, event in named(plan).items():
        told = seen.get((event.type, event.event, event.version))
        received = f"{told.events:,} | {told.last_hour:%Y-%m-%d %H:00}" if told else "none | never"
        title = event.event if event.version == 1 else f"{event.event}, version {event.version}"
        cells = (event.type, event.owner, event.priority, event.captured)
        lines.append(f"| [{_cell(title)}](#{name}) | {' | '.join(map(_cell, cells))} | {received} |")
    for name, event in named(plan).items():
        lines += ["", *_event(name, event, seen)]
    return {"tracking_plan.md": "\n".join(lines) + "\n"}


def _event(name: str, event: EventSpec, seen: Received) -> Iterator[str]:
    yield f'## <a id="{name}"></a>{event.event}' + (f", version {event.version}" if event.version > 1 else "")
    yield ""
    yield event.description
    yield ""
    facts = {
        "Goal": event.goal,
        "Metrics": ", ".join(event.metrics),
        "When": "; ".join(event.triggers),
        "Sources": ", ".join(event.sources),
        "In the warehouse": event.warehoused,
        "When it breaks the plan, whatever its source says": ", ".join(
            f"{kind.replace('_', ' ')}: {action}" for kind, action in event.violations.model_dump(exclude_none=True).items()
        ),
    }
    for title, value in facts.items():
        if value:
            yield f"- {title}: {value}"
    told = seen.get((event.type, event.event, event.version))
    if told:
        share = told.violating / told.events if told.events else 0.0
        yield f"- Received lately: {told.events:,}, of which {told.violating:,} break the plan ({share:.2%}); last in the hour of {told.last_hour:%Y-%m-%d %H:00} UTC"
    else:
        yield "- Received lately: none"
    rows = list(_rows(event.properties, ""))
    if rows:
        yield ""
        yield f"| {event.column[:-1] if event.column == 'traits' else 'property'} | type | required | values | personal data | meaning |"
        yield "|---|---|---|---|---|---|"
        yield from rows
    if event.json_schema is not None:
        yield ""
        yield "A JSON Schema asks more of it: see its file."


def _rows(properties: Mapping[str, PropertySpec], above: str) -> Iterator[str]:
    for name, spec in properties.items():
        values = ", ".join(f"`{value}`" for value in spec.enum) or (f"`{spec.pattern}`" if spec.pattern else "")
        cells = (f"`{above}{name}`", spec.type, "yes" if spec.required else "", values, "" if spec.pii == "none" else spec.pii)
        yield f"| {' | '.join(map(_cell, (*cells, spec.description)))} |"
        yield from _rows(spec.properties, f"{above}{name}.")
        if spec.items is not None and spec.items.properties:
            yield from _rows(spec.items.properties, f"{above}{name}[].")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
