"""Enrichments: one folder each, found by its place, and what such a folder must offer.

A folder's module has `Settings` (a Declaration), `INPUTS`, `OUTPUTS` and `enrich(distinct, settings)`; beside it stand
`README.md`, `cases/*.json` and reference data (`reference_version()` tells the version of what lies elsewhere, and
`version_of(settings)` of what its settings point to). One that looks things up has `look_up(distinct, settings, look_ups)` instead of
`enrich`; one whose columns the user names has `columns(settings)` instead of OUTPUTS, and needs no INPUTS; one whose inputs are hardly
ever equal has `PER_EVENT = True`; one whose output may stand in the place of an input says so by `IN_PLACE = (output, input)`. ../enrich.py runs them; which, and in which order, is the user's config.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from cdp_assets.declaration import Declaration
from cdp_resources.look_ups import LookUps

COLUMN = "column:"
"""How an input names a column of raw_events or an earlier enrichment's output, instead of a path into JSON."""

FAILED = " failed"
"""A Boolean column that an enrichment may put after its outputs: true for a row that it could not enrich."""

_INPUT = re.compile(r"(context|properties|traits)(\.[^.\s]+)+|column:[a-z][a-z0-9_]*")
_IDS = ("user_id", "anonymous_id", "previous_id", "group_id")


def source_of(text: str) -> str:
    """Where an input comes from, as declared: a path into context, properties or traits, `column:*`, or an id's plain name.

    Raises ValueError.
    """
    if text in _IDS:
        return COLUMN + text
    if not _INPUT.fullmatch(text):
        raise ValueError(
            f"{text!r} is nowhere; a value comes from context.*, properties.*, traits.*, column:* or {', '.join(_IDS)}"
        )
    return text


class EnrichmentContractError(TypeError):
    """A folder under enrichments/ does not offer what an enrichment must."""


@dataclass(frozen=True)
class Output:
    """One column that an enrichment adds."""

    dtype: pl.DataType
    """Its Polars type."""
    description: str
    """What it holds, for people."""


@dataclass(frozen=True)
class Enrichment:
    """An enrichment found by its folder."""

    name: str
    settings: type[Declaration]
    inputs: Mapping[str, str]
    """Input name -> a path such as `context.page.url`, or `column:utm_source`."""
    outputs: Mapping[str, Output]
    """Column -> type and description, in the order in which they are added."""
    enrich: Callable[..., pl.DataFrame]
    """(one row for each distinct combination of inputs, settings) -> the outputs, same height and order, and FAILED if it likes. With
    `is_look_up` it is given the LookUps as well. What it says of a row must not depend on the other rows."""
    folder: Path
    reference_version: Callable[[], str]
    """Version of reference data that lies outside the folder; empty without any."""
    is_look_up: bool = False
    """Whether it looks things up outside the event and its own folder."""
    columns: Callable[[Any], Mapping[str, Output]] | None = None
    """settings -> outputs, where the user names them; `outputs` is then empty, and `inputs` may be."""
    reference: Callable[[Any, LookUps], str | None] | None = None
    """(settings, look-ups) -> version of what is looked up; None where that cannot be told, as of what others answer."""
    per_event: bool = False
    """Whether it is given every event instead of distinct inputs: cheaper where the inputs of hardly any two events are equal."""
    version_of: Callable[[Any], str] = lambda _settings: ""
    """settings -> version of what they point to, such as a file or a key. Raises what that cannot be read for."""
    in_place: tuple[str, str] | None = None
    """The output that may take the place of an input's value in the event, and that input."""

    def outputs_of(self, settings: Any) -> Mapping[str, Output]:
        """The columns that it adds under these settings."""
        return self.outputs if self.columns is None else self.columns(settings)

    def version(self, settings: Any) -> str:
        """Hash of code, reference data and what the settings point to: another version may give other values."""
        digest = xxhash.xxh3_128(f"{self.reference_version()}\0{self.version_of(settings)}".encode())
        for file in sorted(self.folder.iterdir()):
            if file.suffix in {".py", ".json", ".csv"}:
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()


@lru_cache(maxsize=1)
def find_enrichments() -> Mapping[str, Enrichment]:
    """Every enrichment by its name. Raises EnrichmentContractError, naming the folder and what it lacks."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return {name: _load(name) for name in names}


def _load(name: str) -> Enrichment:
    where = f"cdp_assets/enriched_events/enrichments/{name}"
    module = importlib.import_module(f"{__name__}.{name}")
    is_look_up, is_open = hasattr(module, "look_up"), hasattr(module, "columns")
    needed = ("Settings", *(("columns",) if is_open else ("INPUTS", "OUTPUTS")), "look_up" if is_look_up else "enrich")
    for attribute in needed:
        if not hasattr(module, attribute):
            raise EnrichmentContractError(
                f"{where}: no {attribute}; an enrichment has Settings, INPUTS and OUTPUTS (or columns), and enrich (or look_up)"
            )
    if not (isinstance(module.Settings, type) and issubclass(module.Settings, Declaration)):
        raise EnrichmentContractError(f"{where}: Settings is no Declaration")
    inputs: Mapping[str, str] = getattr(module, "INPUTS", {}) if is_open else module.INPUTS
    outputs: Mapping[str, Output] = {} if is_open else module.OUTPUTS
    for key, source in inputs.items():
        if not _INPUT.fullmatch(source):
            raise EnrichmentContractError(
                f"{where}: input {key!r} is {source!r}; it is context.*, properties.*, traits.* or column:*"
            )
    if not is_open and not (inputs and outputs):
        raise EnrichmentContractError(f"{where}: INPUTS and OUTPUTS name at least one each")
    assert module.__file__ is not None
    found = Enrichment(
        name,
        module.Settings,
        inputs,
        outputs,
        module.look_up if is_look_up else module.enrich,
        Path(module.__file__).parent,
        getattr(module, "reference_version", str),
        is_look_up,
        module.columns if is_open else None,
        getattr(module, "reference", None),
        getattr(module, "PER_EVENT", False),
    )
    more = {
        field: getattr(module, name)
        for field, name in (("version_of", "version_of"), ("in_place", "IN_PLACE"))
        if hasattr(module, name)
    }
    return replace(found, **more)
