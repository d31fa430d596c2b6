"""Last non-direct touch: the last touch that came from somewhere takes everything; the last of all if none did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdp_assets.attribution.models import ModelSettings, Paths

Settings = ModelSettings


def weights(paths: Paths, _: ModelSettings) -> NDArray[np.int64]:
    """1 on the last touch whose channel is not the direct one, or on the last touch of a path that is all direct."""
    last = np.maximum.reduceat(np.where(paths.is_direct, 0, paths.position), paths.starts)
    chosen = np.where(last == 0, paths.lengths, last)
    return np.where(paths.position == np.repeat(chosen, paths.lengths), 1, 0)
