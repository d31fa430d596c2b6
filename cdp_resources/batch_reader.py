"""Sealed inbox files as frames: the JSON of many lines at once, by DuckDB in memory.

Reads only; what makes a row acceptable is decided by raw_events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import xxhash

_TEXT = "VARCHAR"
_MESSAGE = (
    *("messageId", "type", "event", "name", "userId", "anonymousId", "previousId", "groupId", "timestamp", "originalTimestamp"),
    *("properties", "context", "traits"),
)
_COLUMNS = {
    "source": _TEXT,
    "received_at": "BIGINT",
    "sent_at": _TEXT,
    "type": _TEXT,
    "ip": _TEXT,
    "line": "BIGINT",
    "reason": _TEXT,
    "message": "STRUCT(" + ", ".join(f'"{name}" {_TEXT}' for name in _MESSAGE) + ")",
}
_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
_USUAL = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
# Everything stands in the text: with parameters the same query took seven times as long (DuckDB 1.5.5). A value that does not fit its column is null, and
# the line stays; the message itself is cut out of the line by Polars, since JSON that DuckDB writes again has other blanks and digits.
_QUERY = "select * from read_json(@paths, format='newline_delimited', columns=@columns, ignore_errors=true, maximum_object_size=134217728)"
_MESSAGE_AT = '"message":'
_IDS = {
    "messageId": "message_id",
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "previousId": "previous_id",
    "groupId": "group_id",
}


def instants(texts: pl.Series) -> pl.Series:
    """ISO 8601 texts as UTC instants in microseconds; naive text is UTC; anything else, or outside the years 1900 to 9999, is null."""
    usual = texts.str.contains(_USUAL)
    parsed = texts.set(~usual.fill_null(False), None).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    rest = texts.filter(parsed.is_null() & texts.is_not_null()).unique()
    if not rest.is_empty():
        values = [_slow_instant(each) for each in rest]
        found = pl.DataFrame({"text": rest, "at": pl.Series(values, dtype=pl.Datetime("us", "UTC"))})
        extra = texts.to_frame("text").join(found, on="text", how="left", maintain_order="left")["at"]
        parsed = parsed.zip_with(parsed.is_not_null(), extra)
    sane = parsed.dt.year().is_between(1900, 9999)
    return parsed.set(~sane.fill_null(True), None)


def _slow_instant(text: str) -> datetime | None:
    """One text, with every form that `_INSTANT` allows."""
    if not re.fullmatch(_INSTANT, text):
        return None
    try:
        value = datetime.fromisoformat(text.replace("z", "Z"))
    except ValueError:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return None


def read_lines(files: Sequence[tuple[int, Path]], threads: int = 1) -> pl.DataFrame:
    """The lines of sealed files, given with their batch_seq, in order of place.

    Columns: batch_seq, offset, source, received_at, sent_at, type (the envelope's, else the message's), ip, line, reason, message_id, user_id, anonymous_id, previous_id,
    group_id, event, name, claimed_at (the message's own instant), has_claimed_at (a text was there), properties, context, traits (JSON texts of objects), payload (the message,
    byte for byte).
    """
    lines = pl.concat(
        [
            pl.scan_lines(path, name="text").with_columns(
                batch_seq=pl.lit(seq, pl.Int64), offset=pl.int_range(pl.len(), dtype=pl.Int64)
            )
            for seq, path in files
        ]
    ).select(
        "batch_seq",
        "offset",
        payload=pl.col("text").str.slice(pl.col("text").str.find(_MESSAGE_AT, literal=True) + len(_MESSAGE_AT)).str.head(-1),
    )
    listed = "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for _, path in files) + "]"
    columns = "{" + ", ".join(f"{name}: '{dtype}'" for name, dtype in _COLUMNS.items()) + "}"
    with duckdb.connect(
        config={"threads": threads, "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as con:
        frame = pl.DataFrame(con.sql(_QUERY.replace("@paths", listed).replace("@columns", columns)))
    frame = frame.hstack(lines.collect())
    message = frame["message"].struct.unnest()
    claimed = message["timestamp"].zip_with(message["timestamp"].is_not_null(), message["originalTimestamp"])
    objects = [
        pl.when(pl.col(name).str.starts_with("{")).then(pl.col(name)).alias(name) for name in ("properties", "context", "traits")
    ]
    ids = [pl.when(~pl.col(given).str.contains(r"^[\[{]")).then(pl.col(given)).alias(name) for given, name in _IDS.items()]
    fields = message.select(*ids, "event", "name", *objects)
    return frame.select(
        "batch_seq",
        "offset",
        "source",
        (pl.col("received_at") * 1).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("received_at"),
        instants(frame["sent_at"]).alias("sent_at"),
        pl.coalesce("type", message["type"].alias("message_type")).alias("type"),
        "ip",
        "line",
        "reason",
        "payload",
        instants(claimed).alias("claimed_at"),
        claimed.is_not_null().alias("has_claimed_at"),
    ).hstack(fields)


def message_keys(source: pl.Series, message_id: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The 128-bit key of each message, as its low and high signed 64-bit halves: `xxh3_128(source + NUL + message_id)`."""
    texts = (source + "\0" + message_id).to_list()
    digests = np.frombuffer(b"".join([xxhash.xxh3_128_digest(text.encode()) for text in texts]), dtype=">i8").reshape(-1, 2)
    native = digests.astype("<i8")
    return pl.Series("message_key", native[:, 1], dtype=pl.Int64), pl.Series("message_key_high", native[:, 0], dtype=pl.Int64)
