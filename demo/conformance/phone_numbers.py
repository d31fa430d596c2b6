"""libphonenumber's example numbers, of every country and type, through the enrichment `phone`: written nationally and internationally.

They come with the package phonenumbers itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from cdp_assets.enriched_events.enrichments.phone import described
from demo.conformance import Part

SUITE = "libphonenumber examples"
_BOTH = "fixed_line_or_mobile"
_NO_PLAN = ("UNKNOWN", "FIXED_LINE_OR_MOBILE")
"""Types that no country has examples of: answers, not questions."""


def run() -> Iterator[Part]:
    """The same numbers in the national and the international form."""
    yield _part("national form", PhoneNumberFormat.NATIONAL, with_region=True)
    yield _part("international form", PhoneNumberFormat.INTERNATIONAL, with_region=False)


def _part(name: str, form: int, *, with_region: bool) -> Part:
    cases = shared = 0
    wrong = Counter[str]()
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind, value in vars(PhoneNumberType).items():
            number = phonenumbers.example_number_for_type(region, value) if kind.isupper() and kind not in _NO_PLAN else None
            if number is None:
                continue
            cases += 1
            text = phonenumbers.format_number(number, form)
            found, its_region, its_type, is_valid = described(text, region if with_region else None)
            if not is_valid:
                wrong["not valid"] += 1
            elif found != phonenumbers.format_number(number, PhoneNumberFormat.E164):
                wrong["other number"] += 1
            elif its_type not in (kind.lower(), _BOTH):
                wrong["other type"] += 1
            elif its_region is None or not phonenumbers.is_valid_number_for_region(number, its_region):
                wrong["other territory"] += 1
            else:
                shared += its_region != region
    notes = [*(f"{count} {kind}" for kind, count in wrong.most_common()), f"{shared} belong to several territories with one code"]
    return Part(SUITE, name, cases - wrong.total(), cases, "; ".join(notes))
