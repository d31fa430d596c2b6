"""How many events a second one source may send to this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TokenBucket:
    """Holds up to one second's worth of events. What is taken may exceed what it holds, so that a large batch passes too, and is made up for afterwards."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds and never goes back."""
        self._per_second = per_second
        self._most = max(per_second, 1.0)
        self._clock = clock
        self._held = self._most
        self._at = clock()

    def wait(self) -> int:
        """Whole seconds until events may be taken again, 0 for now."""
        now = self._clock()
        self._held = min(self._most, self._held + (now - self._at) * self._per_second)
        self._at = now
        return 0 if self._held >= 1 else math.ceil((1 - self._held) / self._per_second)

    def take(self, events: int) -> None:
        """Events were let in."""
        self._held -= events
