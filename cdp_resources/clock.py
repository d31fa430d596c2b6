"""The one place that asks what time it is; everything else is given `now` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The present instant, in UTC, with microseconds."""
    return datetime.now(UTC)


def microseconds() -> int:
    """The same in microseconds since 1970 UTC, for who asks once a request."""
    return time.time_ns() // 1000


def instant(microseconds: int) -> datetime:
    """The instant that lies so many microseconds after 1970 UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)
