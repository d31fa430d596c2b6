"""What a row of erasures promises."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "privacy"
INSTANT = pl.Datetime("us", "UTC")

ERASURES = TableSpec(
    LAYER,
    "erasures",
    {
        "erasure_id": pl.String(),
        "requested_at": INSTANT,
        "finished_at": INSTANT,
        "profile_count": pl.Int64(),
        "rows_removed": pl.Int64(),
        "tables": pl.Int64(),
        "status": pl.String(),
        "proof": pl.String(),
    },
    person="holds counts only",
)
"""Who was erased is not in it: when, how much of how many tables, and what was looked at afterwards to prove it."""
TABLES = (ERASURES,)
