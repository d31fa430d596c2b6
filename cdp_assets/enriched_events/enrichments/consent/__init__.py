"""consent: what the person had agreed to when the event happened, by purpose, from Segment's consent object.

What holds for a person over time is decided in the layer `consent`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
import polars as pl
from pydantic import Field, field_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"preferences": "context.consent.categoryPreferences"}

OUTPUTS = {
    "consent": Output(
        pl.String(),
        "JSON object of purpose -> true or false, as told with the event; null when nothing was told.",
    ),
    "consent_unknown_category_count": Output(
        pl.Int32(), "Categories told that no purpose is made of; null when nothing was told."
    ),
}


class Settings(Declaration):
    """Settings of consent."""

    consent_purposes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Purpose -> the consent manager's categories that must all be given. Left out: the purposes of config/consent.yaml."""

    @field_validator("consent_purposes")
    @classmethod
    def _has_categories(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for purpose, categories in value.items():
            if not categories:
                raise ValueError(f"purpose {purpose!r} has no category")
        return value


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`preferences` (a JSON object of category -> true or false) -> consent by purpose.

    A purpose is given when all its categories are `true`, and is left out when none of them is told. An empty object means that
    nothing is given, as Segment documents it. Anything but `true` is no consent.
    """
    purposes = tuple(settings.consent_purposes.items())
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame([_told(text, purposes) for text in distinct.get_column("preferences")], schema, orient="row")


@lru_cache(maxsize=20_000)
def _told(text: str | None, purposes: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    try:
        preferences: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None, None
    if not isinstance(preferences, dict):
        return None, None
    given = {
        purpose: all(preferences.get(category) is True for category in categories)
        for purpose, categories in purposes
        if not preferences or any(category in preferences for category in categories)
    }
    known = {category for _, categories in purposes for category in categories}
    return msgspec.json.encode(given, order="sorted").decode(), len(preferences.keys() - known)
