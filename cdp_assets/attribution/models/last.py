"""Last touch: the touch nearest to the conversion takes everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdp_assets.attribution.models import ModelSettings, Paths

Settings = ModelSettings


def weights(paths: Paths, _: ModelSettings) -> NDArray[np.int64]:
    """1 on the last touch, 0 on the others."""
    return np.where(paths.position == paths.length, 1, 0)
