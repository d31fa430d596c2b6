"""What a user may declare about this layer: the tracking plan, what happens to violations, and the list of enrichments.

config/tracking_plan/<event>.yaml is an EventSpec, config/sources/<source>.yaml holds a ViolationPolicy under `violations`, and
config/enrichments.yaml is an EnrichmentList. Judging and enriching events is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import (
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import COLUMN, Enrichment, Output, find_enrichments
from cdp_assets.enriched_events.schema import RAW_COLUMNS

EventType = Literal["track", "page", "screen", "identify", "group", "alias"]
PropertyType = Literal["string", "integer", "number", "boolean", "object", "array", "date-time"]
Action = Literal["allow", "omit", "block"]

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


class EnrichmentSpec(Declaration):
    """One entry of config/enrichments.yaml: an enrichment and its settings."""

    enrichment: str
    """Name of the enrichment: a folder of cdp_assets/enriched_events/enrichments."""
    settings: Annotated[SerializeAsAny[Declaration], WithJsonSchema({"type": "object"})] = Field(
        default_factory=dict, validate_default=True
    )
    """What that enrichment's README lists."""

    @field_validator("enrichment")
    @classmethod
    def _exists(cls, value: str) -> str:
        if value not in find_enrichments():
            raise ValueError(f"no enrichment {value!r}; there are {', '.join(find_enrichments())}")
        return value

    @field_validator("settings", mode="wrap")
    @classmethod
    def _by_its_own_settings(cls, value: Any, _handler: Any, info: ValidationInfo) -> Declaration:
        plugin = find_enrichments().get(info.data.get("enrichment", ""))
        if plugin is None:
            return Declaration()
        if isinstance(value, plugin.settings):
            return value
        try:
            return plugin.settings.model_validate(value)
        except ValidationError as error:
            found = (f"{'.'.join(map(str, each['loc'])) or plugin.name}: {each['msg']}" for each in error.errors())
            choices = ", ".join(plugin.settings.model_fields) or "none"
            raise ValueError(f"{'; '.join(found)}; settings of {plugin.name} are {choices}") from None

    @property
    def plugin(self) -> Enrichment:
        """The enrichment's folder."""
        return find_enrichments()[self.enrichment]

    @property
    def columns(self) -> Mapping[str, Output]:
        """Column of enriched_events -> type and description, in the order in which they are added."""
        return self.plugin.outputs_of(self.settings)


class EnrichmentList(RootModel[tuple[EnrichmentSpec, ...]]):
    """config/enrichments.yaml: the enrichments that run, in this order."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _order_holds(self) -> Self:
        check_order(self.root)
        return self


def check_order(enrichments: tuple[EnrichmentSpec, ...]) -> None:
    """Raises ValueError when an enrichment reads a column that nothing before it gives, or writes one that is there already."""
    givers = {output: name for name, each in find_enrichments().items() for output in each.outputs}
    there = dict.fromkeys((*RAW_COLUMNS, "payload", "violations"), "raw_events")
    for place, each in enumerate(enrichments, start=1):
        for source in each.plugin.inputs.values():
            if not source.startswith(COLUMN) or source.removeprefix(COLUMN) in there:
                continue
            column = source.removeprefix(COLUMN)
            giver = (
                f"enrichment {givers[column]!r} gives it and must come before" if column in givers else "no enrichment gives it"
            )
            raise ValueError(f"entry {place}, {each.enrichment}: needs the column {column}; {giver}")
        for column in each.columns:
            if column in there:
                raise ValueError(f"entry {place}, {each.enrichment}: the column {column} is already given by {there[column]}")
            there[column] = each.enrichment


def with_consent(enrichments: tuple[EnrichmentSpec, ...], purposes: Mapping[str, tuple[str, ...]]) -> tuple[EnrichmentSpec, ...]:
    """The enrichments, those with a setting `consent_purposes` that config leaves open filled with the project's purposes.

    `purposes` maps a purpose to the consent manager's categories that must all be given (ConsentSpec.category_mapping).
    """
    return tuple(
        each.model_copy(update={"settings": each.settings.model_copy(update={"consent_purposes": dict(purposes)})})
        if "consent_purposes" in type(each.settings).model_fields and "consent_purposes" not in each.settings.model_fields_set
        else each
        for each in enrichments
    )
