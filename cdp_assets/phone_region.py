"""The country that telephone numbers without a country code belong to, as declarations name it. Numbers themselves are not read here."""

from __future__ import annotations

from typing import Annotated

import phonenumbers
from pydantic import AfterValidator


def _region(value: str) -> str:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(
            f"{value!r} is no country with telephone numbers; use two capital letters of ISO 3166-1, such as DE, or GB for the United Kingdom"
        )
    return value


PhoneRegion = Annotated[str, AfterValidator(_region)]
"""Two capital letters, such as DE. With anything else libphonenumber reads no local number at all, and says nothing."""
