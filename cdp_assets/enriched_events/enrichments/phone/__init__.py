"""phone: whether an event's telephone number can be one, its international form, where it belongs and of what type it is.

The numbering plans are libphonenumber's (package phonenumbers). Nobody is called.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

import phonenumbers
import polars as pl
from phonenumbers import PhoneNumberType

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.phone_region import PhoneRegion

INPUTS = {"traits": "traits.phone", "context": "context.traits.phone", "properties": "properties.phone"}

OUTPUTS = {
    "phone": Output(pl.String(), "The number in E.164, such as +4930123456; null when it is not valid."),
    "phone_region": Output(
        pl.String(), "Country or territory of the number, ISO 3166-1 alpha-2; null for numbers of no country."
    ),
    "phone_type": Output(
        pl.String(), "mobile, fixed_line, fixed_line_or_mobile, toll_free, voip and other types; null when unknown."
    ),
    "is_phone_valid": Output(pl.Boolean(), "Whether such a number can be given out; null without one."),
}

MAX_LENGTH = 100
"""Longer texts are no number; to look for one in them would take long."""

_TYPES = {value: name.lower() for name, value in vars(PhoneNumberType).items() if name.isupper() and name != "UNKNOWN"}
_NO_REGION = "001"

Told = tuple[str | None, str | None, str | None, bool | None]
_NOTHING: Told = (None, None, None, None)
_INVALID: Told = (None, None, None, False)


class Settings(Declaration):
    """Settings of phone."""

    default_region: PhoneRegion | None = None
    """Country, such as DE, of numbers that are written without `+` and country code. Left out: those are not valid."""


def reference_version() -> str:
    """Version of the numbering plans."""
    return version("phonenumbers")


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The first number that is there -> what it is."""
    told = distinct.select(pl.coalesce(pl.when(pl.col(name).str.strip_chars() != "").then(name) for name in INPUTS)).to_series()
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame([described(text, settings.default_region) for text in told], schema, orient="row")


@lru_cache(maxsize=50_000)
def described(text: str | None, default_region: str | None) -> Told:
    """The outputs for one text, in their order."""
    if text is None:
        return _NOTHING
    if len(text) > MAX_LENGTH:
        return _INVALID
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        return _INVALID
    if not phonenumbers.is_valid_number(number):
        return _INVALID
    region = phonenumbers.region_code_for_number(number)
    form = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return form, None if region == _NO_REGION else region, _TYPES.get(phonenumbers.number_type(number)), True
