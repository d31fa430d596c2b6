"""Traits from facts. Pure; docs/semantics.md section 6."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from cdp_assets.money import LARGEST
from cdp_assets.profiles.schema import MICRO, Measure, TraitColumn, condition_column
from cdp_assets.profiles.spec import TraitSpec

TEXT_KINDS = ("latest", "first", "last")
NOTHING_KEPT: Mapping[str, int | None] = {}
_EXACT_IN_A_FLOAT = 2**53


def trait_column(
    spec: TraitSpec, exponent: Callable[[str], int], keep_days: Mapping[str, int | None] = NOTHING_KEPT
) -> TraitColumn:
    """The column that a declared trait becomes.

    `exponent` gives the decimal places of a currency, `keep_days` for how long profile data of a source counts.
    """
    events = (spec.event,) if isinstance(spec.event, str) else spec.event
    types: tuple[str, ...] | None = spec.types or (("track",) if events else None)
    values = () if spec.value is None else (spec.value,) if isinstance(spec.value, str) else spec.value
    take = "number" if spec.kind == "sum" else "text" if spec.kind in TEXT_KINDS else "none"
    measure = Measure(
        types=types,
        events=events,
        where=spec.where,
        take=take,  # type: ignore[arg-type]
        values=values,
        currency=spec.currency,
        currency_at=spec.currency_at if spec.currency else None,
    )
    return TraitColumn(
        name=spec.trait,
        kind=spec.kind,
        measures=tuple(replace(measure, source=each) for each in spec.sources) or (measure,),
        is_trusted_first=spec.trusted_first,
        keep_days=tuple(keep_days.get(each) for each in spec.sources) or (None,),
        window=spec.window,
        minor_units=exponent(spec.currency) if spec.currency else None,
        description=spec.description,
    )


def counting_column(measure: Measure, window: int | None) -> TraitColumn:
    """The hidden column that counts the events of a segment's condition."""
    return TraitColumn(condition_column(measure, window), "count", (measure,), window, is_shown=False)


def profiles(
    people: pl.Series, seen: pl.DataFrame, facts: pl.DataFrame, columns: Sequence[TraitColumn], as_of: date
) -> pl.DataFrame:
    """One row for each of `people`, with its traits as of the end of the UTC day `as_of`.

    `seen`: [profile_id, at] of all their events. `facts`: [profile_id, at, message_key, batch_seq, offset, measure, number, text], and `received_at` where there is
    profile data, null for everything else.
    """
    frame = people.alias("profile_id").to_frame().sort("profile_id")
    visible = pl.col("at").dt.date() <= as_of
    spans = seen.filter(visible).group_by("profile_id").agg(first_seen_at=pl.col("at").min(), last_seen_at=pl.col("at").max())
    frame = frame.join(spans, on="profile_id", how="left", maintain_order="left")
    facts = facts.filter(visible)
    parts = {key[0]: part for key, part in facts.partition_by("measure", as_dict=True).items()}
    empty = facts.clear()
    for column in columns:
        values = _values(
            [_counting(parts.get(each.id, empty), column.window, keep, as_of) for each, keep in column.takes], column
        )
        frame = frame.join(values, on="profile_id", how="left", maintain_order="left")
    for column in columns:
        if column.kind == "sum" and column.minor_units is None:
            frame = frame.with_columns(_in_units(frame[column.name].fill_null(0)))
    zero = [column.name for column in columns if column.kind in ("count", "sum")]
    return frame.with_columns(pl.col(zero).fill_null(0)).cast({column.name: column.dtype for column in columns})


def _in_units(millionths: pl.Series) -> pl.Series:
    """Totals of millionths (Int128) as float64, rounded once."""
    # By numpy: Polars multiplies by the reciprocal, which is off in the last digit.
    units = pl.Series(millionths.name, millionths.cast(pl.Float64).to_numpy() / MICRO)
    large = (millionths.abs() > _EXACT_IN_A_FLOAT).arg_true()
    return units.scatter(large, [total / MICRO for total in millionths.gather(large)])


def _counting(facts: pl.DataFrame, window: int | None, keep_days: int | None, as_of: date) -> pl.DataFrame:
    """The facts of a measure that are inside the window, and not older than profile data is kept."""
    if window is not None:
        facts = facts.filter(pl.col("at").dt.date() > as_of - timedelta(days=window))
    if keep_days is not None and "received_at" in facts.columns:
        facts = facts.filter((pl.col("received_at").dt.date() > as_of - timedelta(days=keep_days)).fill_null(True))
    return facts


def _values(facts: Sequence[pl.DataFrame], column: TraitColumn) -> pl.DataFrame:
    """[profile_id, the column] of the people who have facts, given by measure."""
    value = _aggregate(column).alias(column.name)
    if not column.is_trusted_first:
        every = facts[0] if len(facts) == 1 else pl.concat(facts)
        return every.group_by("profile_id").agg(value)
    # The order of the parts is that of trust. A column for it would be one whose name a trait may have.
    by_trust = pl.concat([each.group_by("profile_id").agg(value) for each in facts])
    return by_trust.unique("profile_id", keep="first", maintain_order=True)


def _aggregate(column: TraitColumn) -> pl.Expr:
    order = ["at", "message_key", "batch_seq", "offset"]
    if column.kind == "count":
        return pl.len().cast(pl.Int64)
    if column.kind == "sum":
        total: pl.Expr = pl.col("number").cast(pl.Int128).sum()
        if column.minor_units is not None:
            unit = 10 ** (6 - column.minor_units)
            whole: pl.Expr = total // unit
            twice: pl.Expr = total % unit * 2
            is_up: pl.Expr = (twice > unit) | ((twice == unit) & (whole % 2 == 1))
            return (whole + is_up.cast(pl.Int128)).clip(-LARGEST, LARGEST).cast(pl.Int64)
        return total
    if column.kind == "first_event_at":
        return pl.col("at").min()
    if column.kind == "last_event_at":
        return pl.col("at").max()
    ordered = pl.col("text").sort_by(order)
    return ordered.first() if column.kind == "first" else ordered.last()


def expiring(facts: pl.LazyFrame, columns: Iterable[TraitColumn], before: date, after: date) -> pl.LazyFrame:
    """The subjects whose columns change only because `as_of` moved from one day to another: [subject_id]."""
    low, high = min(before, after), max(before, after)
    day = pl.col("at").dt.date()
    crossed = (day > low) & (day <= high)
    for window in {column.window for column in columns if column.window is not None}:
        edge = timedelta(days=window)
        crossed = crossed | ((day > low - edge) & (day <= high - edge))
    return facts.filter(crossed).select("subject_id").unique()


def expiring_data(told: pl.LazyFrame, keep_days: Mapping[str, int], before: date, after: date) -> pl.LazyFrame:
    """The subjects of profile data that counts, or counts no longer, only because `as_of` moved: [subject_id].

    `told`: profile_data_subjects. `keep_days`: by source.
    """
    low, high = min(before, after), max(before, after)
    day, crossed = pl.col("received_at").dt.date(), pl.lit(False)
    for source, days in keep_days.items():
        edge = timedelta(days=days)
        crossed = crossed | ((pl.col("source") == source) & (day > low - edge) & (day <= high - edge))
    return told.filter(crossed).select("subject_id").unique()
