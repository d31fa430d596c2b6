"""Identifiers, subjects, edges and sightings of a batch of events. Pure; docs/semantics.md section 4, rules 1 to 3, 8 and 11."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import phonenumbers
import polars as pl
from numpy.typing import NDArray

from cdp_assets.identity_graph.links import followed
from cdp_assets.identity_graph.spec import IdentifierSpec, IdentitySpec
from cdp_resources import hashing, json_paths

Ints = NDArray[np.int64]
COLUMNS = ("user_id", "anonymous_id", "previous_id", "group_id")
IS_LINKED = "is_linked"
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
    """The identifiers of each event in its order: [batch_seq, offset, row, position, number, identifier_type, identifier].

    `events`: enriched_events. `row` is the event's place in that frame, `position` the identifier's place in the event, and `number` is the same for the same
    identifier, all from 0. With links, also `is_linked`: whether it is not the event's own, but came with a link.
    """
    found: dict[str, _Coded] = {}
    rows: list[Ints] = []
    numbers: list[Ints] = []
    types: list[str] = []
    forms: list[str] = []
    own: dict[str, _OfType] = {}
    for each in spec.identifiers:
        normalise = normaliser(each)
        known: dict[str, int] = {}
        earlier: list[Ints] = []
        for path in each.from_:
            if path not in found:
                found[path] = _coded(*_values(events, path))
            normalised = [normalise(value) for value in found[path].values]
            number = [-1 if form is None else known.setdefault(form, len(forms) + len(known)) for form in normalised]
            mine = np.full(events.height, -1)
            mine[found[path].rows] = np.array(number, dtype=np.int64)[found[path].codes]
            is_new = mine >= 0
            for other in earlier:
                is_new &= mine != other
            earlier.append(mine)
            rows.append(np.flatnonzero(is_new))
            numbers.append(mine[is_new])
        types += [each.type] * len(known)
        forms += known
        if each.linked is not None:
            own[each.type] = _OfType(known, earlier)
    own_count = sum(map(len, rows))
    for each in spec.identifiers:
        linked = None if each.linked is None else followed(events, each.linked)
        if linked is not None:
            # An event without identifiers of its own is nobody's, whatever its link says.
            carriers = pl.Series(np.unique(np.concatenate(rows)))
            coded = _coded(carriers, linked.gather(carriers))
            row, number_of, fresh = _linked(coded, events.height, own[each.type], normaliser(each), len(forms))
            rows.append(row)
            numbers.append(number_of)
            types += [each.type] * len(fresh)
            forms += fresh
    row, number_of = np.concatenate(rows), np.concatenate(numbers)
    order = np.argsort(row, kind="stable")
    row, number_of = row[order], number_of[order]
    is_linked = [] if len(row) == own_count else [pl.Series(IS_LINKED, order >= own_count)]
    count = np.arange(len(row))
    is_first = np.diff(row, prepend=-1) != 0
    named = pl.DataFrame(
        {"identifier_type": types, "identifier": forms}, schema={"identifier_type": pl.String, "identifier": pl.String}
    )
    return events.select(pl.col("batch_seq", "offset").gather(row)).with_columns(
        pl.Series("row", row),
        pl.Series("position", count - np.maximum.accumulate(np.where(is_first, count, 0))),
        pl.Series("number", number_of),
        *named.select(pl.all().gather(number_of)),
        *is_linked,
    )


@dataclass(frozen=True)
class _OfType:
    """What events say of themselves in identifiers of one type."""

    known: dict[str, int]
    """Normalised value -> its number."""
    by_row: list[Ints]
    """For each path the numbers by row, -1 where there is none."""


def _linked(
    coded: _Coded, height: int, own: _OfType, normalise: Callable[[str], str | None], first: int
) -> tuple[Ints, Ints, dict[str, int]]:
    """Rows and numbers of identifiers that came with links, and the values that are new, numbered from `first`."""
    fresh: dict[str, int] = {}

    def number(form: str | None) -> int:
        if form is None:
            return -1
        return own.known[form] if form in own.known else fresh.setdefault(form, first + len(fresh))

    mine = np.full(height, -1)
    mine[coded.rows] = np.array([number(normalise(value)) for value in coded.values], dtype=np.int64)[coded.codes]
    is_new = mine >= 0
    for other in own.by_row:
        is_new &= mine != other
    return np.flatnonzero(is_new), mine[is_new], fresh


@dataclass(frozen=True)
class _Coded:
    """The texts at a path, each different one once."""

    rows: Ints
    codes: Ints
    """By row, the place of its text among the values."""
    values: pl.Series


def _coded(rows: pl.Series | None, texts: pl.Series) -> _Coded:
    place = pl.arange(len(texts), eager=True) if rows is None else rows
    is_there = texts.is_not_null()
    place, texts = place.filter(is_there), texts.drop_nulls()
    # Categories of our own are numbered from 0 without gaps, in one look at each text.
    codes = texts.cast(pl.Categorical(pl.Categories.random())).to_physical().to_numpy()
    first = np.zeros(int(codes.max()) + 1 if len(codes) else 0, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return _Coded(place.to_numpy(), codes, texts.gather(first))


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
    return hashing.xxh3_64(types + "\0" + values).alias("identifier_key")


@dataclass(frozen=True)
class Observations:
    """What a batch tells about identity, in identifier ids."""

    subjects: pl.DataFrame
    edges: pl.DataFrame
    sightings: pl.DataFrame


def observations(listed: pl.DataFrame, events: pl.DataFrame, spec: IdentitySpec) -> Observations:
    """Subjects, edges and sightings of events whose identifiers have their ids.

    `listed`: as `identifiers` gives it, with `identifier_id`. `events`: the same events in order of place, [batch_seq, offset, timestamp, message_key,
    message_id].
    """
    row, ids, position = (listed[name].to_numpy() for name in ("row", "identifier_id", "position"))
    subject = np.zeros(events.height, dtype=np.int64)
    own = ~listed[IS_LINKED] if IS_LINKED in listed.columns else None
    for chosen in (own, listed["identifier_type"] == "anonymous_id", listed["identifier_type"] == "user_id"):
        there = slice(None) if chosen is None else (chosen if own is None else chosen & own).to_numpy()
        subject[row[there][::-1]] = ids[there][::-1]
    at = pl.col("timestamp").alias("at")
    subjects = events.select("batch_seq", "offset", pl.Series("subject_id", subject), at, "message_key")
    leaves = np.flatnonzero(position > 0)
    centres = listed.select(
        pl.col("identifier_id").alias("centre_id").gather(leaves - position[leaves]),
        pl.col("identifier_type").alias("centre_type").gather(leaves - position[leaves]),
    )
    pairs = listed.select(pl.all().gather(leaves)).rename({"identifier_id": "leaf_id"}).with_columns(*centres)
    pairs = pairs.with_columns(events.select(at.gather(row[leaves])))
    low, high = pl.min_horizontal("centre_id", "leaf_id"), pl.max_horizontal("centre_id", "leaf_id")
    edges = pairs.select("batch_seq", "offset", "row", "position", "centre_id", "leaf_id", "at", low=low, high=high).unique(
        ["batch_seq", "low", "high"], keep="first", maintain_order=True
    )
    edges = edges.with_columns(events.select(pl.col("message_id").gather(edges["row"])))
    return Observations(
        subjects.filter(pl.col("subject_id") > 0),
        edges.select("batch_seq", "offset", "position", "centre_id", "leaf_id", "at", "message_id"),
        _sightings(pairs, spec),
    )


def told_about(listed: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Whom rows of profile data are about: [batch_seq, offset, subject_id, at, message_key], a row for each identifier.

    `listed`: of these rows alone, as for `observations`; `events`: the frame that their `row` counts in.
    """
    about = events.select(pl.col("timestamp").alias("at"), "message_key").select(pl.all().gather(listed["row"]))
    return listed.select("batch_seq", "offset", pl.col("identifier_id").alias("subject_id")).hstack(about)


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
