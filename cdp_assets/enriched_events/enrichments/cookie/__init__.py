"""cookie: chosen cookies of the request by which an event came, each as a column. Which are kept at all, the source says."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.requests import ColumnName, named_outputs, named_values, request

INPUTS = {"request": "column:request"}


class Settings(Declaration):
    """Settings of cookie."""

    cookies: dict[ColumnName, str] = Field(default_factory=dict)
    """Column -> name of the cookie. The source must keep it (`keep_cookies`)."""


def columns(settings: Settings) -> Mapping[str, Output]:
    """A column for each cookie."""
    return named_outputs(settings.cookies, "cookie")


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`request` -> the values; null where the request has none or the source does not keep it."""
    kept = (request(text).cookies for text in distinct.get_column("request"))
    return named_values(kept, settings.cookies, distinct.height)
