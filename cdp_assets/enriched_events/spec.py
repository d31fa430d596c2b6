"""What a user may declare about this layer: the tracking plan, what happens to violations, and the list of enrichments.

config/tracking_plan/<event>.yaml is an EventSpec, config/sources/<source>.yaml holds a ViolationPolicy under `violations`, and
config/enrichments.yaml is an EnrichmentList, which enrichment_list.py describes. Judging and enriching events is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import polars as pl
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichment_list import EnrichmentList, EnrichmentSpec, EventType, check_order, with_consent

PropertyType = Literal["string", "integer", "number", "boolean", "object", "array", "date-time"]
Action = Literal["allow", "omit", "block"]

__all__ = [
    "EnrichmentList", "EnrichmentSpec", "EventSpec", "EventType", "PropertySpec", "TrackingPlan", "ViolationPolicy", "check_order",
    "with_consent",
]  # fmt: skip

_ENUM_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


class ViolationPolicy(Declaration):
    """What happens to an event of one source that breaks the tracking plan.

    `allow` lets it pass and notes the violation on the event; `omit` removes the field, and notes it; `block` puts the event into
    quarantined_events. A required field is never omitted under a policy that blocks events without it: such an event is blocked.
    """

    unplanned_event: Literal["allow", "block"] = "allow"
    """Unplanned-Event: an event that no file of the plan describes."""
    required_missing: Literal["allow", "block"] = "block"
    """Required-Missing: a required field is missing or null."""
    datatype_mismatch: Action = "omit"
    """Datatype-Mismatch: a field has another JSON type than declared."""
    enum: Action = "omit"
    """Rule: a value is not among the declared ones."""
    pattern: Action = "omit"
    """Rule: a text does not match the declared pattern."""
    additional_properties: Action = "allow"
    """Additional-Properties: a field of a planned event that the plan does not name."""


class PropertySpec(Declaration):
    """One property (or trait) of an event."""

    type: PropertyType
    """JSON type. `integer` is a number without a fraction (`2` and `2.0`); `date-time` is an RFC 3339 text with an offset."""
    required: bool = False
    """Whether every event has it. A null counts as missing."""
    enum: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...] = ()
    """The values allowed, of the declared type. None listed: any."""
    pattern: str | None = None
    """Regular expression (RE2 family: no look-around, no back-references) that a string must contain; anchor it with ^ and $."""
    pii: Literal["none", "identifier", "contact", "sensitive"] = "none"
    """Class of personal data: a person's identifier, a way to contact them, or sensitive facts."""
    description: str = ""
    """What the value means."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                pl.Series([""]).str.contains(value, literal=False, strict=True)
            except pl.exceptions.ComputeError:
                raise ValueError(
                    f"pattern {value!r} is no regular expression of the RE2 family (no look-around, no back-references)"
                ) from None
        return value

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> Self:
        if self.pattern is not None and self.type != "string":
            raise ValueError(f"pattern belongs to type string, not {self.type}")
        if self.enum:
            fitting = _ENUM_TYPES.get(self.type)
            if fitting is None:
                raise ValueError(f"enum belongs to types {', '.join(_ENUM_TYPES)}, not {self.type}")
            for value in self.enum:
                if not isinstance(value, fitting) or (isinstance(value, bool) and self.type != "boolean"):
                    raise ValueError(f"enum value {value!r} is no {self.type}")
        return self


class EventSpec(Declaration):
    """config/tracking_plan/<event>.yaml: one event, why it is tracked, and what it carries."""

    event: str = Field(min_length=1)
    """Name of the event: for `track` the very name that is sent; for other types a title."""
    type: EventType = "track"
    """Kind of call."""
    name: str | None = None
    """For `page` and `screen`: the page's name that this describes. Without it: all that no other file names."""
    description: str = Field(min_length=1)
    """Why it is tracked."""
    goal: str = ""
    """The business goal it serves."""
    metrics: tuple[str, ...] = ()
    """The metrics it feeds."""
    owner: str = ""
    """Who answers for it."""
    priority: Literal["high", "medium", "low"] = "medium"
    """How much depends on it."""
    triggers: tuple[str, ...] = ()
    """What makes it happen."""
    captured: Literal["client", "server", "both"] = "client"
    """Where it is captured."""
    sources: tuple[str, ...] = ()
    """The sources it is planned for; from any other it is an Unplanned-Event. None listed: every source."""
    warehoused: str = ""
    """How analysts find it in the warehouse."""
    properties: dict[str, PropertySpec] = Field(default_factory=dict)
    """Property -> what is expected; traits for `identify` and `group`. A dot in a name goes into a nested object."""

    @field_validator("properties")
    @classmethod
    def _paths(cls, value: dict[str, PropertySpec]) -> dict[str, PropertySpec]:
        for path in value:
            if not all(path.split(".")):
                raise ValueError(f"property {path!r} has an empty part")
        return value

    @model_validator(mode="after")
    def _names_fit_the_type(self) -> Self:
        if self.name is not None and self.type not in ("page", "screen"):
            raise ValueError(f"name belongs to types page and screen; an event of type {self.type} is known by its type or event")
        if self.type == "alias" and self.properties:
            raise ValueError("alias carries no properties")
        return self

    @property
    def column(self) -> str:
        """The column that holds what `properties` describes."""
        return "traits" if self.type in ("identify", "group") else "properties"

    @property
    def matched_name(self) -> str | None:
        """The value of the column `event` that this describes; None for every value of the type."""
        return self.event if self.type == "track" else self.name


class TrackingPlan(Declaration):
    """All planned events. A type of call that no event of the plan has is not judged."""

    events: tuple[EventSpec, ...] = ()
    """In the order of their file names."""

    @model_validator(mode="after")
    def _described_once(self) -> Self:
        seen: dict[tuple[str, str | None], str] = {}
        for event in self.events:
            key = (event.type, event.matched_name)
            if key in seen:
                raise ValueError(f"{event.event!r} and {seen[key]!r} describe the same {event.type} calls")
            seen[key] = event.event
        return self
