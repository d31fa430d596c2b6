"""The core segment of an IAB Transparency and Consent string, version 2: who may do what, as far as it is asked here.

After the public specification "Consent string and vendor list formats v2". Publisher restrictions are not applied.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdp_assets.enriched_events.enrichments.consent_strings.bits import Bits, BrokenStringError

_BEFORE_VERSION, _BEFORE_SERVICE = 6, 36 + 36 + 12 + 12 + 6 + 12 + 12 + 6


@dataclass(frozen=True)
class Tcf:
    """What a string grants."""

    purposes: tuple[int, ...]
    """Purposes with consent."""
    legitimate_interests: tuple[int, ...]
    """Purposes whose legitimate interest was shown and not objected to."""
    special_features: tuple[int, ...]
    """Special features that were opted in to."""
    vendors: frozenset[int]
    """Vendors with consent."""


def read_tcf(text: str) -> Tcf:
    """The core segment, which stands first. Raises BrokenStringError."""
    bits = Bits(text.partition(".")[0])
    if bits.number(_BEFORE_VERSION) != 2:
        raise BrokenStringError("another version")
    bits.take(_BEFORE_SERVICE + 2)
    special_features = bits.places(12)
    purposes = bits.places(24)
    legitimate_interests = bits.places(24)
    bits.take(1 + 12)
    return Tcf(purposes, legitimate_interests, special_features, frozenset(_vendors(bits)))


def _vendors(bits: Bits) -> list[int]:
    last = bits.number(16)
    if not bits.flag():
        return list(bits.places(last))
    found: list[int] = []
    for _ in range(bits.number(12)):
        is_range, first = bits.flag(), bits.number(16)
        until = bits.number(16) if is_range else first
        found.extend(range(first, min(until, last) + 1))
        if len(found) > last:
            raise BrokenStringError("ranges overlap")
    return found
