"""The column `request`: the headers and cookies that a source keeps of the request by which an event came.

What they tell is for the enrichments; which are kept, for the source. Chosen ones as columns are here too, for both kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

import msgspec
import polars as pl
from pydantic import Field

from cdp_assets.enriched_events.enrichments import Output

ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


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


def named_outputs(names: Mapping[str, str], what: str) -> dict[str, Output]:
    """A column for each. `names`: column -> name of the header or cookie, which `what` says."""
    return {column: Output(pl.String(), f"Value of the {what} {name}.") for column, name in names.items()}


def named_values(kept: Iterable[Mapping[str, str]], names: Mapping[str, str], height: int) -> pl.DataFrame:
    """Column -> the values, in as many rows as `height` says; null where a request has none or the source does not keep it."""
    if not names:
        return pl.DataFrame(height=height)
    requests = list(kept)
    return pl.DataFrame(
        {column: pl.Series([each.get(name) for each in requests], dtype=pl.String) for column, name in names.items()}
    )
