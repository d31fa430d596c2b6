"""What a row of erasures promises. No row holds a value of anybody: counts, hashes and names of files only."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "privacy"
INSTANT = pl.Datetime("us", "UTC")
STATUSES = ("done", "incomplete")

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
        "request_hash": pl.String(),
    },
    person="holds counts only",
)
"""Who was erased is not in it: when, how much of how many tables, and what was looked at afterwards to prove it.

An erasure that could not be completed leaves a row with status `incomplete`, and one more when it is. `request_hash` is keyed with
`CDP_HOME/audit.key`: the same as in audit.jsonl, and of no use without the key. `proof` is a JSON object: rows removed by table,
files and bytes looked at, how many values were looked for and how, hits by path, what destinations were asked.
"""
TABLES = (ERASURES,)
