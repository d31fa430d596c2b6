"""config/ read once into one frozen, cross-checked Project, and fingerprints of its parts that say when rules changed.

Reading single files is in project_loading.py, what must hold between them in project_references.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import xxhash
from pydantic import BaseModel

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.consent.spec import ConsentSpec, PurposeSpec
from cdp_assets.destination_syncs.spec import DestinationSpec, SyncSpec
from cdp_assets.enriched_events.spec import (
    CommonRule,
    EnrichmentSpec,
    EventSpec,
    PropertySpec,
    TrackingPlan,
    ViolationPolicy,
    with_consent,
)
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.project_loading import Declared, Loaded, Mistake, read_config
from cdp_assets.project_references import Reference, cross_mistakes, references
from cdp_assets.raw_events.spec import ProfileDataSpec, Source
from cdp_assets.segments.spec import SegmentSpec
from cdp_assets.settings import SettingsSpec

Part = Literal["identity", "consent", "enriched", "profiles", "segments", "attribution", "syncs"]

_NEVER_LEFT_OUT = ("identity", "settings", "enrichments", "consent")
"""Files whose absence would change what everything else means: a project without them is none."""

_DOCUMENTATION: Mapping[type[BaseModel], frozenset[str]] = {
    TraitSpec: frozenset({"description"}),
    SegmentSpec: frozenset({"description"}),
    PurposeSpec: frozenset({"description"}),
    ProfileDataSpec: frozenset({"provider"}),
    SyncSpec: frozenset({"description"}),
    DestinationSpec: frozenset({"description"}),
    PropertySpec: frozenset({"description"}),
    CommonRule: frozenset({"description"}),
    ViolationPolicy: frozenset({"alert_above"}),
    EventSpec: frozenset(
        {"description", "goal", "metrics", "owner", "priority", "triggers", "captured", "warehoused"}
        | {"expected_within", "alert_above"}
    ),
}
"""Fields that no table depends on; changing them is no change of rules."""

V = TypeVar("V")


class ProjectError(Exception):
    """config/ has mistakes; `mistakes` are all of them, and the text has one a line."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class Named(Mapping[str, V]):
    """Declarations by name, in alphabetical order; like a dict, but nothing can be put in."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._items = dict(sorted((items or {}).items()))

    def __getitem__(self, name: str) -> V:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Named({', '.join(self._items)})"


@dataclass(frozen=True)
class Project:
    """What a company declares: all of config/, with every cross-reference checked."""

    identity: IdentitySpec
    """config/identity.yaml"""
    settings: SettingsSpec = field(default_factory=SettingsSpec)
    """config/settings.yaml; without the file its defaults."""
    consent: ConsentSpec = field(default_factory=ConsentSpec)
    """config/consent.yaml; without the file no purposes."""
    plan: TrackingPlan = field(default_factory=TrackingPlan)
    """config/tracking_plan/, in the order of file names."""
    traits: tuple[TraitSpec, ...] = ()
    """config/traits/, in alphabetical order."""
    segments: tuple[SegmentSpec, ...] = ()
    """config/segments/, each after the segments that it refers to, else in alphabetical order."""
    sources: Mapping[str, Source] = field(default_factory=Named)
    """config/sources/ by name."""
    violations: Mapping[str, ViolationPolicy] = field(default_factory=Named)
    """What happens to events of each source that break the plan."""
    enrichments: tuple[EnrichmentSpec, ...] = ()
    """config/enrichments.yaml, in the order in which they run, with the purposes of consent.yaml filled in."""
    attribution: AttributionSpec | None = None
    """config/attribution.yaml; without the file nothing is attributed."""
    destinations: Mapping[str, DestinationSpec] = field(default_factory=Named)
    """config/destinations/ by name."""
    syncs: tuple[SyncSpec, ...] = ()
    """config/syncs/, in alphabetical order."""
    folder: Path | None = field(default=None, compare=False)
    """The folder it was read from, where the files lie that declarations name."""

    @classmethod
    def load(cls, path: Path, shown_as: str | None = None) -> Project:
        """The project in the folder `path`, which messages call `shown_as` (default: its last part). Raises ProjectError."""
        loaded = read_config(path, shown_as or path.name)
        mistakes = all_mistakes(loaded)
        if mistakes:
            raise ProjectError(mistakes)
        return _project(loaded, path)

    @property
    def profile_data(self) -> Mapping[str, ProfileDataSpec]:
        """Of each source of profile data, whose it is and for how long it counts."""
        found = {name: getattr(each, "profile_data", None) for name, each in self.sources.items()}
        return {name: each for name, each in found.items() if each is not None}

    def digest(self, part: Part) -> int:
        """A number from 0 to 2^63 - 1 that changes when, and only when, the declarations behind a layer's rules do.

        identity; consent; enriched: plan, enrichments, violation policies; profiles: traits and segments; segments; attribution;
        syncs: syncs and destinations. Descriptions do not count. The same on every machine and in every process: xxh3_64 of canonical JSON.
        """
        parts: dict[Part, object] = {
            "identity": self.identity,
            "consent": self.consent,
            "enriched": [self.plan, self.enrichments, self.violations],
            "profiles": [
                self.traits,
                self.segments,
                *([{name: each.keep_days for name, each in self.profile_data.items()}] if self.profile_data else []),
            ],
            "segments": self.segments,
            "attribution": self.attribution,
            "syncs": [self.syncs, self.destinations],
        }
        return xxhash.xxh3_64_intdigest(msgspec.json.encode(_canonical(parts[part]), order="sorted")) >> 1


def all_mistakes(loaded: Loaded) -> tuple[Mistake, ...]:
    """Mistakes of the files and between them, each once, by file and line."""
    return tuple(sorted({*loaded.mistakes, *cross_mistakes(loaded)}))


def load_tolerant(path: Path, shown_as: str | None = None) -> tuple[Project | None, tuple[Mistake, ...]]:
    """The project without the files that have mistakes, and without what refers to them; and all that is wrong or left out.

    So one bad file never empties a code location. There is no project without identity.yaml, or when settings.yaml, enrichments.yaml or
    consent.yaml has mistakes: leaving those out would change everybody's data, or send what nobody consented to.
    """
    loaded = read_config(path, shown_as or path.name)
    mistakes = list(all_mistakes(loaded))
    wrong = {each.file for each in mistakes}
    bad = {each.file: each for each in loaded.declared if each.file in wrong}
    while follows := _first_left_out(loaded, bad):
        declared, reference, cause = follows
        bad[declared.file] = declared
        mistakes.append(declared.mistake(reference.path, f"left out, because {cause.file} has mistakes or is left out"))
    kept = replace(loaded, declared=[each for each in loaded.declared if each.file not in bad])
    is_project = bool(kept.of("identity")) and not any(each.kind.name in _NEVER_LEFT_OUT for each in bad.values())
    return _project(kept, path) if is_project else None, tuple(sorted(mistakes))


def _first_left_out(loaded: Loaded, bad: Mapping[str, Declared]) -> tuple[Declared, Reference, Declared] | None:
    """A declaration that is still in but refers to one that is not."""
    causes = {key: each for each in bad.values() for key in _names(each)}
    for declared in loaded.declared:
        if declared.file in bad or declared.kind.name in _NEVER_LEFT_OUT:
            continue
        for reference in references(declared):
            cause = causes.get((reference.kind, reference.name))
            if cause is not None:
                return declared, reference, cause
    return None


def _names(declared: Declared) -> Iterator[tuple[str, str]]:
    kind = declared.kind.name
    event = declared.document.at(("event",)) if kind == "event" else None
    yield kind, str(event) if event is not None else declared.name


def _project(loaded: Loaded, folder: Path) -> Project:
    def one(kind: str) -> Any:
        return next((each.spec for each in loaded.of(kind)), None)

    def several(kind: str) -> tuple[Any, ...]:
        return tuple(each.spec for each in loaded.of(kind))

    consent = one("consent") or ConsentSpec()
    enrichments: tuple[EnrichmentSpec, ...] = one("enrichments") or ()
    return Project(
        identity=one("identity"),
        settings=one("settings") or SettingsSpec(),
        consent=consent,
        plan=TrackingPlan(events=several("event"), common=one("common") or ()),
        traits=several("trait"),
        segments=_in_order({each.name: each for each in loaded.of("segment")}),
        sources=Named({each.name: each.spec for each in loaded.of("source")}),
        violations=Named({each.name: each.beside.get("violations") or ViolationPolicy() for each in loaded.of("source")}),
        enrichments=with_consent(enrichments, consent.category_mapping(), consent.signal_mapping()),
        attribution=one("attribution"),
        destinations=Named({each.name: each.spec for each in loaded.of("destination")}),
        syncs=several("sync"),
        folder=folder.resolve(),
    )


def _in_order(segments: Mapping[str, Declared]) -> tuple[SegmentSpec, ...]:
    """Each segment after those it refers to. There are no circles."""
    placed: dict[str, SegmentSpec] = {}

    def place(name: str) -> None:
        if name not in placed:
            for reference in references(segments[name]):
                if reference.kind == "segment":
                    place(reference.name)
            placed[name] = segments[name].spec

    for name in sorted(segments):
        place(name)
    return tuple(placed.values())


def _canonical(value: object) -> object:
    """Declarations as plain values without their documentation."""
    if isinstance(value, BaseModel):
        ignored = _DOCUMENTATION.get(type(value), frozenset())
        return {name: _canonical(getattr(value, name)) for name in type(value).model_fields if name not in ignored}
    if isinstance(value, Mapping):
        return {str(key): _canonical(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(each) for each in value), key=repr)
    return value
