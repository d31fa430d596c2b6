"""Which rows of a table differ from those that are to take their place. Pure; what is written of it is decided by lake.py."""

from __future__ import annotations

import polars as pl


def other_batches(old: pl.DataFrame, new: pl.DataFrame) -> frozenset[int]:
    """The batches whose rows differ; their order within (batch_seq, offset) does not matter where there are offsets, else it does."""
    parts = []
    for frame in (old, new):
        place = [name for name in ("batch_seq", "offset") if name in frame.columns]
        parts.append(frame.sort(place, maintain_order=True))
    if parts[0].equals(parts[1]):
        return frozenset()
    before, after = ({key[0]: part for key, part in each.partition_by("batch_seq", as_dict=True).items()} for each in parts)
    return frozenset(
        seq for seq in {*before, *after} if seq not in before or seq not in after or not before[seq].equals(after[seq])
    )


def differing(new: pl.DataFrame, old: pl.DataFrame, keys: list[str], columns: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that only one of two frames has; rows that stand in both, but not equally often, differ too."""
    if any(frame.select(keys).is_duplicated().any() for frame in (new, old)):
        new, old = (frame.group_by(columns).agg(pl.len().alias(" times")) for frame in (new, old))
        columns = [*columns, " times"]
    return (
        new.join(old, on=columns, how="anti", nulls_equal=True),
        old.join(new, on=columns, how="anti", nulls_equal=True),
    )
