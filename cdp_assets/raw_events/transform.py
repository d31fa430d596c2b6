"""Lines of the inbox into raw events, refused rows and counts: clock skew, message ids, duplicates. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS, REJECTED_EVENTS, TYPES


@dataclass(frozen=True)
class RawBatches:
    """The rows of some batches."""

    raw: pl.DataFrame
    rejected: pl.DataFrame
    counts: pl.DataFrame


def judged(lines: pl.DataFrame) -> pl.DataFrame:
    """Lines with `refusal` (null: acceptable, `erased`: once there) and the event columns of docs/semantics.md, sections 1 and 2.

    `lines`: as `cdp_resources.batch_reader.read_lines` gives them, with `batch_id`.
    """
    moved = pl.col("received_at") - (pl.col("sent_at") - pl.col("claimed_at"))
    at = (
        pl.when(pl.col("claimed_at").is_null())
        .then(pl.col("received_at"))
        .when(pl.col("sent_at").is_not_null())
        .then(moved)
        .otherwise(pl.col("claimed_at"))
    )
    at = pl.when(at > pl.col("received_at")).then(pl.col("received_at")).otherwise(at)
    at = pl.when(at.dt.year() < 1900).then(pl.col("received_at")).otherwise(at)
    claimed = pl.col("claimed_at")
    adjusted = (pl.col("has_claimed_at") & claimed.is_null()) | (claimed.is_not_null() & (pl.col("timestamp") != claimed))
    own_id = pl.col("message_id").is_not_null() & (pl.col("message_id") != "")
    return lines.with_columns(
        is_imported=pl.col("line").is_not_null(),
        refusal=pl.when(pl.col("reason").is_not_null())
        .then(pl.col("reason"))
        .when(~pl.col("payload").str.starts_with("{"))
        .then(pl.lit("the message is no object"))
        .when(pl.col("type").is_null())
        .then(pl.lit("the message has no type"))
        .when(~pl.col("type").is_in(TYPES))
        .then(pl.lit("the type is unknown; types are " + ", ".join(TYPES))),
        message_id=pl.when(own_id).then(pl.col("message_id")).otherwise(pl.format("{}:{}", "batch_id", "offset")),
        event=pl.when(pl.col("type").is_in(["page", "screen"])).then(pl.col("name")).otherwise(pl.col("event")),
        timestamp=at,
        received_date=pl.col("received_at").dt.date(),
        line=pl.coalesce("line", "offset"),
    ).with_columns(is_timestamp_adjusted=adjusted.fill_null(False))


def sorted_out(
    lines: pl.DataFrame, keys: tuple[pl.Series, pl.Series], seen: pl.DataFrame, erased: pl.DataFrame, window: timedelta
) -> RawBatches:
    """Raw events without duplicates, refused rows, and counts by batch and source.

    `lines`: of batches whose hours lie within one window, judged, in order of place, with `hour`. `keys`: the messages' 128-bit keys. `seen`: keys of earlier
    batches [message_key, message_key_high, hour]. `erased`: keys of erased messages, with hour, batch_seq and last_batch_seq.
    """
    pair = ["message_key", "message_key_high"]
    lines = lines.with_columns(message_key=keys[0], message_key_high=keys[1])
    is_ok = lines["refusal"].is_null()
    old = seen.join(lines.select(pair), on=pair, how="semi")
    if not old.is_empty():
        # The latest hour that has the key decides whether any of them is inside the window.
        latest = old.group_by(pair).agg(seen_at=pl.col("hour").max())
        seen_at = lines.select(pair).join(latest, on=pair, how="left", maintain_order="left")["seen_at"]
        # A row of a file has an id made of the file: whenever it comes again, it is the same row.
        is_ok &= ~((seen_at >= lines["hour"] - window).fill_null(False) | (lines["is_imported"] & seen_at.is_not_null()))
    is_ok &= ~_is_copy_of_erased(lines, erased, window)
    rows = is_ok.arg_true()
    rows = rows.filter(lines.select(pair)[rows].select(pl.struct(pair).is_first_distinct()).to_series())
    raw = lines if rows.len() == lines.height else lines[rows]
    by = ["batch_seq", "batch_id", "hour", "source"]
    refused = pl.col("refusal").is_not_null()
    gone = (pl.col("refusal") == "erased").fill_null(False)
    counts = (
        lines.group_by(by)
        .agg(received=pl.len(), rejected=(refused & ~gone).sum(), erased=gone.sum())
        .join(raw.group_by(by).agg(accepted=pl.len()), on=by, how="left")
        .with_columns(pl.col("accepted").fill_null(0))
        .with_columns(pl.col("received", "rejected", "erased", "accepted").cast(pl.Int64))
        .with_columns(duplicates=pl.col("received") - pl.col("accepted") - pl.col("rejected") - pl.col("erased"))
        .sort("batch_seq", "source")
    )
    rejected = lines.filter(refused & ~gone).with_columns(reason=pl.col("refusal"))
    return RawBatches(
        raw.select(list(RAW_EVENTS.columns)),
        rejected.select(list(REJECTED_EVENTS.columns)),
        counts.select(list(IMPORT_BATCHES.columns)),
    )


def _is_copy_of_erased(lines: pl.DataFrame, erased: pl.DataFrame, window: timedelta) -> pl.Series:
    """By line, whether it repeats an erased message: inside the window as of any message, and without end when it came after the erasure.

    What was accepted outside of the window before the erasure is left alone: it was there, and was somebody else's.
    """
    both = lines.select("message_key", "message_key_high", "batch_seq", "hour", "is_imported").with_row_index("row")
    both = both.join(erased, on=["message_key", "message_key_high"], how="inner", suffix="_erased")
    is_later = pl.col("batch_seq") > pl.col("batch_seq_erased")
    is_near = pl.col("hour_erased") >= pl.col("hour") - window
    # Rows that were erased before there was last_batch_seq do not know when.
    is_after = pl.col("batch_seq") > pl.coalesce("last_batch_seq", "batch_seq_erased")
    copies = both.filter(is_after | is_later & (is_near.fill_null(False) | pl.col("is_imported")))["row"].unique()
    return pl.int_range(lines.height, dtype=pl.UInt32, eager=True).is_in(copies.implode())
