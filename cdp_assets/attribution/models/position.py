"""Position-based (U-shaped): 40 % to the first touch, 40 % to the last, 20 % shared by those between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdp_assets.attribution.models import ModelSettings, Paths

Settings = ModelSettings


def weights(paths: Paths, _: ModelSettings) -> NDArray[np.int64]:
    """Of n >= 3 touches 2(n-2) on the first and the last and 1 on each between, which is 40 : 20 : 40; 1 each of two or one."""
    is_end = (paths.position == 1) | (paths.position == paths.length)
    return np.where(is_end, np.maximum(2 * (paths.length - 2), 1), 1)
