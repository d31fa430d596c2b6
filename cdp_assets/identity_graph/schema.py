"""What rows of the identity tables promise. Inside, identifiers are whole numbers; `cdp query` shows them as text."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "identity_graph"
REBUILDING = -1
"""In place of the epoch of enriched_events that identity_map notes: its tables per batch are being made anew, and nobody may count on them."""
INSTANT = pl.Datetime("us", "UTC")

IDENTIFIERS = TableSpec(
    LAYER,
    "identifiers",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "identifier_id": pl.Int64(),
        "identifier_type": pl.String(),
        "identifier": pl.String(),
        "identifier_key": pl.Int64(),
    },
    person="rows whose identifier_id belongs to the person's profile",
)
"""Every identifier ever received, with its number and the place it came from first. Rebuilds never delete it."""
EVENT_SUBJECTS = TableSpec(
    LAYER,
    "event_subjects",
    {"batch_seq": pl.Int64(), "offset": pl.Int64(), "subject_id": pl.Int64(), "at": INSTANT, "message_key": pl.Int64()},
    person="rows whose subject_id belongs to the person's profile",
)
"""The subject of each event: the identifier whose person did it."""
PROFILE_DATA_SUBJECTS = TableSpec(
    LAYER,
    "profile_data_subjects",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "subject_id": pl.Int64(),
        "at": INSTANT,
        "message_key": pl.Int64(),
        "source": pl.String(),
        "received_at": INSTANT,
    },
    person="rows whose subject_id belongs to the person's profile",
)
"""Whom each row of profile data is about: a row for each identifier in it. It gets batches from the first on that has such a row."""
EDGES = TableSpec(
    LAYER,
    "edges",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "position": pl.Int64(),
        "centre_id": pl.Int64(),
        "leaf_id": pl.Int64(),
        "at": INSTANT,
        "message_id": pl.String(),
    },
    person="rows with an end that belongs to the person's profile",
)
"""Pairs of identifiers that came in one event: for each batch and pair the first."""
SIGHTINGS = TableSpec(
    LAYER,
    "sightings",
    {
        "batch_seq": pl.Int64(),
        "identifier_id": pl.Int64(),
        "user_id": pl.Int64(),
        "hour": INSTANT,
        "first_at": INSTANT,
        "last_at": INSTANT,
    },
    person="rows with an end that belongs to the person's profile",
)
"""When a device was seen with a user: first and last instant for each batch, pair and hour. `user_id` is an identifier id."""
IDENTITY_MAP = TableSpec(
    LAYER,
    "identity_map",
    {
        "identifier_id": pl.Int64(),
        "component": pl.Int64(),
        "profile_id": pl.Int64(),
        "is_shared": pl.Boolean(),
        "valid_from": INSTANT,
        "valid_to": INSTANT,
    },
    keys=("identifier_id",),
    person="rows whose identifier_id or profile_id is the person's",
)
"""Whose each identifier is; a shared one has a row for each interval. The primary table of the layer."""
IDENTITY_MERGES = TableSpec(
    LAYER,
    "identity_merges",
    {
        "profile_id": pl.Int64(),
        "from_profile_id": pl.Int64(),
        "into_profile_id": pl.Int64(),
        "at": INSTANT,
        "message_id": pl.String(),
    },
    keys=("profile_id",),
    person="rows whose profile_id is the person's",
)
"""The merges that made each profile, in order of receipt."""
TABLES = (IDENTIFIERS, EVENT_SUBJECTS, PROFILE_DATA_SUBJECTS, EDGES, SIGHTINGS, IDENTITY_MAP, IDENTITY_MERGES)


def with_profile(frame: pl.DataFrame, identity: pl.DataFrame) -> pl.DataFrame:
    """`frame` [subject_id, at, ...] with `profile_id`: whose the subject is at that instant. Rows without a profile are left out.

    `identity`: rows of identity_map of at least these subjects.
    """
    owner = identity.select(
        pl.col("identifier_id").alias("subject_id"),
        "profile_id",
        pl.col("valid_from").alias("_from"),
        pl.col("valid_to").alias("_to"),
    )
    timed = owner.filter(pl.col("_from").is_not_null() | pl.col("_to").is_not_null())
    lasting = owner.filter(pl.col("_from").is_null() & pl.col("_to").is_null()).select("subject_id", "profile_id")
    plain = frame.join(lasting, on="subject_id", how="inner")
    if timed.is_empty():
        return plain
    inside = ((pl.col("_from").is_null()) | (pl.col("at") >= pl.col("_from"))) & (
        (pl.col("_to").is_null()) | (pl.col("at") < pl.col("_to"))
    )
    shared = frame.join(timed, on="subject_id", how="inner").filter(inside).drop("_from", "_to")
    return pl.concat([plain, shared])
