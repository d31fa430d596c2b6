"""The family of attribution models: what a model is given, what it answers, and how it is found.

A model is one module of this folder with `Settings` (frozen pydantic) and `weights(paths, settings)`; its file name is its
name, and its golden cases are in `cases/<name>.json`. No list names the models.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cdp_assets.declaration_errors import no_such

WEIGHT_LIMIT = 2**32
"""A weight is smaller than this, so that the sum over a path never overflows."""


class ModelSettings(BaseModel):
    """Base of every model's `Settings`; used as it is by a model that has nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Paths:
    """Paths of conversions, one after another in one long table with a row per touch, oldest touch first.

    `starts` and `lengths` have an entry per path (no path is empty); all other arrays have one per touch.
    """

    starts: NDArray[np.int64]
    """Row of the path's first touch."""
    lengths: NDArray[np.int64]
    """Number of touches in the path, at least 1."""
    position: NDArray[np.int64]
    """Position of the touch in its path, from 1."""
    length: NDArray[np.int64]
    """Length of the path that the touch is in."""
    days: NDArray[np.int64]
    """Whole days from the touch to the conversion, rounded down, from 0 to the look-back."""
    channel: NDArray[np.int64]
    """The touch's channel, as an index into `channels`."""
    channels: tuple[str, ...]
    """Names of the channels; in no promised order."""
    is_direct: NDArray[np.bool_]
    """Whether the touch's channel is the declared direct channel."""


@dataclass(frozen=True)
class Model:
    """A model that was found, by its name."""

    name: str
    settings_type: type[ModelSettings]
    _weights: Callable[[Paths, Any], NDArray[np.int64]]

    def weights(self, paths: Paths, settings: ModelSettings) -> NDArray[np.int64]:
        """The integer weight of every touch of `paths`; only the ratios within a path matter.

        Raises ValueError if the model breaks its promise: an int64 per touch, none negative or of WEIGHT_LIMIT or more, and at
        least one positive in each path.
        """
        if not len(paths.lengths):
            return np.empty(0, dtype=np.int64)
        weights = self._weights(paths, settings)
        if weights.dtype != np.int64 or weights.shape != paths.position.shape:
            raise ValueError(f"attribution model {self.name!r} must answer one int64 weight per touch")
        if weights.min() < 0 or weights.max() >= WEIGHT_LIMIT:
            raise ValueError(f"attribution model {self.name!r} answered a weight below 0 or not below {WEIGHT_LIMIT}")
        if np.maximum.reduceat(weights, paths.starts).min() == 0:
            raise ValueError(f"attribution model {self.name!r} left a path without any weight")
        return weights


@cache
def names() -> tuple[str, ...]:
    """The models there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def find(name: str) -> Model:
    """The model of that name. Raises ValueError that lists the choices."""
    if name not in names():
        raise ValueError(no_such("attribution model", name, names()))
    module = importlib.import_module(f"{__name__}.{name}")
    return Model(name, module.Settings, module.weights)
