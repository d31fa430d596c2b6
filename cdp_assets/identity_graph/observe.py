"""Identifiers, subjects, edges and sightings of a batch of events. Pure; docs/semantics.md section 4, rules 1 to 3 and 8."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import phonenumbers
import polars as pl
import xxhash

from cdp_assets.identity_graph.spec import IdentifierSpec, IdentitySpec
from cdp_resources import json_paths

COLUMNS = ("user_id", "anonymous_id", "previous_id", "group_id")
MAX_LENGTH = 256
BLOCKED = re.compile(
    r"(null|none|undefined|unknown|anonymous|nan|n/a|na|false|true|-1|0|test|guest|\[object object\]|[0-]+)", re.IGNORECASE
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def normaliser(spec: IdentifierSpec) -> Callable[[str], str | None]:
    """The function that brings a trimmed value of this type to its one form; None for a value that identifies nobody."""
    blocked = [re.compile(pattern) for pattern in spec.blocked]

    def normalised(value: str) -> str | None:
        value = value.strip()
        if spec.normalise == "lower":
            value = value.lower()
        elif spec.normalise == "email":
            value = value.lower()
            if not _EMAIL.fullmatch(value):
                return None
        elif spec.normalise == "phone":
            value = _phone(value, spec.default_region) or ""
        if not value or len(value) > MAX_LENGTH or BLOCKED.fullmatch(value) or any(each.fullmatch(value) for each in blocked):
            return None
        return value

    return normalised


def _phone(value: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def identifiers(events: pl.DataFrame, spec: IdentitySpec) -> pl.DataFrame:
    """The identifiers of each event in its order: [batch_seq, offset, position, type_rank, identifier_type, identifier].

    `events`: enriched_events. `type_rank` is the type's place among the declared types, `position` the identifier's place in the event, both from 0.
    """
    place = events.select("batch_seq", "offset")
    parts: list[pl.DataFrame] = []
    found: dict[str, tuple[pl.Series | None, pl.Series]] = {}
    for rank, each in enumerate(spec.identifiers):
        normalise = normaliser(each)
        for order, path in enumerate(each.from_):
            if path not in found:
                found[path] = _values(events, path)
            rows, values = found[path]
            distinct = values.unique().drop_nulls()
            forms = pl.DataFrame(
                {"value": distinct, "identifier": pl.Series([normalise(value) for value in distinct], dtype=pl.String)}
            ).drop_nulls()
            where = place if rows is None else place.select(pl.all().gather(rows))
            part = where.with_columns(value=values).join(forms, on="value", how="inner")
            parts.append(
                part.select(
                    "batch_seq",
                    "offset",
                    pl.lit(rank, pl.Int64).alias("type_rank"),
                    pl.lit(order, pl.Int64).alias("order"),
                    "identifier",
                )
            )
    types = pl.DataFrame({"type_rank": range(len(spec.identifiers)), "identifier_type": [each.type for each in spec.identifiers]})
    listed = (
        pl.concat(parts)
        .unique(["batch_seq", "offset", "type_rank", "order", "identifier"])
        .sort("batch_seq", "offset", "type_rank", "order")
        .unique(["batch_seq", "offset", "type_rank", "identifier"], keep="first", maintain_order=True)
    )
    return listed.join(
        types.with_columns(pl.col("type_rank").cast(pl.Int64)), on="type_rank", how="left", maintain_order="left"
    ).select(
        "batch_seq",
        "offset",
        pl.int_range(pl.len(), dtype=pl.Int64).over("batch_seq", "offset").alias("position"),
        "type_rank",
        "identifier_type",
        "identifier",
    )


def _values(events: pl.DataFrame, path: str) -> tuple[pl.Series | None, pl.Series]:
    """The rows (None: all) and texts at a path; only rows that mention the path's last key are parsed."""
    if path in COLUMNS:
        return None, events[path]
    column, rest = path.split(".", 1)
    key = rest.rsplit(".", 1)[-1]
    mentions = events[column].str.contains(f'"{key}"', literal=True).fill_null(False)
    rows = mentions.arg_true()
    texts = events.select(pl.col(column).gather(rows))
    return rows, json_paths.extract(texts, column, {"value": rest})["value"]


def identifier_keys(types: pl.Series, values: pl.Series) -> pl.Series:
    """A signed 64-bit look-up key of each identifier: `xxh3_64(type + NUL + identifier)`. Equal keys are compared in full."""
    digests = [xxhash.xxh3_64_intdigest(text.encode()) for text in (types + "\0" + values).to_list()]
    return pl.Series("identifier_key", np.array(digests, dtype=np.uint64).view(np.int64), dtype=pl.Int64)


@dataclass(frozen=True)
class Observations:
    """What a batch tells about identity, in identifier ids."""

    subjects: pl.DataFrame
    edges: pl.DataFrame
    sightings: pl.DataFrame


def observations(listed: pl.DataFrame, events: pl.DataFrame, spec: IdentitySpec) -> Observations:
    """Subjects, edges and sightings of events whose identifiers have their ids.

    `listed`: as `identifiers` gives it, with `identifier_id`. `events`: enriched_events [batch_seq, offset, timestamp, message_key, message_id].
    """
    preference = (
        pl.when(pl.col("identifier_type") == "user_id").then(-2).when(pl.col("identifier_type") == "anonymous_id").then(-1)
    )
    place = ["batch_seq", "offset"]
    subjects = (
        listed.with_columns(preference=preference.otherwise(0))
        .sort(*place, "preference", "position")
        .unique(place, keep="first", maintain_order=True)
        .join(events.select(*place, "message_key", pl.col("timestamp").alias("at")), on=place, how="inner", maintain_order="left")
        .select(*place, pl.col("identifier_id").alias("subject_id"), "at", "message_key")
    )
    centres = listed.filter(pl.col("position") == 0).select(
        *place, pl.col("identifier_id").alias("centre_id"), pl.col("identifier_type").alias("centre_type")
    )
    leaves = listed.filter(pl.col("position") > 0)
    pairs = leaves.join(centres, on=place, how="inner", maintain_order="left").join(
        events.select(*place, pl.col("timestamp").alias("at"), "message_id"), on=place, how="inner", maintain_order="left"
    )
    pairs = pairs.rename({"identifier_id": "leaf_id"})
    low, high = pl.min_horizontal("centre_id", "leaf_id"), pl.max_horizontal("centre_id", "leaf_id")
    edges = (
        pairs.with_columns(low=low, high=high)
        .sort(*place, "position")
        .unique(["batch_seq", "low", "high"], keep="first", maintain_order=True)
        .select(*place, "position", "centre_id", "leaf_id", "at", "message_id")
    )
    return Observations(subjects, edges, _sightings(pairs, spec))


def _sightings(pairs: pl.DataFrame, spec: IdentitySpec) -> pl.DataFrame:
    timed = [each.type for each in spec.identifiers if each.shared_above is not None and each.when_shared == "by_time"]
    parts = [
        pairs.filter((pl.col(user) == "user_id") & pl.col(other).is_in(timed)).select(
            "batch_seq", pl.col(f"{there}_id").alias("identifier_id"), pl.col(f"{here}_id").alias("user_id"), "at"
        )
        for user, other, here, there in (
            ("centre_type", "identifier_type", "centre", "leaf"),
            ("identifier_type", "centre_type", "leaf", "centre"),
        )
    ]
    return (
        pl.concat(parts)
        .with_columns(hour=pl.col("at").dt.truncate("1h"))
        .group_by("batch_seq", "identifier_id", "user_id", "hour")
        .agg(first_at=pl.col("at").min(), last_at=pl.col("at").max())
        .sort("batch_seq", "identifier_id", "user_id", "hour")
    )
