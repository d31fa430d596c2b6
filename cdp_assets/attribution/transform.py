"""From enriched events to touches and conversions, and from those to the credit of each touch: frames and specs in, frames out.

What a model weighs is in `models/`; here paths are found, weights become money, and every unit of money is given to one touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cdp_assets.attribution import models
from cdp_assets.attribution.models import Paths
from cdp_assets.attribution.schema import CREDIT, FOUND_CONVERSIONS, TOUCHES
from cdp_assets.attribution.spec import AttributionSpec, Constant, Conversion
from cdp_assets.money import minor_units

Integers = NDArray[np.int64]

DAY = 86_400_000_000
MINUTE = 60_000_000
LARGEST = 2**63 - 1


def touches(enriched: pl.DataFrame) -> pl.DataFrame:
    """The touches among enriched events: those with a channel. Columns of schema.TOUCHES, in the order of `enriched`.

    Needs `message_id timestamp channel utm_campaign utm_source utm_medium click_id_type batch_seq offset`.
    """
    return (
        enriched.lazy()
        .filter(pl.col("channel").is_not_null())
        .select(
            touchpoint_id="message_id",
            at="timestamp",
            channel="channel",
            campaign="utm_campaign",
            source="utm_source",
            medium="utm_medium",
            click_id_type="click_id_type",
            batch_seq="batch_seq",
            offset="offset",
        )
        .cast(TOUCHES)
        .collect()
    )


def conversion_events(spec: AttributionSpec) -> frozenset[str]:
    """Names of the track events that are conversions or refunds; no other event needs to be given to `conversions`."""
    refunds = {conversion.refund.event for conversion in spec.conversions if conversion.refund is not None}
    return frozenset({conversion.event for conversion in spec.conversions} | refunds)


def conversion_paths(spec: AttributionSpec) -> dict[str, str]:
    """Which texts `conversions` needs: the column each is expected in, and its path within `properties`."""
    declared: list[object] = []
    for conversion in spec.conversions:
        declared += [conversion.value, conversion.currency, conversion.id]
        if conversion.refund is not None:
            declared += [conversion.refund.value, conversion.refund.id]
    return {path: path.removeprefix("properties.") for path in declared if isinstance(path, str)}


def conversions(enriched: pl.DataFrame, extracted: pl.DataFrame, spec: AttributionSpec) -> pl.DataFrame:
    """The declared conversions and refunds among enriched events. Columns of schema.FOUND_CONVERSIONS, ordered by place and name.

    `enriched` needs `type event message_id timestamp batch_seq offset`. `extracted` has a row for each of its rows, in the same
    order, and a text column for each name of `conversion_paths`. Raises ValueError if the two do not fit.
    """
    if conversion_paths(spec) and extracted.height != enriched.height:
        raise ValueError(f"{extracted.height} rows of extracted texts for {enriched.height} events")
    columns = enriched.select("type", "event", "message_id", "timestamp", "batch_seq", "offset")
    events = pl.concat([columns, extracted], how="horizontal")
    parts = [FOUND_CONVERSIONS.to_frame()]
    for conversion in spec.conversions:
        parts.append(_of_declaration(events, conversion, is_refund=False))
        if conversion.refund is not None:
            parts.append(_of_declaration(events, conversion, is_refund=True))
    return pl.concat(parts).sort("batch_seq", "offset", "name")


def _of_declaration(events: pl.DataFrame, conversion: Conversion, *, is_refund: bool) -> pl.DataFrame:
    declared = conversion.refund if is_refund and conversion.refund is not None else conversion
    rows = events.filter((pl.col("type") == "track") & (pl.col("event") == declared.event))
    constant = conversion.currency.const if isinstance(conversion.currency, Constant) else None
    path = conversion.currency if isinstance(conversion.currency, str) else None
    rows = rows.select(
        at="timestamp",
        amount=_text(declared.value),
        currency=_text(path).str.to_uppercase() if constant is None else pl.lit(constant),
        name=pl.lit(conversion.name),
        order_id=_text(declared.id).replace("", None),
        is_refund=pl.lit(is_refund),
        message_id="message_id",
        batch_seq="batch_seq",
        offset="offset",
    )
    value = minor_units(rows["amount"], rows["currency"])
    if is_refund:
        value = -value.abs()
        id_text = pl.concat_str(pl.lit("refund:"), "message_id")
    else:
        id_text = pl.coalesce("order_id", "message_id")
    is_missing = value.is_null() if declared.value is not None else pl.lit(False)
    return (
        rows.select(
            pl.exclude("amount"),
            conversion_id=pl.concat_str("name", pl.lit(":"), id_text),
            value=value.fill_null(0),
            is_value_missing=is_missing,
        )
        .select(FOUND_CONVERSIONS.names())
        .cast(FOUND_CONVERSIONS)
    )


def _text(path: str | None) -> pl.Expr:
    return pl.lit(None, dtype=pl.String) if path is None else pl.col(path).cast(pl.String)


def distinct_conversions(conversions: pl.DataFrame) -> pl.DataFrame:
    """What counts of a profile's conversions: of several with one conversion_id the earliest, and every refund.

    Needs `profile_id` beside the columns of schema.FOUND_CONVERSIONS; returns the same columns, ordered by profile and time.
    """
    ordered = conversions.sort("profile_id", "at", "message_id", "batch_seq", "offset", "conversion_id", "is_refund")
    is_first = pl.struct("profile_id", "conversion_id", "is_refund").is_first_distinct()
    return ordered.filter(pl.col("is_refund") | is_first)


def credit(touches: pl.DataFrame, conversions: pl.DataFrame, spec: AttributionSpec) -> pl.DataFrame:
    """All rows of attribution_credit for whole profiles: the frames of `credit_by_model` as one."""
    return pl.concat([CREDIT.to_frame(), *credit_by_model(touches, conversions, spec)])


def credit_by_model(touches: pl.DataFrame, conversions: pl.DataFrame, spec: AttributionSpec) -> Iterator[pl.DataFrame]:
    """The rows of attribution_credit, a frame per declared model, in columns of schema.CREDIT.

    `touches` and `conversions` have the columns of their schemas and `profile_id` (Int64, never null); they hold all that is known
    of each profile, in any order. The answer is ordered by profile, conversion and position; conversions without a touch come last.
    """
    counted = distinct_conversions(conversions).with_columns(profile=pl.col("profile_id").rle_id().cast(pl.Int64))
    sequence = _collapsed(touches, counted.select("profile_id", "profile").unique(), spec.collapse_minutes * MINUTE)
    path_at = _path_at(counted)
    first, end = _path_bounds(sequence, counted["profile"].to_numpy(), path_at, spec.lookback_days * DAY)

    owners = np.flatnonzero(end > first)
    paths, rows = _paths(sequence, touches["channel"], path_at[owners], first[owners], end[owners], spec.direct_channel)
    value = counted["value"].to_numpy()
    about = counted.select("conversion_id", "profile_id", "at", "currency", "value")
    about_touch = touches.select("touchpoint_id", "channel", "campaign")
    alone = about[np.flatnonzero(end == first)].with_columns(
        channel=pl.lit(spec.unattributed_channel), path_length=pl.lit(0, dtype=pl.Int64), credit=pl.lit(1.0)
    )

    for use in spec.models:
        model = models.find(use.model)
        weights = model.weights(paths, model.settings_type.model_validate(use.settings))
        shares, total = allocate(value[owners], weights, paths.lengths)
        taken = np.flatnonzero(weights)
        of_path = np.repeat(owners, paths.lengths)[taken]
        part = pl.concat(
            [
                about.drop("value")[of_path],
                about_touch[rows[taken]],
                pl.DataFrame(
                    {
                        "position": paths.position[taken],
                        "path_length": paths.length[taken],
                        "credit": weights[taken] / total[taken],
                        "value": shares[taken],
                    }
                ),
            ],
            how="horizontal",
        )
        part = pl.concat([part, alone], how="diagonal")
        yield part.with_columns(model=pl.lit(use.name)).select(CREDIT.names())


def allocate(value: Integers, weights: Integers, lengths: Integers) -> tuple[Integers, Integers]:
    """Each path's value shared over its touches by weight, in whole units, by the largest remainder (Hamilton's method).

    `value` (greater than -2^63) and `lengths` have an entry per path, `weights` one per touch: paths one after another, none empty,
    each with a positive weight. Returns, per touch, its share and the sum of the weights of its path. The shares of a path sum to
    its value exactly; leftover units go to the largest remainders, among equals to the earlier touch.
    """
    if not len(lengths):
        return weights.copy(), weights.copy()
    starts = np.cumsum(lengths) - lengths
    total = np.repeat(np.add.reduceat(weights, starts), lengths)
    amount = np.abs(value)
    per_touch = np.repeat(amount, lengths)
    share, remainder = np.divmod(per_touch * weights, total)  # wraps silently where the product is beyond 64 bits
    huge = np.flatnonzero(np.repeat(amount > LARGEST // np.maximum.reduceat(weights, starts), lengths))
    if len(huge):
        exact = per_touch[huge].astype(object) * weights[huge]
        share[huge], remainder[huge] = exact // total[huge], exact % total[huge]

    leftover = amount - np.add.reduceat(share, starts)
    open_rows = np.flatnonzero(np.repeat(leftover > 0, lengths))
    if len(open_rows):
        path = np.repeat(np.arange(len(lengths)), lengths)[open_rows]
        order = open_rows[_by_path_and_descending(path, remainder[open_rows], int(total.max()))]
        # the sort keeps each path's rows together, so the n-th row of a path is where it was before
        rank = open_rows - starts[path]
        share[order[rank < leftover[path]]] += 1
    return np.where(np.repeat(value < 0, lengths), -share, share), total


def _by_path_and_descending(path: Integers, remainder: Integers, bound: int) -> Integers:
    """The stable order of rows by path and descending remainder, for rows that are by path already and remainders below `bound`."""
    if (int(path[-1]) + 1) * bound <= LARGEST:
        return np.argsort(path * bound + (bound - 1 - remainder), kind="stable")  # one nearly sorted key: 15 times faster
    return np.lexsort((-remainder, path))


@dataclass(frozen=True)
class _Sequence:
    """The touches that were kept, by profile and time: row in the given frame, time, and where each profile starts and ends."""

    row: Integers
    at: Integers
    starts: Integers
    ends: Integers


def _collapsed(touches: pl.DataFrame, profiles: pl.DataFrame, collapse: int) -> _Sequence:
    """The sequences of `profiles` (profile_id, profile: 0, 1, …) without touches that only repeat the one before."""
    order = ["profile", "at", "touchpoint_id", "batch_seq", "offset"]
    ranked = (
        touches.select("profile_id", "at", row=pl.int_range(pl.len()))
        .join(profiles, on="profile_id")
        .select("profile", "at", "row")
        .sort("profile", "at")
    )
    is_as_before = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("profile", "at")).fill_null(False)
    is_tied = ranked.select(is_as_before | is_as_before.shift(-1, fill_value=False)).to_series()
    if is_tied.any():
        tied = ranked.filter(is_tied)
        tied = pl.concat([tied, touches.select(*order[2:])[tied["row"]]], how="horizontal").sort(order)
        ranked = ranked.with_columns(row=ranked["row"].scatter(is_tied.arg_true(), tied["row"]))
    profile, at, row = (ranked[name].to_physical().to_numpy() for name in ("profile", "at", "row"))

    same = touches.select("channel", "campaign", "source", "medium")[row].select(pl.all().eq_missing(pl.all().shift(1)))
    is_kept = np.ones(len(row), dtype=np.bool_)
    is_repeat = same.select(pl.all_horizontal(pl.all())).to_series().to_numpy()[1:]
    is_kept[1:] = ~(is_repeat & (profile[1:] == profile[:-1]) & (np.diff(at) < collapse))
    ends = np.cumsum(np.bincount(profile[is_kept], minlength=profiles.height)).astype(np.int64)
    return _Sequence(row[is_kept], at[is_kept], np.concatenate([[0], ends[:-1]]).astype(np.int64), ends)


def _path_at(counted: pl.DataFrame) -> Integers:
    """When each path ends: at the conversion; for a refund at the conversion that it takes back, if that is there."""
    key = ["profile", "name", "order_id"]
    taken_back = counted.filter(~pl.col("is_refund")).select(*key, taken_back_at="at")
    refunds = counted.select(*key, "at", own=pl.when("is_refund").then("order_id"))
    found = refunds.join(taken_back, left_on=["profile", "name", "own"], right_on=key, how="left", maintain_order="left")
    return found.select(pl.coalesce("taken_back_at", "at")).to_series().to_physical().to_numpy()


def _path_bounds(sequence: _Sequence, profile: Integers, path_at: Integers, lookback: int) -> tuple[Integers, Integers]:
    """Per conversion the rows [first, end) of its path in the sequence."""
    starts, ends = sequence.starts[profile], sequence.ends[profile]
    end = _first_after(sequence.at, starts, ends, path_at)
    return _first_after(sequence.at, starts, end, path_at - lookback), end


def _first_after(at: Integers, low: Integers, high: Integers, when: Integers) -> Integers:
    """Per entry, the first index of [low, high) whose time is after `when`, else high: binary searches, all at once."""
    low, high = low.copy(), high.copy()
    open_entries = np.flatnonzero(low < high)
    while len(open_entries):
        middle = (low[open_entries] + high[open_entries]) // 2
        is_after = at[middle] > when[open_entries]
        high[open_entries[is_after]] = middle[is_after]
        low[open_entries[~is_after]] = middle[~is_after] + 1
        open_entries = open_entries[low[open_entries] < high[open_entries]]
    return low


def _paths(
    sequence: _Sequence, channel: pl.Series, path_at: Integers, first: Integers, end: Integers, direct_channel: str
) -> tuple[Paths, Integers]:
    """The long table of paths that are not empty, and the row of each of its touches in the given frame of touches."""
    lengths = end - first
    starts = np.cumsum(lengths) - lengths
    index = np.arange(lengths.sum())
    place = index - np.repeat(starts, lengths)
    in_sequence = place + np.repeat(first, lengths)
    row = sequence.row[in_sequence]
    channels = channel.unique().sort()
    code = channel.cast(pl.Enum(channels)).to_physical().to_numpy().astype(np.int64)[row]
    paths = Paths(
        starts=starts,
        lengths=lengths,
        position=place + 1,
        length=np.repeat(lengths, lengths),
        days=(np.repeat(path_at, lengths) - sequence.at[in_sequence]) // DAY,
        channel=code,
        channels=tuple(channels.to_list()),
        is_direct=np.array([name == direct_channel for name in channels], dtype=np.bool_)[code],
    )
    return paths, row
