"""What a user may declare about enrichments: the list in config/enrichments.yaml, each entry's inputs, columns and conditions.

Running the list is in enrich.py; what an enrichment does, and its settings, in its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cdp_assets.comparison import PropertyFilter
from cdp_assets.declaration import Declaration, Name
from cdp_assets.enriched_events.enrichments import COLUMN, Enrichment, Output, find_enrichments, source_of
from cdp_assets.enriched_events.schema import RAW_COLUMNS

EventType = Literal["track", "page", "screen", "identify", "group", "alias"]

Place = Annotated[str, AfterValidator(source_of)]
"""Where a value of an event comes from: `properties.*`, `context.*`, `traits.*`, an id such as `user_id`, or `column:<name>`."""

REPLACEABLE = ("user_id", "anonymous_id", "previous_id", "group_id", "ip")
"""Columns of raw_events whose values an entry may take the place of, beside JSON paths and columns of entries before."""


class FieldCondition(PropertyFilter):
    """A condition on one value of an event. Exactly one comparison."""

    property: Place
    """Where the value stands: as an input, so also `column:<name>` of an entry before."""


class When(Declaration):
    """Which events an entry of the list is for; all that is given must hold."""

    events: tuple[str, ...] = ()
    """Names of track events; with `types`, also names of pages and screens."""
    types: tuple[EventType, ...] = ()
    """Kinds of call."""
    sources: tuple[str, ...] = ()
    """Declared sources."""
    where: tuple[FieldCondition, ...] = ()
    """Comparisons of values, in the words of segments."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.events or self.types or self.sources or self.where):
            raise ValueError("a condition names events, types, sources or where")
        return self


class EnrichmentSpec(Declaration):
    """One entry of config/enrichments.yaml: an enrichment and its settings."""

    enrichment: str
    """Name of the enrichment: a folder of cdp_assets/enriched_events/enrichments."""
    name: Name | None = None
    """Name of the entry, for the same enrichment more than once: it stands before the names of its columns, as in `<name>_<column>`."""
    settings: Annotated[SerializeAsAny[Declaration], WithJsonSchema({"type": "object"})] = Field(
        default_factory=dict, validate_default=True
    )
    """What that enrichment's README lists."""
    inputs: dict[str, Place] = Field(default_factory=dict)
    """Input -> where it comes from, when not from where the enrichment looks for it. Look-ups have no inputs but these."""
    outputs: dict[str, Name] = Field(default_factory=dict)
    """Column -> the name that it gets instead."""
    when: When | None = None
    """Which events it is for; others have nulls in its columns. Left out: all."""
    on_error: Literal["skip", "quarantine"] = "skip"
    """What becomes of an event that cannot be enriched: `skip` leaves the columns null and notes it in `violations`, `quarantine` puts
    the event into quarantined_events. Both are counted in event_violations, as Enrichment-Failed."""
    in_place: bool = False
    """Whether what it makes of a value takes that value's place in enriched events too, after all entries have run; where it makes nothing of
    one, the value is taken out. For pseudonymise and ip_anonymised, with `on_error: quarantine`."""

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

    @model_validator(mode="after")
    def _inputs_and_outputs_are_its_own(self) -> Self:
        plugin = self.plugin
        if plugin.columns is not None and not plugin.inputs:
            if not self.inputs:
                raise ValueError(f"{plugin.name} needs inputs, such as `inputs: {{sku: properties.sku}}`")
            for each in self.inputs:
                if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", each):
                    raise ValueError(f"input {each!r} is no name; names are letters, digits and underscores")
        elif unknown := [each for each in self.inputs if each not in plugin.inputs]:
            raise ValueError(f"{plugin.name} has no input {unknown[0]!r}; there are {', '.join(plugin.inputs)}")
        if self.in_place:
            self._may_be_in_place()
        given = plugin.outputs_of(self.settings)
        if unknown := [each for each in self.outputs if each not in given]:
            raise ValueError(f"{plugin.name} has no column {unknown[0]!r}; there are {', '.join(given)}")
        return self

    def _may_be_in_place(self) -> None:
        if self.plugin.in_place is None:
            able = ", ".join(name for name, each in find_enrichments().items() if each.in_place is not None)
            raise ValueError(f"in_place: {self.plugin.name} takes no value's place; {able} can")
        if self.on_error != "quarantine":
            raise ValueError("in_place needs on_error: quarantine, or the values of events that fail would stay")
        source = self.sources[self.plugin.in_place[1]]
        column = source.removeprefix(COLUMN)
        if source.startswith(COLUMN) and column in RAW_COLUMNS and column not in REPLACEABLE:
            raise ValueError(
                f"in_place: {column} stays as received; what can be replaced are JSON paths and {', '.join(REPLACEABLE)}"
            )

    @property
    def plugin(self) -> Enrichment:
        """The enrichment's folder."""
        return find_enrichments()[self.enrichment]

    @property
    def label(self) -> str:
        """What the entry is called."""
        return self.name or self.enrichment

    @property
    def sources(self) -> Mapping[str, str]:
        """Input -> where it comes from."""
        return {**self.plugin.inputs, **self.inputs}

    @property
    def columns(self) -> Mapping[str, Output]:
        """Column of enriched_events -> type and description, in the order in which they are added."""
        prefix = f"{self.name}_" if self.name else ""
        given = self.plugin.outputs_of(self.settings)
        return {self.outputs.get(column, prefix + column): output for column, output in given.items()}

    def places(self) -> Iterator[str]:
        """All places in an event that it reads."""
        yield from self.sources.values()
        if self.when is not None:
            yield from (each.property for each in self.when.where)


class EnrichmentList(RootModel[tuple[EnrichmentSpec, ...]]):
    """config/enrichments.yaml: the enrichments that run, in this order."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _order_holds(self) -> Self:
        check_order(self.root)
        return self


def check_order(enrichments: tuple[EnrichmentSpec, ...]) -> None:
    """Raises ValueError when an entry reads a column that nothing before it gives, or takes a name that is there already."""
    givers = {output: name for name, each in find_enrichments().items() for output in each.outputs}
    there = dict.fromkeys((*RAW_COLUMNS, "payload", "violations"), "raw_events")
    labels: set[str] = set()
    types: dict[str, pl.DataType] = {}
    for place, each in enumerate(enrichments, start=1):
        where = f"entry {place}, {each.label}"
        for source in each.places():
            column = source.removeprefix(COLUMN)
            if source.startswith(COLUMN) and column not in there:
                giver = (
                    f"enrichment {givers[column]!r} gives it and must come before"
                    if column in givers
                    else "no enrichment gives it"
                )
                raise ValueError(f"{where}: needs the column {column}; {giver}")
        if each.in_place and each.plugin.in_place is not None:
            column = each.sources[each.plugin.in_place[1]].removeprefix(COLUMN)
            if types.get(column, pl.String()) != pl.String():
                raise ValueError(f"{where}: in_place: the column {column} is no text")
        types.update((column, output.dtype) for column, output in each.columns.items())
        for column in each.columns:
            if column in there:
                raise ValueError(f"{where}: the column {column} is already given by {there[column]}")
            there[column] = each.label
        if each.label in labels:
            raise ValueError(f"{where}: there is an entry {each.label} already; give this one a `name` of its own")
        labels.add(each.label)


def with_consent(
    enrichments: tuple[EnrichmentSpec, ...],
    purposes: Mapping[str, tuple[str, ...]],
    signals: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[EnrichmentSpec, ...]:
    """The enrichments with the project's purposes in the settings for them, `consent_purposes` and `purposes`, where config leaves those open.

    `purposes` maps a purpose to the consent manager's categories that must all be given (ConsentSpec.category_mapping), `signals` to the
    signals that tell of it (ConsentSpec.signal_mapping).
    """
    given = {"consent_purposes": dict(purposes), "purposes": dict(signals or {})}

    def filled(each: EnrichmentSpec) -> EnrichmentSpec:
        is_open = type(each.settings).model_fields.keys() & given.keys() - each.settings.model_fields_set
        if not is_open:
            return each
        settings = each.settings.model_copy(update={name: given[name] for name in is_open})
        return each.model_copy(update={"settings": settings})

    return tuple(map(filled, enrichments))
