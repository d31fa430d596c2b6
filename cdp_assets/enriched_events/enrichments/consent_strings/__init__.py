"""consent_strings: what the standard strings of consent managers say: IAB TCF 2, IAB GPP, and Google's consent mode.

Segment's consent object is for enrichment `consent`; what holds for a person over time, for the layer `consent`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

import msgspec
import polars as pl
from pydantic import AfterValidator, Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.enrichments.consent_strings.bits import BrokenStringError
from cdp_assets.enriched_events.enrichments.consent_strings.gpp import Gpp, read_gpp
from cdp_assets.enriched_events.enrichments.consent_strings.tcf import Tcf, read_tcf
from cdp_assets.enriched_events.requests import request

INPUTS = {
    "tcf": "context.consent.tcf",
    "gpp": "context.consent.gpp",
    "gcs": "context.consent.gcs",
    "gcd": "context.consent.gcd",
    "request": "column:request",
}

OUTPUTS = {
    "tcf_purposes": Output(pl.String(), "JSON list of the TCF purposes with consent; null without a TCF string."),
    "tcf_legitimate_interests": Output(
        pl.String(), "JSON list of the TCF purposes with legitimate interest that nobody objected to."
    ),
    "tcf_special_features": Output(pl.String(), "JSON list of the TCF special features that were opted in to."),
    "tcf_vendors": Output(pl.String(), "JSON list of those of the declared vendors that have consent."),
    "gpp_sections": Output(pl.String(), "JSON list of the numbers of the GPP string's sections; null without one."),
    "us_opt_outs": Output(
        pl.String(), "JSON object: sale, sharing, targeted_advertising -> whether opted out of; null if not told."
    ),
    "google_consent": Output(pl.String(), "JSON object of Google's consent types -> granted; null if not told."),
    "allowed_purposes": Output(pl.String(), "JSON object of declared purpose -> true or false, as far as the strings tell."),
}

GOOGLE_TYPES = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
_GCS = re.compile(r"G1([01-])([01-])")
_GCD = re.compile(r"1\d([a-z])\d([a-z])\d([a-z])\d([a-z])\d")
_GRANTED, _DENIED = "trnv", "pqmu"
_US = ("sale", "sharing", "targeted_advertising")
_LONGEST = 10_000
_COOKIES = {"tcf": "euconsent-v2", "gpp": "__gpp"}


def _term(text: str) -> str:
    kind, _, what = text.partition(":")
    if (kind == "tcf" and what.isascii() and what.isdigit() and 1 <= int(what) <= 24) or (
        (kind == "google" and what in GOOGLE_TYPES) or (kind == "us" and what in _US)
    ):
        return text
    raise ValueError(
        f"{text!r} is no term; terms are tcf:1 to tcf:24, google:{', google:'.join(GOOGLE_TYPES)}, us:{', us:'.join(_US)}"
    )


class Settings(Declaration):
    """Settings of consent_strings."""

    vendors: tuple[int, ...] = ()
    """Numbers of TCF vendors whose consent you want to know."""
    purposes: dict[str, tuple[Annotated[str, AfterValidator(_term)], ...]] = Field(default_factory=dict)
    """Purpose -> what must be granted for it: `tcf:1`, `google:ad_storage`, `us:sale` (not opted out of). Of those told, all must be."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The strings of the context, else those of the kept cookies -> what they say. A broken string says nothing."""
    purposes = tuple(settings.purposes.items())
    rows = []
    for tcf, gpp, gcs, gcd, asked in distinct.select("tcf", "gpp", "gcs", "gcd", "request").iter_rows():
        cookies = request(asked).cookies
        rows.append(
            _told(tcf or cookies.get(_COOKIES["tcf"]), gpp or cookies.get(_COOKIES["gpp"]), gcs, gcd, settings.vendors, purposes)
        )
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame(rows, schema, orient="row")


@lru_cache(maxsize=20_000)
def _told(
    tcf: str | None,
    gpp: str | None,
    gcs: str | None,
    gcd: str | None,
    vendors: tuple[int, ...],
    purposes: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[str | None, ...]:
    platform = _read_gpp(gpp)
    european = _read_tcf(tcf) or _read_tcf(platform.tcf if platform else None)
    google = {**_google(_GCS, gcs, "1", "0"), **_google(_GCD, gcd, _GRANTED, _DENIED)}
    opt_outs = platform.opt_outs if platform else {}
    granted = {f"google:{name}": value for name, value in google.items()}
    granted |= {f"us:{name}": not is_out for name, is_out in opt_outs.items()}
    if european:
        granted |= {f"tcf:{number}": number in european.purposes for number in range(1, 25)}
    allowed = {
        purpose: all(granted[term] for term in terms if term in granted)
        for purpose, terms in purposes
        if any(term in granted for term in terms)
    }
    of_tcf = (
        (
            european.purposes,
            european.legitimate_interests,
            european.special_features,
            [each for each in vendors if each in european.vendors],
        )
        if european
        else (None, None, None, None)
    )
    found = (*of_tcf, platform.sections if platform else None, opt_outs or None, google or None, allowed or None)
    return tuple(None if each is None else msgspec.json.encode(each, order="sorted").decode() for each in found)


def _read_tcf(text: str | None) -> Tcf | None:
    if not text or len(text) > _LONGEST:
        return None
    try:
        return read_tcf(text)
    except BrokenStringError:
        return None


def _read_gpp(text: str | None) -> Gpp | None:
    if not text or len(text) > _LONGEST:
        return None
    try:
        return read_gpp(text)
    except BrokenStringError:
        return None


def _google(form: re.Pattern[str], text: str | None, granted: str, denied: str) -> dict[str, bool]:
    """Google's consent types in their order -> granted; a type that is not set is left out."""
    found = form.fullmatch(text[:100]) if text else None
    if found is None:
        return {}
    return {name: said in granted for name, said in zip(GOOGLE_TYPES, found.groups(), strict=False) if said in granted + denied}
