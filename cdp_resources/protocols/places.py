"""What several protocols say in ways of their own and the Segment spec in one: pages and instants. Which parameters they are, says each mapping."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_SECOND = 253_402_300_799
_PER_SECOND = {"milliseconds": 1_000, "microseconds": 1_000_000}


def with_path(page: dict[str, Any]) -> dict[str, Any]:
    """The page with the `path` and `search` of its `url`, when that is an address."""
    try:
        parts = urlsplit(str(page.get("url", "")))
    except ValueError:
        return page
    if not parts.netloc:
        return page
    return page | {"path": parts.path or "/", "search": f"?{parts.query}" if parts.query else ""}


def instant(value: Any, unit: Literal["milliseconds", "microseconds"]) -> str | None:
    """Whole units since 1970, as a number or text, as ISO 8601; None for anything else."""
    text = str(value)
    if not re.fullmatch(r"\d{1,18}", text) or int(text) >= (_LATEST_SECOND + 1) * _PER_SECOND[unit]:
        return None
    since = timedelta(microseconds=int(text) * 1_000_000 // _PER_SECOND[unit])
    return (_EPOCH + since).isoformat(timespec=unit).replace("+00:00", "Z")
