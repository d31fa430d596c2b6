"""Which rows of a table differ from those that are to take their place, and which batches took others' place before. Nothing is written here."""

from __future__ import annotations

import re

import polars as pl
from deltalake import DeltaTable


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


def replaced_batches(handle: DeltaTable, since: int) -> frozenset[int]:
    """The batches whose rows commits after the version `since` replaced, as far as the log of the table still goes."""
    newer = handle.version() - since
    found: set[int] = set()
    for commit in handle.history(newer) if newer > 0 else ():
        told = commit.get("operationParameters", {})
        if commit.get("operation") == "WRITE" and told.get("mode") == "Overwrite":
            # `batch_seq = 1 OR batch_seq = 2` or `batch_seq IN (1, 2)`: the numbers in it are those of the batches.
            found.update(int(number) for number in re.findall(r"\d+", told.get("predicate") or ""))
    return frozenset(found)


def differing(new: pl.DataFrame, old: pl.DataFrame, keys: list[str], columns: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that only one of two frames has; rows that stand in both, but not equally often, differ too."""
    if any(frame.select(keys).is_duplicated().any() for frame in (new, old)):
        new, old = (frame.group_by(columns).agg(pl.len().alias(" times")) for frame in (new, old))
        columns = [*columns, " times"]
    return (
        new.join(old, on=columns, how="anti", nulls_equal=True),
        old.join(new, on=columns, how="anti", nulls_equal=True),
    )
