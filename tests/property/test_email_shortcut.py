"""Plain e-mail addresses are judged by their domain alone: as the package judges the whole address."""

from __future__ import annotations

import polars as pl
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from cdp_assets.enriched_events.enrichments import email

LABELS = st.text("abZ09-_.", max_size=12) | st.sampled_from(
    ["com", "co.uk", "xn--bcher-kva.example", "test", "localhost", "a" * 63, "a" * 64]
)
LOCALS = st.text('aZ0+-._ !"\u00e9@', min_size=0, max_size=12) | st.integers(60, 70).map(lambda count: "a" * count)
DOMAINS = st.lists(LABELS, min_size=0, max_size=5).map(".".join)
ADDRESSES = st.builds("{}@{}".format, LOCALS, DOMAINS) | st.builds("{0}@{1}.com".format, LOCALS, LABELS)


@given(ADDRESSES)
@example("a" * 64 + "@" + ".".join(["b" * 63] * 3) + ".com")
@example("a" * 58 + "@" + ".".join(["b" * 63] * 3) + ".com")
@example("POSTMASTER@Example.com")
@example("a@XN--bcher-kva.example")
@example("someone@shop.com\n")
def test_an_address_is_judged_as_the_package_judges_it(address: str) -> None:
    inputs = pl.DataFrame({"traits": [address], "context": [None], "properties": [None]}, dict.fromkeys(email.INPUTS, pl.String))
    told = email.enrich(inputs, email.Settings()).row(0, named=True)
    if not address.strip():
        assert told["is_email_valid"] is None
        return
    try:
        found = validate_email(address.strip(), check_deliverability=False)
    except EmailNotValidError:
        assert (told["is_email_valid"], told["email"], told["email_domain"]) == (False, None, None)
        return
    expected = (True, found.normalized.lower(), found.ascii_domain.lower())
    assert (told["is_email_valid"], told["email"], told["email_domain"]) == expected
