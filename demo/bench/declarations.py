"""Two sets of declarations for the same load: the short list of enrichments with the shop's plan, and the full list with a plan of more than fifty events.

Both are the shipped config/ with other files in their places.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import yaml

from cdp_resources.home import REPOSITORY

Declared = Literal["short", "full"]
SHORT = ("page_url", "campaign", "referrer", "channel", "user_agent", "consent")
"""What an event needs at least; the full list is what config/ ships."""

SPREAD = 8
"""Under how many names each of the shop's six commonest events is sent and planned, for the full set."""

SPREAD_EVENTS = (
    "Product Viewed",
    "Product List Viewed",
    "Products Searched",
    "Product Added",
    "Product Removed",
    "Newsletter Subscribed",
)
_COMMON = [
    {
        "description": "Every event says which library sent it.",
        "types": ["track", "page"],
        "context": {
            "library.name": {"type": "string", "required": True},
            "library.version": {"type": "string", "required": True, "pattern": "^[0-9]+[.]"},
            "locale": {"type": "string"},
        },
    }
]


def spread_name(event: str, number: int, spread: int) -> str:
    """The event's name in a load that has it under `spread` names."""
    which = number % spread
    return f"{event} {which}" if which else event


def write_declarations(folder: Path, declared: Declared) -> Path:
    """The set as a config folder."""
    shutil.copytree(REPOSITORY / "config", folder)
    if declared == "short":
        path = folder / "enrichments.yaml"
        path.write_text(json.dumps([each for each in yaml.safe_load(path.read_text("utf-8")) if each["enrichment"] in SHORT]))
        return folder
    plan = folder / "tracking_plan"
    (plan / "_common.yaml").write_text(json.dumps(_COMMON))
    for path in sorted(plan.glob("*.yaml")):
        event: Any = yaml.safe_load(path.read_text("utf-8"))
        if path.name != "_common.yaml" and event.get("event") in SPREAD_EVENTS:
            for number in range(1, SPREAD):
                name = spread_name(event["event"], number, SPREAD)
                (plan / f"{path.stem}_{number}.yaml").write_text(json.dumps({**event, "event": name}))
    return folder
