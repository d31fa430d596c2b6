"""Time decay: a touch counts for half as much with every half-life that lies between it and the conversion."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cdp_assets.attribution.models import ModelSettings, Paths

SCALE = 2**20
"""Weight of a touch less than a day before the conversion."""


class Settings(ModelSettings):
    """What can be set for time decay."""

    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 7.0
    """Days after which a touch counts for half."""


def weights(paths: Paths, settings: Settings) -> NDArray[np.int64]:
    """2^20 * 2^(-days / half-life), rounded down, at least 1. Days are whole, so equal histories weigh the same everywhere."""
    table = [max(1, int(SCALE * 0.5 ** (day / settings.half_life_days))) for day in range(int(paths.days.max()) + 1)]
    return np.array(table, dtype=np.int64)[paths.days]
