"""What rows of raw_events, rejected_events and import_batches promise."""

from __future__ import annotations

import polars as pl

from cdp_resources.lake import TableSpec

LAYER = "raw_events"
INSTANT = pl.Datetime("us", "UTC")
TYPES = ("track", "page", "screen", "identify", "group", "alias", "profile_data")

EVENT_COLUMNS: dict[str, pl.DataType] = {
    "batch_seq": pl.Int64(),
    "offset": pl.Int64(),
    "batch_id": pl.String(),
    "source": pl.String(),
    "message_id": pl.String(),
    "message_key": pl.Int64(),
    "type": pl.String(),
    "event": pl.String(),
    "user_id": pl.String(),
    "anonymous_id": pl.String(),
    "previous_id": pl.String(),
    "group_id": pl.String(),
    "timestamp": INSTANT,
    "received_at": INSTANT,
    "sent_at": INSTANT,
    "is_timestamp_adjusted": pl.Boolean(),
    "ip": pl.String(),
    "request": pl.String(),
    "properties": pl.String(),
    "context": pl.String(),
    "traits": pl.String(),
    "received_date": pl.Date(),
}
"""The columns that enriched_events keeps."""

DESCRIPTIONS = {
    "batch_seq": "Number of the batch: with offset, the place of the row",
    "offset": "Line of the batch, from 0",
    "batch_id": "Name of the batch: hour of receipt and number",
    "source": "Declared source that the event came through",
    "message_id": "The sender's id of the message; where it gave none, batch and offset",
    "message_key": "Low half of xxh3_128(source, message_id): settles ties between events of one instant",
    "message_key_high": "High half of the same hash",
    "type": "track, page, screen, identify, group or alias; profile_data for what others know about people",
    "event": "Name of the track event, or of the page or screen",
    "user_id": "The sender's id of a known person",
    "anonymous_id": "The sender's id of a device or browser",
    "previous_id": "The id that an alias call replaces",
    "group_id": "The sender's id of an account",
    "timestamp": "When it happened, UTC, corrected for clock skew",
    "received_at": "When it was received, UTC",
    "sent_at": "When the sender says it was sent, UTC",
    "is_timestamp_adjusted": "The timestamp was corrected, capped at receipt, or could not be read",
    "ip": "Address that the request came from",
    "request": "The headers and cookies of the request that the source declares to keep, JSON; null for none",
    "properties": "Properties, JSON",
    "context": "Context, JSON",
    "traits": "Traits, JSON",
    "payload": "The message as it was received, byte for byte",
    "received_date": "UTC date of receipt; the partition",
    "line": "Line of the imported file, or offset in the batch",
    "reason": "Why it was refused",
    "received": "Lines that arrived",
    "accepted": "Lines that became raw events",
    "duplicates": "Lines whose message was already there",
    "rejected": "Lines that were refused",
    "erased": "Lines that were erased since",
    "hour": "Hour of receipt, UTC: the partition in Dagster",
    "last_batch_seq": "Newest batch that raw_events had when the message was erased; copies in later ones stay out however late they come",
}

DISTINCT = ("offset", "message_id", "message_key", "timestamp", "received_at", "sent_at", "properties", "context", "traits")

RAW_EVENTS = TableSpec(
    LAYER,
    "raw_events",
    {**EVENT_COLUMNS, "message_key_high": pl.Int64(), "payload": pl.String()},
    partition_by="received_date",
    distinct=(*DISTINCT, "message_key_high", "payload"),
    person="rows whose place is among the person's events",
)
REJECTED_EVENTS = TableSpec(
    LAYER,
    "rejected_events",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "batch_id": pl.String(),
        "source": pl.String(),
        "line": pl.Int64(),
        "reason": pl.String(),
        "payload": pl.String(),
        "received_at": INSTANT,
        "received_date": pl.Date(),
    },
    partition_by="received_date",
    person="rows whose payload holds one of the person's identifiers",
)
IMPORT_BATCHES = TableSpec(
    LAYER,
    "import_batches",
    {
        "batch_seq": pl.Int64(),
        "batch_id": pl.String(),
        "hour": INSTANT,
        "source": pl.String(),
        "received": pl.Int64(),
        "accepted": pl.Int64(),
        "duplicates": pl.Int64(),
        "rejected": pl.Int64(),
        "erased": pl.Int64(),
    },
    person="holds counts only",
)
ERASED_KEYS = TableSpec(
    LAYER,
    "erased_keys",
    {"batch_seq": pl.Int64(), "message_key": pl.Int64(), "message_key_high": pl.Int64(), "last_batch_seq": pl.Int64()},
    person="holds hashes of message ids only, so that a retried message of an erased person stays out",
)
IMPORTED_FILES = TableSpec(
    LAYER,
    "imported_files",
    {
        "source": pl.String(),
        "file": pl.String(),
        "found_as": pl.String(),
        "size_bytes": pl.Int64(),
        "modified_at": INSTANT,
        "status": pl.String(),
        "reason": pl.String(),
        "batch_id": pl.String(),
        "taken": pl.Int64(),
        "refused": pl.Int64(),
        "imported_at": INSTANT,
    },
    person="rows whose file has one of the person's values in its name, of which a keyed hash is kept",
)
TABLES = (RAW_EVENTS, REJECTED_EVENTS, IMPORT_BATCHES, ERASED_KEYS, IMPORTED_FILES)
