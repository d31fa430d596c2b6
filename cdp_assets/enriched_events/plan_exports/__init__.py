"""The tracking plan for others: one module for each form, found by its place.

A module has `DESCRIPTION` and `write(plan, seen) -> {file name: text}`; nothing here does I/O.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cdp_assets.enriched_events.spec import EventSpec, TrackingPlan


@dataclass(frozen=True)
class Seen:
    """What was received lately of one version of an event."""

    events: int
    violating: int
    last_hour: datetime


Received = Mapping[tuple[str, str, int], Seen]
"""Type, name in the plan and version -> what was received."""


@dataclass(frozen=True)
class PlanExport:
    """A form found by its module."""

    name: str
    description: str
    write: Callable[[TrackingPlan, Received], dict[str, str]]


@lru_cache(maxsize=1)
def plan_exports() -> Mapping[str, PlanExport]:
    """Every form by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: PlanExport(name, module.DESCRIPTION, module.write) for name, module in modules.items()}


def words(text: str) -> list[str]:
    """The words of a name: letters and digits, a change to upper case begins a new one."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text.encode("ascii", "ignore").decode()) or ["event"]


def snake(text: str) -> str:
    """`Order Completed` -> order_completed; never begins with a digit."""
    name = "_".join(word.lower() for word in words(text))
    return f"_{name}" if name[0].isdigit() else name


def pascal(text: str) -> str:
    """`Order Completed` -> OrderCompleted; never begins with a digit."""
    name = "".join(word[0].upper() + word[1:].lower() for word in words(text))
    return f"_{name}" if name[0].isdigit() else name


def free(name: str, taken: set[str]) -> str:
    """The name, with `_` after it while it is taken; it is taken then. `step_1_23` and `step_12_3` are one without their `_`."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def named(plan: TrackingPlan) -> dict[str, EventSpec]:
    """The events by names that a program can use: an older version, and a second event of equal words, get a number."""
    found: dict[str, EventSpec] = {}
    newest = sorted(plan.events, key=lambda event: -event.version)
    for event in sorted(newest, key=lambda event: plan.events.index(event)):
        latest = max(
            other.version for other in plan.events if (other.type, other.matched_name) == (event.type, event.matched_name)
        )
        name = snake(event.event if event.version == latest else f"{event.event} v{event.version}")
        number = 2
        while name in found:
            name, number = f"{name.rstrip('0123456789_')}_{number}", number + 1
        found[name] = event
    return found
