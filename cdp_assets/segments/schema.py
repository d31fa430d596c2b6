"""What rows of segment_changes and segment_members promise."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "segments"
CHANGES = ("entered", "left")

SEGMENT_CHANGES = TableSpec(
    LAYER,
    "segment_changes",
    {
        "profile_id": pl.Int64(),
        "segment": pl.String(),
        "change": pl.String(),
        "at": pl.Datetime("us", "UTC"),
    },
    keys=("profile_id", "segment"),
    person="rows with the person's profile_id",
)
"""Who entered and left which segment, and when that was found. segment_members are those whose newest row is `entered`."""
TABLES = (SEGMENT_CHANGES,)
