"""The one place that asks what time it is; everything else is given `now` as an argument."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present instant, in UTC, with microseconds."""
    return datetime.now(UTC)
