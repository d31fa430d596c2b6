"""consent: what the person had agreed to when the event happened, by purpose, from Segment's and RudderStack's consent objects.

What holds for a person over time is decided in the layer `consent`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
import polars as pl
from pydantic import Field, field_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import FAILED, Output

INPUTS = {"preferences": "context.consent.categoryPreferences", "management": "context.consentManagement"}

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
    """`preferences` (a JSON object of category -> true or false) and `management` (one with lists of ids of categories) -> consent by purpose.

    A purpose is given when all its categories are, and is left out when none of them is told. Of two answers about one category a no
    counts. What cannot be read gives no consent, and the row has FAILED; what was denied beside it stands.
    """
    purposes = tuple(settings.consent_purposes.items())
    schema = {name: output.dtype for name, output in OUTPUTS.items()} | {FAILED: pl.Boolean()}
    rows = [_told(*texts, purposes) for texts in distinct.select(list(INPUTS)).iter_rows()]
    return pl.DataFrame(rows, schema, orient="row")


@lru_cache(maxsize=20_000)
def _told(
    preferences: str | None, management: str | None, purposes: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[str | None, int | None, bool]:
    preferred, is_broken = _preferred(preferences)
    listed, is_list_broken = _listed(management)
    is_broken |= is_list_broken
    if preferred is None and not listed:
        return None, None, is_broken
    is_nothing_given = preferred == {}
    said = dict(listed)
    for category, is_given in (preferred or {}).items():
        said[category] = is_given and said.get(category, True)
    given = {
        purpose: not is_nothing_given and all(said.get(category, False) for category in categories)
        for purpose, categories in purposes
        if is_nothing_given or any(category in said for category in categories)
    }
    known = {category for _, categories in purposes for category in categories}
    return msgspec.json.encode(given, order="sorted").decode(), len(said.keys() - known), is_broken


def _preferred(text: str | None) -> tuple[dict[str, bool] | None, bool]:
    """Category -> given, of Segment's object, and whether there is one that cannot be read. Anything but `true` is no consent.

    An empty object means that nothing is given, as Segment documents it.
    """
    if text is None:
        return None, False
    found = _object(text)
    return (None, True) if found is None else ({name: value is True for name, value in found.items()}, False)


def _listed(text: str | None) -> tuple[dict[str, bool], bool]:
    """Category -> given, of RudderStack's lists, and whether there is anything that cannot be read; then no yes is believed that may be denied there.

    A category in neither list is not told. Ids are compared as they stand: `*` is an id like others. `resolutionStrategy` says how
    RudderStack's destinations combine their categories; here consent.yaml does.
    """
    if text is None:
        return {}, False
    found = _object(text)
    if found is None:
        return {}, True
    allowed, is_allowed_broken = _ids(found.get("allowedConsentIds"))
    denied, is_denied_broken = _ids(found.get("deniedConsentIds"))
    believed = {} if is_denied_broken else dict.fromkeys(allowed, True)
    return {**believed, **dict.fromkeys(denied, False)}, is_allowed_broken or is_denied_broken


def _ids(given: Any) -> tuple[list[str], bool]:
    """The texts of a list, and whether there is anything else."""
    if given is None:
        return [], False
    if not isinstance(given, list):
        return [], True
    ids = [each for each in given if isinstance(each, str)]
    return ids, len(ids) < len(given)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
