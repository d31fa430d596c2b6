"""What a user may declare about this layer: the tracking plan, what happens to violations, and the list of enrichments.

config/tracking_plan/<event>.yaml is an EventSpec, _common.yaml beside it a list of CommonRule, config/sources/<source>.yaml holds a
ViolationPolicy under `violations` (an event's own an OwnPolicy), and config/enrichments.yaml is an EnrichmentList, which enrichment_list.py describes. Judging and
enriching events is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from cdp_assets.declaration import Days, Declaration
from cdp_assets.enriched_events import json_schema
from cdp_assets.enriched_events.enrichment_list import EnrichmentList, EnrichmentSpec, EventType, check_order, with_consent

PropertyType = Literal["any", "string", "integer", "number", "boolean", "object", "array", "date-time"]
Action = Literal["allow", "omit", "block"]
Share = Annotated[float, Field(gt=0, le=1)]

TRAIT_TYPES = ("identify", "group")
"""Types of calls whose `properties` in the plan are traits."""

__all__ = [
    "EnrichmentList", "EnrichmentSpec", "EventSpec", "EventType", "OwnPolicy", "PropertySpec", "TrackingPlan", "ViolationPolicy",
    "check_order", "with_consent",
]  # fmt: skip

_ENUM_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "any": (str, int, float, bool),
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
    rule: Action = "omit"
    """Rule: anything else that a `schema` asks. What is wrong with an object as a whole has no field to omit, and is allowed then."""
    additional_properties: Action = "allow"
    """Additional-Properties: a field of a planned event, or of a planned object in it, that the plan does not name."""
    alert_above: Share | None = None
    """Share of the source's events in an hour of receipt that may break the plan, such as 0.02; above it a check warns. None: any."""


class OwnPolicy(Declaration):
    """What happens to one event of the plan that breaks it, whatever its source says. A kind that is left out follows the source."""

    required_missing: Literal["allow", "block"] | None = None
    """Required-Missing, as in a source's `violations`."""
    datatype_mismatch: Action | None = None
    """Datatype-Mismatch."""
    enum: Action | None = None
    """Rule: a value is not among the declared ones."""
    pattern: Action | None = None
    """Rule: a text does not match the declared pattern."""
    rule: Action | None = None
    """Rule: anything else that a `schema` asks."""
    additional_properties: Action | None = None
    """Additional-Properties."""

    def over(self, policy: ViolationPolicy) -> ViolationPolicy:
        """The policy of a source as it is for this event."""
        return policy.model_copy(update=self.model_dump(exclude_none=True))


class PropertySpec(Declaration):
    """One property (or trait) of an event."""

    type: PropertyType
    """JSON type. `integer` is a number without a fraction (`2` and `2.0`); `date-time` is an RFC 3339 text with an offset."""
    required: bool = False
    """Whether every event has it; inside an object, whether every such object has it; of `items`, whether no element is null. A null
    counts as missing."""
    enum: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...] = ()
    """The values allowed, of the declared type. None listed: any."""
    pattern: str | None = None
    """Regular expression (RE2 family: no look-around, no back-references) that a string must contain; anchor it with ^ and $."""
    properties: dict[str, PropertySpec] = Field(default_factory=dict)
    """For type object: what the object holds. Anything else in it is an Additional-Properties. A dot in a name goes deeper."""
    items: PropertySpec | None = None
    """For type array: what each element is."""
    pii: Literal["none", "identifier", "contact", "sensitive"] = "none"
    """Class of personal data: a person's identifier, a way to contact them, or sensitive facts."""
    description: str = ""
    """What the value means."""

    @field_validator("properties")
    @classmethod
    def _paths(cls, value: dict[str, PropertySpec]) -> dict[str, PropertySpec]:
        return _whole_paths(value)

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
        if self.properties and self.type != "object":
            raise ValueError(f"properties belong to type object, not {self.type}")
        if self.items is not None and self.type != "array":
            raise ValueError(f"items belongs to type array, not {self.type}")
        if self.enum:
            fitting = _ENUM_TYPES.get(self.type)
            if fitting is None:
                raise ValueError(f"enum belongs to types {', '.join(_ENUM_TYPES)}, not {self.type}")
            for value in self.enum:
                if not isinstance(value, fitting) or (isinstance(value, bool) and self.type not in ("boolean", "any")):
                    raise ValueError(f"enum value {value!r} is no {self.type}")
        return self


def _whole_paths(properties: dict[str, PropertySpec]) -> dict[str, PropertySpec]:
    for path in properties:
        if not all(path.split(".")):
            raise ValueError(f"property {path!r} has an empty part")
    return properties


class Rules(Declaration):
    """What events must carry."""

    model_config = ConfigDict(populate_by_name=True)

    properties: dict[str, PropertySpec] = Field(default_factory=dict)
    """Property -> what is expected; traits for `identify` and `group`. A dot in a name goes into a nested object."""
    context: dict[str, PropertySpec] = Field(default_factory=dict)
    """The same for the event's context, such as `app.version`. What it does not name there is no violation."""
    json_schema: dict[str, Any] | bool | None = Field(None, alias="schema")
    """A JSON Schema that the object of the properties (or traits) must satisfy, for what `properties` cannot say. Draft 2020-12, or the
    one that `$schema` names; nothing is fetched for a `$ref`; `format` is checked. No properties at all are judged as `{}`. What
    `properties` does not name is the schema's matter then."""

    @field_validator("properties", "context")
    @classmethod
    def _paths(cls, value: dict[str, PropertySpec]) -> dict[str, PropertySpec]:
        return _whole_paths(value)

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, Any] | bool | None) -> dict[str, Any] | bool | None:
        if value is not None:
            json_schema.check(value)
        return value


class EventSpec(Rules):
    """config/tracking_plan/<event>.yaml: one event, why it is tracked, and what it carries."""

    event: str = Field(min_length=1)
    """Name of the event: for `track` the very name that is sent; for other types a title."""
    type: EventType = "track"
    """Kind of call."""
    name: str | None = None
    """For `page` and `screen`: the page's name that this describes. Without it: all that no other file names."""
    version: int = Field(1, ge=1)
    """Which version of the event this is. Versions stand side by side, each in a file of its own; an event says by
    `context.protocols.event_version` which one it keeps, and is judged by the oldest when it says none that there is."""
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
    expected_within: Days = 30
    """Received at least this often; a check warns when it was not seen for longer. A window such as `7d`."""
    alert_above: Share | None = None
    """Share of these events in an hour of receipt that may break the plan, such as 0.02; above it a check warns. None: any."""
    violations: OwnPolicy = OwnPolicy()
    """What happens to these events when they break the plan or a common rule, where it is another thing than their source says."""

    @model_validator(mode="after")
    def _names_fit_the_type(self) -> Self:
        if self.name is not None and self.type not in ("page", "screen"):
            raise ValueError(f"name belongs to types page and screen; an event of type {self.type} is known by its type or event")
        if self.type == "alias" and (self.properties or self.json_schema is not None):
            raise ValueError("alias carries no properties")
        return self

    @property
    def column(self) -> str:
        """The column that holds what `properties` describes."""
        return "traits" if self.type in TRAIT_TYPES else "properties"

    @property
    def matched_name(self) -> str | None:
        """The value of the column `event` that this describes; None for every value of the type."""
        return self.event if self.type == "track" else self.name


class CommonRule(Rules):
    """One entry of config/tracking_plan/_common.yaml: what every event of some types must carry, planned or not."""

    description: str = ""
    """Why."""
    types: tuple[EventType, ...] = ()
    """The kinds of call it holds for. None listed: every kind; `properties` and `schema` never hold for alias, which has none."""
    sources: tuple[str, ...] = ()
    """The sources it holds for. None listed: every source."""


class TrackingPlan(Declaration):
    """All planned events. A type of call that no event of the plan has is judged by the common rules alone."""

    events: tuple[EventSpec, ...] = ()
    """In the order of their file names."""
    common: tuple[CommonRule, ...] = ()
    """In the order of _common.yaml."""

    @model_validator(mode="after")
    def _described_once(self) -> Self:
        seen: dict[tuple[str, str | None, int], str] = {}
        for event in self.events:
            key = (event.type, event.matched_name, event.version)
            if key in seen:
                raise ValueError(f"{event.event!r} and {seen[key]!r} describe the same {event.type} calls")
            seen[key] = event.event
        return self
