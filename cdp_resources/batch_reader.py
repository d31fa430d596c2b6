"""Sealed inbox files as frames: the JSON of many lines at once, by DuckDB in memory.

Reads only; what makes a row acceptable is decided by raw_events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from cdp_resources import envelope, hashing

_TEXT = "VARCHAR"
_IDS = {
    "messageId": "message_id",
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "previousId": "previous_id",
    "groupId": "group_id",
}
_OBJECTS = ("properties", "context", "traits")
_MESSAGE = (*_IDS, "type", "event", "name", "timestamp", "originalTimestamp", *_OBJECTS)
_COLUMNS = {
    "source": _TEXT,
    "received_at": "BIGINT",
    "sent_at": _TEXT,
    "type": _TEXT,
    "ip": _TEXT,
    "line": "BIGINT",
    "request": _TEXT,
    "reason": _TEXT,
    "message": "STRUCT(" + ", ".join(f'"{name}" {_TEXT}' for name in _MESSAGE) + ")",
}
_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
_USUAL = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_LONGEST_LINE = 4 * 1024 * 1024
"""Bytes; a message has at most one MiB, a refused text at most 64 KiB, which as a JSON string is six times as long at the most. DuckDB holds two of these in
one buffer, which is the smaller part of the cache, not memory that is new for each file."""
# Everything stands in the text: with parameters the same query took seven times as long (DuckDB 1.5.5). A value that does not fit its column is null, and
# the line stays; the message itself is cut out of the line by Polars, since JSON that DuckDB writes again has other blanks and digits.
_QUERY = f"""
    select source, make_timestamp(received_at) as received_at, sent_at, coalesce("type", message."type") as "type", ip, line, request, reason,
        coalesce(message."timestamp", message."originalTimestamp") as claimed, message."event" as event, message."name" as name,
        {", ".join(f'message."{given}" as {name}' for given, name in _IDS.items())},
        {", ".join(f'message."{name}" as {name}' for name in _OBJECTS)}
    from read_json(@paths, format='newline_delimited', columns=@columns, ignore_errors=true, maximum_object_size={_LONGEST_LINE})"""  # noqa: S608 - constants
_MESSAGE_AT = '"message":'
_HEAD = ("source", "received_at", "sent_at", "ip", "request")
"""Fields of a line's header that a line which continues another has too; the others are null there."""


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

    Columns: batch_seq, offset, source, received_at, sent_at, type (the envelope's, else the message's), ip, line, request, reason, message_id, user_id, anonymous_id, previous_id,
    group_id, event, name, claimed_at (the message's own instant), has_claimed_at (a text was there), properties, context, traits (JSON texts of objects), payload (the message,
    byte for byte).
    """
    text = pl.col("text")
    cut = text.str.slice(text.str.find(_MESSAGE_AT, literal=True) + len(_MESSAGE_AT)).str.head(-1)
    lines = pl.concat(
        [
            pl.scan_lines(path, name="text").select(
                pl.lit(seq, pl.Int64).alias("batch_seq"),
                pl.int_range(pl.len(), dtype=pl.Int64).alias("offset"),
                payload=cut,
                is_continued=text.str.starts_with(envelope.CONTINUED.decode()),
            )
            for seq, path in files
        ]
    ).collect()
    listed = "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for _, path in files) + "]"
    columns = "{" + ", ".join(f"{name}: '{dtype}'" for name, dtype in _COLUMNS.items()) + "}"
    with duckdb.connect(
        config={"threads": threads, "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as con:
        fields = pl.DataFrame(con.sql(_QUERY.replace("@paths", listed).replace("@columns", columns)))
    ids = [pl.when(~pl.col(name).str.contains(r"^[\[{]")).then(pl.col(name)).alias(name) for name in _IDS.values()]
    objects = [pl.when(pl.col(name).str.starts_with("{")).then(pl.col(name)).alias(name) for name in _OBJECTS]
    return (
        lines.hstack(_with_heads(fields.with_columns(instants(fields["sent_at"]).alias("sent_at")), lines))
        .with_columns(
            pl.col("received_at").dt.replace_time_zone("UTC"),
            *ids,
            *objects,
            instants(fields["claimed"]).alias("claimed_at"),
            has_claimed_at=pl.col("claimed").is_not_null(),
        )
        .drop("claimed", "is_continued")
    )


def _with_heads(fields: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The fields, those of a line that continues another filled in from there; nothing is where what it continues is in another file."""
    is_continued = lines["is_continued"] & (lines["offset"] > 0)
    if not is_continued.any():
        return fields
    own = pl.when(~is_continued).then(pl.int_range(pl.len(), dtype=pl.UInt32)).forward_fill()
    return fields.with_columns(pl.col(_HEAD).gather(own))


def message_keys(source: pl.Series, message_id: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The 128-bit key of each message, as its low and high signed 64-bit halves: `xxh3_128(source + NUL + message_id)`."""
    low, high = hashing.xxh3_128((source + "\0" + message_id).fill_null(""))
    return low.alias("message_key"), high.alias("message_key_high")
