"""The files of config/: which kinds there are, where each lies, and reading them one by one into checked declarations.

What refers to what is not looked at here (project_references.py); one file never fails another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cdp_assets.attribution import models
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.consent.spec import ConsentSpec
from cdp_assets.declaration_errors import Found, found_in, no_such
from cdp_assets.destination_syncs.spec import DestinationSpec, SyncSpec
from cdp_assets.enriched_events.enrichments import find_enrichments
from cdp_assets.enriched_events.spec import CommonRule, EnrichmentSpec, EventSpec, ViolationPolicy
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.raw_events.spec import Source
from cdp_assets.segments.spec import SegmentSpec
from cdp_assets.settings import SettingsSpec
from cdp_assets.yaml_positions import Document, Step, YamlError, read_yaml
from cdp_resources.destinations import kinds as destination_kinds
from cdp_resources.destinations import plugin as destination_plugin

SIZE_LIMIT = 1_000_000
"""Longer files, in bytes, are refused."""

_STEM = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, order=True)
class Mistake:
    """Something that a person must change in config/."""

    file: str
    """As it is shown: `config/syncs/x.yaml`."""
    line: int
    """1-based; 0 when no line is to blame."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


Inner = Iterator[tuple[tuple[Step, ...], type[BaseModel] | None]]
"""Places in a document and the plug-in's model that validates what stands there; None when there is no such plug-in."""


@dataclass(frozen=True)
class Kind:
    """A kind of declaration: its model, and where its files lie."""

    name: str
    """What one is called: `trait`."""
    place: str
    """The folder that holds one file for each, or the one file's name."""
    model: Any
    """The pydantic model, or a union of models."""
    name_field: str | None = None
    """The field that repeats the file's name."""
    is_name_optional: bool = False
    """Whether that field may be left to the file's name."""
    has_plain_stem: bool = True
    """Whether the file's name is the declaration's name, and so must look like one."""
    beside: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    """Optional fields of the file that belong to another layer's model than the rest."""
    inner: Callable[[Any], Inner] = lambda _value: iter(())
    """The values inside that a plug-in's own model validates, so that mistakes in them have lines."""

    @property
    def is_folder(self) -> bool:
        return not self.place.endswith(".yaml")

    @property
    def adapter(self) -> TypeAdapter[Any]:
        return _adapter(self.model)


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _attribution_settings(value: Any) -> Inner:
    uses = value.get("models") if isinstance(value, dict) else None
    for index, use in enumerate(uses if isinstance(uses, list) else ()):
        if isinstance(use, dict) and use.get("model") in models.names() and "settings" in use:
            yield ("models", index, "settings"), models.find(use["model"]).settings_type


def _enrichment_settings(value: Any) -> Inner:
    for index, each in enumerate(value if isinstance(value, list) else ()):
        name = each.get("enrichment") if isinstance(each, dict) else None
        if isinstance(name, str) and name in find_enrichments() and "settings" in each:
            yield (index, "settings"), find_enrichments()[name].settings


def _destination_settings(value: Any) -> Inner:
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(kind, str) and "settings" in value:
        yield ("settings",), destination_plugin(kind).settings if kind in destination_kinds() else None


KINDS: tuple[Kind, ...] = (
    Kind("settings", "settings.yaml", SettingsSpec),
    Kind("event", "tracking_plan", EventSpec, has_plain_stem=False),
    Kind("common", "tracking_plan/_common.yaml", tuple[CommonRule, ...]),
    Kind("identity", "identity.yaml", IdentitySpec),
    Kind("trait", "traits", TraitSpec, name_field="trait"),
    Kind("segment", "segments", SegmentSpec, name_field="segment"),
    Kind("source", "sources", Source, beside={"violations": ViolationPolicy}),
    Kind("enrichments", "enrichments.yaml", tuple[EnrichmentSpec, ...], inner=_enrichment_settings),
    Kind("consent", "consent.yaml", ConsentSpec),
    Kind("attribution", "attribution.yaml", AttributionSpec, inner=_attribution_settings),
    Kind("destination", "destinations", DestinationSpec, "destination", is_name_optional=True, inner=_destination_settings),
    Kind("sync", "syncs", SyncSpec, "sync", is_name_optional=True),
)


NAMED_BY_DECLARATIONS = ("tables", "functions")
"""Folders of config/ with reference tables and functions, which enrichments name: nothing in them is a declaration."""


@dataclass(frozen=True)
class Declared:
    """One file of config/ as far as it could be read."""

    kind: Kind
    name: str
    """The declaration's name; an event's is that of its file."""
    file: str
    document: Document
    """Empty when the text could not be parsed."""
    spec: Any = None
    """The validated model; None when it is not valid."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What stands in the fields `Kind.beside`."""

    def mistake(self, path: tuple[Step, ...], message: str) -> Mistake:
        """A mistake at a place in this file."""
        return Mistake(self.file, self.document.line(path), message)


@dataclass
class Loaded:
    """Everything that was found in config/."""

    declared: list[Declared] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    def of(self, kind: str) -> list[Declared]:
        """The declarations of a kind that could be read, by file name."""
        return [each for each in self.declared if each.kind.name == kind and each.spec is not None]

    def broken(self, kind: str) -> list[Declared]:
        """The files of a kind that could not be read into a model."""
        return [each for each in self.declared if each.kind.name == kind and each.spec is None]


def read_config(folder: Path, shown_as: str) -> Loaded:
    """Read every declaration in `folder`, which messages call `shown_as`. Never raises for what the files hold."""
    loaded = Loaded()
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above cannot be entered
        loaded.mistakes.append(Mistake(str(folder), 0, "there is no such folder"))  # its last part alone would not say which
        return loaded
    by_place = {kind.place: kind for kind in KINDS}
    entries = _entries(folder, shown_as, loaded)
    if loaded.mistakes:
        return loaded
    for entry in entries:
        kind = by_place.get(entry.name)
        if _is_ignored(entry):
            continue
        if kind is None or kind.is_folder != entry.is_dir():
            message = _not_read(entry, by_place)
            loaded.mistakes.append(Mistake(f"{shown_as}/{entry.name}", 0, message))
        elif kind.is_folder:
            _read_folder(kind, entry, f"{shown_as}/{entry.name}", loaded)
        else:
            _read_file(kind, entry, f"{shown_as}/{entry.name}", loaded)
    if not any(entry.name == "identity.yaml" for entry in entries):
        loaded.mistakes.append(Mistake(f"{shown_as}/identity.yaml", 0, "the file is missing; it declares the identifier types"))
    return loaded


def _entries(folder: Path, shown_as: str, loaded: Loaded) -> list[Path]:
    """What is in a folder, by name; one that cannot be read is a mistake, and never an empty one."""
    try:
        found = sorted(folder.iterdir())
        if found:
            found[0].lstat()  # raises for a folder whose names can be read, and nothing else
    except OSError as error:
        loaded.mistakes.append(Mistake(f"{shown_as}/", 0, f"cannot be read: {error.strerror}"))
        return []
    return found


def _is_ignored(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name in ("README.md", *NAMED_BY_DECLARATIONS) or entry.name.endswith("~")


def _not_read(entry: Path, by_place: Mapping[str, Kind]) -> str:
    known = by_place.get(entry.name)
    if known is not None:
        return f"should be a {'folder' if known.is_folder else 'file'}"
    if entry.suffix.lower() in (".yml", ".yaml") and f"{entry.stem}.yaml" in by_place:
        return f"is not read; call it {entry.stem}.yaml"
    return f"is not read: {no_such('file or folder', entry.name, by_place)}"


def _read_folder(kind: Kind, folder: Path, shown_as: str, loaded: Loaded) -> None:
    inside = {each.place: each for each in KINDS if not each.is_folder}
    for entry in _entries(folder, shown_as, loaded):
        if _is_ignored(entry):
            continue
        file = f"{shown_as}/{entry.name}"
        if entry.is_dir():
            loaded.mistakes.append(Mistake(file, 0, f"folders are not read; the {kind.place} lie in {shown_as}/ itself"))
        elif entry.suffix != ".yaml":
            loaded.mistakes.append(Mistake(file, 0, "is not read; the name of a declaration's file ends in .yaml"))
        else:
            _read_file(inside.get(f"{kind.place}/{entry.name}", kind), entry, file, loaded)


def _read_file(kind: Kind, path: Path, file: str, loaded: Loaded) -> None:
    try:
        document = read_yaml(_text(path))
    except YamlError as error:
        loaded.mistakes.append(Mistake(file, error.line, error.message))
        loaded.declared.append(Declared(kind, path.stem, file, Document()))
        return
    mistakes = [Mistake(file, each.line, each.message) for each in document.mistakes]
    spec: Any = None
    beside: dict[str, Any] = {}
    if document.value is None:
        mistakes.append(Mistake(file, 1, "the file is empty"))
    else:
        mistakes += [Mistake(file, line, message) for line, message in _misnamed(kind, path.stem, document)]
        found, spec, beside = _validated(kind, path.stem, document)
        mistakes += [Mistake(file, line, message) for line, message in found]
    loaded.mistakes += mistakes
    loaded.declared.append(Declared(kind, path.stem, file, document, spec, beside))


def _text(path: Path) -> str:
    """Raises YamlError when the file is no UTF-8 text, or cannot be read."""
    try:
        if not path.is_file():
            raise YamlError(0, "is no file")
        if path.stat().st_size > SIZE_LIMIT:
            raise YamlError(0, f"is longer than {SIZE_LIMIT} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise YamlError(0, f"cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(content.count(b"\n", 0, error.start) + 1, "is not UTF-8; save the file as UTF-8 text") from None


def _misnamed(kind: Kind, stem: str, document: Document) -> Iterator[Found]:
    if kind.is_folder and kind.has_plain_stem and not _STEM.fullmatch(stem):
        needed = "lower-case letters, digits and underscores, starting with a letter"
        yield Found(0, f"the file's name is the {kind.name}'s name: {needed}")
    elif kind.name_field is not None:
        declared = document.at((kind.name_field,))
        if isinstance(declared, str) and declared != stem:
            line = document.line((kind.name_field,))
            yield Found(line, f"{kind.name_field}: {declared[:60]!r} is in the file {stem}.yaml; the names must be the same")


def _validated(kind: Kind, stem: str, document: Document) -> tuple[list[Found], Any, dict[str, Any]]:
    value = document.value
    found: list[Found] = []
    beside: dict[str, Any] = {}
    if isinstance(value, dict):
        for name, part in kind.beside.items():
            if name in value:
                mistakes, beside[name] = _valid(document, _adapter(part), value[name], (name,))
                found += mistakes
        value = {name: each for name, each in value.items() if name not in kind.beside}
        if kind.is_name_optional and kind.name_field is not None:
            value.setdefault(kind.name_field, stem)
    within: set[tuple[Step, ...]] = set()
    for path, model in kind.inner(value):
        mistakes = _valid(document, _adapter(model), document.at(path), path)[0] if model is not None else []
        if mistakes or model is None:
            within.add(path)
            found += mistakes
    mistakes, spec = _valid(document, kind.adapter, value, (), within)
    return sorted({*found, *mistakes}), spec, beside


def _valid(
    document: Document,
    adapter: TypeAdapter[Any],
    value: Any,
    below: tuple[Step, ...],
    known: Collection[tuple[Step, ...]] = (),
) -> tuple[list[Found], Any]:
    """The mistakes in a value, without those at or around the places `known` to be wrong, and the model when there are none."""
    try:
        return [], adapter.validate_python(value)
    except ValidationError as error:
        return found_in(document, adapter, error, below, known), None
