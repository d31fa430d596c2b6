"""What declarations say about each other: every reference from one file of config/ to another, and what must fit together.

Here is no reading of files and no single declaration's own rules; those stand in its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.comparison import PropertyFilter
from cdp_assets.declaration_errors import dotted, listed, no_such, shown
from cdp_assets.destination_syncs.spec import DestinationSpec, SyncSpec
from cdp_assets.enriched_events.spec import EnrichmentSpec, EventSpec, check_order
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.project_loading import Declared, Loaded, Mistake
from cdp_assets.raw_events.spec import HttpSource, WebhookSource
from cdp_assets.segments.spec import AllOf, AnyOf, Condition, Did, DidNot, InSegment, Not, SegmentSpec, TraitCondition
from cdp_assets.yaml_positions import Step
from cdp_resources.destinations import plugin
from cdp_resources.lake import VERSION_COLUMNS
from cdp_resources.secrets import SecretRef

Path = tuple[Step, ...]

PROFILE_TIMES = ("first_seen_at", "last_seen_at")
"""Columns of profiles that conditions and syncs may use like traits."""

RESERVED_TRAITS = ("profile_id", *PROFILE_TIMES, "valid_from", "valid_to", "bucket", "segment", "as_of", *VERSION_COLUMNS)
"""Names that no trait may take: columns that profiles have, that are stored with every version of a row, or that stand beside them in queries."""


ALLOWED_PURPOSES = "allowed_purposes"
"""The column in which the layer consent finds what signals say."""


class Reference(NamedTuple):
    """One declaration's use of another's name."""

    kind: str
    """`segment`, `trait`, `event`, `source`, `destination`, `purpose` or `identifier type`."""
    name: str
    path: Path
    """Where it stands in the file."""


def references(declared: Declared) -> Iterator[Reference]:
    """Everything that a declaration refers to, in the order of the file."""
    spec = declared.spec
    if isinstance(spec, EventSpec):
        yield from (Reference("source", name, ("sources", place)) for place, name in enumerate(spec.sources))
    elif declared.kind.name == "common" and spec is not None:
        for index, rule in enumerate(spec):
            yield from (Reference("source", name, (index, "sources", place)) for place, name in enumerate(rule.sources))
    elif isinstance(spec, TraitSpec):
        yield from _trait_references(spec)
    elif isinstance(spec, SegmentSpec):
        yield from (reference for path, condition in conditions(spec) for reference in _condition_references(path, condition))
    elif isinstance(spec, AttributionSpec):
        for place, conversion in enumerate(spec.conversions):
            yield Reference("event", conversion.event, ("conversions", place, "event"))
            if conversion.refund is not None:
                yield Reference("event", conversion.refund.event, ("conversions", place, "refund", "event"))
    elif isinstance(spec, DestinationSpec):
        yield from (Reference("purpose", name, ("purposes", place)) for place, name in enumerate(spec.purposes))
    elif isinstance(spec, SyncSpec):
        yield from _sync_references(spec)
    elif declared.kind.name == "enrichments":
        yield from _enrichment_references(spec or ())


def _trait_references(spec: TraitSpec) -> Iterator[Reference]:
    yield from (Reference("source", name, ("sources", place)) for place, name in enumerate(spec.sources))
    if isinstance(spec.event, str):
        yield Reference("event", spec.event, ("event",))
    yield from (Reference("event", name, ("event", place)) for place, name in enumerate(event_names(spec)) if name != spec.event)


def event_names(spec: TraitSpec) -> tuple[str, ...]:
    """The track events that a trait names."""
    return (spec.event,) if isinstance(spec.event, str) else spec.event or ()


def conditions(spec: SegmentSpec) -> Iterator[tuple[Path, Condition]]:
    """Every condition of a segment, each with its place, from the outside in."""
    waiting: list[tuple[Path, Any]] = [(("where",), spec.where)]
    while waiting:
        path, condition = waiting.pop(0)
        yield path, condition
        if isinstance(condition, AllOf):
            waiting += [((*path, "all", place), each) for place, each in enumerate(condition.all)]
        elif isinstance(condition, AnyOf):
            waiting += [((*path, "any", place), each) for place, each in enumerate(condition.any)]
        elif isinstance(condition, Not):
            waiting.append(((*path, "not"), condition.not_))


def _condition_references(path: Path, condition: Condition) -> Iterator[Reference]:
    if isinstance(condition, TraitCondition):
        yield Reference("trait", condition.trait, (*path, "trait"))
    elif isinstance(condition, Did):
        yield Reference("event", condition.did, (*path, "did"))
    elif isinstance(condition, DidNot):
        yield Reference("event", condition.did_not, (*path, "did_not"))
    elif isinstance(condition, InSegment):
        yield Reference("segment", condition.segment, (*path, "segment"))


def _enrichment_references(enrichments: Sequence[EnrichmentSpec]) -> Iterator[Reference]:
    for place, each in enumerate(enrichments):
        if each.when is not None:
            yield from (Reference("source", name, (place, "when", "sources", at)) for at, name in enumerate(each.when.sources))
            if "track" in (each.when.types or ("track",)):
                yield from (Reference("event", name, (place, "when", "events", at)) for at, name in enumerate(each.when.events))


def _sync_references(spec: SyncSpec) -> Iterator[Reference]:
    yield Reference("destination", spec.destination, ("destination",))
    if spec.source.segment is not None:
        yield Reference("segment", spec.source.segment, ("source", "segment"))
    for field, source in spec.fields.items():
        kind, _, name = source.partition(".") if isinstance(source, str) else ("", "", "")
        if kind == "trait":
            yield Reference("trait", name, ("fields", field))
        elif kind == "identifier":
            yield Reference("identifier type", name, ("fields", field))
    yield from (Reference("purpose", name, ("purposes", place)) for place, name in enumerate(spec.purposes))


class Names:
    """The names that exist, of declarations that could be read and of those that could not."""

    def __init__(self, loaded: Loaded) -> None:
        identity = [each.spec for each in loaded.of("identity") if isinstance(each.spec, IdentitySpec)]
        consent = [each.spec for each in loaded.of("consent")]
        self.sound: Mapping[str, Sequence[str]] = {
            "trait": [*(each.name for each in loaded.of("trait")), *PROFILE_TIMES],
            "event": [each.spec.event for each in loaded.of("event") if each.spec.type == "track"],
            "purpose": [each.purpose for spec in consent for each in spec.purposes],
            "identifier type": [each.type for spec in identity for each in spec.identifiers],
            **{kind: [each.name for each in loaded.of(kind)] for kind in ("segment", "source", "destination")},
        }
        self.broken = {
            kind: {name for each in loaded.broken(kind) for name in _names_of(each)}
            for kind in ("trait", "event", "segment", "source", "destination")
        }
        # What a file that cannot be read would have declared is not known, so nothing can be said to be missing.
        self._is_open = {
            "event": any(each.document.at(("event",)) is None for each in loaded.broken("event")) or not self.sound["event"],
            "purpose": bool(loaded.broken("consent")),
            "identifier type": not identity,
        }

    def missing(self, reference: Reference) -> str | None:
        """What to say when nothing has the name, else None."""
        kind, name, _ = reference
        if name in self.sound[kind] or name in self.broken.get(kind, ()) or self._is_open.get(kind):
            return None
        return no_such(kind, name, self.sound[kind])


def _names_of(declared: Declared) -> Iterator[str]:
    yield declared.name
    named = declared.document.at((declared.kind.name_field or "event",))
    if isinstance(named, str):
        yield named


def cross_mistakes(loaded: Loaded) -> Iterator[Mistake]:
    """Every mistake that only shows between declarations; nothing is said about references to files with mistakes of their own."""
    names = Names(loaded)
    for declared in loaded.declared:
        for reference in references(declared):
            missing = names.missing(reference)
            if missing is not None:
                yield declared.mistake(reference.path, f"{dotted(reference.path)}: {missing}")
    events: dict[str, list[EventSpec]] = {}
    for each in loaded.of("event"):
        if each.spec.type == "track":
            events.setdefault(each.spec.event, []).append(each.spec)
    traits = {each.name: each.spec for each in loaded.of("trait")}
    for declared in loaded.declared:
        for path, wanted, among in property_paths(declared.spec):
            yield from _unplanned_property(declared, path, wanted, [event for name in among for event in events.get(name, ())])
        if isinstance(declared.spec, SegmentSpec):
            yield from _unfit_comparisons(declared, traits)
    yield from _reserved_traits(loaded)
    yield from _unfit_profile_data(loaded)
    yield from _circles(loaded)
    yield from _same_calls(loaded)
    yield from _same_write_keys(loaded)
    yield from _enrichments_out_of_order(loaded)
    yield from _signals_without_a_reader(loaded)
    yield from _links_without_a_reader(loaded)
    yield from _unsupported_modes(loaded)
    yield from _too_long_for_the_topic(loaded)


def property_paths(spec: object) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Where a declaration reads a path of an event: (place in the file, the path, the events it may be of)."""
    if isinstance(spec, TraitSpec):
        among = event_names(spec)
        several = not isinstance(spec.value, str)
        for index, each in enumerate((spec.value,) if isinstance(spec.value, str) else spec.value or ()):
            yield ("value", index) if several else ("value",), each, among
        yield from _filter_paths(("where",), spec.where, among)
        if spec.currency is not None:
            yield ("currency_at" if "currency_at" in spec.model_fields_set else "currency",), spec.currency_at, among
    elif isinstance(spec, SegmentSpec):
        for path, condition in conditions(spec):
            if isinstance(condition, Did | DidNot):
                name = condition.did if isinstance(condition, Did) else condition.did_not
                yield from _filter_paths((*path, "where"), condition.where, (name,))
    elif isinstance(spec, AttributionSpec):
        for index, conversion in enumerate(spec.conversions):
            for field in ("value", "currency", "id"):
                if isinstance(wanted := getattr(conversion, field), str):
                    yield ("conversions", index, field), wanted, (conversion.event,)
            for field in ("value", "id") if conversion.refund is not None else ():
                if isinstance(wanted := getattr(conversion.refund, field), str):
                    yield ("conversions", index, "refund", field), wanted, (conversion.refund.event,)  # type: ignore[union-attr]


def _filter_paths(
    path: Path, filters: Sequence[PropertyFilter], among: tuple[str, ...]
) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    for index, each in enumerate(filters):
        yield (*path, index, "property"), each.property, among


def _unplanned_property(declared: Declared, path: Path, wanted: str, events: list[EventSpec]) -> Iterator[Mistake]:
    column, _, inner = wanted.partition(".")
    if column != "properties" or not events or any(_has_property(event, inner) for event in events):
        return
    planned = [f"properties.{name}" for event in events for name in event.properties]
    of = " or ".join(repr(event.event) for event in events)
    yield declared.mistake(path, f"{dotted(path)}: {no_such(f'property of {of}', wanted, planned)}")


def _has_property(event: EventSpec, wanted: str) -> bool:
    """Whether the plan names the property, something inside it, or an object or list that it is inside of."""
    return event.json_schema is not None or any(
        name == wanted
        or name.startswith(f"{wanted}.")
        or (wanted.startswith(f"{name}.") and declared.type in ("object", "array", "any"))
        for name, declared in event.properties.items()
    )


TraitKind = Literal["number", "time", "text"]

_COMPARISONS: Mapping[TraitKind, tuple[str, ...]] = {
    "number": ("is", "is_not", "in", "at_least", "at_most", "greater_than", "less_than", "exists"),
    "time": ("within", "not_within", "exists"),
    "text": ("is", "is_not", "in", "at_least", "at_most", "greater_than", "less_than", "contains", "exists"),
}


def trait_kind(name: str, traits: Mapping[str, TraitSpec]) -> TraitKind | None:
    """What the values of a trait are; None when there is no such trait."""
    if name in PROFILE_TIMES:
        return "time"
    if name not in traits:
        return None
    kind = traits[name].kind
    return "number" if kind in ("count", "sum") else "time" if kind in ("first_event_at", "last_event_at") else "text"


def _unfit_comparisons(declared: Declared, traits: Mapping[str, TraitSpec]) -> Iterator[Mistake]:
    for path, condition in conditions(declared.spec):
        kind = trait_kind(condition.trait, traits) if isinstance(condition, TraitCondition) else None
        if kind is None or not isinstance(condition, TraitCondition):
            continue
        name, operand = condition.comparison()
        at = (*path, name)
        if name not in _COMPARISONS[kind]:
            message = f"no comparison {name!r} of the {kind} {condition.trait!r}; {listed(_COMPARISONS[kind])}"
            yield declared.mistake(at, f"{dotted(path)}: {message}")
        elif kind == "number" and name in ("is", "is_not", "in"):
            for each in operand if isinstance(operand, tuple) else (operand,):
                if isinstance(each, str | bool):
                    yield declared.mistake(at, f"{dotted(at)}: {condition.trait!r} is a number, not {shown(each)}")


def _reserved_traits(loaded: Loaded) -> Iterator[Mistake]:
    for declared in loaded.of("trait"):
        if declared.name in RESERVED_TRAITS:
            others = ", ".join(name for name in RESERVED_TRAITS if name != declared.name)
            message = f"trait: {declared.name!r} is a name that traits cannot have; nor can {others}; any other will do"
            yield declared.mistake(("trait",), message)


def _unfit_profile_data(loaded: Loaded) -> Iterator[Mistake]:
    """Traits that would count rows of profile data as events, and rows of it that nobody can be found by."""
    told = {each.name for each in loaded.of("source") if getattr(each.spec, "profile_data", None) is not None}
    for declared in loaded.of("trait"):
        spec = declared.spec
        takes = spec.kind in ("latest", "first", "last") and spec.event is None and spec.types is None
        for place, name in enumerate(spec.sources):
            if name in told and not takes:
                message = f"{name!r} is profile data, no events: only traits of kind latest, first or last without event and types take it"
                yield declared.mistake(("sources", place), f"{dotted(('sources', place))}: {message}")


_BESIDE_A_MESSAGE = 464_000
"""Most bytes of a line beside its message: 64 KiB of headers that are kept, each byte seven as text within text."""


def _too_long_for_the_topic(loaded: Loaded) -> Iterator[Mistake]:
    """Sources whose longest event fits into no message of the inbox's topic."""
    for settings in loaded.of("settings"):
        topic = settings.spec.inbox.kafka
        for declared in loaded.of("source") if topic is not None else ():
            if not isinstance(declared.spec, HttpSource | WebhookSource):
                continue
            needed = declared.spec.max_event_bytes + _BESIDE_A_MESSAGE
            if needed > topic.max_message_bytes:
                message = (
                    f"max_event_bytes: events of {declared.spec.max_event_bytes} bytes need inbox.kafka.max_message_bytes of {needed} or more "
                    f"in {settings.file}, and as much in the topic; it is {topic.max_message_bytes}"
                )
                yield declared.mistake(("max_event_bytes",), message)


def _circles(loaded: Loaded) -> Iterator[Mistake]:
    """One mistake for each circle of segments, in the file of its first segment."""
    segments = {each.name: each for each in loaded.of("segment")}
    state: dict[str, Literal["open", "done"]] = {}

    def visit(name: str, trail: list[str]) -> Iterator[Mistake]:
        state[name] = "open"
        for reference in references(segments[name]):
            if reference.kind != "segment" or reference.name not in segments:
                continue
            if state.get(reference.name) == "open":
                circle = [*trail, name]
                circle = [*circle[circle.index(reference.name) :], reference.name]
                message = f"{dotted(reference.path)}: segments refer to each other in a circle: {' -> '.join(circle)}"
                yield segments[name].mistake(reference.path, message)
            elif reference.name not in state:
                yield from visit(reference.name, [*trail, name])
        state[name] = "done"

    for name in segments:
        if name not in state:
            yield from visit(name, [])


def _same_calls(loaded: Loaded) -> Iterator[Mistake]:
    seen: dict[tuple[str, str | None, int], Declared] = {}
    for declared in loaded.of("event"):
        spec = declared.spec
        first = seen.setdefault((spec.type, spec.matched_name, spec.version), declared)
        if first is not declared:
            path = ("event",) if spec.type == "track" else ("name",) if spec.name else ("type",)
            yield declared.mistake(
                path, f"describes the same {spec.type} calls as {first.file}; versions of an event differ in `version`"
            )


def _enrichments_out_of_order(loaded: Loaded) -> Iterator[Mistake]:
    for declared in loaded.of("enrichments"):
        sound: tuple[EnrichmentSpec, ...] = ()
        for place, each in enumerate(declared.spec):
            try:
                check_order((*sound, each))
                sound = (*sound, each)
            except ValueError as error:
                yield declared.mistake((place, "enrichment"), f"{each.enrichment}: {str(error).partition(': ')[2]}")


def _signals_without_a_reader(loaded: Loaded) -> Iterator[Mistake]:
    """Signals that nothing reads would look like people who never answered."""
    given = {column for each in loaded.of("enrichments") for entry in each.spec for column in entry.columns}
    if ALLOWED_PURPOSES in given or loaded.broken("enrichments"):
        return
    for declared in loaded.of("consent"):
        for place, each in enumerate(declared.spec.purposes):
            if each.signals:
                path: Path = ("purposes", place, "signals")
                wrong = "nothing reads signals; add `- enrichment: consent_strings` to enrichments.yaml"
                yield declared.mistake(path, f"{dotted(path)}: {wrong}")


def _links_without_a_reader(loaded: Loaded) -> Iterator[Mistake]:
    """Columns of links that no enrichment gives would never join anybody."""
    entries = [entry for each in loaded.of("enrichments") for entry in each.spec]
    dtypes = {name: column.dtype for entry in entries for name, column in entry.columns.items()}
    for declared in loaded.of("identity") if not loaded.broken("enrichments") else ():
        for place, link in enumerate(each.linked for each in declared.spec.identifiers):
            for field, wanted in (("column", pl.String), ("at", pl.Datetime)) if link is not None else ():
                path: Path = ("identifiers", place, "linked", field)
                choices = [name for name, dtype in dtypes.items() if dtype == wanted]
                if (name := getattr(link, field)) not in choices:
                    wrong = no_such("column of the enrichments", name, choices)
                    yield declared.mistake(path, f"{dotted(path)}: {wrong} (links are read by the enrichment cross_domain)")


def _same_write_keys(loaded: Loaded) -> Iterator[Mistake]:
    seen: dict[str, Declared] = {}
    for declared in loaded.of("source"):
        if isinstance(declared.spec, HttpSource):
            own: set[str] = set()
            is_one = isinstance(declared.spec.write_key, SecretRef)
            for place, variable in enumerate(key.env for key in declared.spec.write_keys):
                path: Path = ("write_key", "env") if is_one else ("write_key", place, "env")
                first = seen.setdefault(variable, declared)
                if first is not declared:
                    yield declared.mistake(path, f"write_key: {variable} is the write key of {first.file} already")
                elif variable in own:
                    yield declared.mistake(path, f"write_key: {variable} is named twice")
                own.add(variable)


def _unsupported_modes(loaded: Loaded) -> Iterator[Mistake]:
    destinations = {each.name: each.spec for each in loaded.of("destination")}
    for declared in loaded.of("sync"):
        account = destinations.get(declared.spec.destination)
        if account is not None and declared.spec.mode not in (modes := plugin(account.kind).modes):
            message = f"mode: destination {declared.spec.destination!r} ({account.kind}) does not support {declared.spec.mode}"
            yield declared.mistake(("mode",), f"{message}; {listed(modes)}")
