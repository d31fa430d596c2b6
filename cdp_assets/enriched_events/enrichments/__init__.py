"""Enrichments: one folder each, found by its place, and what such a folder must offer.

A folder's module has `Settings` (a Declaration), `INPUTS`, `OUTPUTS` and `enrich(distinct, settings)`; beside it stand
`README.md`, `cases/*.json` and reference data (`reference_version()` tells the version of what lies elsewhere, and
`version_of(settings)` of what its settings point to). One whose columns the user names has `columns(settings)` instead of OUTPUTS;
one whose inputs are hardly ever equal has `PER_EVENT = True`.
../transform.py runs them; which, and in which order, is the user's config.
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

COLUMN = "column:"
"""How an input names a column of raw_events or an earlier enrichment's output, instead of a path into JSON."""

_INPUT = re.compile(r"(context|properties|traits)(\.[^.\s]+)+|column:[a-z][a-z0-9_]*")


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
    enrich: Callable[[pl.DataFrame, Any], pl.DataFrame]
    """(one row for each distinct combination of inputs, settings) -> the outputs, same height and order."""
    folder: Path
    reference_version: Callable[[], str]
    """Version of reference data that lies outside the folder; empty without any."""
    per_event: bool = False
    """Whether it is given every event instead of distinct inputs: cheaper where the inputs of hardly any two events are equal."""
    columns: Callable[[Any], Mapping[str, Output]] | None = None
    """settings -> outputs, where the user names them; `outputs` is then empty."""
    version_of: Callable[[Any], str] = lambda _settings: ""
    """settings -> version of what they point to, such as a file or a key. Raises what that cannot be read for."""

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
    is_open = hasattr(module, "columns")
    for attribute in ("Settings", "INPUTS", "columns" if is_open else "OUTPUTS", "enrich"):
        if not hasattr(module, attribute):
            raise EnrichmentContractError(f"{where}: no {attribute}; an enrichment has Settings, INPUTS, OUTPUTS and enrich")
    if not (isinstance(module.Settings, type) and issubclass(module.Settings, Declaration)):
        raise EnrichmentContractError(f"{where}: Settings is no Declaration")
    for key, source in module.INPUTS.items():
        if not _INPUT.fullmatch(source):
            raise EnrichmentContractError(
                f"{where}: input {key!r} is {source!r}; it is context.*, properties.*, traits.* or column:*"
            )
    outputs = {} if is_open else module.OUTPUTS
    if not module.INPUTS or not (outputs or is_open):
        raise EnrichmentContractError(f"{where}: INPUTS and OUTPUTS name at least one each")
    assert module.__file__ is not None
    found = Enrichment(
        name,
        module.Settings,
        module.INPUTS,
        outputs,
        module.enrich,
        Path(module.__file__).parent,
        getattr(module, "reference_version", str),
        getattr(module, "PER_EVENT", False),
        module.columns if is_open else None,
    )
    return replace(found, version_of=module.version_of) if hasattr(module, "version_of") else found
