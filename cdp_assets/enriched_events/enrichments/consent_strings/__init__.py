"""consent_strings: what the standard strings of consent managers say: IAB TCF 2, GPP and US Privacy, Google's consent mode, allowed scopes.

Segment's consent object is for enrichment `consent`; what holds for a person over time, for the layer `consent`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import msgspec
import polars as pl
from pydantic import Field

from cdp_assets.consent_signals import GOOGLE_TYPES, TCF_PURPOSES, Signal
from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import FAILED, Output
from cdp_assets.enriched_events.enrichments.consent_strings.bits import BrokenStringError
from cdp_assets.enriched_events.enrichments.consent_strings.gpp import Gpp, opt_outs_of_us_privacy, read_gpp
from cdp_assets.enriched_events.enrichments.consent_strings.tcf import Tcf, read_tcf
from cdp_assets.enriched_events.requests import request

INPUTS = {
    "tcf": "context.consent.tcf",
    "gpp": "context.consent.gpp",
    "usp": "context.consent.usp",
    "gcs": "context.consent.gcs",
    "gcd": "context.consent.gcd",
    "scopes": "context.consent.scopes",
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

_GCS = re.compile(r"G1([01-])([01-])")
_GCD = re.compile(r"1\d([a-z])\d([a-z])\d([a-z])\d([a-z])\d[0-9a-z]*")  # newer ones go on after the four types
_USP = re.compile(r"1[YN-]{3}")
_GRANTED, _DENIED = "trnv", "pqmu"
_LONGEST = 10_000
_Read = TypeVar("_Read", Tcf, Gpp)
_COOKIES = {"tcf": "euconsent-v2", "gpp": "__gpp", "usp": "usprivacy"}


class Settings(Declaration):
    """Settings of consent_strings."""

    vendors: tuple[int, ...] = ()
    """Numbers of TCF vendors whose consent you want to know."""
    purposes: dict[str, tuple[Signal, ...]] = Field(default_factory=dict)
    """Purpose -> the signals that must be given for it: `tcf:1`, `google:ad_storage`, `us:sale` (not opted out of), `scope:marketing`. Of
    those told, all must be. Left out: the purposes of config/consent.yaml that have `signals`."""


@dataclass(frozen=True)
class _Strings:
    """What came with one event."""

    tcf: str | None
    gpp: str | None
    usp: str | None
    gcs: str | None
    gcd: str | None
    scopes: str | None


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The strings of the context, else those of the kept cookies -> what they say.

    A string that cannot be read says nothing, and the row has FAILED; what the others say stands all the same, since it may be a denial.
    """
    purposes = tuple(settings.purposes.items())
    rows = []
    for tcf, gpp, usp, gcs, gcd, scopes, asked in distinct.select(list(INPUTS)).iter_rows():
        cookies = request(asked).cookies
        tcf, gpp, usp = (given or cookies.get(_COOKIES[name]) for name, given in (("tcf", tcf), ("gpp", gpp), ("usp", usp)))
        rows.append(_told(_Strings(tcf, gpp, usp, gcs, gcd, scopes), settings.vendors, purposes))
    schema = {name: output.dtype for name, output in OUTPUTS.items()} | {FAILED: pl.Boolean()}
    return pl.DataFrame(rows, schema, orient="row")


@lru_cache(maxsize=20_000)
def _told(
    given: _Strings, vendors: tuple[int, ...], purposes: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[str | bool | None, ...]:
    platform, is_gpp_broken = _read(read_gpp, given.gpp)
    european, is_tcf_broken = _read(read_tcf, given.tcf)
    if european is None:
        european, is_inner_broken = _read(read_tcf, platform.tcf if platform else None)
        is_tcf_broken |= is_inner_broken
    state, is_state_broken = _google(_GCS, given.gcs, "1", "0")
    detail, is_detail_broken = _google(_GCD, given.gcd, _GRANTED, _DENIED)
    scopes, is_list_broken = _scopes(given.scopes)
    privacy, is_privacy_broken = _us_privacy(given.usp)
    google = {**state, **detail}
    opt_outs = _either(platform.opt_outs if platform else {}, privacy)
    granted = {f"google:{name}": value for name, value in google.items()}
    granted |= {f"us:{name}": not is_out for name, is_out in opt_outs.items()}
    if european:
        granted |= {f"tcf:{number}": number in european.purposes for number in TCF_PURPOSES}
    if scopes is not None:  # what is not among those allowed is denied
        granted |= {term: term in scopes for _, terms in purposes for term in terms if term.startswith("scope:")}
    allowed = {
        purpose: all(granted[term] for term in terms if term in granted)
        for purpose, terms in purposes
        if any(term in granted for term in terms)
    }
    sections = platform.sections if platform else None
    found = (*_of_tcf(european, vendors), sections, opt_outs or None, google or None, allowed or None)
    texts = (None if each is None else msgspec.json.encode(each, order="sorted").decode() for each in found)
    is_broken = is_gpp_broken or is_tcf_broken or is_state_broken or is_detail_broken or is_list_broken or is_privacy_broken
    return (*texts, is_broken)


def _of_tcf(european: Tcf | None, vendors: tuple[int, ...]) -> tuple[object, ...]:
    if european is None:
        return None, None, None, None
    known = [each for each in vendors if each in european.vendors]
    return european.purposes, european.legitimate_interests, european.special_features, known


def _read(reader: Callable[[str], _Read], text: str | None) -> tuple[_Read | None, bool]:
    """What a packed string says, and whether there is one that cannot be read."""
    if not text:
        return None, False
    if len(text) > _LONGEST:
        return None, True
    try:
        return reader(text), False
    except BrokenStringError:
        return None, True


def _google(form: re.Pattern[str], text: str | None, granted: str, denied: str) -> tuple[dict[str, bool], bool]:
    """Google's consent types in their order -> granted, and whether there is a string that cannot be read; a type that is not set is left out."""
    if not text:
        return {}, False
    found = form.fullmatch(text[:100])
    if found is None:
        return {}, True
    told = zip(GOOGLE_TYPES, found.groups(), strict=False)
    return {name: said in granted for name, said in told if said in granted + denied}, False


def _us_privacy(text: str | None) -> tuple[dict[str, bool], bool]:
    if not text:
        return {}, False
    return (opt_outs_of_us_privacy(text), False) if _USP.fullmatch(text) else ({}, True)


def _either(one: dict[str, bool], other: dict[str, bool]) -> dict[str, bool]:
    """Out of one is out."""
    return {name: one.get(name, False) or other.get(name, False) for name in {**one, **other}}


def _scopes(text: str | None) -> tuple[frozenset[str] | None, bool]:
    """The signals of a JSON list of scopes, and whether there is one that cannot be read."""
    if not text:
        return None, False
    try:
        names = msgspec.json.decode(text, type=list[str])
    except (ValueError, RecursionError):
        return None, True
    return frozenset(f"scope:{each}" for each in names), False
