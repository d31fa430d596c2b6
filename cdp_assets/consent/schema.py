"""What rows of consents and of the facts behind them promise."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "consent"
INSTANT = pl.Datetime("us", "UTC")
STATUSES = ("granted", "denied", "expired")

CONSENT_FACTS = TableSpec(
    LAYER,
    "consent_facts",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "subject_id": pl.Int64(),
        "at": INSTANT,
        "message_key": pl.Int64(),
        "consent": pl.String(),
    },
    person="rows whose subject_id belongs to the person's profile",
)
"""What each event said about consent: JSON of purpose -> true or false. The evidence behind consents."""
CONSENTS = TableSpec(
    LAYER,
    "consents",
    {"profile_id": pl.Int64(), "purpose": pl.String(), "status": pl.String(), "at": INSTANT, "expires_at": INSTANT},
    keys=("profile_id",),
    person="rows with the person's profile_id",
)
TABLES = (CONSENT_FACTS, CONSENTS)
