"""Linear: every touch takes the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdp_assets.attribution.models import ModelSettings, Paths

Settings = ModelSettings


def weights(paths: Paths, _: ModelSettings) -> NDArray[np.int64]:
    """1 on every touch."""
    return np.ones_like(paths.position)
