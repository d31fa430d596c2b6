"""What rows of profiles and of the facts behind them promise, and what a measure is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import polars as pl
import xxhash

from cdp_assets.comparison import PropertyFilter
from cdp_resources.lake import TableSpec

LAYER = "profiles"
INSTANT = pl.Datetime("us", "UTC")
MICRO = 1_000_000
"""Facts hold numbers as whole millionths, so that sums do not depend on their order."""

FACTS = TableSpec(
    LAYER,
    "facts",
    {
        "batch_seq": pl.Int64(),
        "offset": pl.Int64(),
        "subject_id": pl.Int64(),
        "at": INSTANT,
        "message_key": pl.Int64(),
        "measure": pl.Int64(),
        "number": pl.Int64(),
        "text": pl.String(),
    },
    person="rows whose subject_id belongs to the person's profile",
)
"""What each event contributes to each measure: the events that match, with their value."""

PROFILES = TableSpec(
    LAYER,
    "profiles",
    {"profile_id": pl.Int64(), "first_seen_at": INSTANT, "last_seen_at": INSTANT},
    keys=("profile_id",),
    loose=True,
    person="the row with the person's profile_id",
)
"""One row for each person; the declared traits follow, then a column for each event condition of the segments."""


@dataclass(frozen=True)
class Measure:
    """Which events count, and what value is taken of them. Traits and conditions that ask the same share one."""

    types: tuple[str, ...] | None
    events: tuple[str, ...] | None
    where: tuple[PropertyFilter, ...] = ()
    take: Literal["none", "number", "text"] = "none"
    values: tuple[str, ...] = ()
    currency: str | None = None
    currency_at: str | None = None
    source: str | None = None
    """Only events of this source count, and rows of its profile data, which count in no other measure."""

    @property
    def id(self) -> int:
        """A stable number: xxh3_64 of the measure's canonical JSON, signed."""
        plain = [
            self.types,
            self.events,
            [each.model_dump(by_alias=True, exclude_none=True) for each in self.where],
            self.take,
            self.values,
            self.currency,
            self.currency_at,
            *([self.source] if self.source is not None else []),
        ]
        number = xxhash.xxh3_64_intdigest(msgspec.json.encode(plain, order="sorted"))
        return number - (1 << 64) if number >= 1 << 63 else number


@dataclass(frozen=True)
class TraitColumn:
    """A column of profiles: what is made of the facts of its measures."""

    name: str
    kind: Literal["latest", "first", "last", "count", "sum", "first_event_at", "last_event_at"]
    measures: tuple[Measure, ...]
    """One; for a trait with `sources` one for each of them."""
    window: int | None
    """Whole UTC days, or None for ever."""
    minor_units: int | None = None
    """For sums of money: decimal places of the currency."""
    description: str = ""
    is_trusted_first: bool = False
    """A value of an earlier measure goes before any of a later one."""
    keep_days: tuple[int | None, ...] = (None,)
    """By measure: days after receipt for which profile data counts; None for ever."""
    is_shown: bool = True
    """False for event conditions of segments."""

    @property
    def takes(self) -> Iterable[tuple[Measure, int | None]]:
        """Its measures, each with its days."""
        return zip(self.measures, self.keep_days, strict=True)

    @property
    def dtype(self) -> pl.DataType:
        if self.kind in ("latest", "first", "last"):
            return pl.String()
        if self.kind == "count" or self.minor_units is not None:
            return pl.Int64()
        return pl.Float64() if self.kind == "sum" else INSTANT


def condition_column(measure: Measure, window: int | None) -> str:
    """Name of the column of profiles that counts the events of a segment's condition."""
    return f"did_{measure.id & (1 << 64) - 1:016x}_{window or 'ever'}"


def profiles_table(columns: Iterable[TraitColumn]) -> TableSpec:
    """profiles with these columns."""
    return replace(PROFILES, columns={**PROFILES.columns, **{each.name: each.dtype for each in columns}})


TABLES = (FACTS, PROFILES)
