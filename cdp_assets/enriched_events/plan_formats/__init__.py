"""Tracking plans as other tools write them: one module for each format, found by its place, with cases in cases/<format>/.

A module has `DESCRIPTION` and `read(files) -> Found`; nothing here does I/O, and writing config/ is the command line's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Declared = dict[str, Any]
"""An event as config/tracking_plan/<event>.yaml would hold it."""


class PlanFormatError(ValueError):
    """A file that is not of the format; the text names the file and the place."""


@dataclass(frozen=True)
class File:
    """A file as it was parsed: its name without the ending, and its documents (JSON has one, YAML may have several)."""

    name: str
    documents: tuple[Any, ...]
    path: str = ""
    """Where it lies; all files of an Iglu registry are named after versions."""

    @property
    def where(self) -> str:
        """As mistakes call it."""
        return self.path or self.name


@dataclass
class Found:
    """What the files declare."""

    events: list[Declared] = field(default_factory=list)
    common: list[Declared] = field(default_factory=list)
    """Entries of config/tracking_plan/_common.yaml."""
    left_out: list[str] = field(default_factory=list)
    """What the files say and a plan here has no place for."""


@dataclass(frozen=True)
class PlanFormat:
    """A format found by its module."""

    name: str
    description: str
    read: Callable[[Sequence[File]], Found]


@lru_cache(maxsize=1)
def plan_formats() -> Mapping[str, PlanFormat]:
    """Every format by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: PlanFormat(name, module.DESCRIPTION, module.read) for name, module in modules.items()}


def member(value: object, name: str, kind: type, where: str) -> Any:
    """`value[name]`, which must be of this kind. Raises PlanFormatError, naming the place."""
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
        raise PlanFormatError(f"{where}: no {name} ({kind.__name__})")
    return value[name]
