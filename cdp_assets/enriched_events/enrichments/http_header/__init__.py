"""http_header: chosen headers of the request by which an event came, each as a column. Which are kept at all, the source says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.requests import request

INPUTS = {"request": "column:request"}


class Settings(Declaration):
    """Settings of http_header."""

    headers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str] = Field(default_factory=dict)
    """Column -> name of the header. The source must keep it (`keep_headers`)."""


def columns(settings: Settings) -> Mapping[str, Output]:
    """A column for each header."""
    return {column: Output(pl.String(), f"Value of the header {name}.") for column, name in settings.headers.items()}


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`request` -> the values; null where the request has none or the source does not keep it."""
    if not settings.headers:
        return pl.DataFrame(height=distinct.height)
    kept = [request(text).headers for text in distinct.get_column("request")]
    named = {column: name.lower() for column, name in settings.headers.items()}
    return pl.DataFrame({column: pl.Series([each.get(name) for each in kept], dtype=pl.String) for column, name in named.items()})
