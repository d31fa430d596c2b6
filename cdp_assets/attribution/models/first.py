"""First touch: the touch that began the path takes everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdp_assets.attribution.models import ModelSettings, Paths

Settings = ModelSettings


def weights(paths: Paths, _: ModelSettings) -> NDArray[np.int64]:
    """1 on the first touch, 0 on the others."""
    return np.where(paths.position == 1, 1, 0)
