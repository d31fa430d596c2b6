"""Consent signals: the names by which a company says which answers of consent managers mean one of its purposes.

How they are read from events is in enriched_events/enrichments/consent_strings; what holds for a person, in the layer consent.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

GOOGLE_TYPES = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
"""Google's consent types, in the order of its strings."""
US_OPT_OUTS = ("sale", "sharing", "targeted_advertising")
TCF_PURPOSES = range(1, 25)
_LONGEST_SCOPE = 100


def _signal(text: str) -> str:
    kind, _, what = text.partition(":")
    is_one = {
        "tcf": what.isascii() and what.isdigit() and int(what) in TCF_PURPOSES,
        "google": what in GOOGLE_TYPES,
        "us": what in US_OPT_OUTS,
        "scope": 0 < len(what.strip()) <= _LONGEST_SCOPE,
    }
    if is_one.get(kind):
        return text
    raise ValueError(
        f"{text!r} is no signal; signals are tcf:1 to tcf:24, google:{', google:'.join(GOOGLE_TYPES)}, "
        f"us:{', us:'.join(US_OPT_OUTS)} and scope:<name>"
    )


Signal = Annotated[str, AfterValidator(_signal)]
"""`tcf:1`: consent to a TCF purpose. `google:ad_storage`: granted in Google's consent mode. `us:sale`: not opted out of. `scope:marketing`:
among the scopes that were allowed."""
