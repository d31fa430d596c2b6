"""Enrichments: one folder each, found by its place, and what such a folder must offer.

A folder's module has `Settings` (a Declaration), `INPUTS`, `OUTPUTS` and `enrich(distinct, settings)`; beside it stand
`README.md`, `cases/*.json` and reference data (`reference_version()` tells the version of what lies elsewhere). ../transform.py
runs them; which, and in which order, is the user's config.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

    def version(self) -> str:
        """Hash of code and reference data: another version may give other values."""
        digest = xxhash.xxh3_128(self.reference_version().encode())
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
    for attribute in ("Settings", "INPUTS", "OUTPUTS", "enrich"):
        if not hasattr(module, attribute):
            raise EnrichmentContractError(f"{where}: no {attribute}; an enrichment has Settings, INPUTS, OUTPUTS and enrich")
    if not (isinstance(module.Settings, type) and issubclass(module.Settings, Declaration)):
        raise EnrichmentContractError(f"{where}: Settings is no Declaration")
    for key, source in module.INPUTS.items():
        if not _INPUT.fullmatch(source):
            raise EnrichmentContractError(
                f"{where}: input {key!r} is {source!r}; it is context.*, properties.*, traits.* or column:*"
            )
    if not module.INPUTS or not module.OUTPUTS:
        raise EnrichmentContractError(f"{where}: INPUTS and OUTPUTS name at least one each")
    assert module.__file__ is not None
    reference: Callable[[], str] = getattr(module, "reference_version", str)
    return Enrichment(
        name, module.Settings, module.INPUTS, module.OUTPUTS, module.enrich, Path(module.__file__).parent, reference
    )
