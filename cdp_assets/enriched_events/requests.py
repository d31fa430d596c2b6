"""The column `request`: the headers and cookies that a source keeps of the request by which an event came.

What they tell is for the enrichments; which are kept, for the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec


@dataclass(frozen=True)
class Request:
    """What was kept of one request."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case name -> value."""
    cookies: Mapping[str, str] = field(default_factory=dict)
    """Name -> value."""


_NOTHING = Request()


@lru_cache(maxsize=20_000)
def request(text: str | None) -> Request:
    """The request in a value of the column; an empty one where there is none or it cannot be read."""
    if text is None:
        return _NOTHING
    try:
        told = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _NOTHING
    if not isinstance(told, dict):
        return _NOTHING
    return Request(_texts(told.get("headers")), _texts(told.get("cookies")))


def _texts(told: object) -> Mapping[str, str]:
    return {name: value for name, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
